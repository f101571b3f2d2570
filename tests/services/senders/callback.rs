//! Callbacks of any preset that signs: made here or by a sender's library, sent, and seen at the upstream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_config::testkit as config;
use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::Algorithm;
use callback_guard_core::testkit;
use callback_guard_core::time::UnixMillis;
use callback_guard_harness::{Body, Protocol, Request, Stack};
use serde_json::{Value, json};

/// A secret that most encodings of the table can read, and most libraries too.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const HEX_SECRET: &str = "44782def547aaa06c910c43932b1eb0c71fc68d9d0c057550c48ec2acf6ba056";
/// The URL that senders send to.
const PUBLIC: &str = "https://app.example";
const FORM: &str = "application/x-www-form-urlencoded";

/// The table of presets, as its reader sees it.
pub(super) fn table() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../config/src/presets.json")).unwrap()
}

/// A preset with what one of its callbacks is made of.
pub(super) struct Case {
    pub(super) preset: String,
    /// Its source in a configuration, at `/callbacks/<preset>`.
    pub(super) source: Value,
    /// The secret, or the public key, as its sender shows it.
    pub(super) secret: String,
    /// Path and query.
    target: String,
    content_type: &'static str,
    /// The body, before anything that its sender signs inside of it.
    pub(super) body: String,
    policy: Policy,
}

impl Case {
    #[track_caller]
    pub(super) fn new(preset: &str) -> Self {
        let is_it = |entry: &Value| entry["names"].as_array().unwrap().contains(&json!(preset));
        let entry = table().into_iter().find(is_it);
        let entry = entry.unwrap_or_else(|| panic!("no preset {preset}"));
        let signature = &entry["signature"];
        let parts = signature["message"].as_array().unwrap();
        let algorithm: Algorithm =
            serde_json::from_value(signature["algorithm"].clone()).unwrap_or_default();
        let path = format!("/callbacks/{preset}");
        let mut source = json!({
            "name": preset,
            "match": { "path": path },
            "preset": preset,
            "parameters": {},
        });
        // However slow the machine is, what was genuine when it was signed is not late.
        if signature.get("timestamp").is_some() {
            source["tolerance_seconds"] = json!(3600);
        }
        for name in parts.iter().filter_map(|part| part["parameter"].as_str()) {
            source["parameters"][name] = match name {
                "public_url" => json!(PUBLIC),
                _ => json!(format!("{PUBLIC}{path}")),
            };
        }
        let secret = match algorithm.is_asymmetric() {
            true => public_key(&entry, algorithm),
            false if entry["secret"]["encoding"] == "hex" => HEX_SECRET.to_owned(),
            // Some write more before it: `v1,whsec_`.
            false => match entry["secret"]["prefix"].as_str() {
                Some(prefix) => SECRET.replace("whsec_", prefix),
                None if entry["secret"]["encoding"] == "base64" => SECRET.replace("whsec_", ""),
                None => SECRET.to_owned(),
            },
        };
        let keys = if algorithm.is_asymmetric() {
            "public_keys"
        } else {
            "secrets"
        };
        source[keys] = json!([{ "value": secret }]);
        let id = format!("event-{preset}");
        let query = parts.iter().find_map(|part| part["query"].as_str());
        let is_form = parts.iter().any(|part| part["form_sorted"] == true);
        let only_form = entry["content_types"] == json!([FORM]);
        let json = body(&id);
        let (content_type, body) = match entry["root"].as_str() {
            _ if is_form || only_form => (FORM, format!("CallSid={id}&Text=hello")),
            Some("array") => ("application/json", format!("[{json}]")),
            _ => ("application/json", json),
        };
        Self {
            target: query.map_or(path.clone(), |name| format!("{path}?{name}={id}")),
            policy: config::policy(&json!({ "sources": [source] }).to_string()),
            preset: preset.to_owned(),
            source,
            secret,
            content_type,
            body,
        }
    }

    /// The URL that its sender sends to.
    pub(super) fn url(&self) -> String {
        format!("{PUBLIC}{}", self.target)
    }

    /// A callback with what its sender's library has made.
    pub(super) fn with(&self, headers: Vec<(String, String)>, body: String) -> Callback {
        Callback {
            source: self.preset.clone(),
            target: self.target.clone(),
            content_type: self.content_type,
            headers,
            body,
        }
    }

