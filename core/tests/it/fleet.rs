//! The shared store under a flood: it is asked for a few things at a time, every message id has its
//! turn, and a store that answers is never taken for one that is down.

use callback_guard_core::metrics::Metric;
use callback_guard_core::store::queue::MOST_CALLS;
use callback_guard_core::store::redis::{Answer, StoreError};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::{MOST_ANSWERS, Outcome, StreamId};
use serde_json::json;

use crate::support::{Host, NOW, Request, Seen, configuration, policy};

/// What Webdis answers where the event was absent, and where a settlement was right.
const GRANTED: Result<Answer<'_>, StoreError> = http(br#"{"EVAL":null}"#);
const SETTLED: Result<Answer<'_>, StoreError> = http(br#"{"EVAL":1}"#);

const fn http(body: &[u8]) -> Result<Answer<'_>, StoreError> {
    Ok(Answer::Http { status: 200, body })
}

fn host(on_error: &str) -> Host {
    Host::new(policy(&configuration(|c| {
        c["store"] = json!({
            "kind": "redis", "protocol": "webdis", "cluster": "redis_http", "on_error": on_error
        });
        c["sources"][0]["dedupe"] = json!({ "events_per_id": 256 });
    })))
}

/// One of the stages that can be invented under one signature of an id.
fn send(host: &mut Host, id: &str, stage: usize, now: UnixMillis) -> StreamId {
    let body =
        format!(r#"{{"code":200,"msg":"","data":{{"task_id":"{id}","callbackType":"{stage}"}}}}"#);
    let request = Request::genuine(&host.policy.clone(), &body, now);
    let (stream, seen) = host.send(&request, now);
    assert_eq!(seen, Seen::Held);
    stream
}

/// The call that was made first of those on their way ends, and time passes.
fn end_first(host: &mut Host, reply: Result<Answer<'_>, StoreError>, now: UnixMillis) {
    let (call, before) = (host.calls[0].0, host.calls.len());
    host.call_ended(call, reply, now);
    // The answer to a call that is made in another's callback may be lost.
    assert_eq!(host.calls.len(), before - 1);
    host.time(now);
}

fn gone_on(host: &Host, streams: &[StreamId]) -> usize {
    let is_held = |stream: &&StreamId| host.seen(**stream) != Seen::Held;
    streams.iter().filter(is_held).count()
}

#[test]
fn a_flood_under_one_id_delays_no_other_and_opens_no_circuit() {
    let mut host = host("memory");
    let flood: Vec<StreamId> = (0..200)
        .map(|stage| send(&mut host, "captured", stage, NOW))
        .collect();
    assert_eq!(host.calls.len(), MOST_CALLS);
    let others: Vec<StreamId> = (0..10)
        .map(|number| send(&mut host, &format!("genuine-{number}"), 0, NOW))
        .collect();
    // One of the flood has its turn before them, and each of them before the next one.
    for _ in 0..11 {
        end_first(&mut host, GRANTED, NOW);
        assert_eq!(host.calls.len(), MOST_CALLS);
    }
    assert_eq!((gone_on(&host, &flood), gone_on(&host, &others)), (11, 0));
    for _ in 11..MOST_CALLS + 11 {
        end_first(&mut host, GRANTED, NOW);
    }
    assert_eq!(gone_on(&host, &others), 10);
    // All have their answer in the end, from the store.
    while !host.calls.is_empty() {
        assert!(host.calls.len() <= MOST_CALLS);
        end_first(&mut host, GRANTED, NOW);
    }
    assert_eq!(gone_on(&host, &flood), 200);
    for stream in flood.iter().chain(&others) {
        assert_eq!(host.seen(*stream).code(), Some(Code::Forwarded));
    }
    assert_eq!(host.count(Metric::CircuitOpenings), 0);
    assert_eq!(host.count(Metric::Fallbacks), 0);
    // Their settlements are as many at once, and each response goes in the end.
    for stream in &flood {
        assert!(host.settle(*stream, Outcome::Accepted, NOW).is_held);
        assert!(host.calls.len() <= MOST_CALLS);
    }
    while !host.calls.is_empty() {
        end_first(&mut host, SETTLED, NOW);
    }
    assert!(
        flood
            .iter()
            .all(|stream| host.has_resumed_response(*stream))
    );
    assert_eq!(host.ticks, None);
}

#[test]
fn a_store_that_falls_silent_turns_those_in_the_queue_away_in_batches() {
    for (on_error, code) in [
        ("memory", Code::Forwarded),
        ("pass", Code::Forwarded),
        ("reject", Code::StoreUnavailable),
    ] {
        let mut host = host(on_error);
        let streams: Vec<StreamId> = (0..MOST_CALLS + 100)
            .map(|stage| send(&mut host, "t", stage, NOW))
            .collect();
        for _ in 0..3 {
            end_first(&mut host, Err(StoreError::Timeout), NOW);
        }
        assert_eq!(host.count(Metric::CircuitOpenings), 1);
        assert_eq!(gone_on(&host, &streams), 3 + MOST_ANSWERS);
        // Two took the place of the first two that failed.
        let mut left = 100 - 2 - MOST_ANSWERS;
        while left > 0 {
            let before = gone_on(&host, &streams);
            host.time(NOW);
            let batch = gone_on(&host, &streams) - before;
            assert_eq!(batch, left.min(MOST_ANSWERS), "{on_error}");
            left -= batch;
        }
        let is_told = |stream: &&StreamId| host.seen(**stream).code() == Some(code);
        assert_eq!(streams.iter().filter(is_told).count(), 3 + 98, "{on_error}");
        assert_eq!(host.count(Metric::StoreErrors(StoreError::CircuitOpen)), 98);
    }
}

#[test]
fn who_leaves_the_queue_has_claimed_nothing_and_who_leaves_a_call_frees_no_room() {
    let mut host = host("memory");
    let streams: Vec<StreamId> = (0..MOST_CALLS)
        .map(|stage| send(&mut host, "t", stage, NOW))
        .collect();
    let queued = send(&mut host, "u", 0, NOW);
    host.end(queued, Outcome::Unknown, NOW);
    // The event is free: it is asked for again, and nobody waits for anybody.
    let again = send(&mut host, "u", 0, NOW);
    assert_eq!(host.worker.waiting(), 0);
    // Envoy goes on with a call whose request has ended: it counts until it ends, too.
    for stream in &streams {
        host.end(*stream, Outcome::Unknown, NOW);
    }
    assert_eq!(host.calls.len(), MOST_CALLS);
    assert_eq!(host.seen(again), Seen::Held);
    end_first(&mut host, GRANTED, NOW);
    assert_eq!(host.calls.len(), MOST_CALLS);
    let (last, _) = host.calls[MOST_CALLS - 1].clone();
    host.call_ended(last, GRANTED, NOW);
    assert_eq!(host.seen(again).code(), Some(Code::Forwarded));
    // A host that loses the ends of such calls does not lose the store: none lasts longer than it may.
    let (next, before) = (send(&mut host, "v", 0, NOW), host.calls.len());
    assert_eq!(before, MOST_CALLS);
    let calls = (0..4).map(|stage| send(&mut host, "w", stage, NOW));
    let queued: Vec<StreamId> = calls.collect();
    host.time(NOW.plus_millis(249));
    assert_eq!(host.calls.len(), before);
    host.time(NOW.plus_millis(250));
    // And the releases of what was claimed, eight at a time.
    assert_eq!(host.calls.len(), before + queued.len() + 8);
    assert_eq!(host.seen(next), Seen::Held);
}
