//! What is taken, what is stored of it, and what is answered.

use callback_guard_harness::client::{self, Body, Request};
use callback_guard_harness::inbox::callback;

use crate::support::{Bench, failing, key};

#[test]
fn an_event_is_accepted_once_and_known_from_then_on() {
    let bench = Bench::new(&[]);
    let key = bench.accept("one", "task");
    for _ in 0..3 {
        let again = bench.inbox.send(&key, "task", b"one").unwrap();
        assert_eq!(again.status, 200);
        assert_eq!(again.header("x-callback-guard-inbox").unwrap(), "known");
    }
    // Upper case is the same key.
    let again = bench
        .inbox
        .send(&key.to_uppercase(), "task", b"one")
        .unwrap();
    assert_eq!(again.header("x-callback-guard-inbox").unwrap(), "known");
    bench.wait_for_state(&key, "delivered");
    let again = bench.inbox.send(&key, "task", b"one").unwrap();
    assert_eq!(again.header("x-callback-guard-inbox").unwrap(), "known");
    assert_eq!(bench.bodies(), ["one"]);
}

#[test]
fn only_what_the_guard_has_verified_is_taken() {
    let bench = Bench::new(&[]);
    let good = key("x");
    let cases: [(&str, &[(&str, &str)]); 16] = [
        ("no headers", &[]),
        ("no key", &[("source", "suno"), ("id", "t")]),
        ("no source", &[("key", &good), ("id", "t")]),
        ("no id", &[("key", &good), ("source", "suno")]),
        (
            "short key",
            &[("key", &good[1..]), ("source", "suno"), ("id", "t")],
        ),
        (
            "long key",
            &[
                ("key", &format!("{good}0")),
                ("source", "suno"),
                ("id", "t"),
            ],
        ),
        (
            "key of other digits",
            &[
                ("key", &good.replace('0', "g")),
                ("source", "suno"),
                ("id", "t"),
            ],
        ),
        ("empty key", &[("key", ""), ("source", "suno"), ("id", "t")]),
        (
            "empty source",
            &[("key", &good), ("source", ""), ("id", "t")],
        ),
        (
            "source in upper case",
            &[("key", &good), ("source", "Suno"), ("id", "t")],
        ),
        (
            "empty id",
            &[("key", &good), ("source", "suno"), ("id", "")],
        ),
        (
            "two keys",
            &[
                ("key", &good),
                ("key", &good),
                ("source", "suno"),
                ("id", "t"),
            ],
        ),
        (
            "two sources",
            &[
                ("key", &good),
                ("source", "suno"),
                ("source", "suno"),
                ("id", "t"),
            ],
        ),
        (
            "two ids",
            &[("key", &good), ("source", "suno"), ("id", "t"), ("id", "u")],
        ),
        (
            "monitored and forged",
            &[
                ("key", &good),
                ("source", "suno"),
                ("id", "t"),
                ("verdict", "signature_mismatch"),
            ],
        ),
        (
            "two verdicts",
            &[
                ("key", &good),
                ("source", "suno"),
                ("id", "t"),
                ("verdict", "forwarded"),
                ("verdict", "timestamp_too_old"),
            ],
        ),
    ];
    for (name, headers) in cases {
        let mut request = Request::post("/callbacks/suno");
        for (header, value) in headers {
            request = request.header(&format!("x-callback-guard-{header}"), value);
        }
        let response = client::send(bench.inbox.address(), &request.json("{}")).unwrap();
        assert_eq!(response.status, 400, "{name}");
        assert_eq!(response.json().unwrap()["code"], "not_verified", "{name}");
        assert_eq!(
            response.header("x-callback-guard-inbox").unwrap(),
            "not_verified",
            "{name}"
        );
        assert_eq!(
            response.header("content-type").unwrap(),
            "application/problem+json"
        );
    }
    let monitored = callback(&good, "t", b"x").header("x-callback-guard-verdict", "forwarded");
    assert_eq!(
        client::send(bench.inbox.address(), &monitored)
            .unwrap()
            .status,
        200
    );
    // In one look, and in whatever state: it may be under way.
    let listed = bench.inbox.setup.json("list", &[]).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn only_post_is_taken() {
    let bench = Bench::new(&[]);
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        let request = Request::new(method, "/callbacks/suno");
        let response = client::send(bench.inbox.address(), &request).unwrap();
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow").unwrap(), "POST");
    }
}

