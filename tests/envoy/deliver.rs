//! What a genuine callback is, and what the upstream and the sender get of it.

use callback_guard_harness::{Answer, Body, Protocol};
use serde_json::json;

use callback_guard_support::{Change as _, Guarded, event, sample, signed};

#[test]
fn every_sample_kind_is_delivered_byte_for_byte() {
    let guarded = Guarded::start();
    let index = sample("index.json");
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let mut sent = Vec::new();
    for (at, file) in index["files"].as_array().unwrap().iter().enumerate() {
        let name = file["file"].as_str().unwrap();
        let body = sample(name);
        // Samples of one kind share a task id: as an event of their own each gets another.
        let id = file["task_id"].as_str().unwrap();
        let body = body.replace(id, &format!("{id}-{at}"));
        let response = guarded.send(&signed(&body));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        sent.push((format!("{id}-{at}"), body));
    }
    let recorded = guarded.upstream.recorded();
    assert_eq!(recorded.len(), sent.len());
    for (record, (id, body)) in recorded.iter().zip(sent) {
        assert_eq!(
            record.head.header("x-callback-guard-source").as_deref(),
            Some("suno")
        );
        assert_eq!(record.head.values("x-callback-guard-id"), [id]);
        assert_eq!(
            record.head.header("x-callback-guard-key").unwrap().len(),
            64
        );
        assert_eq!(record.head.header("x-callback-guard-verdict"), None);
        assert_eq!(record.body, body.as_bytes());
    }
}

#[test]
fn however_the_body_travels_it_arrives() {
    let guarded = Guarded::start();
    let mut count = 0;
    for protocol in Protocol::ALL {
        for way in 0..5 {
            let (id, body) = event("way");
            let bytes = body.clone().into_bytes();
            let body_on_the_way = match way {
                0 => Body::one_piece(bytes),
                1 => Body::halves(bytes),
                2 => Body::chunked([bytes]),
                3 => Body::split(bytes.chunks(1).map(<[u8]>::to_vec).collect::<Vec<_>>()),
                _ => Body::chunked([bytes]).trailer("x-trailer", "1"),
            };
            let request = signed(&body).body(body_on_the_way).protocol(protocol);
            let response = guarded.send(&request);
            assert_eq!(
                response.status,
                200,
                "{protocol:?} {way}: {}",
                response.text()
            );
            count += 1;
            let recorded = guarded.upstream.recorded();
            assert_eq!(recorded.len(), count, "{protocol:?} {way}");
            let last = recorded.last().unwrap();
            assert_eq!(last.body, body.as_bytes());
            assert_eq!(last.head.values("x-callback-guard-id"), [id]);
        }
    }
    guarded.assert_alive();
}

#[test]
fn a_body_of_the_largest_size_arrives() {
    let guarded = Guarded::start();
    for protocol in Protocol::ALL {
        let (_, body) = event("large");
        let padding = (1 << 20) - body.len() - r#","pad":"""#.len();
        let body = body.replace(
            "\"code\"",
            &format!("\"pad\":\"{}\",\"code\"", "x".repeat(padding)),
        );
        assert_eq!(body.len(), 1 << 20);
        let response = guarded.send(&signed(&body).protocol(protocol));
        assert_eq!(response.status, 200, "{protocol:?}: {}", response.text());
        let response = guarded.send(&signed(&format!("{body} ")).protocol(protocol));
        assert_eq!(response.status, 413, "{protocol:?}");
        assert_eq!(
            response.header("x-callback-guard").as_deref(),
            Some("body_too_large")
        );
        // The same with no declared length.
        let chunks: Vec<Vec<u8>> = format!("{body} ")
            .into_bytes()
            .chunks(1 << 16)
            .map(<[u8]>::to_vec)
            .collect();
        let request = signed(&body).body(Body::chunked(chunks)).protocol(protocol);
        let response = guarded.send(&request);
        assert_eq!(response.status, 413, "{protocol:?}");
    }
    assert_eq!(guarded.upstream.heads(), 2);
}

#[test]
fn headers_that_only_the_guard_may_set_are_replaced() {
    let guarded = Guarded::start();
    let (id, body) = event("spoof");
    let request = signed(&body)
        .header("x-callback-guard-id", "evil")
        .header("X-Callback-Guard-Source", "evil")
        .header("x-callback-guard-verdict", "evil")
        .header("x-callback-guard", "evil")
        .header("x-callback-guarded", "evil");
    assert_eq!(guarded.send(&request).status, 200);
    let head = guarded.upstream.recorded().remove(0).head;
    let own: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-callback-guard"))
        .collect();
    assert_eq!(own.len(), 3, "{own:?}");
    assert_eq!(head.values("x-callback-guard-id"), [id]);
    assert_eq!(head.values("x-callback-guard-source"), ["suno"]);
}

