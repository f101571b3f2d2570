//! The table of presets: known answers, the bounds of freshness, and that nothing but what a sender
//! signed is let through.

mod document;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::Algorithm;
use callback_guard_core::scheme::token::TokenAt;
use callback_guard_core::scheme::{
    IdAt, MessageInput, Part, Proof, SignaturePlace, TimestampPlace,
};
use callback_guard_core::sign;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::Outcome;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Host, NOW, Request, policy, private_key};
use crate::vectors::data;

/// A secret that every encoding of the table can read.
const SECRET: &str = "dGVzdC13ZWJob29rLWhtYWMta2V5";
const PATH: &str = "/callbacks";
const FORM: &str = "application/x-www-form-urlencoded";

/// The table, as its reader sees it.
fn table() -> &'static [Value] {
    static TABLE: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/src/presets.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    });
    &TABLE
}

fn names() -> Vec<String> {
    table()
        .iter()
        .flat_map(|preset| preset["names"].as_array().unwrap().clone())
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

/// The entry of the table with this name.
fn entry(name: &str) -> &'static Value {
    let is_it = |entry: &Value| {
        entry["names"]
            .as_array()
            .unwrap()
            .iter()
            .any(|known| known == name)
    };
    table()
        .iter()
        .find(|entry| is_it(entry))
        .unwrap_or(&Value::Null)
}

fn algorithm(entry: &Value) -> Algorithm {
    serde_json::from_value(entry["signature"]["algorithm"].clone()).unwrap_or_default()
}

/// The parameters that an entry asks for.
fn parameters(entry: &Value) -> Value {
    let parts = entry["signature"]["message"].as_array();
    let parts = parts.map(Vec::as_slice).unwrap_or_default();
    let mut parameters = json!({});
    let rules = entry["challenge"].as_array();
    let rules = rules.map(Vec::as_slice).unwrap_or_default();
    for name in rules
        .iter()
        .filter_map(|rule| rule["requires"]["parameter"].as_str())
    {
        parameters[name] = json!("verify-token-of-the-tests");
    }
    for name in parts.iter().filter_map(|part| part["parameter"].as_str()) {
        let base = "https://app.example";
        parameters[name] = match name {
            "public_url" => json!(base),
            _ => json!(format!("{base}{PATH}")),
        };
    }
    parameters
}

fn configured(preset: &str, change: impl FnOnce(&mut Value)) -> Policy {
    let mut source = json!({
        "name": if names().iter().any(|name| name == preset) { preset } else { "sender" },
        "match": { "path": PATH },
        "preset": preset,
    });
    let entry = entry(preset);
    source["parameters"] = parameters(entry);
    match algorithm(entry) {
        algorithm if algorithm.is_asymmetric() => {
            let spki = private_key(algorithm).public_spki().unwrap();
            source["public_keys"] = json!([{ "value": spki, "encoding": "spki" }]);
        }
        _ => source["secrets"] = json!([{ "value": secret(entry) }]),
    }
    change(&mut source);
    policy(&json!({ "sources": [source] }))
}

/// A secret as the sender writes it.
fn secret(entry: &Value) -> &'static str {
    match entry["secret"]["encoding"].as_str() {
        Some("hex") => "746573742d776562686f6f6b2d686d61632d6b6579",
        _ => SECRET,
    }
}

fn preset(name: &str) -> Policy {
    configured(name, |_| {})
}

/// Whether the sender's callbacks are forms alone.
fn is_form(policy: &Policy) -> bool {
    match &policy.sources[0].scheme.proof {
        Proof::Signature(rule) => rule.holds(&Part::FormSorted),
        Proof::Token(_) => false,
    }
}

/// A body that every preset takes, about the event `id`.
fn body(id: &str, now: UnixMillis) -> String {
    json!({
        "code": 200, "msg": "success", "data": { "task_id": id, "id": id },
        "id": id, "event_id": id, "event": { "id": id }, "eventId": id, "action": { "id": id },
        "meta": { "webhook_id": id }, "notificationId": id,
        "webhookTimestamp": now.as_millis(),
        "signature": { "token": id },
        "notificationItems": [{ "NotificationRequestItem": {
            "pspReference": id, "merchantReference": "order-1", "success": "true",
            "amount": { "value": 1130, "currency": "EUR" }, "eventCode": "AUTHORISATION",
        } }],
    })
    .to_string()
}