#[test]
fn with_a_token_nothing_is_taken_without_it() {
    let bench = Bench::with(|setup| {
        setup
            .env("INBOX_TOKEN", "a-token-of-32-visible-characters")
            .arguments(["--token-env", "INBOX_TOKEN"])
    });
    let send = |values: &[&str]| {
        let mut request = callback(&key("one"), "task", b"one");
        for value in values {
            request = request.header("authorization", value);
        }
        client::send(bench.inbox.address(), &request).unwrap()
    };
    let right = "Bearer a-token-of-32-visible-characters";
    let wrong: [&[&str]; 8] = [
        &[],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Bearer a-token-of-32-visible-characterx"],
        &["Bearer a-token-of-32-visible-characters "],
        &["Basic a-token-of-32-visible-characters"],
        &[right, right],
    ];
    for values in wrong {
        // Trailing white space is not part of a value (RFC 9110), so that one is right.
        let expected = if values == ["Bearer a-token-of-32-visible-characters "] {
            200
        } else {
            401
        };
        assert_eq!(send(values).status, expected, "{values:?}");
    }
    assert_eq!(
        send(&["bearer a-token-of-32-visible-characters"]).status,
        200
    );
    let event = bench.event(&key("one"));
    assert!(event["headers"].get("authorization").is_none());
}

#[test]
fn what_is_stored_and_delivered_is_what_came_but_for_hop_by_hop_and_credentials() {
    let bench = Bench::new(&["--drop-header", "X-Webhook-Signature,x-other"]);
    bench.upstream.answer(failing());
    let request = Request::post("/callbacks/suno?a=%20b&c")
        .header("x-callback-guard-key", key("one"))
        .header("x-callback-guard-source", "suno")
        .header("x-callback-guard-id", "task")
        .header("x-callback-guard-changed", "true")
        .header("content-type", "application/json; charset=utf-8")
        .header("x-request-id", "1")
        .header("x-twice", "a")
        .header("x-twice", "b")
        .header("x-bytes", b"\xff\xfe")
        .header("x-webhook-signature", "sender's")
        .header("x-other", "dropped")
        .header("connection", "x-hop, x-callback-guard-key")
        .header("x-hop", "1")
        .header("keep-alive", "1")
        .header("te", "trailers")
        .header("authorization", "Bearer secret")
        .header("cookie", "session=secret")
        .header("x-callback-guard-attempt", "77")
        .body(Body::one_piece(b"\x00\xffbytes".to_vec()));
    let response = client::send(bench.inbox.address(), &request).unwrap();
    assert_eq!(response.status, 200);
    let got = bench
        .upstream
        .wait_until("a delivery", |all| {
            all.iter().any(|one| one.body.len() == 7)
        })
        .unwrap();
    let got = &got[0];
    assert_eq!(got.head.method, "POST");
    assert_eq!(got.head.path, "/callbacks/suno?a=%20b&c");
    assert_eq!(got.head.host, bench.upstream.address().to_string());
    assert_eq!(got.body, b"\x00\xffbytes");
    let mut headers: Vec<(&str, &[u8])> = got
        .head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    headers.sort_unstable();
    let stored = key("one");
    let expected: [(&str, &[u8]); 12] = [
        ("content-length", b"7"),
        ("content-type", b"application/json; charset=utf-8"),
        ("host", got.head.host.as_bytes()),
        ("x-bytes", b"\xff\xfe"),
        ("x-callback-guard-attempt", b"1"),
        ("x-callback-guard-changed", b"true"),
        ("x-callback-guard-id", b"task"),
        ("x-callback-guard-key", stored.as_bytes()),
        ("x-callback-guard-source", b"suno"),
        ("x-request-id", b"1"),
        ("x-twice", b"a"),
        ("x-twice", b"b"),
    ];
    assert_eq!(headers, expected);
    let file = std::fs::read(bench.inbox.setup.directory().join("inbox.db-wal")).unwrap();
    for secret in ["secret", "sender's", "dropped"] {
        let is_there = file
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!is_there, "{secret}");
    }
}