/// Neither from a request that is verified, nor from one that is watched, nor from one of no source.
#[test]
fn names_that_only_the_guard_may_set_arrive_in_no_trailer() {
    let names = [
        "x-callback-guard-key",
        "x-callback-guard-id",
        "x-callback-guard",
        "x-callback-guardx",
        "X-CALLBACK-GUARD-SOURCE",
    ];
    for is_http2 in [false, true] {
        let guarded = Guarded::builder()
            .configuration(|configuration| {
                configuration["unmatched"] = json!("pass");
                let sources = configuration["sources"].as_array_mut().unwrap();
                let mut watched = sources[0].clone();
                watched["name"] = json!("watched");
                watched["match"] = json!({ "path": "/watched" });
                watched["mode"] = json!("monitor");
                sources.push(watched);
            })
            .render(|render| match is_http2 {
                true => render.connection_manager(|manager| {
                    manager["http_protocol_options"] = json!({ "enable_trailers": true });
                }),
                false => render.http1_trailers(),
            })
            .render(|render| match is_http2 {
                true => render.upstream_http2(),
                false => render,
            })
            .start();
        for protocol in Protocol::ALL {
            for path in ["/callbacks/suno", "/watched", "/other"] {
                guarded.upstream.clear();
                let (_, body) = event("trailer");
                let mut sent = Body::chunked([body.clone()]).trailer("x-sum", "1");
                for name in names {
                    sent = sent.trailer(name, "evil").trailer(name, "evil again");
                }
                let request = signed(&body).path(path).protocol(protocol).body(sent);
                let text = format!("{protocol:?} to {path}, HTTP/2 behind: {is_http2}");
                assert_eq!(guarded.send(&request).status, 200, "{text}");
                let record = guarded.upstream.recorded().remove(0);
                assert_eq!(record.head.http2, is_http2, "{text}");
                assert_eq!(record.body, body.as_bytes(), "{text}");
                // All others arrive.
                let trailers = record.trailers;
                assert_eq!(trailers, [("x-sum".to_owned(), b"1".to_vec())], "{text}");
                for (name, value) in &record.head.headers {
                    assert!(!value.starts_with(b"evil"), "{text}: {name}");
                }
            }
        }
        guarded.assert_alive();
    }
}

#[test]
fn what_matches_no_source_passes_without_the_guards_headers_if_so_configured() {
    let guarded = Guarded::with(|configuration| configuration["unmatched"] = json!("pass"));
    for protocol in Protocol::ALL {
        let request = signed(&event("x").1)
            .path("/other")
            .header("x-callback-guard-id", "evil");
        assert_eq!(guarded.send(&request.protocol(protocol)).status, 200);
    }
    let recorded = guarded.upstream.recorded();
    assert_eq!(recorded.len(), 2);
    for record in recorded {
        assert_eq!(record.head.header("x-callback-guard-id"), None);
    }
}

#[test]
fn a_2xx_is_acknowledged_as_the_sender_wants_it() {
    let guarded = Guarded::start();
    for (status, expected) in [
        (200, 200),
        (201, 200),
        (204, 200),
        (299, 200),
        (302, 302),
        (500, 500),
    ] {
        guarded.upstream.answer(Answer::status(status));
        let response = guarded.send(&signed(&event("status").1));
        assert_eq!(response.status, expected, "{status}");
    }
    let guarded = Guarded::with(|c| c["sources"][0]["acknowledge_as"] = json!(202));
    guarded.upstream.answer(Answer::status(200).body("thanks"));
    let response = guarded.send(&signed(&event("status").1));
    assert_eq!((response.status, response.text().as_str()), (202, "thanks"));
}

#[test]
fn monitoring_forwards_everything_with_its_verdict() {
    let guarded = Guarded::with(|configuration| configuration["mode"] = json!("monitor"));
    let (id, body) = event("monitor");
    let verdicts = [
        (
            signed(&body).without("x-webhook-signature"),
            "signature_missing",
            false,
        ),
        (
            signed(&body).body(Body::halves("{\"a\":1,\"a\":2}".to_owned())),
            "json_duplicate_key",
            false,
        ),
        (signed(&body), "forwarded", true),
        (signed(&body), "duplicate", true),
        (
            signed(&body).without("content-type"),
            "unsupported_media_type",
            false,
        ),
    ];
    for (at, (request, verdict, is_verified)) in verdicts.into_iter().enumerate() {
        guarded.upstream.answer(Answer::status(202));
        assert_eq!(
            guarded.send(&request).status,
            202,
            "{verdict}: nothing is changed"
        );
        let head = guarded.upstream.recorded().remove(at).head;
        assert_eq!(head.values("x-callback-guard-verdict"), [verdict]);
        let ids = if is_verified {
            vec![id.clone()]
        } else {
            Vec::new()
        };
        assert_eq!(head.values("x-callback-guard-id"), ids, "{verdict}");
    }
}

#[test]
fn a_sender_that_asks_for_100_continue_is_served() {
    let guarded = Guarded::start();
    let request = signed(&event("expect").1).header("expect", "100-continue");
    assert_eq!(guarded.send(&request).status, 200);
    assert_eq!(guarded.upstream.heads(), 1);
}
