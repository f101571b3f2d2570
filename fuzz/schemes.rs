//! Every word of the language of signatures, under any bytes: a genuine callback is made, pieces of it are
//! replaced, and what is still accepted must say the same as the genuine one in all that is signed.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_core::policy::Policy;
use callback_guard_core::sign::{self, Callback, Draft};
use callback_guard_core::testkit::{self, Host, NOW, Request, Seen};
use serde_json::{Value, json};

/// What of a request an application goes by, where it is signed.
#[derive(Clone, Copy)]
enum Reading {
    /// The body, byte for byte.
    Body,
    /// The fields of a form, in any order.
    Form,
    /// This header.
    Header(&'static str),
    /// The value at this pointer.
    Pointer(&'static str),
    /// This parameter of the query.
    Query(&'static str),
    /// Path and query.
    Target,
}

struct Scheme {
    policy: Arc<Policy>,
    readings: &'static [Reading],
}

const TOKEN: &str = "user:a token of the fuzz targets";

/// The schemes: together they hold each algorithm, and each word of the language.
static SCHEMES: LazyLock<Vec<Scheme>> = LazyLock::new(|| {
    use Reading::{Body, Form, Header, Pointer, Query, Target};
    let time = json!({ "header": "x-time" });
    let in_header = |encoding: &str| json!({ "header": "x-signature", "encoding": encoding });
    let signed = |signature: Value, readings| scheme(&json!({ "signature": signature }), readings);
    vec![
        signed(
            json!({
                "message": [{ "id": true }, { "literal": "." }, { "timestamp": true }, { "literal": "." }, { "body": true }],
                "value": { "header": "x-signature", "separator": " ", "prefix": "v1,", "encoding": "base64", "padding": "optional" },
                "timestamp": time, "id": { "header": "x-id" },
            }),
            &[Header("x-id"), Header("x-time"), Body],
        ),
        signed(
            json!({
                "algorithm": "hmac-sha512",
                "message": [{ "header": "x-nonce", "form": "uuid" }, { "timestamp": true }, { "body": true }],
                "value": in_header("base64url"),
                "timestamp": { "header": "x-time", "unit": "rfc3339" },
            }),
            &[Header("x-nonce"), Header("x-time"), Body],
        ),
        scheme(
            &json!({
                "signature": {
                    "algorithm": "hmac-sha1",
                    "message": [{ "method": true }, { "url": "https://h.example" }, { "body": true }, { "timestamp": true }],
                    "value": in_header("hex"),
                    "timestamp": { "header": "x-time", "unit": "ms" },
                },
                "payload": { "root": "any" },
            }),
            &[Target, Header("x-time"), Body],
        ),
        scheme(
            &json!({
                "signature": {
                    "algorithm": "hmac-sha1",
                    "message": [{ "url": "https://h.example" }, { "form_sorted": true }],
                    "value": in_header("base64"),
                },
                "content_types": ["application/x-www-form-urlencoded"],
            }),
            &[Target, Form],
        ),
        signed(
            json!({
                "message": [
                    { "literal": "id:" }, { "query": "id" }, { "literal": ";" }, { "timestamp": true }, { "literal": ";" },
                    { "body_digest": "sha256", "encoding": "base64" },
                ],
                "value": { "query": "signature", "encoding": "hex" },
                "timestamp": time,
            }),
            &[Query("id"), Header("x-time"), Body],
        ),
        signed(
            json!({
                "message": [
                    { "id": true }, { "literal": ":" }, { "pointer": "/a", "optional": true }, { "literal": ":" },
                    { "pointer": "/b/0", "optional": true },
                ],
                "value": { "pointer": "/signature", "encoding": "base64" },
                "id": { "pointers": ["/id"] },
            }),
            &[Pointer("/id"), Pointer("/a"), Pointer("/b/0")],
        ),
        signed(
            json!({
                "algorithm": "ed25519",
                "message": [
                    { "id": true }, { "literal": "\n" }, { "timestamp": true }, { "literal": "\n" },
                    { "body_digest": "sha256", "encoding": "hex" },
                ],
                "value": { "header": "x-signature", "separator": ",", "key": "v0", "continued": true, "encoding": "hex" },
                "timestamp": { "key": "t" }, "id": { "header": "x-id" },
            }),
            &[Header("x-id"), Body],
        ),
        scheme(
            &json!({
                "signature": {
                    "algorithm": "ecdsa-p256-sha256",
                    "message": [{ "timestamp": true }, { "body": true }],
                    "value": { "header": ["x-signature", "x-signature-2"], "encoding": "base64" },
                    "timestamp": time,
                },
                "payload": { "root": "array" },
            }),
            &[Header("x-time"), Body],
        ),
        signed(
            json!({
                "algorithm": "rsa-pkcs1-sha256",
                "message": [{ "timestamp": true }, { "literal": "\n" }, { "header": "x-nonce" }, { "literal": "\n" }, { "body": true }],
                "value": in_header("base64"),
                "timestamp": time,
            }),
            &[Header("x-time"), Header("x-nonce"), Body],
        ),
        scheme(
            &json!({ "token": { "pointer": "/token" } }),
            &[Pointer("/token")],
        ),
        scheme(
            &json!({ "token": { "basic": true } }),
            &[Header("authorization")],
        ),
        scheme(&json!({ "token": { "query": "token" } }), &[Query("token")]),
    ]
});

fn scheme(source: &Value, readings: &'static [Reading]) -> Scheme {
    let mut source = source.clone();
    source["name"] = "s".into();
    source["match"] = json!({ "path": "/a" });
    let algorithm = serde_json::from_value(source["signature"]["algorithm"].clone());
    let algorithm = algorithm.unwrap_or_default();
    if callback_guard_core::scheme::keys::Algorithm::is_asymmetric(algorithm) {
        let spki = testkit::private_key(algorithm).public_spki().unwrap();
        source["public_keys"] = json!([{ "value": spki }]);
    } else {
        source["secrets"] = json!([{ "value": TOKEN }]);
    }
    let policy =
        callback_guard_config::testkit::policy(&json!({ "sources": [source] }).to_string());
    Scheme {
        policy: Arc::new(policy),
        readings,
    }
}

/// A byte for the scheme; query, id and body, a newline after each of the first two and 0xff after the body;
/// then replacements: which part, where, how many bytes, and what is there instead, up to 0xff.
pub(crate) fn check(data: &[u8]) {
    let mut bytes = super::Bytes(data);
    let scheme = &SCHEMES[usize::from(bytes.byte()) % SCHEMES.len()];
    let query = String::from_utf8_lossy(bytes.until(b'\n')).into_owned();
    let id = String::from_utf8_lossy(bytes.until(b'\n')).into_owned();
    let body = bytes.until(0xff);
    let source = &scheme.policy.sources[0];
    let is_form = scheme
        .readings
        .iter()
        .any(|reading| matches!(reading, Reading::Form));
    let target = if query.is_empty() {
        "/a".to_owned()
    } else {
        format!("/a?{query}")
    };
    let draft = Draft {
        target: &target,
        is_json: !is_form,
        body,
        id: &id,
    };
    let key = testkit::signing_key(&scheme.policy);
    // A refusal while it is signed is the guard's own.
    let Ok(genuine) = sign::callback(source, &key, &draft, NOW) else {
        return;
    };
    let genuine = request(genuine, is_form);
    let mut changed = genuine.clone();
    for _ in 0..4 {
        let (part, at, cut) = (bytes.byte(), bytes.byte(), bytes.byte());
        let piece = bytes.until(0xff);
        let parts = changed.headers.len() + 1;
        let text = match changed.headers.get_mut(usize::from(part) % parts) {
            Some((_, value)) => value,
            None => &mut changed.body,
        };
        let start = usize::from(at).min(text.len());
        let end = (start + usize::from(cut % 80)).min(text.len());
        text.splice(start..end, piece.iter().copied());
    }
    let say = |request: &Request| {
        let readings = scheme.readings.iter();
        readings
            .map(|reading| read(request, *reading))
            .collect::<Vec<_>>()
    };
    let is_accepted = |request: &Request| {
        let (_, seen) = Host::new(Arc::clone(&scheme.policy)).send(request, NOW);
        matches!(seen, Seen::Forwarded(_))
    };
    // Twice, and for the second time in pieces.
    let accepted = is_accepted(&changed);
    let mut host = Host::new(Arc::clone(&scheme.policy));
    let (stream, mut seen) = host.head(&changed, NOW);
    for received in [1, changed.body.len() / 2] {
        if seen == Seen::Held && received < changed.body.len() {
            seen = host.part(stream, received, NOW);
        }
    }
    if seen == Seen::Held {
        seen = host.body(stream, &changed.body, NOW);
    }
    assert_eq!(
        matches!(seen, Seen::Forwarded(_)),
        accepted,
        "pieces change nothing"
    );
    if accepted {
        assert_eq!(
            say(&changed),
            say(&genuine),
            "a second reading of {changed:?}"
        );
    }
}

fn request(callback: Callback, is_form: bool) -> Request {
    let mut request = Request::unsigned("").with(":path", &callback.target);
    request.body = callback.body;
    if is_form {
        request = request.with("content-type", "application/x-www-form-urlencoded");
    }
    for (name, value) in callback.headers {
        request = request.and(&name, &value);
    }
    request
}

/// What is read, by another hand than the core's.
fn read(request: &Request, reading: Reading) -> Vec<u8> {
    let header = |name: &str| {
        let values = request.headers.iter();
        let mut values = values.filter(|(given, _)| given == name.as_bytes());
        values
            .next()
            .map(|(_, value)| value.trim_ascii().to_vec())
            .unwrap_or_default()
    };
    match reading {
        Reading::Body => request.body.clone(),
        Reading::Form => {
            let mut fields = fields(&request.body);
            fields.sort_unstable();
            fields.dedup();
            format!("{fields:?}").into_bytes()
        }
        Reading::Header("authorization") => {
            let value = header("authorization");
            let text = value
                .split(|byte| *byte == b' ')
                .next_back()
                .unwrap_or_default();
            STANDARD.decode(text).unwrap_or_default()
        }
        Reading::Header(name) => header(name),
        Reading::Pointer(pointer) => {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            match body.pointer(pointer) {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::String(text)) => text.clone().into_bytes(),
                // A number is signed as it is written: serde_json may write it otherwise.
                Some(other) => other.to_string().into_bytes(),
            }
        }
        Reading::Query(name) => {
            let target = header(":path");
            // A question mark may come again, as part of the query.
            let query = target.splitn(2, |byte| *byte == b'?').nth(1);
            let query = query.unwrap_or_default().to_vec();
            let mut values = fields(&query)
                .into_iter()
                .filter(|(given, _)| given == name.as_bytes());
            values.next().map(|(_, value)| value).unwrap_or_default()
        }
        Reading::Target => header(":path"),
    }
}

/// The fields of a form or a query.
fn fields(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = text
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = pair
                .iter()
                .position(|byte| *byte == b'=')
                .unwrap_or(pair.len());
            let (name, value) = pair.split_at(at);
            (decoded(name), decoded(value.get(1..).unwrap_or_default()))
        })
        .collect()
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match (
            byte,
            digits.and_then(|two| u8::from_str_radix(two, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    decoded
}
