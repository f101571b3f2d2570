//! The words of `sources[].signature` and `sources[].token`, each with what it accepts, what it refuses
//! and that no accepted message has a second reading.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use callback_guard_config as config;
use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::{Algorithm, Key};
use callback_guard_core::scheme::{MessageInput, Part, Proof, SignatureRule, Timestamp, Unit};
use callback_guard_core::sign::{self, Draft};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Host, NOW, Request, policy};

const SECRET: &str = "a secret of these tests";
const FORM: &str = "application/x-www-form-urlencoded";

/// A source at `/callbacks` with this scheme, and `change` applied to the source.
fn source(signature: Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut source = json!({
        "name": "sender",
        "match": { "path": "/callbacks" },
        "signature": signature,
        "secrets": [{ "value": SECRET }],
    });
    change(&mut source);
    json!({ "sources": [source] })
}

fn configured(signature: Value) -> Policy {
    policy(&source(signature, |_| {}))
}

#[track_caller]
fn refused(configuration: &Value, expected: &str) {
    match config::parse(configuration.to_string().as_bytes(), &|_| None) {
        Ok(_) => panic!("accepted: {configuration}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

fn rule(policy: &Policy) -> &SignatureRule {
    match &policy.sources[0].scheme.proof {
        Proof::Signature(rule) => rule,
        Proof::Token(_) => panic!("a token"),
    }
}

#[track_caller]
fn check(policy: Policy, request: &Request, expected: Code) {
    let (_, seen) = Host::new(policy).send(request, NOW);
    assert_eq!(seen.code(), Some(expected), "{seen:?} of {request:?}");
}

fn mac(message: &[u8]) -> Vec<u8> {
    let key = Key::secret(Algorithm::HmacSha256, SECRET.as_bytes()).unwrap();
    key.mac(&[message]).unwrap().as_slice().to_vec()
}

fn hex_mac(message: &str) -> String {
    hex::encode(mac(message.as_bytes()))
}

fn body_value() -> Value {
    json!({ "header": "x-sig", "encoding": "hex" })
}

fn at(target: &str, body: &str) -> Request {
    Request::unsigned(body).with(":path", target)
}

/// Every message that `values` make of the parts of free form and of the timestamps, in the order of
/// the message: no two that are accepted are the same bytes. How many were accepted.
#[track_caller]
fn one_reading(signature: Value, change: impl FnOnce(&mut Value), values: &[&[&str]]) -> usize {
    let policy = policy(&source(signature, change));
    let rule = rule(&policy);
    let source = &policy.sources[0];
    let parts: Vec<&Part> = rule
        .message
        .iter()
        .map(|piece| &piece.part)
        .filter(|part| !matches!(part, Part::Literal(_)))
        .collect();
    assert_eq!(parts.len(), values.len(), "{parts:?}");
    let total: usize = values.iter().map(|values| values.len()).product();
    let mut seen: BTreeMap<Vec<u8>, Vec<&str>> = BTreeMap::new();
    for number in 0..total {
        let mut rest = number;
        let chosen: Vec<&str> = values
            .iter()
            .map(|values| {
                let value = values[rest % values.len()];
                rest /= values.len();
                value
            })
            .collect();
        let mut headers: Vec<Option<Box<[u8]>>> = vec![None; source.headers.len()];
        let mut input = MessageInput::default();
        let mut stamps = Vec::new();
        for (part, value) in parts.iter().zip(&chosen) {
            let bytes = value.as_bytes();
            match part {
                Part::Body | Part::BodyDigest(_) | Part::FormSorted => input.body = bytes,
                Part::Header(index) => headers[*index] = Some(bytes.into()),
                Part::Target { target, .. } => headers[*target] = Some(bytes.into()),
                Part::Query { target, .. } => headers[*target] = Some(bytes.into()),
                Part::Id => input.id = Some(bytes),
                Part::Timestamp => stamps.push(bytes),
                other => panic!("{other:?}"),
            }
        }
        let unit = rule.timestamp.as_ref().map_or(Unit::Seconds, |at| at.unit);
        if stamps
            .iter()
            .any(|text| Timestamp::parse(text, unit).is_err())
        {
            continue;
        }
        input.timestamp = stamps.first().copied();
        input.headers = &headers;
        if let Ok(bytes) = rule.with_message(&input, |parts| parts.concat()) {
            let before = seen.insert(bytes, chosen.clone());
            assert_eq!(before, None, "the same bytes as {chosen:?}");
        }
    }
    seen.len()
}

const STAMPS: &[&str] = &["1111111111", "1769670760"];
const TIMES: &[&str] = &[
    "2026-01-29T07:12:40Z",
    "2026-01-29T07:12:40.5Z",
    "2026-01-29T07:12:40+01:00",
    "2011-01-29T07:12:40Z",
];

#[test]
fn no_message_of_an_id_a_time_and_a_body_has_a_second_reading() {
    let ids = &[
        "a",
        "a.b",
        ".",
        "a.1111111111",
        "a.1111111111.",
        "a.1111111111.x",
        "1111111111.a",
        ".1111111111.",
        "a.1769670760.1111111111",
        "a.1769670760.1111111111.",
    ];
    let bodies = &[
        "",
        "x",
        ".x",
        "x.1111111111.y",
        ".1111111111.",
        "1111111111.x",
        "x.1769670760.y",
        "1769670760.1111111111.x",
    ];
    let dotted = json!({
        "message": [{ "id": true }, { "literal": "." }, { "timestamp": true }, { "literal": "." }, { "body": true }],
        "value": body_value(),
        "timestamp": { "header": "x-time" },
        "id": { "header": "x-id" },
    });
    assert_eq!(one_reading(dotted, |_| {}, &[ids, STAMPS, bodies]), 64);
    let short = json!({
        "message": [{ "id": true }, { "literal": "." }, { "timestamp": true }],
        "value": body_value(),
        "timestamp": { "header": "x-time" },
        "id": { "header": "x-id" },
    });
    // Whatever an id holds: the last ten digits are the time.
    assert_eq!(one_reading(short, |_| {}, &[ids, STAMPS]), 20);
}

#[test]
fn no_message_with_a_time_of_rfc_3339_has_a_second_reading() {
    let twitch = json!({
        "message": [{ "id": true }, { "timestamp": true }, { "body": true }],
        "value": body_value(),
        "timestamp": { "header": "x-time", "unit": "rfc3339" },
        "id": { "header": "x-id" },
    });
    let ids = &[
        "a",
        "1",
        "a2026-01-29T07:12:40Z",
        "a2026-01-29T07:12:40Z{",
        "2026",
        "2026-01-29T07:12:40",
        "1111",
        "-1",
    ];
    let bodies = &[
        "{}",
        "",
        "Z",
        "{2026-01-29T07:12:40Z}",
        "2026-01-29T07:12:40.5Z",
        ".5Z",
        "+01:00",
    ];
    assert!(one_reading(twitch, |_| {}, &[ids, TIMES, bodies]) >= 100);
    let boxed = json!({
        "message": [{ "body": true }, { "timestamp": true }],
        "value": body_value(),
        "timestamp": { "header": "x-time", "unit": "rfc3339" },
    });
    let bodies = &[
        "{}",
        "",
        "1",
        "2026-01-29T07:12:40Z",
        "x2026-01-29T07:12:40",
        "2026-",
    ];
    assert_eq!(one_reading(boxed, |_| {}, &[bodies, TIMES]), 24);
}

#[test]
fn no_message_with_a_fixed_form_has_a_second_reading() {
    let uuids = &[
        "00000000-0000-4000-8000-000000000000",
        "11111111-1111-4111-8111-111111111111",
        "11111111-1111-4111-8111-11111111111",
        "11111111-1111-4111-8111-1111111111111",
        "1111111111114111811111111111111111111",
        "",
    ];
    let bodies = &["", "1", "{}", "11111111-1111-4111-8111-111111111111"];
    let message =
        json!([{ "header": "x-nonce", "form": "uuid" }, { "timestamp": true }, { "body": true }]);
    let signature = json!({
        "message": message,
        "value": body_value(),
        "timestamp": { "header": "x-time" },
    });
    // Those two that are UUIDs.
    assert_eq!(
        one_reading(signature, |_| {}, &[uuids, STAMPS, bodies]),
        2 * 2 * 4
    );
    let digest = json!({
        "message": [
            { "header": "x-a" }, { "literal": "\n" }, { "timestamp": true }, { "literal": "\n" },
            { "body_digest": "sha256", "encoding": "hex" },
        ],
        "value": body_value(),
        "timestamp": { "header": "x-time" },
    });
    let values = &["", "a", "a\n", "\n1111111111\n", "a\n1111111111\nb"];
    assert!(one_reading(digest, |_| {}, &[values, STAMPS, bodies]) >= 40);
}

#[test]
fn no_message_with_a_url_has_a_second_reading() {
    let targets = &[
        "/callbacks",
        "/callbacks?",
        "/callbacks?a=1",
        "/callbacks?a=1&b=2",
        "/callbacks?a=1&b=2x",
        "/callbacks/x",
        "/callbacks?a=1{",
        "/callbacks?a=1&b=2\n1111111111\n",
    ];
    let bodies = &["", "x", "{}", "?a=1", "?a=1&b=2", "&b=2", "/x", "2x", "{{}"];
    // Nothing between URL and body: the URL is the configured one.
    let hubspot = |url: &str| {
        json!({
            "message": [{ "method": true }, { "url": url }, { "body": true }, { "timestamp": true }],
            "value": body_value(),
            "timestamp": { "header": "x-time" },
        })
    };
    let accepted = one_reading(
        hubspot("https://hooks.example.com"),
        |_| {},
        &[targets, bodies, STAMPS],
    );
    assert_eq!(accepted, 9 * 2);
    let accepted = one_reading(
        hubspot("https://hooks.example.com?a=1"),
        |_| {},
        &[targets, bodies, STAMPS],
    );
    assert_eq!(accepted, 9 * 2);
    // Behind the body its own beginning shows where it begins.
    let trello = json!({
        "message": [{ "body": true }, { "url": "https://hooks.example.com" }],
        "value": body_value(),
    });
    assert_eq!(one_reading(trello, |_| {}, &[bodies, targets]), 72);
    // With a literal between, any query is accepted, unless it holds what separates it.
    let separated = json!({
        "message": [
            { "url": "https://hooks.example.com" }, { "literal": "\n" }, { "timestamp": true },
            { "literal": "\n" }, { "body": true },
        ],
        "value": body_value(),
        "timestamp": { "header": "x-time" },
    });
    let accepted = one_reading(separated, |_| {}, &[targets, STAMPS, bodies]);
    assert_eq!(accepted, 7 * 2 * 9);
}

#[test]
fn no_message_with_a_sorted_form_has_a_second_reading_but_that_of_its_fields() {
    let twilio = json!({
        "message": [{ "url": "https://hooks.example.com" }, { "form_sorted": true }],
        "value": body_value(),
    });
    let hash = |body: &str| {
        format!(
            "/callbacks?bodySHA256={}",
            hex::encode(Sha256::digest(body))
        )
    };
    let (first, second) = (hash("a=1"), hash("{}"));
    let name = format!("%3FbodySHA256%3D{}", hex::encode(Sha256::digest("{}")));
    let targets = &[
        "/callbacks",
        "/callbacks?",
        "/callbacks?a",
        "/callbacks?a=1",
        &first,
        &second,
    ];
    let bodies = &[
        "", "a=1", "b=2&c=3", "{}", "%3Fa=1", "%3Fa%3D1", &name, "&a=1",
    ];
    let policy = configured(twilio.clone());
    let rule = rule(&policy);
    let mut seen: BTreeMap<Vec<u8>, (String, Vec<u8>)> = BTreeMap::new();
    for target in targets {
        for body in bodies {
            let headers = [Some(target.as_bytes().into())];
            let input = MessageInput {
                body: body.as_bytes(),
                headers: &headers,
                ..MessageInput::default()
            };
            if let Ok(bytes) = rule.with_message(&input, |parts| parts.concat()) {
                // What the fields say, without their order and their escapes.
                let mut fields: Vec<&str> =
                    body.split('&').filter(|pair| !pair.is_empty()).collect();
                fields.sort_unstable();
                let reading = (target.to_string(), fields.join("&").into_bytes());
                if let Some(before) = seen.insert(bytes, reading.clone()) {
                    assert_eq!(before, reading);
                }
            }
        }
    }
    // Three forms to the plain path (one of them in two orders of nothing), a hash for each body.
    assert_eq!(seen.len(), 6);
    refused(
        &source(twilio, |source| {
            source["match"] = json!({ "path_prefix": "/callbacks" });
        }),
        "sources[0].signature.message: holds a URL whose end nothing shows, so the path must be \
         exact, expected `match.path`",
    );
}

#[test]
fn no_message_with_a_value_of_the_query_has_a_second_reading() {
    let mercado_pago = json!({
        "message": [
            { "literal": "id:" }, { "query": "data.id" }, { "literal": ";request-id:" },
            { "header": "x-request-id" }, { "literal": ";ts:" }, { "timestamp": true }, { "literal": ";" },
            { "body_digest": "sha256" },
        ],
        "value": body_value(),
        "timestamp": { "header": "x-time" },
    });
    let queries = &[
        "/callbacks?data.id=1",
        "/callbacks?data.id=",
        "/callbacks?data.id=1%3Brequest-id%3A2",
        "/callbacks?data.id=1;request-id:2;ts:1111111111;",
        "/callbacks?data.id=1&data.id=2",
        "/callbacks?data%2Eid=2",
        "/callbacks",
    ];
    let requests = &[
        "",
        "2",
        "2;request-id:3",
        "2;ts:1111111111;",
        ";request-id:",
    ];
    let accepted = one_reading(mercado_pago, |_| {}, &[queries, requests, STAMPS, &["x"]]);
    assert!(accepted >= 18, "{accepted}");
}

#[test]
fn a_request_without_a_signed_part_is_no_match_and_no_fault() {
    let unsigned = |target: &str, body: &str| at(target, body).and("x-sig", &"0".repeat(64));
    let body = r#"{"id":"a"}"#;
    let by = |part: Value| {
        configured(json!({
            "message": [part, { "literal": "." }, { "id": true }, { "literal": "." }, { "timestamp": true }],
            "value": body_value(),
            "timestamp": { "header": "x-time" },
            "id": { "pointers": ["/id"] },
        }))
    };
    let stamp = NOW.as_seconds().to_string();
    for part in [
        json!({ "pointer": "/x" }),
        json!({ "header": "x-a" }),
        json!({ "query": "a" }),
    ] {
        let request = unsigned("/callbacks", body).and("x-time", &stamp);
        check(by(part), &request, Code::SignatureMismatch);
    }
    let request = unsigned("/callbacks", r#"{"id":"a","x":null}"#).and("x-time", &stamp);
    check(
        by(json!({ "pointer": "/x" })),
        &request,
        Code::SignatureMismatch,
    );
    let message = format!(".a.{stamp}");
    let request = at("/callbacks", body)
        .and("x-time", &stamp)
        .and("x-sig", &hex_mac(&message));
    let optional = json!({ "pointer": "/x", "optional": true });
    check(by(optional), &request, Code::Forwarded);
}

#[test]
fn numbers_keep_their_own_bytes_and_a_second_item_is_refused() {
    let policy = || {
        configured(json!({
            "message": [
                { "id": true }, { "literal": ":" }, { "pointer": "/items/0/old", "optional": true },
                { "literal": ":" }, { "pointer": "/items/0/value" },
            ],
            "value": { "pointer": "/items/0/mac", "encoding": "hex" },
            "id": { "pointers": ["/items/0/ref"] },
        }))
    };
    let body = |mac: &str, value: &str, more: &str| {
        format!(r#"{{"items":[{{"ref":"r","value":{value},"mac":"{mac}"}}{more}]}}"#)
    };
    let signed = hex_mac("r::1.10");
    check(
        policy(),
        &at("/callbacks", &body(&signed, "1.10", "")),
        Code::Forwarded,
    );
    check(
        policy(),
        &at("/callbacks", &body(&signed, "1.1", "")),
        Code::SignatureMismatch,
    );
    check(
        policy(),
        &at("/callbacks", &body(&signed, "1.10", r#",{"ref":"other"}"#)),
        Code::PayloadInvalid,
    );
    check(
        policy(),
        &at("/callbacks", r#"{"items":[{"ref":"r","value":1}]}"#),
        Code::SignatureMissing,
    );
    check(
        policy(),
        &at("/callbacks", &body("x", "1.10", "")),
        Code::SignatureMalformed,
    );
}

#[test]
fn a_signed_time_may_be_inside_the_body() {
    let policy = || {
        configured(json!({
            "message": [{ "timestamp": true }, { "id": true }],
            "value": { "pointer": "/signature/signature", "encoding": "hex" },
            "timestamp": { "pointer": "/signature/timestamp" },
            "id": { "pointers": ["/signature/token"] },
        }))
    };
    let body = |stamp: &str, mac: &str| {
        json!({ "signature": { "timestamp": stamp, "token": "tok", "signature": mac } }).to_string()
    };
    let now = NOW.as_seconds();
    for (stamp, code) in [
        (now, Code::Forwarded),
        (now - 300, Code::Forwarded),
        (now - 301, Code::TimestampTooOld),
        (now + 61, Code::TimestampInFuture),
    ] {
        let mac = hex_mac(&format!("{stamp}tok"));
        check(
            policy(),
            &at("/callbacks", &body(&stamp.to_string(), &mac)),
            code,
        );
    }
    let mac = hex_mac(&format!("{now}tok"));
    let other = body(&(now - 1).to_string(), &mac);
    check(policy(), &at("/callbacks", &other), Code::SignatureMismatch);
}

#[test]
fn a_signature_is_written_in_one_encoding() {
    // One whose spellings differ.
    let body = (0..)
        .map(|number| format!(r#"{{"n":{number}}}"#))
        .find(|body| STANDARD.encode(mac(body.as_bytes())).contains(['+', '/']))
        .unwrap();
    let signature = mac(body.as_bytes());
    let standard = STANDARD.encode(&signature);
    let unpadded = STANDARD_NO_PAD.encode(&signature);
    let url = URL_SAFE.encode(&signature);
    let url_unpadded = URL_SAFE_NO_PAD.encode(&signature);
    for (value, texts) in [
        (
            json!({ "header": "x-sig", "encoding": "base64" }),
            [true, false, false, false],
        ),
        (
            json!({ "header": "x-sig", "encoding": "base64", "padding": "optional" }),
            [true, true, false, false],
        ),
        (
            json!({ "header": "x-sig", "encoding": "base64url" }),
            [false, false, true, true],
        ),
    ] {
        let policy = || configured(json!({ "message": [{ "body": true }], "value": value }));
        for (text, is_right) in [&standard, &unpadded, &url, &url_unpadded]
            .into_iter()
            .zip(texts)
        {
            let code = if is_right {
                Code::Forwarded
            } else {
                Code::SignatureMalformed
            };
            check(policy(), &at("/callbacks", &body).and("x-sig", text), code);
        }
    }
    refused(
        &source(
            json!({ "message": [{ "body": true }], "value": { "header": "x", "encoding": "hex", "padding": "optional" } }),
            |_| {},
        ),
        "sources[0].signature.value.padding: is of base64, and the encoding is `hex`",
    );
}

#[test]
fn several_values_in_one_entry_and_several_headers() {
    let good = hex_mac("{}");
    let bad = "0".repeat(64);
    let by = |value: Value| configured(json!({ "message": [{ "body": true }], "value": value }));
    let outpost = json!({ "header": "x-sig", "separator": ",", "prefix": "v0=", "encoding": "hex", "continued": true });
    let plain = json!({ "header": "x-sig", "separator": ",", "prefix": "v0=", "encoding": "hex" });
    let request = |value: &str| at("/callbacks", "{}").and("x-sig", value);
    for (text, continued, not) in [
        (format!("v0={good}"), Code::Forwarded, Code::Forwarded),
        (
            format!("v0={bad},{good}"),
            Code::Forwarded,
            Code::SignatureMismatch,
        ),
        (
            format!("v0={bad}, {good}"),
            Code::Forwarded,
            Code::SignatureMismatch,
        ),
        (
            format!("v0={bad},v1={good}"),
            Code::SignatureMismatch,
            Code::SignatureMismatch,
        ),
        (
            format!("{good},v0={bad}"),
            Code::SignatureMismatch,
            Code::SignatureMismatch,
        ),
        (
            good.clone(),
            Code::SignatureMalformed,
            Code::SignatureMalformed,
        ),
    ] {
        check(by(outpost.clone()), &request(&text), continued);
        check(by(plain.clone()), &request(&text), not);
    }
    let fields = json!({ "header": "x-sig", "separator": ",", "key": "v1", "encoding": "base64", "continued": true });
    let good = STANDARD.encode(mac(b"{}"));
    let bad = STANDARD.encode([0; 32]);
    check(
        by(fields),
        &request(&format!("t=1,v1={bad},{good}")),
        Code::Forwarded,
    );

    let two = || by(json!({ "header": ["x-first", "x-second"], "encoding": "base64" }));
    let empty = at("/callbacks", "{}");
    for (first, second, code) in [
        (Some(&good), None, Code::Forwarded),
        (None, Some(&good), Code::Forwarded),
        (Some(&bad), Some(&good), Code::Forwarded),
        (Some(&bad), Some(&bad), Code::SignatureMismatch),
        (None, None, Code::SignatureMissing),
    ] {
        let mut request = empty.clone();
        for (name, value) in [("x-first", first), ("x-second", second)] {
            if let Some(value) = value {
                request = request.and(name, value);
            }
        }
        check(two(), &request, code);
    }
    let twice = empty
        .and("x-first", &good)
        .and("x-second", &good)
        .and("x-second", &good);
    check(two(), &twice, Code::SignatureAmbiguous);
}

#[test]
fn a_signature_may_be_in_the_query() {
    let policy = || {
        configured(json!({
            "message": [{ "body": true }],
            "value": { "query": "signature", "encoding": "hex" },
        }))
    };
    let good = hex_mac("{}");
    for (target, code) in [
        (format!("/callbacks?signature={good}"), Code::Forwarded),
        (
            format!("/callbacks?a=b&signature={good}&c"),
            Code::Forwarded,
        ),
        ("/callbacks".to_owned(), Code::SignatureMissing),
        ("/callbacks?signature=".to_owned(), Code::SignatureMalformed),
        (
            format!("/callbacks?signature={good}&signature={good}"),
            Code::SignatureAmbiguous,
        ),
        (
            format!("/callbacks?signature={}", "0".repeat(64)),
            Code::SignatureMismatch,
        ),
    ] {
        check(policy(), &at(&target, "{}"), code);
    }
}

#[test]
fn a_form_is_signed_field_by_field_and_named_by_what_is_signed() {
    let policy = || {
        policy(&source(
            json!({
                "message": [{ "url": "https://hooks.example.com?foo=1" }, { "form_sorted": true }],
                "value": body_value(),
            }),
            |source| source["content_types"] = json!([FORM, "application/json"]),
        ))
    };
    let signed = hex_mac("https://hooks.example.com/callbacks?foo=1AaBb cBd");
    let form = |target: &str, body: &str| {
        at(target, body)
            .with("content-type", FORM)
            .and("x-sig", &signed)
    };
    let target = "/callbacks?foo=1";
    check(policy(), &form(target, "B=b+c&A=a&B=d"), Code::Forwarded);
    for (target, body) in [
        (target, "A=a&B=b+c"),
        (target, "A=a&B=b+c&B=d&C="),
        ("/callbacks", "A=a&B=b+c&B=d"),
        ("/callbacks?foo=2", "A=a&B=b+c&B=d"),
        ("/callbacks?foo=1A", "a=&B=b+c&B=d"),
    ] {
        check(policy(), &form(target, body), Code::SignatureMismatch);
    }
    // Another order of the same fields is the same event.
    let mut host = Host::new(policy());
    let (guard, _) = host.send(&form(target, "A=a&B=b+c&B=d"), NOW);
    host.settle(guard, callback_guard_core::worker::Outcome::Accepted, NOW);
    let (_, seen) = host.send(&form(target, "B=d&B=b%20c&A=a"), NOW);
    assert_eq!(seen.code(), Some(Code::Duplicate));
    // JSON is covered by its hash in the query, or by nothing.
    let body = r#"{"a":1}"#;
    let target = format!("{target}&bodySHA256={}", hex::encode(Sha256::digest(body)));
    let signed = hex_mac(&format!("https://hooks.example.com{target}"));
    let json = |body: &str| at(&target, body).and("x-sig", &signed);
    check(policy(), &json(body), Code::Forwarded);
    check(policy(), &json(r#"{"a":2}"#), Code::SignatureMismatch);
    let plain = hex_mac("https://hooks.example.com/callbacks?foo=1{\"a\":1}");
    let request = at("/callbacks?foo=1", body).and("x-sig", &plain);
    check(policy(), &request, Code::SignatureMismatch);
}

#[test]
fn a_token_may_be_in_the_body_or_in_basic_authorization() {
    let by = |token: Value| {
        let mut configuration = source(Value::Null, |source| {
            let source = source.as_object_mut().unwrap();
            source.remove("signature");
            source.insert("token".into(), token);
        });
        configuration["sources"][0]["secrets"][0]["value"] = json!("user:pass wörds");
        policy(&configuration)
    };
    let inside = || by(json!({ "pointer": "/passcode" }));
    for (body, code) in [
        (json!({ "passcode": "user:pass wörds" }), Code::Forwarded),
        (json!({ "passcode": "user:pass" }), Code::SignatureMismatch),
        (json!({ "passcode": "" }), Code::SignatureMalformed),
        (json!({ "passcode": null }), Code::SignatureMissing),
        (json!({}), Code::SignatureMissing),
    ] {
        check(inside(), &at("/callbacks", &body.to_string()), code);
    }
    let basic = || by(json!({ "basic": true }));
    let header = |value: &str| at("/callbacks", "{}").and("authorization", value);
    let encoded = STANDARD.encode("user:pass wörds");
    for (value, code) in [
        (format!("Basic {encoded}"), Code::Forwarded),
        (format!("basic  {encoded}"), Code::Forwarded),
        (
            format!("Basic {}", STANDARD.encode("user:pass")),
            Code::SignatureMismatch,
        ),
        (format!("Bearer {encoded}"), Code::SignatureMalformed),
        ("Basic".to_owned(), Code::SignatureMalformed),
        ("Basic !".to_owned(), Code::SignatureMalformed),
    ] {
        check(basic(), &header(&value), code);
    }
    check(basic(), &at("/callbacks", "{}"), Code::SignatureMissing);
}

#[test]
fn words_that_would_not_protect_are_refused() {
    let scheme = |change: fn(&mut Value)| {
        let mut signature = json!({
            "message": [{ "body": true }],
            "value": body_value(),
        });
        change(&mut signature);
        source(signature, |_| {})
    };
    for (configuration, problem) in [
        (
            scheme(|s| s["id"] = json!({ "header": "x-id" })),
            "signature.id.header: is no part of the message, so whoever replays a callback could \
             give it any id",
        ),
        (
            scheme(|s| {
                s["message"] =
                    json!([{ "pointer": "/a" }, { "literal": "." }, { "timestamp": true }]);
                s["timestamp"] = json!({ "header": "x-time" });
                s["id"] = json!({ "pointers": ["/b"] });
            }),
            "signature.id.pointers: is no part of the message, and the body is not signed, so \
             whoever replays a callback could give it any id",
        ),
        (
            scheme(|s| s["value"] = json!({ "pointer": "/sig", "encoding": "hex" })),
            "signature.value: is inside the body, which is signed: no body holds its own signature",
        ),
        (
            scheme(|s| s["message"] = json!([{ "body": true }, { "form_sorted": true }])),
            "signature.message: holds the body twice",
        ),
        (
            scheme(|s| s["message"] = json!([{ "query": "a" }, { "body": true }])),
            "signature.message: has two parts of free length with no literal between that ends \
             one, so it could be cut in two ways",
        ),
        (
            scheme(|s| {
                s["message"] =
                    json!([{ "header": "x-a" }, { "timestamp": true }, { "body": true }]);
                s["timestamp"] = json!({ "header": "x-time" });
            }),
            "signature.message: has two parts of free length with no literal between that ends \
             one, so it could be cut in two ways",
        ),
        (
            scheme(|s| s["message"] = json!([{ "url": "hooks.example.com" }, { "body": true }])),
            "signature.message[0].url: expected the public URL up to the path that the proxy gets, \
             without a `/` at its end, such as `https://hooks.example.com`",
        ),
        (
            scheme(|s| s["message"] = json!([{ "body": true, "optional": true }])),
            "signature.message[0].optional: does not belong to this part",
        ),
        (
            source(
                json!({ "message": [{ "body": true }], "value": body_value() }),
                |source| {
                    source["tolerance_seconds"] = json!(10);
                },
            ),
            "tolerance_seconds: does nothing, as the sender signs no time, expected none",
        ),
    ] {
        refused(&configuration, &format!("sources[0].{problem}"));
    }
}

#[test]
fn what_is_signed_is_what_verifies_wherever_it_is_put() {
    let schemes = [
        json!({ "message": [{ "body": true }], "value": { "query": "sig", "encoding": "hex" } }),
        json!({
            "message": [{ "timestamp": true }, { "id": true }],
            "value": { "pointer": "/s/sig", "encoding": "base64url" },
            "timestamp": { "pointer": "/s/time", "unit": "rfc3339" },
            "id": { "pointers": ["/id"] },
        }),
        json!({
            "message": [{ "id": true }, { "timestamp": true }, { "body": true }],
            "value": { "header": ["x-a", "x-b"], "encoding": "hex" },
            "timestamp": { "header": "x-time", "unit": "rfc3339" },
            "id": { "header": "x-id" },
        }),
        json!({
            "message": [{ "method": true }, { "url": "https://h.example" }, { "body": true }],
            "value": { "header": "x-a", "separator": ",", "key": "v1", "encoding": "hex", "continued": true },
        }),
    ];
    for scheme in schemes {
        let policy = || configured(scheme.clone());
        let made = {
            let policy = policy();
            let source = &policy.sources[0];
            let draft = Draft {
                target: "/callbacks",
                is_json: true,
                body: br#"{"id":"event-1"}"#,
                id: "event-1",
            };
            sign::callback(source, &source.signing_keys[0], &draft, NOW).unwrap()
        };
        let body = String::from_utf8(made.body).unwrap();
        let mut request = at(&made.target, &body);
        for (name, value) in &made.headers {
            request = request.and(name, value);
        }
        check(policy(), &request, Code::Forwarded);
        let (_, seen) = Host::new(policy()).send(
            &request,
            UnixMillis::from_seconds(NOW.as_seconds() + 86_400),
        );
        let is_timed = policy().sources[0].scheme.timestamp().is_some();
        let code = if is_timed {
            Code::TimestampTooOld
        } else {
            Code::Forwarded
        };
        assert_eq!(seen.code(), Some(code), "{scheme}");
    }
}
