//! `hold_headers: "buffer_after"`: where the flag cannot be set, Envoy's buffer filter behind the
//! guard holds the head.

use callback_guard_harness::{Answer, Body, Gate, Load, Protocol, client};

use callback_guard_support::{Change as _, Guarded, event, signed};

#[test]
fn with_the_buffer_filter_behind_it_nothing_refused_reaches_the_upstream() {
    let guarded = Guarded::builder().buffer_after().workers(2).start();
    let mut requests = Vec::new();
    for number in 0..100 {
        let body = event(&format!("buffer-{number}")).1;
        let other = event("another").1;
        requests.push(signed(&body).body(Body::halves(other.clone())));
        requests.push(signed(&body).body(Body::one_piece(other)));
        requests.push(signed(&body).without("x-webhook-timestamp"));
    }
    for load in [Load::http1(4), Load::http2(2, 8)] {
        for response in client::send_all(guarded.address(), requests.clone(), load).unwrap() {
            assert_eq!(response.unwrap().status, 401);
        }
    }
    assert_eq!(
        (guarded.upstream.heads(), guarded.upstream.connections()),
        (0, 0)
    );
    for protocol in Protocol::ALL {
        for split in [false, true] {
            let (_, body) = event("good");
            let request = signed(&body)
                .header("x-callback-guard-id", "evil")
                .protocol(protocol);
            let request = if split {
                request.body(Body::halves(body.clone()))
            } else {
                request
            };
            assert_eq!(guarded.send(&request).status, 200);
            let last = guarded.upstream.recorded().pop().unwrap();
            assert_eq!(last.body, body.as_bytes());
            // Removed, and none added: Envoy has let the headers go before the decision.
            assert_eq!(last.head.header("x-callback-guard-id"), None);
        }
    }
    guarded.assert_alive();
}

#[test]
fn a_request_waits_there_too() {
    let guarded = Guarded::builder().buffer_after().start();
    let gate = Gate::new();
    guarded
        .upstream
        .answer_in_turn([Answer::status(500).when(&gate), Answer::status(200)]);
    let request = signed(&event("wait").1);
    let first = guarded.begin_delivery(&request);
    let second = guarded.begin_waiting(&request);
    gate.open();
    assert_eq!(first.finish().unwrap().status, 500);
    assert_eq!(second.finish().unwrap().status, 200);
    assert_eq!(guarded.upstream.heads(), 2);
}
