//! How events are delivered: attempts, order, limits, pauses.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use callback_guard_harness::client::Gate;
use callback_guard_harness::upstream::{Recorded, RecordedHead, unused_address};
use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, InboxSetup, Upstream};

use crate::support::{Bench, PATIENT, failing, key, millis, setup};

fn attempt(head: &RecordedHead) -> String {
    head.header("x-callback-guard-attempt").unwrap()
}

#[test]
fn each_attempt_is_numbered_and_recorded_until_one_succeeds() {
    let bench = Bench::new(&["--schedule", PATIENT]);
    bench.upstream.answer_in_turn([
        Answer::status(500),
        Answer::reset(),
        Answer::status(302).header("location", "/elsewhere"),
        Answer::status(204),
    ]);
    let key = bench.accept("one", "task");
    let event = bench.wait_for_state(&key, "delivered");
    assert_eq!(event["attempts"], 4);
    assert_eq!(event["last_status"], 204);
    assert_eq!(event["last_error"], serde_json::Value::Null);
    assert_eq!(event["next_attempt_at"], serde_json::Value::Null);
    let tries = event["tries"].as_array().unwrap();
    let statuses: Vec<_> = tries.iter().map(|one| one["status"].clone()).collect();
    assert_eq!(
        statuses,
        [500.into(), serde_json::Value::Null, 302.into(), 204.into()]
    );
    assert!(
        tries[1]["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{tries:?}"
    );
    assert!(tries.iter().all(|one| one["milliseconds"].is_u64()));
    let all = bench.upstream.recorded();
    let numbers: Vec<_> = all.iter().map(|record| attempt(&record.head)).collect();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
    assert!(all.iter().all(|record| record.body == b"one"));
}

#[test]
fn path_and_query_are_appended_to_the_base() {
    let upstream = Upstream::start().unwrap();
    let base = format!("http://{}/base/", upstream.address());
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_callback-guard-inbox"));
    let inbox = InboxSetup::new(program, &base).unwrap().start().unwrap();
    inbox.send(&key("one"), "t", b"{}").unwrap();
    let all = upstream
        .wait_until("a delivery", |all| !all.is_empty())
        .unwrap();
    assert_eq!(all[0].head.path, "/base/callbacks/suno");
}

#[test]
fn events_of_one_id_arrive_in_order_though_one_is_retried() {
    let bench = Bench::new(&["--schedule", PATIENT]);
    // Each event fails as often as its name says.
    bench.upstream.answer_with(|head| {
        let fails = usize::from(head.header("x-callback-guard-id").unwrap() == "slow") * 2;
        let attempt: usize = attempt(head).parse().unwrap();
        Answer::status(if attempt <= fails { 500 } else { 200 })
    });
    let ids = ["slow", "quick", "other"];
    for number in 0..5 {
        for id in ids {
            bench.accept(&format!("{id}-{number}"), id);
        }
    }
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == 15);
    let mut order: HashMap<&str, Vec<String>> = HashMap::new();
    for record in bench.upstream.recorded() {
        let body = String::from_utf8(record.body).unwrap();
        let id = ids.into_iter().find(|id| body.starts_with(id)).unwrap();
        order.entry(id).or_default().push(body);
    }
    for id in ["quick", "other"] {
        let expected: Vec<_> = (0..5).map(|number| format!("{id}-{number}")).collect();
        assert_eq!(order[id], expected);
    }
    let expected: Vec<_> = (0..15).map(|index| format!("slow-{}", index / 3)).collect();
    assert_eq!(order["slow"], expected);
}

#[test]
fn one_event_of_an_id_is_under_way_at_a_time() {
    let bench = Bench::new(&[]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    for number in 0..5 {
        bench.accept(&format!("e{number}"), "task");
    }
    bench.accept("other", "another task");
    bench
        .upstream
        .wait_until("both ids", |all| all.len() >= 2)
        .unwrap();
    let stats = bench.stats();
    assert_eq!(
        (&stats["delivering"], &stats["waiting"]),
        (&2.into(), &4.into())
    );
    gate.open();
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == 6);
}

#[test]
fn the_same_id_of_two_senders_is_two_ids() {
    let bench = Bench::new(&["--schedule", "1h"]);
    bench.upstream.answer_with(|head| {
        let is_first = head.header("x-callback-guard-source").unwrap() == "suno";
        Answer::status(if is_first { 500 } else { 200 })
    });
    bench.accept("one", "task");
    let request = callback_guard_harness::Request::post("/")
        .header("x-callback-guard-key", key("two"))
        .header("x-callback-guard-source", "stripe")
        .header("x-callback-guard-id", "task")
        .json("two");
    callback_guard_harness::client::send(bench.inbox.address(), &request).unwrap();
    bench.wait_for_state(&key("two"), "delivered");
    bench.wait_for_state(&key("one"), "waiting");
}

#[test]
fn without_order_a_later_event_overtakes() {
    let bench = Bench::new(&["--order", "none", "--schedule", "1h"]);
    bench
        .upstream
        .answer_in_turn([failing(), Answer::status(200)]);
    let first = bench.accept("one", "task");
    bench.upstream.wait_for_requests(1).unwrap();
    let second = bench.accept("two", "task");
    bench.wait_for_state(&second, "delivered");
    assert_eq!(bench.event(&first)["state"], "waiting");
}

