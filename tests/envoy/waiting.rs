//! Thousands of requests for events that another request is delivering: the VM lives, and nobody else
//! notices.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use callback_guard_harness::{Answer, Gate, Load, Request, client};

use crate::support::{Guarded, event, signed};

const FLOOD: usize = 5_000;
/// As many streams at once as requests: each waits, or is told to come again.
const CONNECTIONS: usize = 50;
const STREAMS: usize = 100;

/// The median of how long genuine callbacks take, each of an event of its own.
fn median(guarded: &Guarded, name: &str) -> Duration {
    let mut took: Vec<Duration> = (0..101)
        .map(|number| {
            let request = signed(&event(&format!("{name}-{number}")).1);
            let response = guarded.send(&request);
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.header("x-callback-guard"), None, "{name} {number}");
            response.took
        })
        .collect();
    took.sort();
    took[took.len() / 2]
}

/// Floods a guard with `requests`, whose deliveries are held at a gate that then opens on `answer`;
/// bystanders come meanwhile. What the flood was told, by status.
fn flood(answer: Answer, requests: Vec<Request>, events: usize) -> BTreeMap<u16, usize> {
    let guarded = Guarded::builder().workers(1).start();
    let gate = Gate::new();
    let held = answer.when(&gate);
    guarded.upstream.answer_with(move |head| {
        let id = head.header("x-callback-guard-id").unwrap_or_default();
        if id.contains("flood") {
            held.clone()
        } else {
            Answer::status(200)
        }
    });
    median(&guarded, "warm");
    let idle = median(&guarded, "idle");
    let address = guarded.address();
    let flooding = thread::spawn(move || {
        client::send_all(address, requests, Load::http2(CONNECTIONS, STREAMS)).unwrap()
    });
    // Every event is at the upstream, and as many wait as may.
    let waits = (events * 32).min(1_024) as u64;
    guarded.wait_for_stat("wasmcustom.callback_guard.waits_total.source.suno", waits);
    let busy = median(&guarded, "busy");
    gate.open();
    let after = median(&guarded, "after");
    let mut told = BTreeMap::new();
    for response in flooding.join().unwrap() {
        *told.entry(response.unwrap().status).or_default() += 1;
    }
    println!("{told:?}: idle {idle:?}, while all wait {busy:?}, while they go on {after:?}");
    guarded.assert_alive();
    // Each bystander was delivered exactly once.
    let mut delivered = BTreeMap::new();
    for record in guarded.upstream.recorded() {
        let id = record.head.header("x-callback-guard-id").unwrap();
        *delivered.entry(id).or_insert(0) += 1;
    }
    delivered.retain(|id, _| !id.contains("flood"));
    assert_eq!(delivered.len(), 4 * 101);
    assert!(delivered.values().all(|count| *count == 1), "{delivered:?}");
    // A scheduler on a busy machine is not the guard.
    let most = (idle * 3).max(Duration::from_millis(5));
    assert!(busy <= most, "{busy:?} while all wait, {idle:?} when idle");
    told
}

#[test]
fn five_thousand_copies_of_one_event_are_one_delivery() {
    let request = signed(&event("flood").1);
    let told = flood(Answer::status(200), vec![request; FLOOD], 1);
    assert_eq!(told.values().sum::<usize>(), FLOOD);
    // One was delivered, 32 waited for it; what came too early is told to come again.
    assert!(told[&200] > 32, "{told:?}");
    assert!(
        told.keys().all(|status| matches!(status, 200 | 409)),
        "{told:?}"
    );
}

#[test]
fn five_thousand_requests_for_fifty_events_that_fail_end_without_harm() {
    let events: Vec<Request> = (0..50)
        .map(|number| signed(&event(&format!("flood-{number}")).1))
        .collect();
    let requests = events.iter().cycle().take(FLOOD).cloned().collect();
    let told = flood(Answer::status(503), requests, 50);
    assert_eq!(told.values().sum::<usize>(), FLOOD);
    assert!(
        told.keys().all(|status| matches!(status, 409 | 503)),
        "{told:?}"
    );
}
