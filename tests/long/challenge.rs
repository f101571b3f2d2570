//! Challenges in a real Envoy: each method and protocol, the bytes of each answer, and that the
//! upstream gets nothing.

use callback_guard_core::scheme::Encoding;
use callback_guard_core::scheme::keys::{Algorithm, Key, SignatureBytes};
use callback_guard_harness::client::RawConnection;
use callback_guard_harness::{Body, Protocol, Request};
use serde_json::{Value, json};

use callback_guard_support::{Builder, Change as _, Guarded, SECRET, event, now, signed};

/// Not the one of `suno`: whose answers to challenges would be callbacks of `suno`, so that would be
/// refused.
const KEY: &str = "a secret of those who ask: 35 bytes";
const TOKEN: &str = "a verify token: 24 bytes";
const META: &str =
    "/callbacks/whatsapp?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
const RIGHT: &str = "a+verify+token%3A+24+bytes";

/// The presets whose senders ask.
const ASKING: [&str; 7] = [
    "slack",
    "zoom",
    "whatsapp",
    "x",
    "dropbox",
    "okta",
    "ringcentral",
];

/// A source for each sender that asks, beside the one of `envoy.yaml`, which asks nothing.
fn add_sources(configuration: &mut Value) {
    let secrets = json!([{ "value": KEY }]);
    let sources = configuration["sources"].as_array_mut().unwrap();
    for preset in ASKING {
        let mut source = json!({
            "name": preset,
            "match": { "path": format!("/callbacks/{preset}") },
            "preset": preset,
            "secrets": secrets,
        });
        if preset == "whatsapp" {
            source["parameters"] = json!({ "verify_token": TOKEN });
        }
        sources.push(source);
    }
    // As Trello asks, Discord's events, Azure's Event Grid, and Lark in its plain form.
    let own = json!([
        { "when": { "method": "HEAD" }, "requires": "none",
          "reply": { "status": 200, "content_type": "text/plain" } },
        { "when": { "pointer": "/type", "equals": 0 }, "requires": "signature",
          "reply": { "status": 204, "content_type": "application/json" } },
        { "when": { "method": "OPTIONS", "header": "webhook-request-origin", "present": true },
          "requires": "none",
          "reply": { "status": 200, "content_type": "text/plain",
                     "headers": { "WebHook-Allowed-Origin": [{ "header": "webhook-request-origin" }] } } },
        { "when": { "pointer": "/type", "equals": "url_verification" }, "requires": "none",
          "reply": { "status": 200, "content_type": "application/json",
                     "body": [{ "literal": "{\"challenge\":\"" }, { "pointer": "/challenge" },
                              { "literal": "\"}" }] } },
    ]);
    sources.push(json!({
        "name": "own",
        "match": { "path": "/callbacks/own" },
        "signature": {
            "message": [{ "body": true }],
            "value": { "header": "x-signature", "encoding": "hex" },
        },
        "secrets": secrets,
        "challenge": own,
    }));
}

fn raw_mac(parts: &[&str]) -> SignatureBytes {
    let key = Key::secret(Algorithm::HmacSha256, KEY.as_bytes()).unwrap();
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    key.mac(&parts).unwrap()
}

fn mac(parts: &[&str]) -> String {
    Encoding::Hex.encode(&raw_mac(parts))
}

/// As Slack and Zoom sign.
fn v0(sender: &str, body: &str) -> Request {
    let (signature, timestamp) = match sender {
        "slack" => ("x-slack-signature", "x-slack-request-timestamp"),
        _ => ("x-zm-signature", "x-zm-request-timestamp"),
    };
    let time = now().to_string();
    Request::post(&format!("/callbacks/{sender}"))
        .header(timestamp, &time)
        .header(signature, format!("v0={}", mac(&["v0:", &time, ":", body])))
        .json(body.to_owned())
}

fn own(body: &str) -> Request {
    Request::post("/callbacks/own")
        .header("x-signature", mac(&[body]))
        .json(body.to_owned())
}