#[test]
fn after_a_dead_event_its_id_goes_on() {
    let bench = Bench::new(&["--schedule", "10ms"]);
    bench.upstream.answer_with(|head| {
        let key = head.header("x-callback-guard-key").unwrap();
        Answer::status(if key == self::key("poison") { 422 } else { 200 })
    });
    let poison = bench.accept("poison", "task");
    let after = bench.accept("after", "task");
    bench.wait_for_state(&after, "delivered");
    let event = bench.event(&poison);
    assert_eq!(
        (&event["state"], &event["attempts"], &event["last_status"]),
        (&"dead".into(), &2.into(), &422.into())
    );
    assert_eq!(bench.bodies(), ["poison", "poison", "after"]);
    assert_eq!(
        bench
            .inbox
            .metric("callback_guard_inbox_dead_total{source=\"suno\"}")
            .unwrap(),
        1.0
    );
}

#[test]
fn gone_ends_an_event_at_once() {
    let bench = Bench::new(&["--schedule", PATIENT]);
    bench.upstream.answer(Answer::status(410));
    let key = bench.accept("one", "task");
    assert_eq!(bench.wait_for_state(&key, "dead")["attempts"], 1);
}

#[test]
fn retry_after_of_the_application_is_waited_for() {
    for value in ["3000", "Fri, 01 Jan 2100 00:00:00 GMT"] {
        let bench = Bench::new(&["--schedule", "10ms,10ms"]);
        bench
            .upstream
            .answer(Answer::status(429).header("retry-after", value));
        let key = bench.accept("one", "task");
        let event = wait_for("the first attempt", || {
            let event = bench.event(&key);
            (event["attempts"] == 1).then_some(event)
        })
        .unwrap();
        let at =
            |text: &serde_json::Value| humantime::parse_rfc3339(text.as_str().unwrap()).unwrap();
        let pause = at(&event["next_attempt_at"])
            .duration_since(at(&event["tries"][0]["at"]))
            .unwrap();
        let expected = if value == "3000" { 3000 } else { 3600 };
        assert!(
            pause.as_secs().abs_diff(expected) <= 30,
            "{value}: {pause:?}"
        );
    }
}

#[test]
fn no_connection_and_no_such_host_are_retried_like_any_failure() {
    let upstream = Upstream::start().unwrap();
    for to in [
        format!("http://{}", unused_address().unwrap()),
        "http://no-such-host.invalid".to_owned(),
    ] {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_callback-guard-inbox"));
        let setup = InboxSetup::new(program, &to)
            .unwrap()
            .arguments(["--schedule", "10ms,1h"]);
        let bench = Bench {
            upstream: Upstream::start().unwrap(),
            inbox: setup.start().unwrap(),
        };
        let key = bench.accept("one", "task");
        let event = wait_for("two attempts", || {
            let event = bench.event(&key);
            (event["attempts"] == 2).then_some(event)
        })
        .unwrap();
        assert_eq!(event["state"], "waiting", "{to}");
        assert_eq!(event["last_status"], serde_json::Value::Null);
        let error = event["last_error"].as_str().unwrap().to_lowercase();
        let expected = if to.contains("invalid") {
            "dns"
        } else {
            "refused"
        };
        assert!(error.contains(expected), "{to}: {error}");
    }
    drop(upstream);
}

#[test]
fn an_application_that_does_not_answer_is_not_waited_for_longer_than_the_timeout() {
    let bench = Bench::new(&["--timeout", "300ms", "--schedule", "1h"]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    let key = bench.accept("one", "task");
    let event = wait_for("the attempt to end", || {
        let event = bench.event(&key);
        (event["attempts"] == 1).then_some(event)
    })
    .unwrap();
    assert_eq!(event["last_error"], "no answer within 300ms");
    assert!(event["tries"][0]["milliseconds"].as_u64().unwrap() >= 300);
    gate.open();
}

#[test]
fn no_more_attempts_than_concurrency_are_under_way() {
    let bench = Bench::new(&["--concurrency", "3"]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    for number in 0..12 {
        bench.accept(&format!("e{number}"), &format!("task {number}"));
    }
    bench.upstream.wait_for_requests(3).unwrap();
    let stats = bench.stats();
    assert_eq!(
        (&stats["delivering"], &stats["waiting"]),
        (&3.into(), &9.into())
    );
    gate.open();
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == 12);
}

#[test]
fn attempts_keep_to_the_rate() {
    let bench = Bench::new(&["--rate", "20"]);
    for number in 0..24 {
        bench.accept(&format!("e{number}"), &format!("task {number}"));
    }
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == 24);
    let all = bench.upstream.recorded();
    let took = all[23].head.at - all[0].head.at;
    // 24 at 20 a second, two of them at once: never faster, whatever the machine does.
    assert!(took >= millis(1000), "{took:?}");
}

