//! Refusals in a real Envoy: what the sender gets, and that the upstream gets nothing.

use callback_guard_harness::client::RawConnection;
use callback_guard_harness::{Body, Load, Protocol, Request, client, page, wait};
use serde_json::json;

use callback_guard_support::{Change as _, Guarded, SECRET, event, now, sign_at, signed};

/// One request for each code that a lone request can get, in the order of the contract.
fn refusals() -> Vec<(Request, u16, &'static str)> {
    let body = event("refused").1;
    let genuine = || signed(&body);
    let with = |json: &str| genuine().body(json.to_owned());
    let deep = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
    let missing = event("invalid").1.replace("\"msg\"", "\"message\"");
    vec![
        (genuine().path("/elsewhere"), 404, "no_source"),
        (genuine().method("PUT"), 405, "method_not_allowed"),
        (
            genuine().without("content-type"),
            415,
            "unsupported_media_type",
        ),
        (
            genuine().replace("content-type", "application/json; charset=utf-7"),
            415,
            "unsupported_media_type",
        ),
        (
            genuine().header("content-encoding", "gzip"),
            415,
            "unsupported_content_encoding",
        ),
        (with(&"x".repeat((1 << 20) + 1)), 413, "body_too_large"),
        (
            genuine().without("x-webhook-signature"),
            401,
            "signature_missing",
        ),
        (
            genuine().without("x-webhook-timestamp"),
            401,
            "timestamp_missing",
        ),
        (
            genuine().header("x-webhook-signature", "x"),
            401,
            "signature_ambiguous",
        ),
        (
            genuine().header("x-webhook-timestamp", "1"),
            401,
            "timestamp_ambiguous",
        ),
        (
            genuine().replace("x-webhook-signature", "x"),
            401,
            "signature_malformed",
        ),
        (
            genuine().replace("x-webhook-timestamp", "now"),
            401,
            "timestamp_malformed",
        ),
        (sign_at(&body, now() - 301), 401, "timestamp_too_old"),
        (sign_at(&body, now() + 120), 401, "timestamp_in_future"),
        (with(""), 400, "body_empty"),
        (with("[]"), 400, "json_malformed"),
        (with("{\"a\":1,\"a\":1}"), 400, "json_duplicate_key"),
        (with(&deep), 400, "json_too_deep"),
        (
            with("{\"taskId\":\"a\",\"ta\u{17f}\u{212a}ID\":\"b\"}"),
            400,
            "json_ambiguous_key",
        ),
        (with("{}"), 422, "id_missing"),
        (
            with("{\"taskId\":\"a\",\"data\":{\"taskId\":\"b\"}}"),
            422,
            "id_ambiguous",
        ),
        (with("{\"taskId\":\"a b\"}"), 422, "id_malformed"),
        (with(&event("other").1), 401, "signature_mismatch"),
        (signed(&missing), 422, "payload_invalid"),
    ]
}

#[test]
fn every_refusal_has_its_status_and_code_and_leaves_no_trace_upstream() {
    let guarded = Guarded::start();
    for protocol in Protocol::ALL {
        for (request, status, code) in refusals() {
            let response = guarded.send(&request.protocol(protocol));
            assert_eq!(
                (
                    response.status,
                    response.header("x-callback-guard").as_deref()
                ),
                (status, Some(code))
            );
            assert_eq!(
                response.header("content-type").as_deref(),
                Some("application/problem+json")
            );
            let problem = response.json().unwrap();
            assert_eq!(
                (&problem["code"], &problem["status"]),
                (&json!(code), &json!(status))
            );
            assert_eq!(problem["type"], "about:blank");
            let allow = (code == "method_not_allowed").then_some("POST");
            assert_eq!(response.header("allow").as_deref(), allow);
            if code == "payload_invalid" {
                assert_eq!(problem["pointer"], "/msg");
            }
            assert!(!response.text().contains(SECRET));
        }
    }
    assert_eq!(guarded.upstream.heads(), 0);
    assert_eq!(guarded.upstream.connections(), 0, "not even a connection");
    guarded.assert_alive();
    let log = guarded.envoy.log();
    assert!(!log.contains(SECRET), "a secret in the log");
    assert_eq!(guarded.send(&signed(&event("after").1)).status, 200);
}

