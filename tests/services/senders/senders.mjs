// Signs and verifies callbacks with the senders' own JavaScript libraries; see senders.py.
// The first argument is the directory in which they are installed.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import path from "node:path";

const installed = createRequire(pathToFileURL(path.join(process.argv[2], "senders.mjs")));
const load = (name) => import(pathToFileURL(installed.resolve(name)).href);

const loadFile = (file) => import(pathToFileURL(path.join(process.argv[2], "node_modules", file)).href);

// A package that has no entry for `require`: what its own manifest says.
async function loadModule(name, entry = ".") {
  const root = path.join(process.argv[2], "node_modules", name);
  let target = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")).exports[entry];
  while (typeof target !== "string") target = target.import ?? target.default;
  return import(pathToFileURL(path.join(root, target)).href);
}

// However long a library takes to load, what was fresh when it was signed is.
const time = (task) => new Date(task.timestamp * 1000);
const key = { apiKey: "none" };

// What signs, by the preset whose callbacks it makes: the headers of one.
const signs = {
  github: ["@octokit/webhooks-methods", async (task) => {
    const { sign } = await loadModule("@octokit/webhooks-methods");
    return { "x-hub-signature-256": await sign(task.secret, task.body) };
  }],
  sanity: ["@sanity/webhook", async (task) => {
    const { encodeSignatureHeader } = await load("@sanity/webhook");
    const header = await encodeSignatureHeader(task.body, task.timestamp * 1000, task.secret);
    return { "sanity-webhook-signature": header };
  }],
  shopify: ["@shopify/shopify-api", async (task) => {
    await load("@shopify/shopify-api/adapters/node");
    const { createSHA256HMAC } = await load("@shopify/shopify-api/runtime");
    return { "x-shopify-hmac-sha256": await createSHA256HMAC(task.secret, task.body) };
  }],
  stripe: ["stripe", async (task) => {
    const { default: Stripe } = await load("stripe");
    const header = new Stripe("sk_test_none").webhooks.generateTestHeaderString({
      payload: task.body,
      secret: task.secret,
      timestamp: task.timestamp,
    });
    return { "stripe-signature": header };
  }],
  svix: ["svix", async (task) => {
    const { Webhook } = await load("svix");
    return {
      "svix-id": task.id,
      "svix-timestamp": String(task.timestamp),
      "svix-signature": new Webhook(task.secret).sign(task.id, time(task), task.body),
    };
  }],
  twilio: ["twilio", async (task) => {
    const { default: twilio } = await load("twilio/lib/webhooks/webhooks.js");
    const form = Object.fromEntries(new URLSearchParams(task.body));
    return { "x-twilio-signature": twilio.getExpectedTwilioSignature(task.secret, task.url, form) };
  }],
};