struct Case {
    request: Request,
    status: u16,
    content_type: &'static str,
    header: Option<(&'static str, &'static str)>,
    body: String,
}

fn case(request: Request, content_type: &'static str, body: impl Into<String>) -> Case {
    Case {
        request,
        status: 200,
        content_type,
        header: None,
        body: body.into(),
    }
}

fn cases() -> Vec<Case> {
    let (text, json) = ("text/plain", "application/json");
    let slack = r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRN"}"#;
    let zoom = r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZ"}}"#;
    let lark = r#"{"type":"url_verification","challenge":"ajls384k","token":"t"}"#;
    vec![
        case(Request::get(&format!("{META}{RIGHT}")), text, "1158201444"),
        case(
            Request::get("/callbacks/dropbox?challenge=a%3A+b"),
            text,
            "a: b",
        ),
        case(
            Request::get("/callbacks/x?crc_token=9b4507b3"),
            json,
            format!(
                r#"{{"response_token":"sha256={}"}}"#,
                Encoding::Base64.encode(&raw_mac(&["9b4507b3"]))
            ),
        ),
        case(
            Request::get("/callbacks/okta").header("x-okta-verification-challenge", "abc.def"),
            json,
            r#"{"verification":"abc.def"}"#,
        ),
        Case {
            header: Some(("validation-token", "b6b5-a1ff")),
            ..case(
                Request::post("/callbacks/ringcentral").header("validation-token", "b6b5-a1ff"),
                text,
                "",
            )
        },
        // With a body, of which the answer needs nothing.
        Case {
            header: Some(("validation-token", "b6b5-a1ff")),
            ..case(
                Request::post("/callbacks/ringcentral")
                    .header("validation-token", "b6b5-a1ff")
                    .body(Body::halves("anything at all")),
                text,
                "",
            )
        },
        case(Request::new("HEAD", "/callbacks/own"), text, ""),
        Case {
            header: Some(("webhook-allowed-origin", "eventgrid.azure.net")),
            ..case(
                Request::new("OPTIONS", "/callbacks/own")
                    .header("webhook-request-origin", "eventgrid.azure.net"),
                text,
                "",
            )
        },
        Case {
            status: 204,
            ..case(own(r#"{"type":0}"#), json, "")
        },
        case(v0("slack", slack), text, "3eZbrw1aBm2rZgRN"),
        case(
            v0("zoom", zoom),
            json,
            format!(
                r#"{{"plainToken":"qgg8vlvZ","encryptedToken":"{}"}}"#,
                mac(&["qgg8vlvZ"])
            ),
        ),
        // Unsigned, in one piece and in two, with its length and without.
        case(
            Request::post("/callbacks/own").json(lark),
            json,
            r#"{"challenge":"ajls384k"}"#,
        ),
        case(
            Request::post("/callbacks/own").json(Body::halves(lark)),
            json,
            r#"{"challenge":"ajls384k"}"#,
        ),
        case(
            Request::post("/callbacks/own").json(Body::chunked([&lark[..9], &lark[9..]])),
            json,
            r#"{"challenge":"ajls384k"}"#,
        ),
    ]
}

/// Each challenge three times: by HTTP/1.1, by HTTP/2, and by HTTP/1.1 again.
fn answers_everything(builder: Builder) {
    let guarded = builder.configuration(add_sources).start();
    let mut answered = 0;
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http1] {
        for case in cases() {
            let shown = format!("{protocol:?} {} {}", case.request.method, case.request.path);
            let response = guarded.send(&case.request.protocol(protocol));
            assert_eq!(
                (response.status, response.text()),
                (case.status, case.body),
                "{shown}"
            );
            // Envoy takes the content type off an answer without a body.
            let has_body = !response.body.is_empty();
            assert_eq!(
                response.header("content-type").as_deref(),
                has_body.then_some(case.content_type),
                "{shown}"
            );
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-callback-guard", "challenge"),
            ]
            .into_iter()
            .chain(case.header)
            {
                assert_eq!(response.header(name).as_deref(), Some(value), "{shown}");
            }
            answered += 1;
        }
    }
    let counted: u64 = ASKING
        .into_iter()
        .chain(["own"])
        .map(|name| guarded.requests(name, "challenge"))
        .sum();
    assert_eq!(counted, answered);
    assert_eq!(guarded.upstream.heads(), 0);
    assert_eq!(guarded.upstream.connections(), 0, "not even a connection");
    // What is no challenge is delivered.
    let body = r#"{"type":"event_callback","event_id":"Ev1"}"#;
    assert_eq!(guarded.send(&v0("slack", body)).status, 200);
    assert_eq!(guarded.upstream.heads(), 1);
    guarded.assert_alive();
}

