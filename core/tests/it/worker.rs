//! The worker: waiting within its caps, held bytes, changed bodies, claims that are never dropped.

use callback_guard_config as config;
use callback_guard_core::metrics::{Metric, SourceMetric};
use callback_guard_core::policy::Policy;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::{
    MOST_ANSWERS, MOST_FOR_ONE_EVENT, MOST_IN_ALL, Outcome, StreamId,
};
use serde_json::{Value, json};

use crate::support::{Host, NOW, Request, Seen, configuration, policy};

fn with(change: impl FnOnce(&mut Value)) -> Policy {
    policy(&configuration(change))
}

fn event(id: &str, text: &str) -> String {
    format!(r#"{{"code":200,"msg":"{text}","data":{{"task_id":"{id}"}}}}"#)
}

fn send(host: &mut Host, id: &str, text: &str, now: UnixMillis) -> (StreamId, Seen) {
    let request = Request::genuine(&host.policy.clone(), &event(id, text), now);
    host.send(&request, now)
}

/// How many of `streams` have been answered or forwarded.
fn gone_on(host: &Host, streams: &[StreamId]) -> usize {
    let is_held = |stream: &&StreamId| host.seen(**stream) != Seen::Held;
    streams.iter().filter(is_held).count()
}

#[test]
fn so_many_wait_for_one_event_and_no_more_go_on_at_once() {
    let mut host = Host::new(with(|_| {}));
    let (first, _) = send(&mut host, "a", "", NOW);
    let waiting: Vec<StreamId> = (0..MOST_FOR_ONE_EVENT)
        .map(|_| send(&mut host, "a", "", NOW))
        .map(|(stream, seen)| {
            assert_eq!(seen, Seen::Held);
            stream
        })
        .collect();
    // One more is told at once.
    let (_, seen) = send(&mut host, "a", "", NOW);
    assert_eq!(seen.code(), Some(Code::InFlight));
    // Many ticks change nothing, and ask once each.
    host.time(NOW.plus_millis(20));
    assert_eq!(gone_on(&host, &waiting), 0);
    // All are answered in the tick after the delivery.
    host.settle(first, Outcome::Accepted, NOW);
    host.time(NOW.plus_millis(40));
    assert_eq!(gone_on(&host, &waiting), MOST_FOR_ONE_EVENT);
    for stream in &waiting {
        assert_eq!(host.seen(*stream).code(), Some(Code::Duplicate));
    }
    assert_eq!(host.worker.waiting(), 0);
    assert_eq!(host.ticks, None, "no timer runs while nobody waits");
}

#[test]
fn so_many_wait_in_all_and_go_on_in_batches() {
    let mut host = Host::new(with(|_| {}));
    let ids: Vec<String> = (0..MOST_IN_ALL)
        .map(|number| format!("event-{number}"))
        .collect();
    let first: Vec<StreamId> = ids
        .iter()
        .map(|id| send(&mut host, id, "", NOW).0)
        .collect();
    let waiting: Vec<StreamId> = ids
        .iter()
        .map(|id| send(&mut host, id, "", NOW).0)
        .collect();
    assert_eq!(host.worker.waiting(), MOST_IN_ALL);
    let (_, seen) = send(&mut host, "event-0", "", NOW);
    assert_eq!(seen.code(), Some(Code::InFlight));
    for stream in first {
        host.settle(stream, Outcome::Accepted, NOW);
    }
    for tick in 1..=MOST_IN_ALL / MOST_ANSWERS {
        host.time(NOW.plus_millis(20));
        assert_eq!(gone_on(&host, &waiting), tick * MOST_ANSWERS);
    }
    assert_eq!(host.worker.waiting(), 0);
}

#[test]
fn the_deadline_of_many_is_met_in_batches_and_the_sender_that_leaves_is_forgotten() {
    let mut host = Host::new(with(|_| {}));
    let mut waiting = Vec::new();
    for id in ["a", "b", "c"] {
        send(&mut host, id, "", NOW);
        waiting.extend((0..30).map(|_| send(&mut host, id, "", NOW).0));
    }
    host.end(waiting.remove(0), Outcome::Unknown, NOW);
    assert_eq!(host.worker.waiting(), 89);
    let end = NOW.plus_seconds(10);
    for tick in 1..=3 {
        host.time(end);
        assert_eq!(gone_on(&host, &waiting), 89.min(tick * MOST_ANSWERS));
    }
    for stream in &waiting {
        assert_eq!(host.seen(*stream).code(), Some(Code::InFlight));
    }
}

#[test]
fn an_id_makes_so_many_events() {
    let mut host = Host::new(with(|c| {
        c["sources"][0]["dedupe"] = json!({ "events_per_id": 2 });
    }));
    let stage = |stage: &str| {
        format!(r#"{{"code":200,"msg":"","data":{{"task_id":"t","callbackType":"{stage}"}}}}"#)
    };
    let policy = host.policy.clone();
    let mut send = |name: &str| {
        let request = Request::genuine(&policy, &stage(name), NOW);
        let (stream, seen) = host.send(&request, NOW);
        (stream, seen.code())
    };
    let (first, seen) = send("text");
    assert_eq!(seen, Some(Code::Forwarded));
    assert_eq!(send("first").1, Some(Code::Forwarded));
    assert_eq!(send("complete").1, Some(Code::TooManyEvents));
    // A released one does not count.
    host.settle(first, Outcome::Refused, NOW);
    let request = Request::genuine(&policy, &stage("complete"), NOW);
    assert_eq!(host.send(&request, NOW).1.code(), Some(Code::Forwarded));
}

#[test]
fn a_message_that_was_signed_at_another_time_is_new_and_its_retries_are_duplicates() {
    let mut host = Host::new(with(|_| {}));
    let later = NOW.plus_seconds(60);
    let (stream, seen) = send(&mut host, "t", "A", NOW);
    let key = seen.header("x-callback-guard-key").unwrap().to_owned();
    assert_eq!(seen.header("x-callback-guard-changed"), None);
    host.settle(stream, Outcome::Accepted, NOW);
    // The same signature with another body is an invention.
    let (_, seen) = send(&mut host, "t", "invented", NOW);
    assert_eq!(seen.code(), Some(Code::Duplicate));
    // The same body is a retry, whenever it was signed.
    let (_, seen) = send(&mut host, "t", "A", later);
    assert_eq!(seen.code(), Some(Code::Duplicate));
    // Another one, signed at another time, is a message of its own.
    let (stream, seen) = send(&mut host, "t", "B", later);
    assert_eq!(seen.header("x-callback-guard-changed"), Some("true"));
    assert_ne!(seen.header("x-callback-guard-key"), Some(&*key));
    // While it is on its way, its copy waits; when it was delivered, it is known.
    let (copy, seen) = send(&mut host, "t", "B", later);
    assert_eq!(seen, Seen::Held);
    host.settle(stream, Outcome::Accepted, later);
    host.time(later);
    assert_eq!(host.seen(copy).code(), Some(Code::Duplicate));
    let (_, seen) = send(&mut host, "t", "B", later.plus_seconds(30));
    assert_eq!(seen.code(), Some(Code::Duplicate));
    // A third one is new again, and one that fails is not remembered.
    let (stream, seen) = send(&mut host, "t", "C", later.plus_seconds(30));
    assert_eq!(seen.header("x-callback-guard-changed"), Some("true"));
    host.settle(stream, Outcome::Refused, later);
    let (_, seen) = send(&mut host, "t", "C", later.plus_seconds(30));
    assert_eq!(seen.header("x-callback-guard-changed"), Some("true"));
}

#[test]
fn with_a_token_another_body_is_new_and_where_the_body_is_signed_it_is_not() {
    let token = r#"{"sources":[{"name":"t","match":{"path":"/t"},"token":{"header":"x-token"},
        "secrets":[{"value":"0123456789abcdef"}],"id":[{"pointer":"/id"}]}]}"#;
    let token = config::parse(token.as_bytes(), &|_| None);
    if let Ok(policy) = token {
        let mut host = Host::new(policy);
        let request = |text: &str| {
            Request::unsigned(&format!(r#"{{"id":"1","text":"{text}"}}"#))
                .with(":path", "/t")
                .and("x-token", "0123456789abcdef")
        };
        let (stream, _) = host.send(&request("A"), NOW);
        host.settle(stream, Outcome::Accepted, NOW);
        assert_eq!(
            host.send(&request("A"), NOW).1.code(),
            Some(Code::Duplicate)
        );
        let (_, seen) = host.send(&request("B"), NOW);
        assert_eq!(seen.header("x-callback-guard-changed"), Some("true"));
    }
}

#[test]
fn without_deduplication_every_request_is_an_event_of_its_own() {
    let mut host = Host::new(with(|c| c["sources"][0]["dedupe"] = json!(false)));
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let (stream, seen) = send(&mut host, "same", "", NOW);
        keys.insert(seen.header("x-callback-guard-key").unwrap().to_owned());
        host.settle(stream, Outcome::Accepted, NOW);
        host.end(stream, Outcome::Accepted, NOW);
    }
    assert_eq!(keys.len(), 3);
    let buckets = host.shared.sorted();
    assert!(
        buckets.iter().all(|(key, ..)| !key.starts_with("events")),
        "{buckets:?}"
    );
}