/// A genuine callback about `body`, which is sent as the form or the array that the sender sends.
fn genuine(policy: &Policy, body: &str, now: UnixMillis) -> Request {
    let source = &policy.sources[0];
    let name = &*source.name;
    let text = match serde_json::from_str::<Value>(body) {
        Ok(value) if is_form(policy) || source.media_types.iter().all(|kind| &**kind == FORM) => {
            format!(
                "CallSid={}&Text=hello",
                value["id"].as_str().unwrap_or("none")
            )
        }
        Ok(_) if entry(name)["root"] == "array" => format!("[{body}]"),
        _ => body.to_owned(),
    };
    let target = match name {
        "mercado-pago" => format!("{PATH}?data.id=123"),
        _ => PATH.to_owned(),
    };
    let request = Request::genuine_at(policy, &target, &text, now);
    match source.media_types.first() {
        Some(only) if source.media_types.len() == 1 => request.with("content-type", only),
        _ => request,
    }
}

fn signs_body(policy: &Policy) -> bool {
    match &policy.sources[0].scheme.proof {
        Proof::Signature(rule) => rule.signs_body(),
        Proof::Token(_) => false,
    }
}

#[track_caller]
fn check(policy: impl Into<Arc<Policy>>, request: &Request, now: UnixMillis, expected: Code) {
    let (_, seen) = Host::new(policy).send(request, now);
    assert_eq!(seen.code(), Some(expected), "{seen:?} of {request:?}");
}

/// Sends `first`, which the upstream accepts, and then `second`.
#[track_caller]
fn check_after(policy: Policy, first: &Request, second: &Request, expected: Code) -> bool {
    let mut host = Host::new(policy);
    let (guard, seen) = host.send(first, NOW);
    assert_eq!(seen.code(), Some(Code::Forwarded), "{seen:?}");
    host.settle(guard, Outcome::Accepted, NOW);
    let (guard, seen) = host.send(second, NOW);
    assert_eq!(seen.code(), Some(expected), "{seen:?} of {second:?}");
    host.report(guard).body_changed
}

#[test]
fn names_are_unique_and_every_preset_has_its_source() {
    let names = names();
    let unique: BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    for name in [
        "suno",
        "kie",
        "sunoapi-token",
        "standard-webhooks",
        "svix",
        "github",
        "stripe",
        "slack",
        "shopify",
        "paddle",
        "zoom",
        "linear",
        "elevenlabs",
        "mux",
        "square",
        "pagerduty",
        "typeform",
        "docusign",
        "gitlab",
    ] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
    for preset in table() {
        let source = preset["source"].as_str().unwrap();
        assert!(source.starts_with("https://"), "{source}");
    }
}

/// What each sender's vector is sent to. The rest of the file cannot be expressed.
fn of_vector(sender: &str) -> &'static [&'static str] {
    match sender {
        "standard-webhooks/svix/replicate/gitlab-signing-token" => {
            &["standard-webhooks", "replicate", "svix", "gitlab"]
        }
        "standard-webhooks" => &["standard-webhooks", "replicate", "svix", "gitlab"],
        "paddle (several h1, unknown h2)" => &["paddle"],
        "kie" => &["kie", "suno"],
        "github" => &["github"],
        "paddle" => &["paddle"],
        "stripe" => &["stripe"],
        "mux" => &["mux"],
        "elevenlabs" => &["elevenlabs"],
        "zoom" => &["zoom"],
        "shopify" => &["shopify"],
        "typeform" => &["typeform"],
        "docusign" => &["docusign"],
        "linear" => &["linear"],
        "heygen v3" => &["(spelled out)"],
        "intercom (HMAC-SHA1)"
        | "twilio (NOT expressible: HMAC-SHA1 over URL + sorted form params)" => &[],
        other => panic!("no preset for the vector of {other}"),
    }
}