// What only verifies, by the preset of what it is given: true, or else false or an exception.
const verifies = {
  cloudconvert: ["cloudconvert", async (task) => {
    const { default: CloudConvert } = await load("cloudconvert");
    const client = new (CloudConvert.default ?? CloudConvert)("none");
    return client.webhooks.verify(task.body, task.headers["cloudconvert-signature"], task.secret);
  }],
  crisp: ["crisp-api", async (task) => {
    const { default: Crisp } = await load("crisp-api");
    return new (Crisp.default ?? Crisp)().verifyWidget(
      task.secret,
      JSON.parse(task.body),
      task.headers["x-crisp-request-timestamp"],
      task.headers["x-crisp-signature"],
    );
  }],
  discord: ["discord-interactions", async (task) => {
    const { verifyKey } = await load("discord-interactions");
    const { "x-signature-ed25519": signature, "x-signature-timestamp": stamp } = task.headers;
    return verifyKey(task.body, signature, stamp, task.secret);
  }],
  "dodo-payments": ["dodopayments", async (task) => {
    const { default: Dodo } = await load("dodopayments");
    const client = new Dodo({ bearerToken: "none", webhookKey: task.secret });
    return client.webhooks.unwrap(task.body, { headers: task.headers });
  }],
  fingerprint: ["@fingerprint/node-sdk", async (task) => {
    const { isValidWebhookSignature } = await load("@fingerprint/node-sdk");
    const header = task.headers["fpjs-event-signature"];
    return isValidWebhookSignature({ header, data: Buffer.from(task.body), secret: task.secret });
  }],
  hookdeck: ["@hookdeck/sdk", async (task) => {
    const { verifyWebhookSignature } = await load("@hookdeck/sdk/webhooks/helpers");
    const given = { headers: task.headers, rawBody: task.body, signingSecret: task.secret };
    return (await verifyWebhookSignature(given)).isValidSignature;
  }],
  imagekit: ["imagekit", async (task) => {
    const { default: ImageKit } = await load("imagekit");
    const account = { publicKey: "none", privateKey: "none", urlEndpoint: "https://none.example" };
    return new ImageKit(account).verifyWebhookEvent(task.body, task.headers["x-ik-signature"], task.secret);
  }],
  line: ["@line/bot-sdk", async (task) => {
    const { validateSignature } = await load("@line/bot-sdk");
    return validateSignature(task.body, task.secret, task.headers["x-line-signature"]);
  }],
  linear: ["@linear/sdk", async (task) => {
    const { LinearWebhookClient } = await loadModule("@linear/sdk", "./webhooks");
    const stamp = JSON.parse(task.body).webhookTimestamp;
    const signature = task.headers["linear-signature"];
    return new LinearWebhookClient(task.secret).verify(Buffer.from(task.body), signature, stamp);
  }],
  lithic: ["lithic", async (task) => {
    const { default: Lithic } = await load("lithic");
    new Lithic(key).webhooks.verifySignature(task.body, task.headers, task.secret);
    return true;
  }],
  liveblocks: ["@liveblocks/node", async (task) => {
    const { WebhookHandler } = await load("@liveblocks/node");
    try {
      new WebhookHandler(task.secret).verifyRequest({ headers: task.headers, rawBody: task.body });
    } catch (error) {
      // Authentic, and no event of Liveblocks': the body is that of the tests.
      if (!error.message.startsWith("Unknown event type")) throw error;
    }
    return true;
  }],
  "mercado-pago": ["mercadopago", async (task) => {
    const { WebhookSignatureValidator } = await load("mercadopago");
    WebhookSignatureValidator.validate({
      xSignature: task.headers["x-signature"],
      xRequestId: task.headers["x-request-id"],
      dataId: new URL(task.url).searchParams.get("data.id"),
      secret: task.secret,
      toleranceSeconds: 300,
    });
    return true;
  }],
  "modern-treasury": ["modern-treasury", async (task) => {
    const { default: ModernTreasury } = await load("modern-treasury");
    const client = new ModernTreasury({ ...key, organizationID: "none" });
    return client.webhooks.validateSignature(task.body, task.headers, { key: task.secret });
  }],
  mux: ["@mux/mux-node", async (task) => {
    const { default: Mux } = await load("@mux/mux-node");
    const client = new Mux({ tokenId: "none", tokenSecret: "none", webhookSecret: task.secret });
    await client.webhooks.verifySignature(task.body, task.headers);
    return true;
  }],
  onfido: ["@onfido/api", async (task) => {
    const { WebhookEventVerifier } = await load("@onfido/api");
    const signature = task.headers["x-sha2-signature"];
    return new WebhookEventVerifier(task.secret).readPayload(task.body, signature);
  }],
  openai: ["openai", async (task) => {
    const { default: OpenAI } = await load("openai");
    await new OpenAI(key).webhooks.verifySignature(task.body, task.headers, task.secret);
    return true;
  }],
  polar: ["@polar-sh/sdk", async (task) => {
    const { validateEvent, WebhookVerificationError } = await load("@polar-sh/sdk/webhooks");
    try {
      validateEvent(task.body, task.headers, task.secret);
    } catch (error) {
      // Authentic, and no event of Polar's: the body is that of the tests.
      if (error instanceof WebhookVerificationError) throw error;
    }
    return true;
  }],
  pusher: ["pusher", async (task) => {
    const { default: Pusher } = await load("pusher");
    const client = new Pusher({ appId: "1", key: "none", secret: task.secret });
    const headers = { ...task.headers, "x-pusher-key": "none", "content-type": "application/json" };
    return client.webhook({ headers, rawBody: task.body }).isValid();
  }],
  replicate: ["replicate", async (task) => {
    const { validateWebhook } = (await load("replicate")).default;
    return validateWebhook({ headers: task.headers, body: task.body }, task.secret);
  }],
  resend: ["resend", async (task) => {
    const { Resend } = await load("resend");
    const headers = Object.fromEntries(
      ["id", "timestamp", "signature"].map((name) => [name, task.headers[`svix-${name}`]]),
    );
    return new Resend("none").webhooks.verify({ payload: task.body, headers, webhookSecret: task.secret });
  }],
  sendgrid: ["@sendgrid/eventwebhook", async (task) => {
    const { EventWebhook, EventWebhookHeader } = (await load("@sendgrid/eventwebhook")).default;
    const hook = new EventWebhook();
    const given = [EventWebhookHeader.SIGNATURE(), EventWebhookHeader.TIMESTAMP()];
    const [signature, stamp] = given.map((name) => task.headers[name.toLowerCase()]);
    return hook.verifySignature(hook.convertPublicKeyToECDSA(task.secret), task.body, signature, stamp);
  }],
  sinch: ["@sinch/sdk-client", async (task) => {
    // Its entry asks for a package that it does not name.
    const { validateWebhookSignature } = await loadFile("@sinch/sdk-client/dist/utils/authorization.helper.js");
    return validateWebhookSignature(task.secret, task.headers, task.body);
  }],
  "standard-webhooks": ["standardwebhooks", async (task) => {
    const { Webhook } = await load("standardwebhooks");
    return new Webhook(task.secret).verify(task.body, task.headers);
  }],
  webflow: ["webflow-api", async (task) => {
    const { WebflowClient } = await load("webflow-api");
    const client = new WebflowClient({ accessToken: "none" });
    return client.webhooks.verifySignature({ headers: task.headers, body: task.body, secret: task.secret });
  }],
  workos: ["@workos-inc/node", async (task) => {
    const { WorkOS } = await load("@workos-inc/node");
    const sigHeader = task.headers["workos-signature"];
    const webhooks = new WorkOS("sk_none").webhooks;
    return webhooks.verifyHeader({ payload: JSON.parse(task.body), sigHeader, secret: task.secret });
  }],
};

const library = ([preset, [name]]) => ({ preset, library: name });
const tasks = JSON.parse(readFileSync(0, "utf8"));
const answers = [];
for (const task of tasks) {
  switch (task.do) {
    case "list":
      answers.push({
        sign: Object.entries(signs).map(library),
        verify: Object.entries(verifies).map(library),
      });
      break;
    case "sign":
      answers.push({ headers: await signs[task.preset][1](task), body: task.body });
      break;
    case "verify":
      Date.now = () => task.timestamp * 1000;
      try {
        answers.push(Boolean(await verifies[task.preset][1](task)));
      } catch (error) {
        console.error(`${task.preset}: ${error}`);
        answers.push(false);
      }
  }
}
process.stdout.write(JSON.stringify(answers));
