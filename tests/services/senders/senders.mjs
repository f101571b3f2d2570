// Signs and verifies callbacks with the senders' own JavaScript libraries; see senders.py.
// The first argument is the directory in which they are installed.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import path from "node:path";

const installed = createRequire(pathToFileURL(path.join(process.argv[2], "senders.mjs")));
const load = (name) => import(pathToFileURL(installed.resolve(name)).href);
const time = (task) => new Date(task.timestamp * 1000);

async function standardWebhooks(task) {
  const { Webhook } = await load("standardwebhooks");
  return {
    "webhook-id": task.id,
    "webhook-timestamp": String(task.timestamp),
    "webhook-signature": new Webhook(task.secret).sign(task.id, time(task), task.body),
  };
}

async function svix(task) {
  const { Webhook } = await load("svix");
  return {
    "svix-id": task.id,
    "svix-timestamp": String(task.timestamp),
    "svix-signature": new Webhook(task.secret).sign(task.id, time(task), task.body),
  };
}

async function github(task) {
  const { sign } = await importEsm("@octokit/webhooks-methods");
  return { "x-hub-signature-256": await sign(task.secret, task.body) };
}

async function stripe(task) {
  const { default: Stripe } = await load("stripe");
  const header = new Stripe("sk_test_none").webhooks.generateTestHeaderString({
    payload: task.body,
    secret: task.secret,
    timestamp: task.timestamp,
  });
  return { "stripe-signature": header };
}

async function isLinear(task) {
  const { LinearWebhookClient } = await importEsm("@linear/sdk", "webhooks");
  const client = new LinearWebhookClient(task.secret);
  return verifies(() =>
    client.verify(
      Buffer.from(task.body),
      task.headers["linear-signature"],
      JSON.parse(task.body).webhookTimestamp,
    ),
  );
}

async function isMux(task) {
  const { default: Mux } = await load("@mux/mux-node");
  const client = new Mux({ tokenId: "none", tokenSecret: "none", webhookSecret: task.secret });
  return verifies(() => client.webhooks.verifySignature(task.body, task.headers));
}

async function verifies(check) {
  try {
    return (await check()) !== false;
  } catch {
    return false;
  }
}

// A package that has no entry for `require`: what its own manifest says.
async function importEsm(name, entry) {
  const root = path.join(process.argv[2], "node_modules", name);
  const manifest = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  let target = manifest.exports[entry ? `./${entry}` : "."];
  while (typeof target !== "string") target = target.import ?? target.default;
  return import(pathToFileURL(path.join(root, target)).href);
}

const libraries = {
  "standardwebhooks sign": standardWebhooks,
  "svix sign": svix,
  "@octokit/webhooks-methods sign": github,
  "stripe sign": stripe,
  "@linear/sdk verify": isLinear,
  "@mux/mux-node verify": isMux,
};

const answers = [];
for (const task of JSON.parse(readFileSync(0, "utf8"))) {
  answers.push(await libraries[`${task.library} ${task.do}`](task));
}
process.stdout.write(JSON.stringify(answers));