#[test]
fn challenges_are_answered_each_time_and_the_upstream_sees_none() {
    answers_everything(Guarded::builder());
}

#[test]
fn challenges_are_answered_before_the_buffer_filter_too() {
    answers_everything(Guarded::builder().buffer_after());
}

#[test]
fn a_challenge_without_its_proof_or_with_what_may_not_be_echoed_is_refused() {
    let guarded = Guarded::with(add_sources);
    let get = Request::get;
    let slack = r#"{"type":"url_verification","challenge":"a"}"#;
    let long = "a".repeat(513);
    let dropbox = |value: &str| get(&format!("/callbacks/dropbox?challenge={value}"));
    let refusals = vec![
        (get(&format!("{META}wrong")), 401, "signature_mismatch"),
        (get(META), 401, "signature_mismatch"),
        (
            get("/callbacks/whatsapp?hub.mode=subscribe&hub.challenge=1"),
            401,
            "signature_mismatch",
        ),
        (
            get(&format!("{META}{RIGHT}&hub.challenge=2")),
            400,
            "challenge_malformed",
        ),
        (
            get(&format!("{META}{RIGHT}&hub.verify_token=b")),
            400,
            "challenge_malformed",
        ),
        (
            v0("slack", slack).replace("x-slack-signature", format!("v0={}", mac(&["x"]))),
            401,
            "signature_mismatch",
        ),
        (
            Request::post("/callbacks/slack").json(slack),
            401,
            "signature_missing",
        ),
        (
            dropbox("a%0d%0aset-cookie:%20b=c"),
            400,
            "challenge_malformed",
        ),
        (
            dropbox("%3Cscript%3Ealert(1)%3C/script%3E"),
            400,
            "challenge_malformed",
        ),
        (dropbox(&long), 400, "challenge_malformed"),
        (dropbox(""), 400, "challenge_malformed"),
        (dropbox("%00"), 400, "challenge_malformed"),
        (dropbox("%ff"), 400, "challenge_malformed"),
        (dropbox("a&challenge=a"), 400, "challenge_malformed"),
        (dropbox("a&%63hallenge=a"), 400, "challenge_malformed"),
        (
            get("/callbacks/x?crc_token=%7B%22a%22:1%7D"),
            400,
            "challenge_malformed",
        ),
        (
            get("/callbacks/okta").header("x-okta-verification-challenge", b"\xff\xfe"),
            400,
            "challenge_malformed",
        ),
        (
            get("/callbacks/okta").header("x-okta-verification-challenge", "\"}{\""),
            400,
            "challenge_malformed",
        ),
        (
            get("/callbacks/okta")
                .header("x-okta-verification-challenge", "a")
                .header("x-okta-verification-challenge", "a"),
            400,
            "challenge_malformed",
        ),
        (
            get("/callbacks/suno?challenge=a"),
            405,
            "method_not_allowed",
        ),
        (
            Request::new("HEAD", "/callbacks/dropbox?challenge=a"),
            405,
            "method_not_allowed",
        ),
        (get("/callbacks/dropbox"), 405, "method_not_allowed"),
        (
            Request::post("/callbacks/own").json("{}"),
            401,
            "signature_missing",
        ),
        (
            Request::post("/callbacks/own")
                .json(r#"{"type":"url_verification","challenge":"<b>"}"#),
            400,
            "challenge_malformed",
        ),
        (
            Request::post("/callbacks/own").json("x".repeat(20_000)),
            401,
            "signature_missing",
        ),
        (
            Request::post("/callbacks/own")
                .json(Body::chunked(["x".repeat(9000), "y".repeat(9000)])),
            401,
            "signature_missing",
        ),
    ];
    for protocol in Protocol::ALL {
        for (request, status, code) in &refusals {
            let response = guarded.send(&request.clone().protocol(protocol));
            let seen = (response.status, response.header("x-callback-guard"));
            assert_eq!(
                seen,
                (*status, Some((*code).to_owned())),
                "{protocol:?} {request:?}"
            );
            let text = response.text();
            for echo in ["script", "set-cookie", "\\u00", "<b>", "aaaa", "wrong"] {
                assert!(!text.contains(echo), "{text}");
            }
            assert_eq!(response.header("set-cookie"), None);
        }
    }
    assert_eq!(guarded.upstream.heads(), 0);
    // Neither the log nor the access log has a token or what was asked.
    let lines = guarded.wait_for_access_log(2 * refusals.len());
    let access = format!("{lines:?}");
    let log = guarded.envoy.log();
    for secret in [RIGHT, TOKEN, "hub.verify_token", "script%3E", KEY, SECRET] {
        assert!(
            !access.contains(secret) && !log.contains(secret),
            "{secret}"
        );
    }
    guarded.assert_alive();
}

/// A sender that asks with a body on a connection that it keeps gets its answer, and the connection
/// lives.
#[test]
fn a_challenge_with_a_short_body_does_not_cost_the_connection() {
    let guarded = Guarded::with(add_sources);
    let mut connection = RawConnection::open(guarded.address()).unwrap();
    for _ in 0..3 {
        let request = "POST /callbacks/ringcentral HTTP/1.1\r\nhost: callbacks.test\r\n\
                       validation-token: abc\r\ncontent-length: 5\r\n\r\nhello";
        connection.write(request).unwrap();
        let response = connection.read_response().unwrap().unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("validation-token").as_deref(), Some("abc"));
    }
    assert_eq!(guarded.upstream.heads(), 0);
}

