// Runs the parts in V8 as Envoy does, optimised from the start, and prints the microseconds of each:
// the fastest of many short rounds, in which several builds take turns.
//
//   cargo build --release --target wasm32-wasip1 --package callback-guard-parts
//   node --no-liftoff --no-wasm-tier-up bench/parts/run.mjs \
//     new=target/wasm32-wasip1/release/callback_guard_parts.wasm [old=...]
import { readFileSync } from "node:fs";

const TRACK = '{"id":"8551662c-fb26-4ba2-a1a1-9a2bd7a1e1a1","audio_url":"https://cdn.example.com/audio/8551662c.mp3","image_url":"https://cdn.example.com/image/8551662c.jpeg","prompt":"[Verse] Night city lights shining bright\\nwe run \\"together\\"","model_name":"chirp-v3-5","title":"Iron Man","tags":"electrifying, rock","createTime":1736139430000,"duration":198.44}';
const NOTE = '{"pitch":73,"start":"0.036","end":0.18,"velocity":1}';
const LINE = "Neon rivers under midnight rain\\nEvery window keeps a name\\n";
const CHINESE = "夜色像河流穿过城市的灯火\\n我听见远方的歌声在风里漂泊\\n";
const GERMAN = "Über den Dächern der schlafenden Stadt\\nhört man die Züge\\n";

/** The head of each body. */
const START = '{"code":200,"msg":"All generated successfully.","data":{"callbackType":"complete","task_id":"ee9c2715375b7837f8bb51d641ff5863",';

/** A body of about `size` bytes: `unit`, repeated between `start` and `end`. */
function filled(size, start, unit, between, end) {
  const count = Math.max(1, Math.floor((size - start.length) / Buffer.byteLength(unit + between)));
  return Buffer.from(START + start + Array(count).fill(unit).join(between) + end);
}
const list = (unit) => (size) => filled(size, '"data":[', unit, ",", "]}}");
const text = (unit) => (size) => filled(size, '"text":"', unit, "", '"}}');

const BODIES = {
  tracks: list(TRACK),
  notes: list(NOTE),
  spaced: list(JSON.stringify(JSON.parse(TRACK), null, 4)),
  lyrics: text(LINE),
  base64: text("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAx"),
  Chinese: text(CHINESE),
  German: text(GERMAN),
};
const SIZES = { "130 B": 130, "4 KiB": 4 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20 };
const PARTS = ["sha256", "mac", "scan", "fingerprint"];
const ROUNDS = Number(process.env.ROUNDS ?? 200);

const modules = process.argv.slice(2).map((argument) => {
  const [name, file] = argument.split("=");
  const module = new WebAssembly.Module(readFileSync(file));
  const imports = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    (imports[from] ??= {})[name] = () => 0;
  }
  const { exports } = new WebAssembly.Instance(module, imports);
  exports._initialize();
  return { name, exports };
});

const fastest = (values) => Math.min(...values);

console.log("size\tbody\tpart\tbytes\tmicroseconds");
for (const [size, bytes] of Object.entries(SIZES)) {
  for (const [kind, make] of Object.entries(BODIES)) {
    const body = make(bytes);
    const seen = new Map();
    for (let round = 0; round < ROUNDS; round++) {
      for (const { name, exports } of modules) {
        const at = exports.body(body.length);
        new Uint8Array(exports.memory.buffer, at, body.length).set(body);
        for (const part of PARTS) {
          if (part !== "scan" && kind !== "tracks") continue;
          const times = Math.max(1, Math.floor(200_000 / (body.length + 500)));
          const start = process.hrtime.bigint();
          if (exports[part](times) !== times) throw new Error(`${name}: ${part}: ${kind}`);
          const micros = Number(process.hrtime.bigint() - start) / 1000 / times;
          const key = `${size}\t${kind}\t${part}`;
          if (!seen.has(key)) seen.set(key, new Map());
          if (!seen.get(key).has(name)) seen.get(key).set(name, []);
          seen.get(key).get(name).push(micros);
        }
      }
    }
    for (const [key, byName] of seen) {
      const cells = [...byName].map(([name, all]) => `${name} ${fastest(all).toFixed(2)}`);
      console.log(`${key}\t${body.length}\t${cells.join("\t")}`);
    }
  }
}
