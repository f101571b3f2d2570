// Holds manifests against the published schemas of their kinds, and dashboards against Grafana's.
//
//   node check.mjs MANIFESTS.json   (a list of { file, manifest } and { file, dashboard })
//
// Twice: by the validators that the packages generate from the CRDs (types, enumerations, patterns,
// required fields), and by the TypeScript types of the same packages, for which a field that is not
// in the schema is an error. Prints one line per fault; none means that all is well.
import { readFileSync, writeFileSync } from "node:fs";
import * as grafana from "@grafana/schema";
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
for (const [index, { file, manifest, dashboard }] of entries.entries()) {
  if (dashboard) {
    lines.push({ from: source.split("\n").length, name: `${file}: dashboard` });
    source += `import type { Dashboard as T${index} } from "./node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen";\n`;
    source += `export const m${index}: T${index} = ${JSON.stringify(dashboard, null, 1)};\n`;
    continue;
  }
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

// A word of JSON is no member of a TypeScript enumeration, but may be the value of one.
const isWord = (text) => {
  const [, word, name] = /^Type '"(.*)"' is not assignable to type '(\w+)'/.exec(text) ?? [];
  return Object.values(grafana[name] ?? {}).includes(word);
};
// What a data source wants of an annotation is its own: Grafana's schema does not say.
const isOwn = (text) => text.includes(`'"expr"' does not exist in type 'AnnotationQuery'`);

const file = new URL("./manifests.ts", import.meta.url).pathname;
const diagnose = () => {
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
  return ts.getPreEmitDiagnostics(program).map((diagnostic) => ({
    line: diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start).line + 1,
    start: diagnostic.start,
    text: ts.flattenDiagnosticMessageText(diagnostic.messageText, " "),
  }));
};

let diagnostics = diagnose();
for (;;) {
  // A fault can hide others beside it, so the words are cast, and all is looked at again.
  const words = diagnostics.filter(({ text }) => isWord(text)).sort((a, b) => b.start - a.start);
  if (words.length === 0) break;
  for (const { start } of words) {
    const cast = source.slice(start).replace(/^("\w+": "\w+")/, "$1 as never");
    source = source.slice(0, start) + cast;
  }
  diagnostics = diagnose();
}
for (const { line, text } of diagnostics) {
  if (isOwn(text)) continue;
  const where = lines.findLast(({ from }) => from <= line)?.name ?? "TypeScript";
  fault(`${where}: ${text}`);
}
process.exit(faults === 0 ? 0 : 1);