#[test]
fn in_monitor_mode_the_application_answers_and_is_told() {
    let guarded = Guarded::with(|configuration| {
        configuration["mode"] = json!("monitor");
        add_sources(configuration);
    });
    let cases = cases();
    for case in &cases {
        assert_eq!(guarded.send(&case.request).status, 200);
    }
    guarded.send(&Request::get(&format!("{META}wrong")));
    let recorded = guarded.upstream.recorded();
    let verdicts: Vec<_> = recorded
        .iter()
        .map(|one| one.head.header("x-callback-guard-verdict").unwrap())
        .collect();
    let (last, challenges) = verdicts.split_last().unwrap();
    assert_eq!(challenges.len(), cases.len());
    assert!(
        challenges.iter().all(|verdict| verdict == "challenge"),
        "{verdicts:?}"
    );
    assert_eq!(last, "signature_mismatch");
    // The application needs the token to answer.
    assert_eq!(recorded[0].head.path, format!("{META}{RIGHT}"));
}

/// A callback between two challenges, as Slack sends them, and again: only the callback is one.
#[test]
fn a_challenge_is_no_event() {
    let guarded = Guarded::with(add_sources);
    let challenge = v0("slack", r#"{"type":"url_verification","challenge":"abc"}"#);
    let body = r#"{"type":"event_callback","event_id":"Ev2"}"#;
    for expected in ["forwarded", "duplicate"] {
        assert_eq!(guarded.send(&challenge).text(), "abc");
        guarded.send(&v0("slack", body));
        assert_eq!(guarded.requests("slack", expected), 1);
        assert_eq!(guarded.send(&challenge).text(), "abc");
    }
    assert_eq!(guarded.upstream.heads(), 1);
    // The other sources are none the wiser.
    assert_eq!(guarded.send(&signed(&event("beside").1)).status, 200);
}