    /// A callback signed as `callback-guard sign` signs it.
    #[track_caller]
    pub(super) fn signed(&self, now: u64) -> Callback {
        let at = UnixMillis::from_seconds(now);
        let made = testkit::Request::genuine_at(&self.policy, &self.target, &self.body, at);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = made.headers.iter();
        let headers = headers.map(|(name, value)| (text(name), text(value)));
        let (head, headers): (Vec<_>, Vec<_>) = headers
            .filter(|(name, _)| name != "content-type")
            .partition(|(name, _)| name.starts_with(':'));
        let target = head
            .into_iter()
            .find(|(name, _)| name == ":path")
            .unwrap()
            .1;
        Callback {
            target,
            ..self.with(headers, text(&made.body))
        }
    }
}

/// The tests' own public key as the sender of `entry` would show it.
fn public_key(entry: &Value, algorithm: Algorithm) -> String {
    let spki = testkit::private_key(algorithm).public_spki().unwrap();
    let raw = STANDARD.decode(&spki).unwrap();
    let raw = &raw[raw.len() - 32..];
    let prefix = entry["public_key"]["prefix"].as_str().unwrap_or_default();
    match entry["public_key"]["encoding"].as_str() {
        Some("hex") => hex::encode(raw),
        Some("base64") => format!("{prefix}{}", STANDARD.encode(raw)),
        _ => spki,
    }
}

/// A body that every preset takes, about the event `id`.
fn body(id: &str) -> String {
    json!({
        "code": 200, "msg": "success", "data": { "task_id": id, "id": id },
        "id": id, "event_id": id, "event": { "id": id }, "eventId": id, "action": { "id": id },
        "meta": { "webhook_id": id }, "notificationId": id, "events": [],
        "webhookTimestamp": super::now() * 1000, "type": "test",
        "signature": { "token": id },
        "notificationItems": [{ "NotificationRequestItem": {
            "pspReference": id, "merchantReference": "order-1", "success": "true",
            "amount": { "value": 1130, "currency": "EUR" }, "eventCode": "AUTHORISATION",
        } }],
    })
    .to_string()
}

/// One callback.
pub(super) struct Callback {
    source: String,
    target: String,
    content_type: &'static str,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Callback {
    /// The URL that it is sent to.
    pub(super) fn url(&self) -> String {
        format!("{PUBLIC}{}", self.target)
    }

    /// One bit of what is signed is another: of the event's id, which is in the query where that is signed.
    #[track_caller]
    pub(super) fn flipped(&self) -> Self {
        let flip = |text: &str| text.replace("event-", "dvent-");
        let in_query = self.target.contains("=event-");
        let (target, body) = match in_query {
            true => (flip(&self.target), self.body.clone()),
            false => (self.target.clone(), flip(&self.body)),
        };
        assert_ne!((&target, &body), (&self.target, &self.body));
        Self {
            source: self.source.clone(),
            content_type: self.content_type,
            headers: self.headers.clone(),
            target,
            body,
        }
    }

    fn request(&self, body: Body) -> Request {
        let mut request = Request::post(&self.target)
            .header("content-type", self.content_type)
            .body(body);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    /// With one bit changed not even its head arrives; as it is, it arrives once and unchanged.
    #[track_caller]
    pub(super) fn check(&self, stack: &Stack) {
        let source = &self.source;
        let before = stack.upstream.heads();
        let changed = self.flipped();
        for protocol in Protocol::ALL {
            for body in [
                Body::one_piece(changed.body.clone()),
                Body::halves(changed.body.clone()),
            ] {
                let response = stack
                    .send(&changed.request(body).protocol(protocol))
                    .unwrap();
                assert_eq!(
                    (response.status, response.header("x-callback-guard")),
                    (401, Some("signature_mismatch".to_owned())),
                    "{source}, {protocol:?}: {}",
                    response.text()
                );
            }
        }
        assert_eq!(stack.upstream.heads(), before, "{source}");
        let genuine = self.request(Body::halves(self.body.clone()));
        let response = stack.send(&genuine).unwrap();
        assert_eq!(response.status, 200, "{source}: {}", response.text());
        let recorded = stack.upstream.recorded();
        assert_eq!(recorded.len(), before + 1, "{source}");
        let last = recorded.last().unwrap();
        assert_eq!(last.body, self.body.as_bytes(), "{source}");
        let given = last.head.header("x-callback-guard-source");
        assert_eq!(given.as_ref(), Some(source));
        for (name, value) in &self.headers {
            let arrived = last.head.values(&name.to_ascii_lowercase());
            assert_eq!(arrived, std::slice::from_ref(value), "{source}");
        }
        // And not a second time.
        let response = stack.send(&genuine).unwrap();
        let code = response.header("x-callback-guard");
        assert_eq!(code.as_deref(), Some("duplicate"), "{source}");
        assert_eq!(stack.upstream.heads(), before + 1, "{source}");
    }
}