#[test]
fn sixteen_mebibytes_are_taken_and_one_byte_more_is_not() {
    let bench = Bench::new(&[]);
    let largest = 16 * 1024 * 1024;
    for (name, chunked) in [("declared", false), ("chunked", true)] {
        let send = |size: usize| {
            let bytes = vec![b'a'; size];
            let body = match chunked {
                false => Body::one_piece(bytes),
                true => Body::chunked([bytes]),
            };
            let request = Request::post("/")
                .header("x-callback-guard-key", key(&format!("{name}{size}")))
                .header("x-callback-guard-source", "suno")
                .header("x-callback-guard-id", "task")
                .json(body);
            client::send(bench.inbox.address(), &request)
        };
        assert_eq!(send(largest).unwrap().status, 200, "{name}");
        // The inbox may close before all of it was written.
        if let Ok(response) = send(largest + 1) {
            assert_eq!(response.status, 413, "{name}");
            assert_eq!(response.json().unwrap()["code"], "body_too_large", "{name}");
        }
        bench.wait_for_state(&key(&format!("{name}{largest}")), "delivered");
    }
    let sizes: Vec<usize> = bench
        .upstream
        .recorded()
        .iter()
        .map(|all| all.body.len())
        .collect();
    assert_eq!(sizes, [largest, largest]);
}

#[test]
fn a_body_that_breaks_off_is_not_stored() {
    let bench = Bench::new(&[]);
    let mut raw = client::RawConnection::open(bench.inbox.address()).unwrap();
    raw.write(format!(
        "POST / HTTP/1.1\r\nhost: a\r\nx-callback-guard-key: {}\r\nx-callback-guard-source: suno\r\n\
         x-callback-guard-id: t\r\ncontent-length: 10\r\n\r\nhalf",
        key("half")
    ))
    .unwrap();
    drop(raw);
    bench.accept("whole", "task");
    bench.wait_for_state(&key("whole"), "delivered");
    assert_eq!(bench.stats()["delivered"], 1);
    assert_eq!(bench.bodies(), ["whole"]);
}

#[test]
fn a_full_backlog_refuses_what_is_new_and_still_knows_what_is_stored() {
    for limit in [["--max-backlog", "2"], ["--max-backlog-bytes", "700"]] {
        let bench = Bench::new(&[limit[0], limit[1], "--schedule", "1h"]);
        bench.upstream.answer(failing());
        bench.accept("one", "1");
        bench.accept("two", "2");
        let refused = bench.inbox.send(&key("three"), "3", b"three").unwrap();
        assert_eq!(refused.status, 503, "{limit:?}");
        assert_eq!(refused.json().unwrap()["code"], "inbox_full");
        assert_eq!(refused.header("retry-after").unwrap(), "1");
        let known = bench.inbox.send(&key("two"), "2", b"two").unwrap();
        assert_eq!(known.header("x-callback-guard-inbox").unwrap(), "known");
        assert_eq!(
            bench
                .inbox
                .metric("callback_guard_inbox_refused_total{code=\"inbox_full\"}")
                .unwrap(),
            1.0
        );
    }
}

#[test]
fn a_full_backlog_has_room_again_once_something_is_delivered() {
    let bench = Bench::new(&["--max-backlog", "1", "--schedule", "1h"]);
    let gate = client::Gate::new();
    bench
        .upstream
        .answer(callback_guard_harness::Answer::status(200).when(&gate));
    bench.accept("one", "1");
    assert_eq!(
        bench.inbox.send(&key("two"), "2", b"two").unwrap().status,
        503
    );
    gate.open();
    bench.wait_for_state(&key("one"), "delivered");
    callback_guard_harness::wait::wait_for("room", || {
        let response = bench.inbox.send(&key("two"), "2", b"two").unwrap();
        (response.status == 200).then_some(())
    })
    .unwrap();
}