#[test]
fn every_known_answer_verifies_and_a_changed_byte_does_not() {
    let file: Value = serde_json::from_slice(&data("vectors.json")).unwrap();
    let mut checked = 0;
    for vector in file["vectors"].as_array().unwrap() {
        for name in of_vector(vector["sender"].as_str().unwrap()) {
            let secret = vector.get("secret_as_given").or(vector.get("key_utf8"));
            let policy = || {
                configured(name, |source| {
                    source["secrets"][0]["value"] = secret.unwrap().clone();
                    if *name == "(spelled out)" {
                        let source = source.as_object_mut().unwrap();
                        source.remove("preset");
                        let signature = json!({
                            "message": [{ "body": true }],
                            "value": { "header": "heygen-signature", "encoding": "hex" },
                        });
                        source.insert("signature".into(), signature);
                    }
                })
            };
            let body = vector["body_utf8"].as_str().unwrap();
            let mut request = Request::unsigned(body).with(":path", PATH);
            let mut now = NOW;
            for (header, value) in vector["headers"].as_object().unwrap() {
                let mut header = header.to_ascii_lowercase();
                if *name == "svix" {
                    header = header.replace("webhook-", "svix-");
                }
                let value = value.as_str().unwrap();
                for digits in value.split(|char: char| !char.is_ascii_digit()) {
                    if digits.len() == 10 {
                        now = UnixMillis::from_seconds(digits.parse().unwrap());
                    }
                }
                request = request.with(&header, value);
            }
            // The body of one of them is no JSON; the MAC comes first, so it has verified.
            let expected = if body.starts_with('{') {
                Code::Forwarded
            } else {
                Code::JsonMalformed
            };
            check(policy(), &request, now, expected);
            let changed = match *name {
                "kie" | "suno" => body.replace("ee9c", "ee9d"),
                _ => body.replacen(['t', 'l', 'r'], "x", 1),
            };
            assert_ne!(changed, body);
            let request = request.body(&changed);
            check(policy(), &request, now, Code::SignatureMismatch);
            checked += 1;
        }
    }
    assert_eq!(checked, 23);
}

/// Accepted age and lead, in seconds; nothing where the sender signs no time.
fn bounds(name: &str) -> Option<(u64, u64)> {
    let entry = entry(name);
    entry["signature"].get("timestamp")?;
    let seconds = |field: &str, default: u64| entry[field].as_u64().unwrap_or(default);
    Some((
        seconds("tolerance_seconds", 300),
        seconds("future_tolerance_seconds", 60),
    ))
}

/// The table cannot vouch for itself: what the senders' own documents say.
#[test]
fn the_bounds_of_freshness_are_those_of_the_senders() {
    for (name, past, future) in [
        ("box", 600, 60),
        ("discord", 300, 60),
        ("elevenlabs", 1800, 60),
        ("linear", 60, 60),
        ("openai", 300, 300),
        ("paddle", 5, 60),
        ("slack", 300, 300),
        ("stripe", 300, 60),
        ("suno", 300, 60),
        ("svix", 300, 300),
        ("telnyx", 300, 300),
        ("twitch", 600, 60),
        ("wechat-pay", 300, 300),
    ] {
        assert_eq!(bounds(name), Some((past, future)), "{name}");
    }
    for name in ["github", "shopify", "twilio", "adyen", "vercel", "telegram"] {
        assert_eq!(bounds(name), None, "{name}");
    }
}

#[test]
fn both_sides_of_each_bound_of_freshness() {
    let at = |seconds: u64| UnixMillis::from_seconds(seconds);
    let then = NOW.as_seconds();
    for name in names() {
        let policy = Arc::new(preset(&name));
        let request = genuine(&policy, &body("event-1", NOW), NOW);
        let check = |now, expected| check(Arc::clone(&policy), &request, now, expected);
        check(NOW, Code::Forwarded);
        let Some((past, future)) = bounds(&name) else {
            check(at(then * 2), Code::Forwarded);
            check(at(1), Code::Forwarded);
            continue;
        };
        for (now, expected) in [
            (then + past, Code::Forwarded),
            (then + past + 1, Code::TimestampTooOld),
            (then - future, Code::Forwarded),
            (then - future - 1, Code::TimestampInFuture),
        ] {
            check(at(now), expected);
        }
    }
}

#[test]
fn the_configuration_has_the_last_word_on_freshness() {
    for name in names().iter().filter(|name| bounds(name).is_some()) {
        let tight = Arc::new(configured(name, |source| {
            source["tolerance_seconds"] = json!(2);
            source["future_tolerance_seconds"] = json!(1);
        }));
        let request = genuine(&tight, &body("event-1", NOW), NOW);
        let check = |now, expected| check(Arc::clone(&tight), &request, now, expected);
        let at = |seconds: u64| UnixMillis::from_seconds(seconds);
        let then = NOW.as_seconds();
        check(at(then + 2), Code::Forwarded);
        check(at(then + 3), Code::TimestampTooOld);
        check(at(then - 1), Code::Forwarded);
        check(at(then - 2), Code::TimestampInFuture);
    }
}

/// The places of a request that its sender's proof covers: what must not change by one bit.
enum Covered {
    Header(usize),
    Body(core::ops::Range<usize>),
}

