//! The traps of Envoy and its wasm host, each with the test that would catch it.

use std::time::Duration;

use callback_guard_harness::{Answer, Body, Protocol, client};
use serde_json::json;

use callback_guard_support::{Change as _, Guarded, event, signed};

#[test]
fn header_bytes_that_are_no_utf8_kill_nothing() {
    let guarded = Guarded::start();
    for name in [
        "x-anything",
        "x-webhook-signature",
        "x-webhook-timestamp",
        "content-type",
        "x-callback-guard-id",
    ] {
        let request = signed(&event("bytes").1).replace(name, b"\xff\xfe");
        let status = guarded.send(&request).status;
        let expected = match name {
            "x-anything" | "x-callback-guard-id" => 200,
            "content-type" => 415,
            _ => 401,
        };
        assert_eq!(status, expected, "{name}");
    }
    guarded.assert_alive();
}

#[test]
fn an_id_beyond_ascii_is_forwarded_as_it_is() {
    let guarded = Guarded::start();
    let body =
        json!({ "code": 200, "msg": "", "data": { "task_id": "lied-ä-\u{1f3b5}" } }).to_string();
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    let head = guarded.upstream.recorded().remove(0).head;
    assert_eq!(head.values("x-callback-guard-id"), ["lied-ä-\u{1f3b5}"]);
}

#[test]
fn trailers_end_a_body_too() {
    let guarded = Guarded::builder().http1_trailers().start();
    for protocol in Protocol::ALL {
        let body = event("trailers").1;
        let request = signed(&body).protocol(protocol);
        let genuine = request
            .clone()
            .body(Body::chunked([body.clone()]).trailer("x-t", "1"));
        assert_eq!(guarded.send(&genuine).status, 200, "{protocol:?}");
        let forged = request.body(Body::chunked([event("other").1]).trailer("x-t", "1"));
        assert_eq!(guarded.send(&forged).status, 401, "{protocol:?}");
    }
    assert_eq!(guarded.upstream.heads(), 2);
}

#[test]
fn bodies_that_are_not_there_are_refused() {
    let guarded = Guarded::start();
    for protocol in Protocol::ALL {
        let request = signed(&event("empty").1).protocol(protocol);
        for body in [
            Body::empty(),
            Body::one_piece(""),
            Body::chunked(Vec::<Vec<u8>>::new()),
            Body::chunked([""]).trailer("x-t", "1"),
        ] {
            let response = guarded.send(&request.clone().body(body));
            assert_eq!(
                response.header("x-callback-guard").as_deref(),
                Some("body_empty"),
                "{protocol:?}"
            );
        }
    }
    assert_eq!(guarded.upstream.heads(), 0);
}

#[test]
fn a_request_is_sent_on_once() {
    // Resuming a request in a callback that also returns Continue sends it twice. One that waited is
    // resumed from a timer; its trailers and its last bytes come in callbacks.
    let guarded = Guarded::builder().http1_trailers().start();
    let gate = callback_guard_harness::Gate::new();
    guarded
        .upstream
        .answer_in_turn([Answer::status(500).when(&gate), Answer::status(200)]);
    let body = event("resume").1;
    let request = signed(&body).body(Body::chunked([body]).trailer("x-t", "1"));
    let first = guarded.begin_delivery(&request);
    let second = guarded.begin_waiting(&request);
    gate.open();
    assert_eq!(first.finish().unwrap().status, 500);
    assert_eq!(second.finish().unwrap().status, 200);
    assert_eq!(guarded.upstream.heads(), 2);
}

#[test]
fn envoys_own_413_passes_through() {
    let guarded = Guarded::builder().buffer_limit(10_000).start();
    let body = event("limit").1.replace("success", &"x".repeat(20_000));
    let request = signed(&body).body(Body::chunked([body]));
    let response = guarded.send(&request);
    assert_eq!(
        (response.status, response.header("x-callback-guard")),
        (413, None)
    );
    let log = guarded.wait_for_access_log(1);
    assert_eq!(log[0]["details"], "request_payload_too_large");
    assert_eq!(guarded.upstream.heads(), 0);
    guarded.assert_alive();
}

#[test]
fn envoys_own_504_releases_the_claim() {
    let guarded = Guarded::builder()
        .route_timeout(Duration::from_millis(300))
        .start();
    let gate = callback_guard_harness::Gate::new();
    guarded
        .upstream
        .answer_in_turn([Answer::status(200).when(&gate), Answer::status(200)]);
    let request = signed(&event("timeout").1);
    assert_eq!(guarded.send(&request).status, 504);
    assert_eq!(guarded.send(&request).header("x-callback-guard"), None);
    assert_eq!(
        guarded.stat("wasmcustom.callback_guard.outcomes_total.source.suno.outcome.unknown"),
        1
    );
}

#[test]
fn a_stream_that_ends_before_its_request_is_known_is_survived() {
    let guarded = Guarded::start();
    for bytes in [
        &b"GARBAGE\r\n\r\n"[..],
        b"POST /callbacks/suno HTTP/1.1\r\n\r\n",
        b"POST /callbacks/suno HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        b"POST /callbacks%2Fsuno HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    ] {
        let response = client::raw(guarded.address(), bytes).unwrap();
        assert!(response.is_none_or(|response| response.status == 400));
    }
    // Half a head, half a body: the client is gone.
    for bytes in [
        &b"POST /callb"[..],
        b"POST /callbacks/suno HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let mut connection = client::RawConnection::open(guarded.address()).unwrap();
        connection.write(bytes).unwrap();
    }
    assert_eq!(guarded.send(&signed(&event("after").1)).status, 200);
    assert_eq!(guarded.upstream.heads(), 1);
    guarded.assert_alive();
}

#[test]
fn connections_are_reused_after_a_refusal() {
    let guarded = Guarded::start();
    let requests = (0..100)
        .map(|number| {
            let request = signed(&event(&format!("mixed-{number}")).1);
            if number % 2 == 0 {
                request
            } else {
                request.replace("x-webhook-signature", "x")
            }
        })
        .collect();
    let load = callback_guard_harness::Load::http1(1);
    let responses = client::send_all(guarded.address(), requests, load).unwrap();
    for (number, response) in responses.into_iter().enumerate() {
        assert_eq!(
            response.unwrap().status,
            if number % 2 == 0 { 200 } else { 401 },
            "{number}"
        );
    }
    assert_eq!(guarded.upstream.heads(), 50);
}
