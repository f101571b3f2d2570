// Holds manifests against the published schemas of their kinds.
//
//   node check.mjs MANIFESTS.json   (a list of { file, manifest })
//
// Twice: by the validators that the packages generate from the CRDs (types, enumerations, patterns,
// required fields), and by the TypeScript types of the same packages, for which a field that is not
// in the schema is an error. Prints one line per fault; none means that all is well.
import { readFileSync, writeFileSync } from "node:fs";
import ts from "typescript";

const packages = [
  [/^[a-z]+\.istio\.io\//, "@kubernetes-models/istio/"],
  [/^gateway\.envoyproxy\.io\//, "@kubernetes-models/envoy-gateway/"],
  [/^gateway\.networking\.k8s\.io\//, "@kubernetes-models/gateway-api/"],
  [/^(v1|apps\/v1|networking\.k8s\.io\/v1)$/, "kubernetes-models/"],
];

const entries = JSON.parse(readFileSync(process.argv[2], "utf8"));
let faults = 0;
const fault = (text) => {
  faults += 1;
  console.log(text);
};

let source = "";
const lines = [];
for (const [index, { file, manifest }] of entries.entries()) {
  const { apiVersion, kind } = manifest;
  const found = packages.find(([pattern]) => pattern.test(apiVersion));
  if (!found) {
    fault(`${file}: no schema for ${apiVersion} ${kind}`);
    continue;
  }
  const module = found[1] + apiVersion;
  const Model = (await import(module))[kind];
  if (!Model) {
    fault(`${file}: ${apiVersion} has no ${kind}`);
    continue;
  }
  try {
    new Model(manifest).validate();
  } catch (error) {
    fault(`${file}: ${kind}: ${error.message}`);
  }
  lines.push({ from: source.split("\n").length, name: `${file}: ${kind}` });
  source += `import type { I${kind} as T${index} } from "${module}";\n`;
  source += `export const m${index}: T${index} = ${JSON.stringify(manifest, null, 1)};\n`;
}

const file = new URL("./manifests.ts", import.meta.url).pathname;
writeFileSync(file, source);
const program = ts.createProgram([file], {
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  noEmit: true,
  skipLibCheck: true,
  strict: true,
  target: ts.ScriptTarget.ES2022,
  types: [],
});
for (const diagnostic of ts.getPreEmitDiagnostics(program)) {
  const text = ts.flattenDiagnosticMessageText(diagnostic.messageText, " ");
  const line = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start).line + 1;
  const where = lines.findLast(({ from }) => from <= line)?.name ?? "TypeScript";
  fault(`${where}: ${text}`);
}
process.exit(faults === 0 ? 0 : 1);