#[test]
fn endpoints_below_a_prefix_have_events_of_their_own() {
    let mut host = Host::new(with(|c| {
        c["sources"][0]["match"] = json!({ "path_prefix": "/callbacks" });
    }));
    let request = Request::genuine(&host.policy.clone(), &event("t", ""), NOW);
    for (path, code) in [
        ("/callbacks/a", Code::Forwarded),
        ("/callbacks/b", Code::Forwarded),
        ("/callbacks/a?again", Code::Duplicate),
    ] {
        let (stream, seen) = host.send(&request.clone().with(":path", path), NOW);
        assert_eq!(seen.code(), Some(code), "{path}");
        host.settle(stream, Outcome::Accepted, NOW);
    }
}

#[test]
fn long_bodies_have_room_as_long_as_there_is_some_and_short_ones_always() {
    let mut host = Host::new(with(|c| c["max_held_bytes"] = json!(1 << 20)));
    let policy = host.policy.clone();
    let request = Request::genuine(&policy, &event("t", ""), NOW).without("content-length");
    let open = |host: &mut Host, bytes: usize| {
        let (stream, seen) = host.head(&request, NOW);
        assert_eq!(seen, Seen::Held);
        (stream, host.part(stream, bytes, NOW))
    };
    let gauge = |host: &Host| host.count(Metric::HeldBytes);
    // Sixteen short ones and one long one fill it.
    let short: Vec<StreamId> = (0..16).map(|_| open(&mut host, 16 << 10).0).collect();
    let (long, seen) = open(&mut host, (1 << 20) - (256 << 10));
    assert_eq!(seen, Seen::Held);
    assert_eq!(gauge(&host), 1 << 20);
    // It may not grow, and a new one may not be long; a short one may come.
    let (refused, seen) = open(&mut host, (16 << 10) + 1);
    assert_eq!(seen.code(), Some(Code::Overloaded));
    assert!(matches!(&seen, Seen::Answered(reply) if reply.status == 503));
    let (another, seen) = open(&mut host, 16 << 10);
    assert_eq!(seen, Seen::Held);
    // What is answered, or gone, holds nothing.
    host.end(refused, Outcome::Unknown, NOW);
    host.end(long, Outcome::Unknown, NOW);
    let (last, seen) = open(&mut host, 256 << 10);
    assert_eq!(seen, Seen::Held);
    for stream in short {
        host.end(stream, Outcome::Unknown, NOW);
    }
    host.end(another, Outcome::Unknown, NOW);
    // To a step of the gauge.
    assert!((256 << 10..320 << 10).contains(&gauge(&host)));
    host.end(last, Outcome::Unknown, NOW);
    assert_eq!(gauge(&host), 0);
}

/// The host refuses a header after the claim was granted: the event must not be blocked by it.
#[test]
fn a_claim_is_released_where_the_request_fails_after_it() {
    let mut host = Host::new(with(|c| {
        c["sources"][0]["dedupe"] = json!({ "on_unknown": "hold", "in_flight": "reject" });
    }));
    let (stream, seen) = send(&mut host, "t", "", NOW);
    assert_eq!(seen.code(), Some(Code::Forwarded));
    let mut io = callback_guard_core::worker::Io::new(&mut host.shared, NOW);
    let verdict = host.worker.fail(&mut io, stream);
    assert!(matches!(
        verdict,
        callback_guard_core::worker::Verdict::Reply(reply) if reply.status == 503
    ));
    host.end(stream, Outcome::Unknown, NOW);
    let (_, seen) = send(&mut host, "t", "", NOW);
    assert_eq!(seen.code(), Some(Code::Forwarded));
    let released = Metric::Source(Some(0), SourceMetric::Releases);
    assert_eq!(host.count(released), 1);
}
