//! Challenges: what each sender asks and hears, what is refused, and that no answer signs a callback.

mod refused;

use std::sync::Arc;

use callback_guard_config as config;
use callback_guard_core::guard::Guard;
use callback_guard_core::policy::Policy;
use callback_guard_core::request::RequestHead;
use callback_guard_core::scheme::keys::{Algorithm, SigningKey};
use callback_guard_core::sign;
use callback_guard_core::verdict::Code;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{Host, NOW, Request, SECRET, Seen, policy};

const TOKEN: &str = "a verify token: 24 bytes";
const PATH: &str = "/callbacks";

fn source(preset: &str) -> Value {
    let mut source = json!({
        "name": "sender",
        "match": { "path": PATH },
        "preset": preset,
        "secrets": [{ "value": SECRET }],
    });
    if ["whatsapp", "messenger", "instagram"].contains(&preset) {
        source["parameters"] = json!({ "verify_token": TOKEN });
    }
    if ["trello", "mandrill"].contains(&preset) {
        source["parameters"] = json!({ "public_url": "https://app.example" });
    }
    if preset.starts_with("discord") {
        source.as_object_mut().unwrap().remove("secrets");
        let key = discord_key().public_spki().unwrap();
        source["public_keys"] = json!([{ "value": key, "encoding": "spki" }]);
    }
    source
}

fn discord_key() -> SigningKey {
    SigningKey::private(Algorithm::Ed25519, "07".repeat(32).as_bytes()).unwrap()
}

/// As Discord signs.
fn by_discord(preset: &str, body: &str) -> Request {
    let policy = of(&source(preset));
    let headers = sign::sign(&policy.sources[0], &discord_key(), body.as_bytes(), "", NOW);
    headers
        .unwrap()
        .iter()
        .fold(post(body), |request, (name, value)| {
            request.and(name, value)
        })
}

fn of(source: &Value) -> Policy {
    policy(&json!({ "sources": [source] }))
}

/// A request without a body, as a browser would send it.
fn bare(method: &str, target: &str) -> Request {
    Request::unsigned("")
        .without("content-type")
        .with(":method", method)
        .with(":path", target)
}

/// A body of JSON, unsigned.
fn post(body: &str) -> Request {
    Request::unsigned(body).with(":path", PATH)
}

/// A body, signed as the sender of `preset` does it, or with its token.
fn signed(preset: &str, body: &str) -> Request {
    let policy = of(&source(preset));
    Request::genuine(&policy, body, NOW).at(&policy, PATH)
}

/// Status, headers without those that every answer has, and body.
type Heard = (u16, Vec<(String, String)>, String);

#[track_caller]
fn heard(seen: &Seen) -> Heard {
    let Seen::Answered(reply) = seen else {
        panic!("{seen:?}");
    };
    assert_eq!(reply.details, "callback_guard:challenge");
    let mut headers: Vec<(String, String)> = reply
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-callback-guard", "challenge"),
    ] {
        let fixed = (name.to_owned(), value.to_owned());
        let at = headers.iter().position(|header| *header == fixed);
        headers.remove(at.unwrap_or_else(|| panic!("no {name}: {headers:?}")));
    }
    let body = String::from_utf8(reply.body.to_vec()).unwrap();
    (reply.status, headers, body)
}

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

/// What a preset's sender asks, and what it must hear.
struct Case {
    preset: &'static str,
    request: Request,
    status: u16,
    content_type: &'static str,
    header: Option<(&'static str, &'static str)>,
    body: String,
}

fn case(
    preset: &'static str,
    request: Request,
    content_type: &'static str,
    body: impl Into<String>,
) -> Case {
    Case {
        preset,
        request,
        status: 200,
        content_type,
        header: None,
        body: body.into(),
    }
}

