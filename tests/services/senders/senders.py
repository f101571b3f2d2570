"""Signs and verifies callbacks with the senders' own Python libraries.

Reads a JSON list of tasks from stdin and writes one of answers to stdout. A task has `do`:

- `list`: the answer says for which presets a library of the sender signs or verifies.
- `sign`: with `preset`, `secret`, `id`, `timestamp` (seconds), `url` and `body`; the answer is an object of
  `headers` and `body`.
- `verify`: as `sign`, with `headers`; the answer is whether the library takes them.
"""

import importlib.util
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace


def standard_webhooks(task):
    from standardwebhooks import Webhook

    time = datetime.fromtimestamp(task.timestamp, tz=timezone.utc)
    return {
        "webhook-id": task.id,
        "webhook-timestamp": str(task.timestamp),
        "webhook-signature": Webhook(task.secret).sign(task.id, time, task.body),
    }


def slack(task):
    from slack_sdk.signature import SignatureVerifier

    time = str(task.timestamp)
    signature = SignatureVerifier(task.secret).generate_signature(timestamp=time, body=task.body)
    return {"x-slack-request-timestamp": time, "x-slack-signature": signature}


def paddle(task):
    from paddle_billing.Notifications.PaddleSignature import PaddleSignature

    mac = PaddleSignature.calculate_hmac(task.secret, f"{task.timestamp}:{task.body}".encode())
    return {PaddleSignature().HEADER: f"ts={task.timestamp};h1={mac.hexdigest()}"}


def adyen(task):
    from Adyen.util import generate_notification_sig

    body = json.loads(task.body)
    item = body["notificationItems"][0]["NotificationRequestItem"]
    signature = generate_notification_sig(item, task.secret).decode()
    item["additionalData"] = {"hmacSignature": signature}
    task.body = json.dumps(body)
    return {}


def adyen_banking(task):
    from Adyen.util import generate_payload_sig

    return {"hmacsignature": generate_payload_sig(task.body.encode(), task.secret).decode()}


def hubspot(task):
    from hubspot.utils.signature import Signature

    time = str(task.timestamp * 1000)
    signature = Signature.get_signature(task.secret, task.body, "v3", task.url, "POST", time)
    return {"x-hubspot-request-timestamp": time, "x-hubspot-signature-v3": signature}


def box(task):
    from box_sdk_gen.managers.webhooks import WebhooksManager

    # What Box says beside its signature, and never says otherwise.
    said = {"box-signature-version": "1", "box-signature-algorithm": "HmacSHA256"}
    return WebhooksManager.validate_message(task.body, {**task.headers, **said}, task.secret)


def coinbase_commerce(task):
    from coinbase_commerce.webhook import WebhookSignature

    return WebhookSignature.verify_sig_header(task.body, task.headers["x-cc-webhook-signature"], task.secret)


def gocardless(task):
    from gocardless_pro import webhooks

    webhooks.parse(task.body, task.secret, task.headers["webhook-signature"])
    return True


def razorpay(task):
    from razorpay.utility import Utility

    return Utility().verify_webhook_signature(task.body, task.headers["x-razorpay-signature"], task.secret)


def square(task):
    # Its package asks for much that this file of it does not.
    place = Path(importlib.util.find_spec("square").origin).parent / "utils" / "webhooks_helper.py"
    spec = importlib.util.spec_from_file_location("webhooks_helper", place)
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    return helper.verify_signature(
        request_body=task.body,
        signature_header=task.headers["x-square-hmacsha256-signature"],
        signature_key=task.secret,
        notification_url=task.url,
    )


# What signs, by the preset whose callbacks it makes: the headers of one.
SIGNS = {
    "adyen": ("Adyen", adyen),
    "adyen-banking": ("Adyen", adyen_banking),
    "gitlab": ("standardwebhooks", standard_webhooks),
    "hubspot": ("hubspot-api-client", hubspot),
    "paddle": ("paddle-python-sdk", paddle),
    "slack": ("slack-sdk", slack),
}

# What only verifies, by the preset of what it is given: true, or else false or an exception.
VERIFIES = {
    "box": ("boxsdk", box),
    "coinbase-commerce": ("coinbase-commerce", coinbase_commerce),
    "gocardless": ("gocardless_pro", gocardless),
    "razorpay": ("razorpay", razorpay),
    "square": ("squareup", square),
}


def answer(task):
    if task.do == "list":
        kinds = {"sign": SIGNS, "verify": VERIFIES}
        listed = lambda kind: [{"preset": preset, "library": name} for preset, (name, _) in kind.items()]
        return {name: listed(kind) for name, kind in kinds.items()}
    if task.do == "sign":
        headers = SIGNS[task.preset][1](task)
        return {"headers": headers, "body": task.body}
    try:
        return bool(VERIFIES[task.preset][1](task))
    except Exception as error:
        print(f"{task.preset}: {error!r}", file=sys.stderr)
        return False


json.dump([answer(SimpleNamespace(**task)) for task in json.load(sys.stdin)], sys.stdout)
