//! Deduplication: once, never lost, over several workers, whatever the upstream does.

use std::time::Duration;

use callback_guard_harness::{Answer, Gate, Load, client};
use serde_json::json;

use callback_guard_support::{Guarded, event, signed};

#[test]
fn an_event_is_delivered_once() {
    let guarded = Guarded::start();
    let (_, body) = event("once");
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    for _ in 0..3 {
        let response = guarded.send(&signed(&body));
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("x-callback-guard").as_deref(),
            Some("duplicate")
        );
        assert_eq!(response.text(), r#"{"status":"duplicate"}"#);
    }
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn two_thousand_sends_of_500_events_over_two_workers_are_500_deliveries() {
    let guarded = Guarded::builder().workers(2).start();
    let mut requests = Vec::new();
    for number in 0..500 {
        let request = signed(&event(&format!("race-{number}")).1);
        requests.extend((0..4).map(|_| request.clone()));
    }
    for response in client::send_all(guarded.address(), requests, Load::http1(8)).unwrap() {
        let response = response.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let mut ids: Vec<String> = guarded
        .upstream
        .recorded()
        .iter()
        .filter_map(|record| record.head.header("x-callback-guard-id"))
        .collect();
    assert_eq!(ids.len(), 500);
    ids.sort();
    ids.dedup();
    assert_eq!(
        ids.len(),
        500,
        "an event was delivered twice and another not at all"
    );
    assert_eq!(guarded.requests("suno", "duplicate"), 1500);
}

#[test]
fn requests_that_wait_on_other_workers_get_the_answer_of_the_first() {
    let guarded = Guarded::builder().workers(4).start();
    let gate = Gate::new();
    guarded.upstream.answer(Answer::status(200).when(&gate));
    let request = signed(&event("wait").1);
    let waiting: Vec<_> = (0..16).map(|_| guarded.begin(&request)).collect();
    guarded.wait_for_stat("wasmcustom.callback_guard.waits_total.source.suno", 15);
    guarded.upstream.wait_for_requests(1).unwrap();
    gate.open();
    let mut duplicates = 0;
    for response in waiting {
        let response = response.finish().unwrap();
        assert_eq!(response.status, 200);
        duplicates += usize::from(response.header("x-callback-guard").is_some());
    }
    assert_eq!((duplicates, guarded.upstream.heads()), (15, 1));
}

#[test]
fn a_request_that_waits_is_delivered_when_the_first_fails() {
    let guarded = Guarded::builder().workers(2).start();
    let gate = Gate::new();
    guarded
        .upstream
        .answer_in_turn([Answer::status(500).when(&gate), Answer::status(200)]);
    let request = signed(&event("takeover").1);
    let waiting: Vec<_> = (0..3).map(|_| guarded.begin(&request)).collect();
    guarded.wait_for_stat("wasmcustom.callback_guard.waits_total.source.suno", 2);
    gate.open();
    let mut statuses: Vec<u16> = waiting
        .into_iter()
        .map(|response| response.finish().unwrap().status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 500]);
    assert_eq!(guarded.upstream.heads(), 2);
}

#[test]
fn a_wait_ends_with_409() {
    let guarded = Guarded::with(|configuration| {
        configuration["sources"][0]["dedupe"] = json!({ "wait_seconds": 1 });
    });
    let gate = Gate::new();
    guarded.upstream.answer(Answer::status(200).when(&gate));
    let request = signed(&event("wait").1);
    let first = guarded.begin_delivery(&request);
    let response = guarded.send(&request);
    assert_eq!(response.status, 409);
    assert_eq!(
        response.header("x-callback-guard").as_deref(),
        Some("in_flight")
    );
    assert_eq!(response.header("retry-after").as_deref(), Some("1"));
    gate.open();
    assert_eq!(first.finish().unwrap().status, 200);
}

#[test]
fn in_flight_is_rejected_at_once_if_so_configured() {
    let guarded = Guarded::with(|configuration| {
        configuration["sources"][0]["dedupe"] = json!({ "in_flight": "reject" });
    });
    let gate = Gate::new();
    guarded.upstream.answer(Answer::status(200).when(&gate));
    let request = signed(&event("reject").1);
    let first = guarded.begin_delivery(&request);
    assert_eq!(guarded.send(&request).status, 409);
    assert_eq!(
        guarded.stat("wasmcustom.callback_guard.waits_total.source.suno"),
        0
    );
    gate.open();
    assert_eq!(first.finish().unwrap().status, 200);
}

#[test]
fn a_waiting_request_whose_sender_leaves_claims_nothing() {
    let guarded = Guarded::start();
    let gate = Gate::new();
    guarded
        .upstream
        .answer_in_turn([Answer::status(500).when(&gate), Answer::status(200)]);
    let request = signed(&event("leaver").1);
    let first = guarded.begin_delivery(&request);
    let second = guarded.begin_waiting(&request);
    second.abort();
    guarded.wait_for_access_log(1);
    gate.open();
    assert_eq!(first.finish().unwrap().status, 500);
    // Had the one that left claimed the event, this one would wait for its lease.
    assert_eq!(guarded.send(&request).header("x-callback-guard"), None);
    assert_eq!(guarded.upstream.heads(), 2);
}

/// What the upstream does, what the sender gets, and whether the next attempt is delivered at once.
#[test]
fn an_event_that_was_not_answered_2xx_is_delivered_again() {
    let guarded = Guarded::builder()
        .route_timeout(Duration::from_secs(1))
        .start();
    let never = Gate::new();
    for (name, answer, status) in [
        ("refuses", Answer::status(500), 500),
        ("asks for patience", Answer::status(429), 429),
        ("redirects", Answer::status(302), 302),
        ("resets", Answer::reset(), 503),
        ("hangs", Answer::status(200).when(&never), 504),
    ] {
        guarded.upstream.clear();
        guarded.upstream.answer(answer);
        let request = signed(&event("again").1);
        assert_eq!(guarded.send(&request).status, status, "{name}");
        guarded.upstream.answer(Answer::status(200));
        let response = guarded.send(&request);
        assert_eq!(
            (response.status, response.header("x-callback-guard")),
            (200, None),
            "{name}"
        );
        assert_eq!(guarded.upstream.heads(), 2, "{name}");
        // Now it is.
        let response = guarded.send(&request);
        assert_eq!(
            response.header("x-callback-guard").as_deref(),
            Some("duplicate"),
            "{name}"
        );
    }
    guarded.assert_alive();
}

#[test]
fn an_upstream_that_is_not_there_loses_nothing() {
    let guarded = Guarded::builder()
        .dead_upstream()
        .on_unknown("hold")
        .start();
    let request = signed(&event("dead").1);
    for _ in 0..3 {
        assert_eq!(guarded.send(&request).status, 503);
    }
    // Never reached, so never held, whatever `on_unknown` says.
    assert_eq!(guarded.requests("suno", "forwarded"), 3);
}

#[test]
fn a_sender_that_leaves_before_the_answer_comes_again() {
    for (on_unknown, is_delivered_again) in [("release", true), ("hold", false)] {
        let guarded = Guarded::builder()
            .on_unknown(on_unknown)
            .in_flight("reject")
            .start();
        let gate = Gate::new();
        guarded
            .upstream
            .answer_in_turn([Answer::status(200).when(&gate), Answer::status(200)]);
        let request = signed(&event("abort").1);
        let first = guarded.begin_delivery(&request);
        first.abort();
        guarded.wait_for_access_log(1);
        let status = guarded.send(&request).status;
        assert_eq!(
            status,
            if is_delivered_again { 200 } else { 409 },
            "{on_unknown}"
        );
        // The application is still at work on the first: it has the event twice at once.
        let inside = 1 + usize::from(is_delivered_again);
        assert_eq!(guarded.upstream.heads(), inside, "{on_unknown}");
        gate.open();
    }
}

#[test]
fn a_claim_whose_outcome_is_unknown_can_be_held() {
    let guarded = Guarded::builder()
        .on_unknown("hold")
        .in_flight("reject")
        .route_timeout(Duration::from_secs(1))
        .start();
    let never = Gate::new();
    for (name, answer, status) in [
        ("resets", Answer::reset(), 503),
        ("hangs", Answer::status(200).when(&never), 504),
    ] {
        guarded.upstream.answer(answer);
        let request = signed(&event("hold").1);
        assert_eq!(guarded.send(&request).status, status, "{name}");
        let response = guarded.send(&request);
        assert_eq!(
            response.header("x-callback-guard").as_deref(),
            Some("in_flight"),
            "{name}"
        );
    }
    // What the upstream itself refuses is known.
    guarded
        .upstream
        .answer_in_turn([Answer::status(504), Answer::status(200)]);
    let request = signed(&event("known").1);
    assert_eq!(guarded.send(&request).status, 504);
    assert_eq!(guarded.send(&request).status, 200);
}

#[test]
fn an_answer_that_breaks_off_after_2xx_counts_as_delivered() {
    let guarded = Guarded::start();
    guarded.upstream.answer(Answer::cut_short(200).body("half"));
    let request = signed(&event("cut").1);
    let _ = client::send(guarded.address(), &request);
    let response = guarded.send(&request);
    assert_eq!(
        response.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn a_changed_body_is_counted_and_treated_as_configured() {
    for (on_body_change, status, code) in [
        ("acknowledge", 200, Some("duplicate")),
        ("reject", 409, Some("body_changed")),
        ("forward", 200, None),
    ] {
        let guarded = Guarded::with(|configuration| {
            configuration["sources"][0]["dedupe"] = json!({ "on_body_change": on_body_change });
        });
        let (_, body) = event("change");
        assert_eq!(guarded.send(&signed(&body)).status, 200);
        let response = guarded.send(&signed(&body.replace("success", "SUCCESS")));
        assert_eq!(
            (
                response.status,
                response.header("x-callback-guard").as_deref()
            ),
            (status, code)
        );
        assert_eq!(
            guarded.stat("wasmcustom.callback_guard.body_changes_total.source.suno"),
            1
        );
    }
}

#[test]
fn the_stages_of_a_task_are_delivered_once_each() {
    let guarded = Guarded::start();
    let (id, _) = event("stages");
    for expected in [None, Some("duplicate")] {
        for stage in ["text", "first", "complete"] {
            let body =
                json!({ "code": 200, "msg": "", "data": { "task_id": id, "callbackType": stage } });
            let response = guarded.send(&signed(&body.to_string()));
            assert_eq!(response.status, 200);
            assert_eq!(
                response.header("x-callback-guard").as_deref(),
                expected,
                "{stage}"
            );
        }
    }
    assert_eq!(guarded.upstream.heads(), 3);
}

#[test]
fn a_full_store_refuses_and_keeps_its_claims() {
    let guarded = Guarded::builder()
        .configuration(|configuration| {
            configuration["store"] = json!({ "kind": "memory", "capacity": 1000 });
            configuration["sources"][0]["dedupe"] =
                json!({ "in_flight": "reject", "on_unknown": "hold" });
        })
        .start();
    // Every claim is left to its lease.
    guarded.upstream.answer(Answer::reset());
    let requests = (0..3000)
        .map(|number| signed(&event(&format!("full-{number}")).1))
        .collect();
    let responses = client::send_all(guarded.address(), requests, Load::http1(16)).unwrap();
    let full = responses
        .into_iter()
        .map(|response| response.unwrap())
        .filter(|response| response.header("x-callback-guard").as_deref() == Some("store_full"))
        .inspect(|response| assert_eq!(response.status, 503))
        .count();
    assert!(full > 0, "3000 claims in a store for 1000");
    assert_eq!(
        guarded.stat("wasmcustom.callback_guard.store_evictions_total"),
        0
    );
    assert_eq!(
        guarded.stat("wasmcustom.callback_guard.store_claims"),
        3000 - full as u64
    );
}

/// As docs/troubleshooting.md advises where an application has lost its data.
#[test]
fn delivered_events_can_be_had_again() {
    let mut guarded = Guarded::builder().lds().start();
    let request = || signed(&callback_guard_support::body_of("lost"));
    let verdict = |guarded: &Guarded| {
        let response = guarded.send(&request());
        response.header("x-callback-guard")
    };
    assert_eq!(verdict(&guarded), None);
    assert_eq!(verdict(&guarded).as_deref(), Some("duplicate"));
    // Another name of the source is another key of every event, in each kind of store.
    guarded.reload(|configuration| configuration["sources"][0]["name"] = json!("suno-again"));
    assert_eq!(verdict(&guarded), None);
    assert_eq!(verdict(&guarded).as_deref(), Some("duplicate"));
    // The memory store ends with its process.
    guarded.restart_stack();
    assert_eq!(verdict(&guarded), None);
    assert_eq!(guarded.upstream.heads(), 3);
}
