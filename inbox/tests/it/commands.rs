//! The commands, beside a running inbox.

use std::time::Duration;

use callback_guard_harness::wait::{wait_for, wait_for_within};
use callback_guard_harness::{Answer, Inbox};
use serde_json::{Value, json};

use crate::support::{Bench, failing, key};

fn keys(inbox: &Inbox, arguments: &[&str]) -> Vec<String> {
    let list = inbox.setup.json("list", arguments).unwrap();
    let keys = list
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["key"].as_str().unwrap().to_owned());
    keys.collect()
}

/// Three dead events of two ids, and a delivered one.
fn four() -> (Bench, Vec<String>) {
    let bench = Bench::new(&["--schedule", "1ms"]);
    bench.upstream.answer_with(|head| {
        let is_good = head.header("x-callback-guard-key").unwrap() == key("good");
        Answer::status(if is_good { 200 } else { 400 })
    });
    let names = [("bad1", "a"), ("bad2", "b"), ("bad3", "b"), ("good", "c")];
    let all = names.map(|(name, id)| bench.accept(name, id)).to_vec();
    bench.wait_for_stats("all to end", |stats| {
        stats["dead"] == 3 && stats["delivered"] == 1
    });
    (bench, all)
}

#[test]
fn list_selects_by_all_that_is_said() {
    let (bench, all) = four();
    let inbox = &bench.inbox;
    assert_eq!(keys(inbox, &[]), all);
    assert_eq!(keys(inbox, &["--state", "dead"]), all[..3]);
    assert_eq!(keys(inbox, &["--state", "delivered"]), all[3..]);
    assert_eq!(keys(inbox, &["--id", "b"]), all[1..3]);
    assert_eq!(keys(inbox, &["--source", "suno"]), all);
    assert_eq!(keys(inbox, &["--source", "stripe"]), Vec::<String>::new());
    assert_eq!(keys(inbox, &["--id", "b", &all[2], &all[0]]), all[2..3]);
    assert_eq!(
        keys(inbox, &[&all[3], &all[0]]),
        [all[0].clone(), all[3].clone()]
    );
    let second = bench.event(&all[1])["received_at"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(keys(inbox, &["--until", &second]), all[..1]);
    assert_eq!(keys(inbox, &["--since", &second]), all[1..]);
    assert_eq!(
        keys(inbox, &["--since", "2100-01-01T00:00:00Z"]),
        Vec::<String>::new()
    );
}

#[test]
fn json_has_the_documented_members() {
    let (bench, all) = four();
    let list = bench.inbox.setup.json("list", &[&all[0]]).unwrap();
    let members = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let listed = [
        "attempts",
        "id",
        "key",
        "last_error",
        "last_status",
        "next_attempt_at",
        "received_at",
        "source",
        "state",
    ];
    assert_eq!(members(&list[0]), listed);
    let event = bench.event(&all[0]);
    let mut shown = members(&event);
    shown.retain(|name| !listed.contains(&name.as_str()));
    assert_eq!(shown, ["headers", "tries"]);
    assert_eq!(event["headers"]["content-type"], "application/json");
    assert_eq!(
        members(&event["tries"][0]),
        ["at", "error", "milliseconds", "status"]
    );
    let received = event["received_at"].as_str().unwrap();
    assert!(
        received.ends_with('Z') && received.len() == 24,
        "{received}"
    );
    assert_eq!(
        bench.stats(),
        json!({ "waiting": 0, "delivering": 0, "delivered": 1, "dead": 3, "oldest_seconds": 0 })
    );
}

#[test]
fn show_prints_no_body_unless_asked_and_then_nothing_else() {
    let (bench, all) = four();
    for arguments in [vec![all[0].as_str()], vec!["--json", &all[0]]] {
        let output = bench.inbox.setup.tool("show", &arguments).unwrap();
        assert!(output.status.success());
        assert!(!String::from_utf8_lossy(&output.stdout).contains("bad1"));
    }
    let output = bench
        .inbox
        .setup
        .tool("show", &["--body", &all[0]])
        .unwrap();
    assert_eq!(output.stdout, b"bad1");
}

#[test]
fn an_unknown_key_exits_with_1_and_the_others_are_done() {
    let (bench, all) = four();
    let unknown = key("unknown");
    for command in ["list", "show", "replay", "discard"] {
        let output = bench.inbox.setup.tool(command, &[&unknown]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.contains(&format!("no such event: {unknown}")),
            "{command}: {error}"
        );
    }
    let output = bench
        .inbox
        .setup
        .tool("discard", &[&unknown, &all[0]])
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "discarded: 1\n");
    assert_eq!(keys(&bench.inbox, &[]), all[1..]);
}

#[test]
fn commands_that_change_need_a_selection() {
    let (bench, _) = four();
    for command in ["replay", "discard", "show"] {
        let output = bench.inbox.setup.tool(command, &[]).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}");
    }
    assert_eq!(bench.stats()["dead"], 3);
}