fn covered(policy: &Policy, request: &Request, id: &str) -> Vec<Covered> {
    let unsigned = Request::unsigned("");
    let mut places: Vec<Covered> = (0..request.headers.len())
        .filter(|index| !unsigned.headers.contains(&request.headers[*index]))
        // Where the token is elsewhere, the path is not covered.
        .filter(|index| {
            let (name, value) = &request.headers[*index];
            name != b"content-type" && (name != b":path" || value != PATH.as_bytes())
        })
        .map(Covered::Header)
        .collect();
    if signs_body(policy) {
        places.push(Covered::Body(0..request.body.len()));
    } else {
        let text = String::from_utf8(request.body.clone()).unwrap();
        let source = &policy.sources[0];
        let json: Value = serde_json::from_str(&text).unwrap();
        for slot in inside(policy) {
            let pointer = source.pointers[slot].as_str();
            let Some(value) = json.pointer(pointer).and_then(Value::as_str) else {
                continue;
            };
            // Key by key, because another object may have the same key with the same value.
            let mut start = 0;
            for key in pointer.split('/').skip(1) {
                let key = format!(r#""{key}":"#);
                // A member of the root comes last: inner objects are written before it.
                let is_in_root = pointer.matches('/').count() == 1;
                let at = if is_in_root {
                    text.rfind(&key)
                } else {
                    text[start..].find(&key)
                };
                if let Some(at) = at {
                    start += at + key.len();
                }
            }
            start += 1;
            assert!(text[start..].starts_with(value), "{pointer}: {text}");
            places.push(Covered::Body(start..start + value.len()));
        }
    }
    assert!(!places.is_empty(), "{:?} {id}", policy.sources[0].name);
    places
}

/// The slots of what the proof covers inside of a body that is not signed itself.
fn inside(policy: &Policy) -> Vec<usize> {
    let source = &policy.sources[0];
    let mut slots = Vec::new();
    match &source.scheme.proof {
        Proof::Token(rule) => {
            if let TokenAt::Pointer(slot) = rule.at {
                slots.push(slot);
            }
            return slots;
        }
        Proof::Signature(rule) => {
            if let SignaturePlace::Pointer(slot) = rule.value.place {
                slots.push(slot);
            }
            for piece in &rule.message {
                if let Part::Pointer { slot, .. } = piece.part {
                    slots.push(slot);
                }
            }
            if rule.holds(&Part::Timestamp)
                && let Some(TimestampPlace::Pointer(slot)) =
                    rule.timestamp.as_ref().map(|at| &at.place)
            {
                slots.push(*slot);
            }
        }
    }
    if let IdAt::Pointers { slots: ids, .. } = &source.scheme.id {
        slots.extend(ids.clone());
    }
    slots
}

fn flip(request: &Request, place: &Covered, bit: usize) -> Option<Request> {
    let mut request = request.clone();
    let (bytes, at) = match place {
        Covered::Header(index) => (&mut request.headers[*index].1, bit / 8),
        Covered::Body(range) => (&mut request.body, range.start + bit / 8),
    };
    let before = bytes[at];
    bytes[at] ^= 1 << (bit % 8);
    // The same hexadecimal digit in the other case is the same signature.
    let is_spelling = !matches!(place, Covered::Body(range) if range.start == 0)
        && before.is_ascii_hexdigit()
        && before.eq_ignore_ascii_case(&bytes[at]);
    // The name of a scheme of authorization has no case. Source: RFC 9110, 11.1.
    let is_scheme = bytes.to_ascii_lowercase().starts_with(b"basic ") && at < 5;
    (!is_spelling && !is_scheme).then_some(request)
}

fn bits(request: &Request, place: &Covered) -> usize {
    8 * match place {
        Covered::Header(index) => request.headers[*index].1.len(),
        Covered::Body(range) => range.len(),
    }
}

#[test]
fn every_single_bit_counts() {
    for entry in table() {
        // The other names are aliases.
        let name = entry["names"][0].as_str().unwrap().to_owned();
        let policy = preset(&name);
        let request = genuine(&policy, &body("event-1", NOW), NOW);
        let places = covered(&policy, &request, "event-1");
        let is_public = algorithm(entry).is_asymmetric();
        let mut host = Host::new(policy);
        for place in &places {
            // A public key costs a hundred times as much, and nothing reads a whole body before its MAC:
            // of these a bit of every byte, never twice the same. One preset has all bits of its body.
            let is_whole = matches!(place, Covered::Body(range) if range.start == 0);
            let step = match (is_public, is_whole && name != "github") {
                (false, false) => 1,
                _ => 9,
            };
            for bit in (0..bits(&request, place)).step_by(step) {
                let Some(changed) = flip(&request, place, bit) else {
                    continue;
                };
                // A letter of base64 or of the prefix in the other case is another one.
                let (_, seen) = host.send(&changed, NOW);
                let code = seen.code().unwrap();
                let is_refused = !matches!(code, Code::Forwarded | Code::Duplicate);
                assert!(is_refused, "{name}: {code} for {changed:?}");
                if matches!(place, Covered::Body(_)) && signs_body(&host.policy) {
                    assert_eq!(code, Code::SignatureMismatch, "{name}: {changed:?}");
                }
            }
        }
        let (_, seen) = host.send(&request, NOW);
        assert_eq!(seen.code(), Some(Code::Forwarded), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is signed verifies, and whatever of it is changed does not.
    #[test]
    fn sign_then_verify(
        id in "[A-Za-z0-9_-]{1,64}",
        text in ".{0,200}",
        seconds in 1_000_000_000_u64..9_999_999_000,
        key in proptest::collection::vec(any::<u8>(), 1..100),
        which in any::<prop::sample::Index>(),
        flipped in any::<prop::sample::Index>(),
    ) {
        let now = UnixMillis::from_seconds(seconds);
        let mut body: Value = serde_json::from_str(&body(&id, now)).unwrap();
        body["text"] = json!(text);
        let body = body.to_string();
        // A few presets of the table at a time.
        let all = names();
        let start = which.index(all.len());
        for name in all.iter().cycle().skip(start).take(8) {
            let is_public = algorithm(entry(name)).is_asymmetric();
            let with = |key: &[u8]| {
                let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                configured(name, |source| {
                    if is_public {
                        return;
                    }
                    source["secrets"] = json!([{ "value": text, "encoding": "hex" }]);
                })
            };
            // A token is text that a header can hold.
            let is_token = !entry(name)["token"].is_null();
            let token = format!("{id:0>16}");
            let key = if is_token { token.as_bytes() } else { &key[..] };
            let mut host = Host::new(with(key));
            let request = genuine(&host.policy, &body, now);
            let places = covered(&host.policy, &request, &id);
            let place = &places[which.index(places.len())];
            let bit = flipped.index(bits(&request, place));
            if let Some(changed) = flip(&request, place, bit) {
                let (_, seen) = host.send(&changed, now);
                prop_assert_ne!(seen.code(), Some(Code::Forwarded), "{}: {:?}", name, changed);
            }
            let mut other = key.to_vec();
            let bit = flipped.index(other.len() * 8);
            other[bit / 8] ^= 1 << (bit % 8);
            if !is_public {
                let (_, seen) = Host::new(with(&other)).send(&request, now);
                prop_assert_eq!(seen.code(), Some(Code::SignatureMismatch), "{}", name);
            }
            let (_, seen) = host.send(&request, now);
            prop_assert_eq!(seen.code(), Some(Code::Forwarded), "{}", name);
        }
    }
}

/// All texts of up to `length` of these bytes.
fn all_texts(alphabet: &[u8], length: usize) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..length {
        let until = all.len();
        for index in from..until {
            for byte in alphabet {
                let mut text = all[index].clone();
                text.push(*byte);
                all.push(text);
            }
        }
        from = until;
    }
    all
}

#[test]
fn no_accepted_message_has_a_second_reading() {
    let (a, b) = (json!({ "header": "x-a" }), json!({ "header": "x-b" }));
    let body = json!({ "body": true });
    let between = |text: &str| json!({ "literal": text });
    for message in [
        json!([a, between("."), b, between(":"), body]),
        json!([a, between(".:"), b, between("."), body]),
        json!([a, between("::"), body, between(".."), b]),
        json!([body, between(":."), a, between("."), b]),
    ] {
        let policy = configured("", |source| {
            let source = source.as_object_mut().unwrap();
            source.remove("preset");
            let value = json!({ "header": "x-sig", "encoding": "hex" });
            let signature = json!({ "message": message, "value": value });
            source.insert("signature".into(), signature);
        });
        let source = &policy.sources[0];
        let Proof::Signature(rule) = &source.scheme.proof else {
            panic!("{message}")
        };
        let place = |part: &Part| match part {
            Part::Header(index) => Some(*index),
            Part::Body => Some(2),
            _ => None,
        };
        // Every message of three short parts, accepted: no two of them are the same bytes.
        let texts = all_texts(b".:x", 3);
        let mut seen = BTreeSet::new();
        let mut accepted = 0;
        for first in &texts {
            for second in &texts {
                for third in &texts {
                    let parts = [first, second, third];
                    let headers = [
                        Some(first.as_slice().into()),
                        Some(second.as_slice().into()),
                    ];
                    let input = MessageInput {
                        body: third,
                        headers: &headers,
                        ..MessageInput::default()
                    };
                    let places: Vec<usize> = rule
                        .message
                        .iter()
                        .filter_map(|piece| place(&piece.part))
                        .collect();
                    assert_eq!(places.len(), parts.len());
                    if let Ok(bytes) = rule.with_message(&input, |parts| parts.concat()) {
                        assert!(seen.insert(bytes.clone()), "{message}: {bytes:?}");
                        accepted += 1;
                    }
                }
            }
        }
        assert!(accepted > 1000, "{accepted}");
    }
}

#[test]
fn an_id_may_hold_the_separator_unless_the_message_could_be_cut_in_two_ways() {
    let signed = |name: &str, id: &str| {
        let policy = preset(name);
        let (source, key) = (&policy.sources[0], &policy.sources[0].signing_keys[0]);
        sign::sign(source, key, b"{}", id, NOW)
    };
    for (name, header) in [
        ("standard-webhooks", "webhook-id"),
        ("svix", "svix-id"),
        ("gitlab", "webhook-id"),
    ] {
        for id in [
            "msg.1",
            "task_kling-2.6_1765182425861",
            "a.176967076.b",
            ".",
        ] {
            let mut request = Request::unsigned("{}").with(":path", PATH);
            for (header, value) in signed(name, id).unwrap() {
                request = request.and(&header, &value);
            }
            check(preset(name), &request, NOW, Code::Forwarded);
            // The same bytes under another cut.
            let other = request.clone().with(header, "msg");
            check(preset(name), &other, NOW, Code::SignatureMismatch);
            check(preset(name), &request.without(header), NOW, Code::IdMissing);
        }
        // The id `a` with the time 1111111111 and a body that begins with `b.` is signed alike.
        for id in ["a.1111111111.b", "a.1769670760.1769670760", ".1769670760."] {
            let refused = signed(name, id).unwrap_err();
            assert_eq!(refused.code(), Code::IdMalformed, "{name}: {id}");
        }
    }
    // Nothing is behind the ten digits at the end, so any id is one.
    for id in [
        "a.b",
        "task_kling-2.6_1765182425861",
        "a.1769670760.1769670760",
    ] {
        let request = genuine(&preset("suno"), &body(id, NOW), NOW);
        check(preset("suno"), &request, NOW, Code::Forwarded);
    }
}

#[test]
fn an_event_is_known_by_what_its_sender_signs() {
    // The id in the signed body: the same event, however it is spelled the second time.
    for name in [
        "stripe",
        "slack",
        "paddle",
        "mux",
        "square",
        "pagerduty",
        "typeform",
    ] {
        let first = genuine(&preset(name), &body("event-1", NOW), NOW);
        let spaced = body("event-1", NOW).replacen('{', "{ ", 1);
        let second = genuine(&preset(name), &spaced, NOW);
        assert!(
            check_after(preset(name), &first, &second, Code::Duplicate),
            "{name}"
        );
        let second = genuine(&preset(name), &body("event-2", NOW), NOW);
        check_after(preset(name), &first, &second, Code::Forwarded);
        // Without an id it is the body.
        let anonymous = genuine(&preset(name), r#"{"a":1}"#, NOW);
        check_after(preset(name), &anonymous, &anonymous, Code::Duplicate);
        let other = genuine(&preset(name), r#"{"a":2}"#, NOW);
        check_after(preset(name), &anonymous, &other, Code::Forwarded);
    }
    // An id in a header that nobody signs: a replay under another id is a duplicate all the same.
    for (name, header) in [
        ("github", "x-github-delivery"),
        ("shopify", "x-shopify-webhook-id"),
        ("linear", "linear-delivery"),
    ] {
        let request = genuine(&preset(name), &body("event-1", NOW), NOW);
        let (first, second) = (request.clone().with(header, "1"), request.with(header, "2"));
        check_after(preset(name), &first, &second, Code::Duplicate);
        // Who trusts that header says so.
        let trusting = configured(name, |source| {
            source["dedupe"] = json!({ "key": [{ "header": header }] });
        });
        check_after(trusting, &first, &second, Code::Forwarded);
    }
    // The id in a signed header.
    for name in ["standard-webhooks", "svix", "gitlab"] {
        let first = genuine(&preset(name), r#"{"a":1}"#, NOW);
        let second = genuine(&preset(name), r#"{"a":2}"#, NOW);
        assert!(
            check_after(preset(name), &first, &second, Code::Duplicate),
            "{name}"
        );
    }
}

#[test]
fn one_signature_of_several_is_enough() {
    let wrong = "0".repeat(64);
    let hex = |request: &Request, header: &str| {
        let value = request
            .headers
            .iter()
            .find(|(name, _)| name == header.as_bytes());
        String::from_utf8(value.unwrap().1.clone()).unwrap()
    };
    for (name, header, extended) in [
        (
            "stripe",
            "stripe-signature",
            format!("v1={wrong},v0=x,SIGNATURE"),
        ),
        (
            "stripe",
            "stripe-signature",
            format!("SIGNATURE, v1={wrong}"),
        ),
        ("mux", "mux-signature", format!("v1={wrong},SIGNATURE")),
        (
            "paddle",
            "paddle-signature",
            format!("h1={wrong};SIGNATURE;h2=x"),
        ),
        (
            "pagerduty",
            "x-pagerduty-signature",
            format!("v1={wrong},v2=x,SIGNATURE"),
        ),
        (
            "standard-webhooks",
            "webhook-signature",
            "v1a,eA== v1,eA== SIGNATURE".to_owned(),
        ),
    ] {
        let request = genuine(&preset(name), &body("event-1", NOW), NOW);
        let signature = hex(&request, header);
        let several = request
            .clone()
            .with(header, &extended.replace("SIGNATURE", &signature));
        check(preset(name), &several, NOW, Code::Forwarded);
        let none = request.with(
            header,
            &extended.replace("v1=", "v2=").replace("SIGNATURE", ""),
        );
        let (_, seen) = Host::new(preset(name)).send(&none, NOW);
        assert_eq!(seen.code().unwrap().status(), 401, "{name}: {seen:?}");
    }
    // The time stands once, or not at all.
    let request = genuine(&preset("stripe"), &body("event-1", NOW), NOW);
    let signature = hex(&request, "stripe-signature");
    let (time, rest) = signature.split_once(',').unwrap();
    for (value, code) in [
        (rest.to_owned(), Code::TimestampMissing),
        (format!("{time},{time},{rest}"), Code::TimestampAmbiguous),
        (format!("t=1,{rest}"), Code::TimestampMalformed),
        (time.to_owned(), Code::SignatureMalformed),
    ] {
        check(
            preset("stripe"),
            &request.clone().with("stripe-signature", &value),
            NOW,
            code,
        );
    }
    // DocuSign: one header for each active key.
    let request = genuine(&preset("docusign"), &body("event-1", NOW), NOW);
    let signature = hex(&request, "x-docusign-signature-1");
    let wrong = format!("{}=", "A".repeat(43));
    for number in [2, 100] {
        let request = request
            .clone()
            .with("x-docusign-signature-1", &wrong)
            .and(&format!("x-docusign-signature-{number}"), &signature);
        check(preset("docusign"), &request, NOW, Code::Forwarded);
    }
    for number in ["0", "01", "101", "x", ""] {
        let request = request
            .clone()
            .without("x-docusign-signature-1")
            .and(&format!("x-docusign-signature-{number}"), &signature);
        check(preset("docusign"), &request, NOW, Code::SignatureMissing);
    }
    let request = request.and("x-docusign-signature-1", &signature);
    check(preset("docusign"), &request, NOW, Code::SignatureAmbiguous);
}

#[test]
fn a_form_is_signed_as_it_is_and_json_cannot_pass_for_one() {
    let slack = || preset("slack");
    let form = genuine(&slack(), "command=%2Fdeploy&text=now", NOW).with("content-type", FORM);
    check(slack(), &form, NOW, Code::Forwarded);
    check_after(slack(), &form, &form, Code::Duplicate);
    check(
        slack(),
        &form.clone().body("command=%2Fdeploy&text=noW"),
        NOW,
        Code::SignatureMismatch,
    );
    check(
        slack(),
        &form.with("content-type", "application/json"),
        NOW,
        Code::JsonMalformed,
    );
    // The content type is not signed: a replay must not get another key by changing it.
    for text in [
        body("event-1", NOW),
        format!(" \t\r\n{}", body("event-1", NOW)),
    ] {
        let event = genuine(&slack(), &text, NOW);
        let disguised = event.clone().with("content-type", FORM);
        check_after(slack(), &event, &disguised, Code::UnsupportedMediaType);
    }
    let form = genuine(&preset("stripe"), "a=b", NOW).with("content-type", FORM);
    check(preset("stripe"), &form, NOW, Code::UnsupportedMediaType);
}

#[test]
fn the_signed_time_in_the_body_counts_not_the_header() {
    let stale = UnixMillis::from_seconds(NOW.as_seconds() - 61);
    let request = genuine(&preset("linear"), &body("event-1", stale), stale)
        .and("linear-timestamp", &NOW.as_millis().to_string());
    check(preset("linear"), &request, NOW, Code::TimestampTooOld);
    let request = genuine(&preset("linear"), "{}", NOW);
    check(preset("linear"), &request, NOW, Code::TimestampMissing);
    let at = &preset("linear").sources[0].scheme;
    assert!(matches!(
        at.timestamp().unwrap().place,
        TimestampPlace::Pointer(_)
    ));
}

#[test]
fn a_token_stands_for_a_signature() {
    let at = |token: Value| {
        move || {
            configured("sunoapi-token", |source| {
                source["token"] = token.clone();
                source["match"] = json!({ "path_prefix": PATH });
                source["secrets"] =
                    json!([{ "value": "current-token-16" }, { "value": "previous-token-1" }]);
            })
        }
    };
    let text = body("event-1", NOW);
    let plain = Request::unsigned(&text).with(":path", PATH);
    let header = at(json!({ "header": "X-Token" }));
    for (request, code) in [
        (
            plain.clone().and("x-token", "current-token-16"),
            Code::Forwarded,
        ),
        (
            plain.clone().and("x-token", "previous-token-1"),
            Code::Forwarded,
        ),
        (plain.clone(), Code::SignatureMissing),
        (plain.clone().and("x-token", ""), Code::SignatureMalformed),
        (
            plain.clone().and("x-token", "current-token-1"),
            Code::SignatureMismatch,
        ),
        (
            plain
                .clone()
                .and("x-token", "current-token-16previous-token-1"),
            Code::SignatureMismatch,
        ),
        (
            plain
                .clone()
                .and("x-token", "current-token-16")
                .and("x-token", "current-token-16"),
            Code::SignatureAmbiguous,
        ),
    ] {
        check(header(), &request, NOW, code);
    }
    let query = at(json!({ "query": "token" }));
    let segment = at(json!({ "path_segment": true }));
    for (policy, target, code) in [
        (
            query(),
            "/callbacks?token=current-token-16",
            Code::Forwarded,
        ),
        (
            query(),
            "/callbacks?a=b&token=previous-token-1",
            Code::Forwarded,
        ),
        (query(), "/callbacks", Code::SignatureMissing),
        (query(), "/callbacks?token=x", Code::SignatureMismatch),
        (
            query(),
            "/callbacks?token=current-token-16&token=current-token-16",
            Code::SignatureAmbiguous,
        ),
        (segment(), "/callbacks/current-token-16", Code::Forwarded),
        (
            segment(),
            "/callbacks/a/previous-token-1?b",
            Code::Forwarded,
        ),
        (segment(), "/callbacks", Code::SignatureMissing),
        (segment(), "/callbacks/x", Code::SignatureMismatch),
    ] {
        check(policy, &plain.clone().with(":path", target), NOW, code);
    }
    // It is checked with the head: a flood without it is never held.
    let mut host = Host::new(header());
    let (_, seen) = host.send(&plain.clone().body("no json").and("x-token", "x"), NOW);
    assert_eq!(seen.code(), Some(Code::SignatureMismatch));
    // The rest is as for a signed callback of the same sender.
    let request = plain.and("x-token", "current-token-16");
    check_after(header(), &request, &request, Code::Duplicate);
    check(
        header(),
        &request.body(r#"{"code":200}"#),
        NOW,
        Code::IdMissing,
    );
}

fn texts(values: &Value) -> Vec<String> {
    let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = values.iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

#[test]
fn the_compact_table_is_the_table_without_what_is_for_people() {
    let mut table = table().to_vec();
    for entry in &mut table {
        let entry = entry.as_object_mut().unwrap();
        for told in ["sender", "source", "products", "reply", "unconfirmed"] {
            entry.remove(told);
        }
    }
    let compact = serde_json::to_string(&table).unwrap() + "\n";
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../config/src/presets.compact.json"
    );
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &compact).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == compact,
        "run: BLESS=1 cargo test -p callback-guard-core --test it presets"
    );
}