/// Every challenge of every preset, with the bytes that the sender's documentation wants.
fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "slack",
            signed(
                "slack",
                r#"{"token":"Jhj5dZrVaK7ZwHHjRyZWjbDl","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#,
            ),
            TEXT,
            "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
        ),
        case(
            "zoom",
            signed(
                "zoom",
                r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#,
            ),
            JSON,
            r#"{"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"e5de02d6e021a2afda7b449169c53130d70bda6362c23d596dbb42c9b7abd42a"}"#,
        ),
        case(
            "x",
            bare(
                "GET",
                "/callbacks?crc_token=9b4507b3-9040-4669-9ca3-6b94edb50553&nonce=abc",
            ),
            JSON,
            r#"{"response_token":"sha256=13Q8A2BbMOVGU3duQTd+Z/MUeUkgyw2+2POTZF1hZYU="}"#,
        ),
        case(
            "linkedin",
            bare(
                "GET",
                "/callbacks?challengeCode=890e4665-4dfe-4ab1-b689-ed553bceeed0&applicationId=1",
            ),
            JSON,
            r#"{"challengeCode":"890e4665-4dfe-4ab1-b689-ed553bceeed0","challengeResponse":"54e35521c356018a48b58ac1785554fee21621258d634ebcce6b38d04aa62593"}"#,
        ),
        case(
            "dropbox",
            bare("GET", "/callbacks?challenge=abc123"),
            TEXT,
            "abc123",
        ),
        case(
            "nylas",
            bare("GET", "/callbacks?challenge=bc609b38-c81f-47fb"),
            TEXT,
            "bc609b38-c81f-47fb",
        ),
        case(
            "okta",
            bare("GET", PATH).and("x-okta-verification-challenge", "eyJhbGciOiJIUzI1NiJ9"),
            JSON,
            r#"{"verification":"eyJhbGciOiJIUzI1NiJ9"}"#,
        ),
        Case {
            header: Some(("validation-token", "b6b5a1ff-0b5c-4b4e")),
            ..case(
                "ringcentral",
                bare("POST", PATH).and("validation-token", "b6b5a1ff-0b5c-4b4e"),
                TEXT,
                "",
            )
        },
        case(
            "monday",
            signed(
                "monday",
                r#"{"challenge":"YQIn0dCoBu2zspb4TpQTXz8WKRpZOjXi9r7_7__BBA9H"}"#,
            ),
            JSON,
            r#"{"challenge":"YQIn0dCoBu2zspb4TpQTXz8WKRpZOjXi9r7_7__BBA9H"}"#,
        ),
    ];
    cases.push(case(
        "discord",
        by_discord(
            "discord",
            r#"{"id":"1","application_id":"2","type":1,"token":"t","version":1}"#,
        ),
        JSON,
        r#"{"type":1}"#,
    ));
    cases.push(Case {
        status: 204,
        ..case(
            "discord-events",
            by_discord(
                "discord-events",
                r#"{"version":1,"application_id":"2","type":0}"#,
            ),
            JSON,
            "",
        )
    });
    cases.push(case(
        "twitch",
        signed(
            "twitch",
            r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"id":"f1c2a387"}}"#,
        )
        .and(
            "twitch-eventsub-message-type",
            "webhook_callback_verification",
        ),
        TEXT,
        "pogchamp-kappa-360noscope-vohiyo",
    ));
    for preset in ["trello", "mandrill"] {
        cases.push(case(preset, bare("HEAD", PATH), TEXT, ""));
    }
    cases.push(case(
        "microsoft-graph",
        bare(
            "POST",
            "/callbacks?validationToken=Validation%3a+Testing+client+application+reachability+for+subscription+Request-Id%3a+25460850",
        ),
        TEXT,
        "Validation: Testing client application reachability for subscription Request-Id: 25460850",
    ));
    cases.push(case(
        "lark",
        post(r#"{"challenge":"ajls384kdjx98XX","token":"xxxxxx","type":"url_verification"}"#),
        JSON,
        r#"{"challenge":"ajls384kdjx98XX"}"#,
    ));
    for preset in ["whatsapp", "messenger", "instagram"] {
        cases.push(case(
            preset,
            bare(
                "GET",
                "/callbacks?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=a+verify%20token%3A+24+bytes",
            ),
            TEXT,
            "1158201444",
        ));
    }
    cases
}

#[test]
fn every_preset_hears_the_bytes_that_it_waits_for_as_often_as_it_asks() {
    for case in cases() {
        let mut headers = vec![("content-type".to_owned(), case.content_type.to_owned())];
        if let Some((name, value)) = case.header {
            headers.push((name.to_owned(), value.to_owned()));
        }
        let expected = (case.status, headers, case.body);
        let mut host = Host::new(of(&source(case.preset)));
        for _ in 0..3 {
            let (stream, seen) = host.send(&case.request, NOW);
            assert_eq!(heard(&seen), expected, "{}", case.preset);
            let report = host.report(stream);
            assert_eq!(report.verdict, Some(Code::Challenge));
            assert_eq!((&report.id, report.key), (&None, None));
        }
        // Nothing was claimed, and nothing is remembered but the store's salt.
        assert!([0, 16].contains(&host.shared.size()), "{}", case.preset);
    }
}

#[test]
fn every_preset_with_a_challenge_is_in_the_table_above() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/src/presets.json");
    let table: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = cases();
    for preset in table.as_array().unwrap() {
        let rules = preset["challenge"].as_array().map_or(0, Vec::len);
        let names = preset["names"].as_array().unwrap();
        let tested = cases
            .iter()
            .filter(|case| names.iter().any(|name| *name == case.preset));
        assert!(tested.count() >= rules, "{names:?}");
    }
}