#[test]
fn a_replay_is_a_new_series_of_the_same_key() {
    let (bench, all) = four();
    bench.upstream.clear();
    bench.upstream.answer(Answer::status(200));
    let output = bench
        .inbox
        .setup
        .tool("replay", &["--state", "dead"])
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "replayed: 3\n");
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == 4);
    let event = bench.event(&all[0]);
    assert_eq!(
        (&event["attempts"], &event["last_status"]),
        (&1.into(), &200.into())
    );
    let statuses: Vec<_> = event["tries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].clone())
        .collect();
    assert_eq!(statuses, [400, 400, 200]);
    let all = bench.upstream.recorded();
    assert!(
        all.iter()
            .all(|record| record.head.values("x-callback-guard-attempt") == ["1"])
    );
    let mut bodies = bench.bodies();
    // In order within their id.
    assert!(
        bodies.iter().position(|body| body == "bad2")
            < bodies.iter().position(|body| body == "bad3")
    );
    bodies.sort();
    assert_eq!(bodies, ["bad1", "bad2", "bad3"]);
}

#[test]
fn what_was_delivered_can_be_replayed_by_time() {
    let bench = Bench::new(&[]);
    let key = bench.accept("one", "task");
    bench.wait_for_state(&key, "delivered");
    let output = bench
        .inbox
        .setup
        .tool("replay", &["--since", "2020-01-01T00:00:00Z"])
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "replayed: 1\n");
    bench
        .upstream
        .wait_until("it again", |all| {
            all.len() == 2 && all.iter().all(|one| one.body == b"one")
        })
        .unwrap();
    assert_eq!(bench.bodies(), ["one", "one"]);
}

#[test]
fn a_pause_takes_hold_lasts_over_a_restart_and_ends() {
    let mut bench = Bench::new(&[]);
    assert!(
        bench
            .inbox
            .setup
            .tool("pause", &[])
            .unwrap()
            .status
            .success()
    );
    let key = bench.accept("one", "task");
    bench.inbox.restart().unwrap();
    wait_for("the metric", || {
        (bench.inbox.metric("callback_guard_inbox_paused").unwrap() > 0.0).then_some(())
    })
    .unwrap();
    std::thread::sleep(Duration::from_millis(600)); // Several polls.
    assert_eq!(bench.upstream.heads(), 0);
    assert!(
        bench
            .inbox
            .setup
            .tool("resume", &[])
            .unwrap()
            .status
            .success()
    );
    bench.wait_for_state(&key, "delivered");
}

#[test]
fn one_sender_can_be_paused() {
    let bench = Bench::new(&[]);
    let output = bench
        .inbox
        .setup
        .tool("pause", &["--source", "suno"])
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "deliveries are paused of: suno\n"
    );
    let paused = bench.accept("one", "task");
    let request = callback_guard_harness::Request::post("/")
        .header("x-callback-guard-key", key("two"))
        .header("x-callback-guard-source", "stripe")
        .header("x-callback-guard-id", "task")
        .json("two");
    callback_guard_harness::client::send(bench.inbox.address(), &request).unwrap();
    bench.wait_for_state(&key("two"), "delivered");
    assert_eq!(bench.event(&paused)["state"], "waiting");
    bench
        .inbox
        .setup
        .tool("resume", &["--source", "suno"])
        .unwrap();
    bench.wait_for_state(&paused, "delivered");
}

#[test]
fn a_discarded_event_no_longer_holds_up_its_id() {
    let bench = Bench::new(&["--schedule", "1h"]);
    bench
        .upstream
        .answer_in_turn([failing(), Answer::status(200)]);
    let first = bench.accept("first", "task");
    let second = bench.accept("second", "task");
    wait_for("the attempt", || {
        (bench.event(&first)["attempts"] == 1).then_some(())
    })
    .unwrap();
    bench.inbox.setup.tool("discard", &[&first]).unwrap();
    bench.wait_for_state(&second, "delivered");
    assert_eq!(bench.bodies(), ["first", "second"]);
}

#[test]
fn what_is_under_way_is_left_alone() {
    let bench = Bench::new(&[]);
    let gate = callback_guard_harness::Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    let key = bench.accept("one", "task");
    bench.upstream.wait_for_requests(1).unwrap();
    for command in ["replay", "discard"] {
        let output = bench.inbox.setup.tool(command, &[&key]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(error, "left alone, as an attempt is under way: 1\n");
    }
    gate.open();
    bench.wait_for_state(&key, "delivered");
    assert_eq!(bench.bodies(), ["one"]);
}

#[test]
fn delivered_events_are_purged_after_keep_and_dead_ones_are_not() {
    let bench = Bench::new(&["--keep", "1ms", "--schedule", "1ms"]);
    bench
        .upstream
        .answer_in_turn([Answer::status(410), Answer::status(200)]);
    let dead = bench.accept("dead", "1");
    bench.wait_for_state(&dead, "dead");
    let delivered = bench.accept("delivered", "2");
    wait_for_within(Duration::from_secs(60), "the purge", || {
        (keys(&bench.inbox, &[]) == [dead.clone()]).then_some(())
    })
    .unwrap();
    // Nothing of it is left, so the key is new again.
    let again = bench.inbox.send(&delivered, "2", b"delivered").unwrap();
    assert_eq!(again.header("x-callback-guard-inbox").unwrap(), "accepted");
    bench.wait_for_stats("it again", |stats| stats["delivered"] == 1);
}