#[test]
fn a_dead_application_is_probed_and_not_hammered() {
    let bench = Bench::new(&[
        "--schedule",
        "400ms,1ms,1ms,1ms,1ms,1ms,1ms,1ms",
        "--concurrency",
        "4",
    ]);
    bench.upstream.answer(failing());
    for number in 0..60 {
        bench.accept(&format!("e{number}"), &format!("task {number}"));
    }
    wait_for("the circuit to open", || {
        (bench
            .inbox
            .metric("callback_guard_inbox_circuit_open")
            .unwrap()
            > 0.0)
            .then_some(())
    })
    .unwrap();
    // How many came before the probes: at each probe they have paused for 400 ms.
    let opened = |all: &[Recorded]| {
        let is_close = |pair: &[Recorded]| pair[1].head.at - pair[0].head.at < millis(200);
        all.windows(2)
            .rposition(is_close)
            .map_or(0, |index| index + 2)
    };
    let all = bench
        .upstream
        .wait_until("four probes", |all| all.len() >= opened(all).max(10) + 4)
        .unwrap();
    // Those under way when the tenth failed, and no more.
    assert!(opened(&all) <= 14, "{}", opened(&all));
    bench.upstream.answer(Answer::status(200));
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == 60);
    assert!(bench.inbox.log().unwrap().contains("deliveries go on"));
}

#[test]
fn deliveries_are_signed_for_an_application_that_checks() {
    let bench = Bench::with(|setup| {
        setup
            .env("SIGN", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .arguments(["--sign-env", "SIGN", "--schedule", "1100ms"])
    });
    bench
        .upstream
        .answer_in_turn([failing(), Answer::status(200)]);
    let request = callback_guard_harness::inbox::callback(&key("one"), "task", b"one")
        .header("webhook-id", "the sender's")
        .header("webhook-signature", "v1,stale");
    callback_guard_harness::client::send(bench.inbox.address(), &request).unwrap();
    bench.wait_for_state(&key("one"), "delivered");
    let key_ =
        callback_guard_inbox::signing::SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .unwrap();
    let mut timestamps = Vec::new();
    for record in bench.upstream.recorded() {
        assert_eq!(record.head.values("webhook-id"), [key("one")]);
        let timestamp = record.head.header("webhook-timestamp").unwrap();
        let expected = key_.sign(&key("one"), &timestamp, b"one");
        assert_eq!(record.head.values("webhook-signature"), [expected]);
        timestamps.push(timestamp);
    }
    assert_ne!(timestamps[0], timestamps[1]); // Each attempt is fresh.
}

#[test]
fn a_stopped_inbox_lets_attempts_end_and_refuses_what_is_new() {
    let mut bench = Bench::new(&["--grace", "20s"]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    let key = bench.accept("one", "task");
    bench.accept("two", "task");
    bench.upstream.wait_for_requests(1).unwrap();
    bench.inbox.terminate().unwrap();
    wait_for("the port to close", || {
        std::net::TcpStream::connect(bench.inbox.address())
            .is_err()
            .then_some(())
    })
    .unwrap();
    gate.open();
    assert!(bench.inbox.wait().unwrap().success());
    assert_eq!(bench.event(&key)["state"], "delivered");
    let stats = bench.stats();
    assert_eq!(
        (&stats["waiting"], &stats["delivering"]),
        (&1.into(), &0.into())
    );
}

#[test]
fn what_does_not_end_within_the_grace_is_claimed_by_nobody() {
    let mut bench = Bench::new(&["--grace", "100ms"]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    let key = bench.accept("one", "task");
    bench.upstream.wait_for_requests(1).unwrap();
    bench.inbox.terminate().unwrap();
    assert!(bench.inbox.wait().unwrap().success());
    let event = bench.event(&key);
    assert_eq!(
        (&event["state"], &event["attempts"]),
        (&"waiting".into(), &0.into())
    );
    assert_eq!(
        event["tries"][0]["error"],
        "outcome unknown: the inbox stopped during the attempt"
    );
    // The next inbox needs to wait for no lease.
    bench.upstream.answer(Answer::status(200));
    gate.open();
    let began = Instant::now();
    bench.inbox = bench.inbox.setup.start().unwrap();
    bench.wait_for_state(&key, "delivered");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_killed_inbox_delivers_again_what_was_under_way_after_its_lease() {
    let upstream = Upstream::start().unwrap();
    let setup = setup(&upstream).arguments(["--timeout", "1s"]);
    let mut bench = Bench {
        inbox: setup.start().unwrap(),
        upstream,
    };
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    let key = bench.accept("one", "task");
    bench.upstream.wait_for_requests(1).unwrap();
    bench.inbox.kill();
    gate.open();
    let killed = Instant::now();
    bench.inbox = setup.start().unwrap();
    assert_eq!(bench.event(&key)["state"], "delivering");
    let event = bench.wait_for_state(&key, "delivered");
    // The lease: one second, and ten.
    assert!(
        killed.elapsed() > Duration::from_secs(8),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(
        event["tries"][0]["error"],
        "outcome unknown: the inbox stopped during the attempt"
    );
    assert_eq!(event["tries"][1]["status"], 200);
    assert_eq!(event["attempts"], 1);
}