/// The table of `docs/presets.md`: what each sender asks, proves and hears.
fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/src/presets.json");
    let table: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut text = String::from("| preset | asks with | proves | hears |\n|---|---|---|---|\n");
    for preset in table.as_array().unwrap() {
        let names: Vec<&str> = preset["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        for rule in preset["challenge"].as_array().into_iter().flatten() {
            let when = &rule["when"];
            let mut asks = when["method"].as_str().unwrap_or("any method").to_owned();
            for place in ["query", "header", "pointer"] {
                if let Some(name) = when[place].as_str() {
                    asks += &format!(", {place} `{name}`");
                }
            }
            if !when["equals"].is_null() {
                asks += &format!(" = `{}`", when["equals"].to_string().trim_matches('"'));
            }
            let proves = match rule["requires"].as_str() {
                Some("none") => "nothing".to_owned(),
                Some(word) => format!("its {word}"),
                None => format!(
                    "`parameters.{}`",
                    rule["requires"]["parameter"].as_str().unwrap()
                ),
            };
            let said = |parts: &Value| -> String {
                let part = |part: &Value| {
                    let (kind, value) = match part.get("hmac") {
                        Some(of) => ("hmac", of.as_object().unwrap().values().next().unwrap()),
                        None => {
                            let (kind, value) = part.as_object().unwrap().iter().next().unwrap();
                            (kind.as_str(), value)
                        }
                    };
                    let value = value.as_str().unwrap();
                    match kind {
                        "literal" => value.to_owned(),
                        "hmac" => format!("<hmac of {value}>"),
                        _ => format!("<{value}>"),
                    }
                };
                parts.as_array().into_iter().flatten().map(part).collect()
            };
            let reply = &rule["reply"];
            let mut hears = reply["status"].to_string();
            for (name, parts) in reply["headers"].as_object().into_iter().flatten() {
                hears += &format!(", `{name}: {}`", said(parts));
            }
            let body = said(&reply["body"]);
            if !body.is_empty() {
                hears += &format!(", `{body}`");
            }
            let names = names.join("`, `");
            text += &format!("| `{names}` | {asks} | {proves} | {hears} |\n");
        }
    }
    text
}

#[test]
fn the_document_says_what_each_sender_asks() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/presets.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once("<!-- challenges -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /challenges -->").unwrap();
    let table = document();
    let expected = format!("{before}<!-- challenges -->\n{table}<!-- /challenges -->{after}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &expected).unwrap();
    } else {
        assert!(
            text == expected,
            "run: BLESS=1 cargo test -p callback-guard-core --test it challenges"
        );
    }
}

/// What a challenge answers, forwarded in monitor mode: the application answers it.
#[test]
fn monitor_mode_forwards_a_challenge_with_its_verdict() {
    for case in cases() {
        let mut source = source(case.preset);
        source["mode"] = json!("monitor");
        let mut host = Host::new(of(&source));
        let (stream, seen) = host.send(&case.request, NOW);
        let headers = vec![
            ("x-callback-guard-source", "sender".to_owned()),
            ("x-callback-guard-verdict", "challenge".to_owned()),
        ];
        assert_eq!(seen, Seen::Forwarded(headers), "{}", case.preset);
        assert_eq!(host.report(stream).verdict, Some(Code::Challenge));
        assert!([0, 16].contains(&host.shared.size()), "{}", case.preset);
    }
}