#[test]
fn of_1200_refused_requests_the_upstream_sees_none() {
    let guarded = Guarded::builder().workers(2).start();
    let mut requests = Vec::new();
    for number in 0..300 {
        // Refused in the body callback: by then a head that is not held would be gone.
        let body = event(&format!("forged-{number}")).1;
        let other = event("another").1.into_bytes();
        for split in [false, true] {
            let body_on_the_way = if split {
                Body::halves(other.clone())
            } else {
                Body::one_piece(other.clone())
            };
            requests.push(signed(&body).body(body_on_the_way));
        }
    }
    for load in [Load::http1(8), Load::http2(2, 16)] {
        let responses = client::send_all(guarded.address(), requests.clone(), load).unwrap();
        assert_eq!(responses.len(), 600);
        for response in responses {
            assert_eq!(response.unwrap().status, 401);
        }
    }
    assert_eq!(
        (guarded.upstream.heads(), guarded.upstream.connections()),
        (0, 0)
    );
    assert_eq!(guarded.requests("suno", "signature_mismatch"), 1200);
    guarded.assert_alive();
}

/// An unsigned head that declares a body of this length.
fn unsigned_head(length: usize) -> String {
    format!(
        "POST /callbacks/suno HTTP/1.1\r\nhost: app.example\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

#[test]
fn a_head_that_is_refused_costs_the_sender_no_connection_where_its_body_is_short() {
    let guarded = Guarded::start();
    let mut connection = RawConnection::open(guarded.address()).unwrap();
    for length in [1, 130, 16 << 10] {
        let body = "x".repeat(length);
        connection.write(unsigned_head(length)).unwrap();
        connection.write(body).unwrap();
        let response = connection.read_response().unwrap().unwrap();
        assert_eq!(response.status, 401, "{length}");
        assert_eq!(response.header("connection"), None, "{length}");
    }
    assert_eq!(guarded.requests("suno", "signature_missing"), 3);
    // A sender that leaves before its body ends is counted all the same.
    connection.write(unsigned_head(130)).unwrap();
    drop(connection);
    wait::wait_for("the refusal of one that has left", || {
        (guarded.requests("suno", "signature_missing") == 4).then_some(())
    })
    .unwrap();
    assert_eq!(guarded.upstream.connections(), 0);
    guarded.assert_alive();
}

#[test]
fn a_head_that_is_refused_is_not_held_for_a_long_body() {
    let guarded = Guarded::start();
    let chunked = unsigned_head(0).replace("content-length: 0", "transfer-encoding: chunked");
    for head in [unsigned_head((16 << 10) + 1), chunked] {
        let mut connection = RawConnection::open(guarded.address()).unwrap();
        connection.write(head).unwrap();
        // Nothing of the body has been sent.
        let response = connection.read_response().unwrap().unwrap();
        assert_eq!(response.status, 401);
        assert_eq!(response.header("connection").as_deref(), Some("close"));
    }
    assert_eq!(guarded.upstream.connections(), 0);
}

#[test]
fn no_worker_lets_requests_around_the_filter() {
    // A plugin whose configuration fails on one worker is bypassed there.
    let guarded = Guarded::builder().workers(4).start();
    let requests = (0..200)
        .map(|_| signed(&event("x").1).without("x-webhook-signature"))
        .collect();
    // Connections spread over the workers.
    for response in client::send_all(guarded.address(), requests, Load::http1(64)).unwrap() {
        assert_eq!(response.unwrap().status, 401);
    }
    assert_eq!(guarded.upstream.heads(), 0);
}

#[test]
fn a_reason_that_must_not_be_exposed_is_not() {
    let guarded = Guarded::with(|configuration| configuration["expose_reason"] = json!(false));
    for (request, status, code) in refusals() {
        let response = guarded.send(&request);
        assert_eq!(response.status, status);
        assert_eq!(response.header("x-callback-guard"), None);
        let problem = response.json().unwrap();
        assert_eq!(problem.as_object().unwrap().len(), 3, "{problem}");
        assert!(!response.text().contains(code));
    }
    // The operator still sees it.
    let seen = guarded.wait_for_access_log(refusals().len());
    assert_eq!(
        seen.last().unwrap()["details"],
        "callback_guard:payload_invalid"
    );
}

#[test]
fn a_refusal_is_the_documented_reply() {
    let printed = page::block("docs/contract.md", "a_refusal_is_the_documented_reply").unwrap();
    let guarded = Guarded::start();
    let body = event("refused").1;
    let forged = signed(&body).replace("x-webhook-signature", format!("{}=", "A".repeat(43)));
    assert_eq!(guarded.send(&forged).text(), printed.text);
}