#[test]
fn what_is_no_challenge_goes_its_usual_way() {
    for (preset, request, expected) in [
        (
            "slack",
            signed("slack", r#"{"type":"event_callback","event_id":"Ev1"}"#),
            Code::Forwarded,
        ),
        (
            "slack",
            signed("slack", r#"{"type":["url_verification"]}"#),
            Code::Forwarded,
        ),
        (
            "slack",
            signed("slack", r#"{"event":{"type":"url_verification"}}"#),
            Code::Forwarded,
        ),
        (
            "whatsapp",
            signed("whatsapp", r#"{"object":"page"}"#),
            Code::Forwarded,
        ),
        ("whatsapp", bare("GET", PATH), Code::MethodNotAllowed),
        (
            "whatsapp",
            bare("GET", "/callbacks?hub.mode=unsubscribe"),
            Code::MethodNotAllowed,
        ),
        (
            "whatsapp",
            bare("HEAD", "/callbacks?hub.mode=subscribe"),
            Code::MethodNotAllowed,
        ),
        (
            "x",
            bare("POST", "/callbacks?crc_token=1"),
            Code::UnsupportedMediaType,
        ),
        (
            "ringcentral",
            signed("ringcentral", r#"{"uuid":"1"}"#),
            Code::Forwarded,
        ),
        (
            "monday",
            signed("monday", r#"{"challenge":null}"#),
            Code::Forwarded,
        ),
        (
            "github",
            bare("GET", "/callbacks?challenge=1"),
            Code::MethodNotAllowed,
        ),
    ] {
        let (_, seen) = Host::new(of(&source(preset))).send(&request, NOW);
        assert_eq!(seen.code(), Some(expected), "{preset} {request:?}");
    }
}

#[test]
fn a_proof_that_is_required_is_needed() {
    let meta = |token: &str| {
        bare(
            "GET",
            &format!("/callbacks?hub.mode=subscribe&hub.challenge=1{token}"),
        )
    };
    let slack = r#"{"challenge":"a","type":"url_verification"}"#;
    let monday = r#"{"challenge":"a"}"#;
    for (preset, request, expected) in [
        ("whatsapp", meta(""), Code::SignatureMismatch),
        (
            "whatsapp",
            meta("&hub.verify_token="),
            Code::SignatureMismatch,
        ),
        (
            "whatsapp",
            meta("&hub.verify_token=A+verify+token%3A+24+bytes"),
            Code::SignatureMismatch,
        ),
        (
            "whatsapp",
            meta("&hub.verify_token=a+verify+token%3A+24+bytes+"),
            Code::SignatureMismatch,
        ),
        (
            "whatsapp",
            meta(&format!("&hub.verify_token={}", "a".repeat(9000))),
            Code::SignatureMismatch,
        ),
        ("slack", post(slack), Code::SignatureMissing),
        (
            "slack",
            signed("slack", slack).body(r#"{"challenge":"b","type":"url_verification"}"#),
            Code::SignatureMismatch,
        ),
        ("monday", post(monday), Code::SignatureMissing),
        (
            "monday",
            post(monday).with(":path", "/callbacks?token=wrong"),
            Code::SignatureMismatch,
        ),
    ] {
        let (_, seen) = Host::new(of(&source(preset))).send(&request, NOW);
        assert_eq!(seen.code(), Some(expected), "{preset} {request:?}");
    }
}

#[test]
fn what_may_not_be_echoed_is_refused_wherever_it_stands() {
    let longest = "a".repeat(512);
    let values: Vec<(String, bool, bool)> = [
        // Value, in JSON, in plain text.
        (longest.as_str(), true, true),
        ("A-Za-z0-9._~+/=-", true, true),
        ("Validation: Testing client", false, true),
        ("", false, false),
        ("a\r\nset-cookie: b", false, false),
        ("a\nb", false, false),
        ("a\0b", false, false),
        ("<script>alert(1)</script>", false, false),
        ("{\"a\":1}", false, false),
        ("[1]", false, false),
        ("a\"b", false, false),
        ("a\\b", false, false),
        ("a'b", false, false),
        ("a&b", false, false),
        ("a%b", false, false),
        ("a;b", false, false),
        ("a,b", false, false),
        ("\u{e9}", false, false),
        ("\u{2028}", false, false),
        ("a\tb", false, false),
    ]
    .into_iter()
    .map(|(value, json, text)| (value.to_owned(), json, text))
    .chain([("a".repeat(513), false, false)])
    .collect();
    let encoded =
        |value: &str| -> String { form_urlencoded::byte_serialize(value.as_bytes()).collect() };
    let asked = |preset: &'static str, request: Request, value: &str, echoes: bool| {
        let (_, seen) = Host::new(of(&source(preset))).send(&request, NOW);
        if echoes {
            assert!(heard(&seen).2.contains(value), "{preset} {value:?}");
        } else {
            assert_eq!(
                seen.code(),
                Some(Code::ChallengeMalformed),
                "{preset} {value:?}"
            );
            let Seen::Answered(reply) = &seen else {
                unreachable!();
            };
            assert_eq!(reply.status, 400);
            let body = String::from_utf8_lossy(&reply.body);
            assert!(value.is_empty() || !body.contains(value), "{value:?}");
        }
    };
    for (value, in_json, in_text) in &values {
        let query = format!("/callbacks?challenge={}", encoded(value));
        asked("dropbox", bare("GET", &query), value, *in_text);
        let query = format!("/callbacks?challengeCode={}", encoded(value));
        asked("linkedin", bare("GET", &query), value, *in_json);
        let okta = bare("GET", PATH).and("x-okta-verification-challenge", value);
        asked("okta", okta, value, *in_json);
        let body = |name: &str| json!({ "type": "url_verification", name: value }).to_string();
        asked(
            "slack",
            signed("slack", &body("challenge")),
            value,
            *in_text,
        );
        asked(
            "monday",
            signed("monday", &body("challenge")),
            value,
            *in_json,
        );
        let body =
            json!({ "event": "endpoint.url_validation", "payload": { "plainToken": value } });
        asked("zoom", signed("zoom", &body.to_string()), value, *in_json);
    }
    for value in [
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!({ "a": "b" }),
    ] {
        let body = json!({ "type": "url_verification", "challenge": value }).to_string();
        asked("slack", signed("slack", &body), "", false);
    }
    let missing = signed("slack", r#"{"type":"url_verification"}"#);
    asked("slack", missing, "", false);
    asked(
        "whatsapp",
        bare(
            "GET",
            "/callbacks?hub.mode=subscribe&hub.verify_token=a+verify+token%3A+24+bytes",
        ),
        "",
        false,
    );
}

#[test]
fn what_is_there_twice_is_refused_in_every_spelling() {
    for (preset, request) in [
        ("x", bare("GET", "/callbacks?crc_token=1&crc_token=1")),
        ("x", bare("GET", "/callbacks?crc_token=1&crc%5Ftoken=1")),
        ("x", bare("GET", "/callbacks?crc_token&a=b&crc_token")),
        (
            "okta",
            bare("GET", PATH)
                .and("x-okta-verification-challenge", "1")
                .and("x-okta-verification-challenge", "1"),
        ),
        (
            "ringcentral",
            bare("POST", PATH)
                .and("validation-token", "1")
                .and("validation-token", "2"),
        ),
        (
            "whatsapp",
            bare("GET", "/callbacks?hub.mode=subscribe&hub.mode=subscribe"),
        ),
        (
            "whatsapp",
            bare(
                "GET",
                "/callbacks?hub.mode=subscribe&hub.verify_token=a+verify+token%3A+24+bytes&hub.verify_token=b&hub.challenge=1",
            ),
        ),
        (
            "whatsapp",
            bare(
                "GET",
                "/callbacks?hub.mode=subscribe&hub.verify_token=a+verify+token%3A+24+bytes&hub.challenge=1&hub.challenge=1",
            ),
        ),
    ] {
        let (_, seen) = Host::new(of(&source(preset))).send(&request, NOW);
        assert_eq!(
            seen.code(),
            Some(Code::ChallengeMalformed),
            "{preset} {request:?}"
        );
    }
}

/// Lark's plain form: the challenge is in a body that nobody signs.
fn lark() -> Value {
    json!({
        "name": "lark",
        "match": { "path": PATH },
        "token": { "query": "token" },
        "secrets": [{ "value": SECRET }],
        "challenge": [{
            "when": { "method": "POST", "pointer": "/type", "equals": "url_verification" },
            "requires": "none",
            "reply": { "status": 200, "content_type": JSON, "body": [
                { "literal": "{\"challenge\":\"" }, { "pointer": "/challenge" }, { "literal": "\"}" },
            ] },
        }],
    })
}

#[test]
fn a_challenge_in_an_unsigned_body_is_answered_and_nothing_else_is_let_in_by_it() {
    let body = r#"{"type":"url_verification","challenge":"a1","token":"b"}"#;
    let answered = (
        200,
        vec![("content-type".to_owned(), JSON.to_owned())],
        r#"{"challenge":"a1"}"#.to_owned(),
    );
    let ask = |source: &Value, request: &Request| Host::new(of(source)).send(request, NOW).1;
    // Without the token, with it, and with another.
    let lark = lark();
    assert_eq!(heard(&ask(&lark, &post(body))), answered);
    let right = format!("/callbacks?token={SECRET}");
    assert_eq!(
        heard(&ask(&lark, &post(body).with(":path", &right))),
        answered
    );
    let wrong = post(body).with(":path", "/callbacks?token=other");
    assert_eq!(heard(&ask(&lark, &wrong)), answered);
    // Under a signature over the body, right, wrong and missing.
    let mut signed = lark.clone();
    signed.as_object_mut().unwrap().remove("token");
    signed["preset"] = json!("github");
    assert_eq!(heard(&ask(&signed, &post(body))), answered);
    let genuine = Request::genuine(&of(&signed), body, NOW).with(":path", PATH);
    assert_eq!(heard(&ask(&signed, &genuine)), answered);
    let forged = genuine.body(body.replace("a1", "a2").as_str());
    assert_eq!(heard(&ask(&signed, &forged)).2, r#"{"challenge":"a2"}"#);
    // What is no challenge is refused for what is wrong with its head.
    for body in ["{}", "{", "[]", r#"{"type":1}"#, "url_verification"] {
        let seen = ask(&lark, &post(body));
        assert_eq!(seen.code(), Some(Code::SignatureMissing), "{body}");
    }
    for (request, expected) in [
        (
            post(body).with("content-type", "text/plain"),
            Code::UnsupportedMediaType,
        ),
        (post(body).with(":method", "PUT"), Code::MethodNotAllowed),
        (
            post(body).and("content-encoding", "gzip"),
            Code::UnsupportedContentEncoding,
        ),
        (
            post(body).and("content-length", "16385"),
            Code::SignatureMissing,
        ),
    ] {
        assert_eq!(ask(&lark, &request).code(), Some(expected), "{request:?}");
    }
    // A body that is not short is not read for it, declared or not.
    let padded = |bytes: usize| format!("{body}{}", " ".repeat(bytes - body.len()));
    assert_eq!(heard(&ask(&lark, &post(&padded(16384)))), answered);
    let seen = ask(&lark, &post(&padded(16385)));
    assert_eq!(seen.code(), Some(Code::SignatureMissing));
}

/// A source that signs `message`, and a challenge that puts a value under a MAC.
fn mac_over(message: &Value, more: &Value) -> Value {
    let mut source = json!({
        "name": "sender",
        "match": { "path": PATH },
        "signature": {
            "message": message,
            "value": { "header": "x-signature", "encoding": "hex" },
        },
        "secrets": [{ "value": SECRET }],
        "challenge": [{
            "when": { "method": "GET", "query": "c", "present": true },
            "requires": "none",
            "reply": { "status": 200, "content_type": TEXT, "body": [
                { "hmac": { "query": "c" }, "encoding": "hex" },
            ] },
        }],
    });
    for (name, value) in more.as_object().unwrap() {
        match value.as_object().filter(|_| name == "signature") {
            Some(fields) => {
                for (field, value) in fields {
                    source["signature"][field] = value.clone();
                }
            }
            None => source[name] = value.clone(),
        }
    }
    source
}

#[track_caller]
fn loads(source: &Value) -> Result<Policy, String> {
    let text = json!({ "sources": [source] }).to_string();
    config::parse(text.as_bytes(), &|_| None).map_err(|error| error.to_string())
}

const WOULD_SIGN: &str = "sources[0].challenge[0].reply.body[0].hmac: would sign what this source \
                          accepts as a callback: its message need not hold a character that a \
                          challenge cannot have, as the `{` of a JSON body or a `:` in a literal";

#[test]
fn a_mac_that_would_sign_a_callback_is_refused_at_load() {
    let header = json!({ "id": { "header": "x-id" }, "timestamp": { "header": "x-time" } });
    let timed = json!({ "timestamp": { "header": "x-time" } });
    let form = json!(["application/json", "application/x-www-form-urlencoded"]);
    let body = json!([{ "body": true }]);
    let dotted = json!([{ "timestamp": true }, { "literal": "." }, { "body": true }]);
    let id = json!([{ "id": true }, { "literal": "." }, { "timestamp": true }]);
    let colon =
        json!([{ "literal": "v0:" }, { "timestamp": true }, { "literal": ":" }, { "body": true }]);
    let by_colon = json!([{ "id": true }, { "literal": ":" }, { "timestamp": true }]);
    for (what, message, more, is_safe) in [
        ("a JSON body", &body, json!({}), true),
        (
            "a body that may be a form",
            &body,
            json!({ "content_types": form }),
            false,
        ),
        (
            "a bare JSON value",
            &body,
            json!({ "payload": { "root": "any" } }),
            false,
        ),
        (
            "an array",
            &body,
            json!({ "payload": { "root": "array" } }),
            true,
        ),
        (
            "a time and a JSON body",
            &dotted,
            json!({ "signature": timed }),
            true,
        ),
        (
            "a time and a form",
            &dotted,
            json!({ "signature": timed, "content_types": form }),
            false,
        ),
        (
            "a form after a colon",
            &colon,
            json!({ "signature": timed, "content_types": form }),
            true,
        ),
        (
            "an id and a time",
            &id,
            json!({ "signature": header }),
            false,
        ),
        (
            "an id and a time with a colon",
            &by_colon,
            json!({ "signature": header }),
            true,
        ),
    ] {
        let loaded = loads(&mac_over(message, &more));
        match (is_safe, loaded) {
            (true, Ok(_)) => {}
            (false, Err(error)) => assert_eq!(error, WOULD_SIGN, "{what}"),
            (_, loaded) => panic!("{what}: {:?}", loaded.err()),
        }
    }
}

#[test]
fn a_mac_that_would_sign_the_callback_of_another_source_is_refused_at_load() {
    let asks = mac_over(&json!([{ "body": true }]), &json!({}));
    let other = |secret: &str, message: Value| {
        json!({
            "name": "other",
            "match": { "path": "/other" },
            "signature": {
                "message": message,
                "value": { "header": "x-signature", "encoding": "hex" },
                "id": { "header": "x-id" },
                "timestamp": { "header": "x-time" },
            },
            "secrets": [{ "value": "another secret, and a long one" }, { "value": secret }],
        })
    };
    let dotted = json!([{ "id": true }, { "literal": "." }, { "timestamp": true }]);
    let colon = json!([{ "id": true }, { "literal": ":" }, { "timestamp": true }]);
    let load = |sources: Value| {
        let text = json!({ "sources": sources }).to_string();
        config::parse(text.as_bytes(), &|_| None)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        load(json!([other(SECRET, dotted.clone()), asks])).unwrap_err(),
        "sources[1]: has a challenge (the 1. of its list) that would sign what sources[0] accepts \
         as a callback, as both have the same secret; expected a secret for each"
    );
    load(json!([other("yet another long secret", dotted), asks])).unwrap();
    load(json!([other(SECRET, colon), asks])).unwrap();
    let token = json!({
        "name": "other", "match": { "path": "/other" }, "preset": "gitlab-token",
        "secrets": [{ "value": SECRET }],
    });
    load(json!([token, asks])).unwrap();
}

/// What a challenge answers to `value`, as the bytes of a MAC; none if it does not.
fn mac_of(host: &mut Host, preset: &str, value: &str) -> Option<[u8; 32]> {
    let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let request = match preset {
        "x" => bare("GET", &format!("/callbacks?crc_token={encoded}")),
        "linkedin" => bare("GET", &format!("/callbacks?challengeCode={encoded}")),
        // Only Zoom itself gets an answer: let its secret be lent for this.
        "zoom" => signed(
            "zoom",
            &json!({ "event": "endpoint.url_validation", "payload": { "plainToken": value } })
                .to_string(),
        ),
        _ => bare("GET", &format!("/callbacks?c={encoded}")),
    };
    let (_, seen) = host.send(&request, NOW);
    if seen.code() != Some(Code::Challenge) {
        return None;
    }
    let (_, _, body) = heard(&seen);
    let text = match preset {
        "x" => {
            let body: Value = serde_json::from_str(&body).unwrap();
            let text = body["response_token"].as_str().unwrap().to_owned();
            let mac = base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                text.strip_prefix("sha256=").unwrap(),
            );
            return Some(mac.unwrap().try_into().unwrap());
        }
        "linkedin" => serde_json::from_str::<Value>(&body).unwrap()["challengeResponse"].clone(),
        "zoom" => serde_json::from_str::<Value>(&body).unwrap()["encryptedToken"].clone(),
        _ => json!(body),
    };
    let mac = hex::decode(text.as_str().unwrap()).unwrap();
    Some(mac.try_into().unwrap())
}

fn is_strict(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte))
}

/// Whether the MAC of `value` gets anything through, wherever it can be cut into a time and a body.
#[track_caller]
fn is_useless(preset: &str, mac: &[u8; 32], value: &str) {
    let hex = hex::encode(mac);
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, mac);
    let time = NOW.as_seconds().to_string();
    let headers = [
        ("x-twitter-webhooks-signature", format!("sha256={base64}")),
        ("x-li-signature", hex.clone()),
        ("x-zm-signature", format!("v0={hex}")),
        ("x-zm-request-timestamp", time.clone()),
        ("x-signature", hex),
        ("x-time", time),
        ("x-id", "id".to_owned()),
    ];
    let mut host = Host::new(of(&source(preset)));
    for cut in 0..value.len() {
        for content_type in [JSON, "application/x-www-form-urlencoded", TEXT] {
            let mut request = post(&value[cut..]).with("content-type", content_type);
            for (name, value) in &headers {
                request = request.and(name, value);
            }
            let (_, seen) = host.send(&request, NOW);
            assert!(
                !matches!(seen, Seen::Forwarded(_)),
                "{preset}: {seen:?} of {request:?}"
            );
        }
    }
}

#[test]
fn an_answer_of_x_linkedin_and_zoom_is_the_mac_of_the_value_and_signs_no_body() {
    let values = [
        // What an attacker would like to have signed.
        r#"{"for_user_id":"1"}"#,
        r#"hmacsha256={"notificationId":1}"#,
        r#"v0:1769670760:{"event":"meeting.started"}"#,
        " {}",
        "[]",
        // What can be asked.
        "hmacsha256=",
        "hmacsha256=true",
        "hmacsha256=1",
        "v0.1769670760.1",
        "1",
        "true",
        "null",
        "a=b",
        "1769670760",
        "1769670760.1",
        "id.1769670760",
    ];
    for preset in ["x", "linkedin", "zoom"] {
        let mut host = Host::new(of(&source(preset)));
        let mut answered = 0;
        for value in values {
            let Some(mac) = mac_of(&mut host, preset, value) else {
                continue;
            };
            answered += 1;
            let mut expected = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
            expected.update(value.as_bytes());
            assert_eq!(mac, <[u8; 32]>::from(expected.finalize().into_bytes()));
            is_useless(preset, &mac, value);
        }
        assert_eq!(answered, 11, "{preset}");
    }
}

/// Braintree's own vector: the MAC that its challenge is answered with.
///
/// Source: braintree_python, tests/unit/test_webhooks.py; the key is the SHA-1 of the private key.
#[test]
fn the_known_answer_of_braintree() {
    let mut source = mac_over(&json!([{ "body": true }]), &json!({}));
    source["signature"]["algorithm"] = json!("hmac-sha1");
    source["secrets"] = json!([{
        "value": "595532c81f425988ef0d0cdea466625e8723d60a",
        "encoding": "hex",
    }]);
    source["challenge"][0]["when"]["query"] = json!("bt_challenge");
    source["challenge"][0]["reply"]["body"] = json!([
        { "literal": "integration_public_key|" },
        { "hmac": { "query": "bt_challenge" }, "encoding": "hex" },
    ]);
    let request = bare(
        "GET",
        "/callbacks?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53",
    );
    let (_, seen) = Host::new(of(&source)).send(&request, NOW);
    assert_eq!(
        heard(&seen).2,
        "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4"
    );
}

#[test]
fn a_public_key_signs_nothing() {
    let mut source = mac_over(&json!([{ "body": true }]), &json!({}));
    source["signature"]["algorithm"] = json!("ed25519");
    source.as_object_mut().unwrap().remove("secrets");
    source["public_keys"] = json!([{
        "value": "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
        "encoding": "base64", "prefix": "whpk_",
    }]);
    assert_eq!(
        loads(&source).unwrap_err(),
        "sources[0].challenge[0].reply.body[0].hmac: needs a secret, but this source has public \
         keys, which sign nothing"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_of_x_linkedin_and_zoom_signs_a_body(
        preset in prop::sample::select(vec!["x", "linkedin", "zoom"]),
        value in prop_oneof![
            "[A-Za-z0-9._~+/=-]{1,40}",
            "(hmacsha256=|v0:1769670760:)?[{\\[]?[ -~]{0,20}",
        ],
    ) {
        let mut host = Host::new(of(&source(preset)));
        if let Some(mac) = mac_of(&mut host, preset, &value) {
            prop_assert!(is_strict(&value));
            is_useless(preset, &mac, &value);
        }
    }

    /// For any scheme that can be loaded with a challenge that signs: the MAC of a value that is asked
    /// for is the signature of no request that says the same bytes.
    #[test]
    fn what_is_loaded_signs_nothing_that_is_accepted(
        (first, second) in prop::sample::select(vec![
            (json!({ "body": true }), None),
            (json!({ "timestamp": true }), Some(json!({ "body": true }))),
            (json!({ "id": true }), Some(json!({ "timestamp": true }))),
            (json!({ "header": "x-id" }), Some(json!({ "body": true }))),
            (json!({ "body": true }), Some(json!({ "timestamp": true }))),
        ]),
        literal in "[.:=a~{ ]{1,3}",
        leads in any::<bool>(),
        takes_forms in any::<bool>(),
        id in "[A-Za-z0-9_]{1,8}",
        body in prop_oneof![Just("1".to_owned()), Just("a=b".to_owned()), "[A-Za-z0-9._~+/=-]{1,10}"],
    ) {
        let mut message = vec![first];
        if leads {
            message.insert(0, json!({ "literal": literal }));
        }
        if let Some(second) = second {
            message.push(json!({ "literal": literal }));
            message.push(second);
        }
        let uses = |part: &str| message.iter().any(|one| one.get(part).is_some());
        let mut more = json!({ "signature": {} });
        if uses("timestamp") {
            more["signature"]["timestamp"] = json!({ "header": "x-time" });
        }
        if uses("id") {
            more["signature"]["id"] = json!({ "header": "x-id" });
        }
        if takes_forms {
            more["content_types"] = json!(["application/x-www-form-urlencoded", "text/plain"]);
        }
        let Ok(loaded) = loads(&mac_over(&json!(message), &more)) else {
            return Ok(());
        };
        // The signed bytes of a request that says what it likes within the alphabet.
        let time = NOW.as_seconds().to_string();
        let signed: String = message.iter().map(|part| {
            let part = part.as_object().unwrap();
            match part.keys().next().unwrap().as_str() {
                "literal" => literal.as_str(),
                "body" => body.as_str(),
                "timestamp" => time.as_str(),
                _ => id.as_str(),
            }
        }).collect();
        let mut host = Host::new(loaded);
        let Some(mac) = mac_of(&mut host, "(spelled out)", &signed) else {
            return Ok(());
        };
        for content_type in [JSON, "application/x-www-form-urlencoded", TEXT] {
            let request = post(&body)
                .with("content-type", content_type)
                .and("x-signature", &hex::encode(mac))
                .and("x-time", &time)
                .and("x-id", &id);
            let (_, seen) = host.send(&request, NOW);
            prop_assert!(!matches!(seen, Seen::Forwarded(_)), "{seen:?} of {request:?}");
        }
    }

    /// An answer in JSON is JSON with the value in it, whatever the value is.
    #[test]
    fn an_answer_in_json_stays_json(value in "[A-Za-z0-9._~+/=-]{1,512}") {
        let body = json!({ "challenge": value }).to_string();
        let (_, seen) = Host::new(of(&source("monday"))).send(&signed("monday", &body), NOW);
        let heard: Value = serde_json::from_str(&heard(&seen).2).unwrap();
        prop_assert_eq!(heard, json!({ "challenge": value }));
    }

    /// Nothing but the alphabet comes back, whatever is asked.
    #[test]
    fn nothing_else_is_echoed(query in "(challenge=)?[ -~]{0,40}", header in "\\PC{0,20}") {
        let request = bare("GET", &format!("/callbacks?{query}")).and("x-okta-verification-challenge", &header);
        for preset in ["dropbox", "okta"] {
            let (_, seen) = Host::new(of(&source(preset))).send(&request, NOW);
            if seen.code() == Some(Code::Challenge) {
                let body = heard(&seen).2;
                let rest = body.strip_prefix("{\"verification\":\"").unwrap_or(&body);
                let rest = rest.strip_suffix("\"}").unwrap_or(rest);
                prop_assert!((1..=512).contains(&rest.len()));
                prop_assert!(is_strict(&rest.replace([':', ' '], "")), "{rest:?}");
            }
        }
    }
}

#[test]
fn no_debug_shows_a_verify_token_or_an_answer() {
    let policy = of(&source("whatsapp"));
    let shown = format!("{policy:?}");
    assert!(!shown.contains(TOKEN) && !shown.contains(SECRET), "{shown}");
    let request = bare(
        "GET",
        "/callbacks?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=a+verify+token%3A+24+bytes",
    );
    let pairs = request.pairs();
    let opened = Guard::open(&Arc::new(policy), &RequestHead::new(&pairs), true, NOW);
    let shown = format!("{opened:?}");
    assert!(shown.contains("ChallengeReply"), "{shown}");
    assert!(
        !shown.contains("1158201444") && !shown.contains("verify token"),
        "{shown}"
    );
}
