//! What users of other inboxes, outboxes and webhook queues complain of, each as a test.
//!
//! Those that other files have: DNS errors that are never retried (outpost 314),
//! `deliver::no_connection_and_no_such_host_are_retried_like_any_failure`; order that is lost over
//! retries (node-hp-scan-to 1707), `deliver::events_of_one_id_arrive_in_order_though_one_is_retried`;
//! a queue that drops what it has no room for (sync_gateway 813),
//! `accept::a_full_backlog_refuses_what_is_new_and_still_knows_what_is_stored`; events that are lost
//! with the consumer that had them (redis 9745, watermill-redisstream 24),
//! `deliver::a_killed_inbox_delivers_again_what_was_under_way_after_its_lease`; an event that stays
//! pending for ever after its last attempt (Trigger.dev), `deliver::after_a_dead_event_its_id_goes_on`;
//! rejected events that cannot be marked and replayed (bifrost 157),
//! `commands::a_replay_is_a_new_series_of_the_same_key`.

use std::thread;
use std::time::Duration;

use callback_guard_harness::wait::{wait_for, wait_for_within};
use callback_guard_harness::{Answer, Gate};

use crate::support::{Bench, PATIENT, failing, key, millis};

/// LanternOps/breeze 4095, convoy 1977: the mark for duplicates was written, the job was not, and
/// the mark kept the sender's retries away.
#[test]
fn recorded_but_never_queued_and_then_suppressed_for_ever() {
    let mut bench = Bench::new(&[]);
    for round in 0..10 {
        let name = format!("e{round}");
        bench.accept(&name, &name);
        // At once, before anything else can have happened.
        bench.inbox.kill();
        bench.inbox = bench.inbox.setup.start().unwrap();
        let again = bench
            .inbox
            .send(&key(&name), &name, name.as_bytes())
            .unwrap();
        assert_eq!(again.header("x-callback-guard-inbox").unwrap(), "known");
    }
    wait_for_within(Duration::from_secs(90), "all to be delivered", || {
        (bench.stats()["delivered"] == 10).then_some(())
    })
    .unwrap();
}

/// Vexa-ai/vexa 520, ferriskey 1332, loomfeed 54, bunmail 30, OpenWA 520, nickna/Conduit 186: retries
/// are kept in memory.
#[test]
fn retries_that_are_lost_with_the_process() {
    let mut bench = Bench::new(&["--schedule", "10ms,10ms,2s,10ms"]);
    bench.upstream.answer(failing());
    let key = bench.accept("one", "task");
    wait_for("three attempts", || {
        (bench.event(&key)["attempts"] == 3).then_some(())
    })
    .unwrap();
    bench.inbox.kill();
    bench.upstream.answer(Answer::status(200));
    bench.inbox = bench.inbox.setup.start().unwrap();
    let event = bench.wait_for_state(&key, "delivered");
    assert_eq!(event["attempts"], 4);
    let last = bench.upstream.recorded().pop().unwrap();
    assert_eq!(last.head.header("x-callback-guard-attempt").unwrap(), "4");
}

/// hookdeck/outpost 276: an internal error after the delivery makes a second one.
#[test]
fn duplicates_after_an_internal_error() {
    let bench = Bench::new(&["--timeout", "20s"]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    let key = bench.accept("one", "task");
    bench.upstream.wait_for_requests(1).unwrap();
    let file = bench.inbox.setup.directory().join("inbox.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::{Connection as _, Executor as _};
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}", file.display());
        let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
        // Nobody else can write, for longer than the inbox waits for it (10 s).
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        gate.open();
        tokio::time::sleep(Duration::from_secs(12)).await;
        other.execute("ROLLBACK").await.unwrap();
    });
    bench.wait_for_state(&key, "delivered");
    assert!(
        bench
            .inbox
            .log()
            .unwrap()
            .contains("an attempt cannot be recorded")
    );
    assert_eq!(bench.bodies(), ["one"]);
}

/// hookdeck/outpost 144 and 310: a retry by hand ran beside the scheduled one.
#[test]
fn a_retry_by_hand_beside_the_scheduled_one() {
    let bench = Bench::new(&["--schedule", "1s,1s"]);
    bench
        .upstream
        .answer_in_turn([failing(), Answer::status(200)]);
    let key = bench.accept("one", "task");
    wait_for("the first attempt", || {
        (bench.event(&key)["attempts"] == 1).then_some(())
    })
    .unwrap();
    for _ in 0..3 {
        let replayed = bench.inbox.setup.tool("replay", &[&key]).unwrap();
        if !replayed.status.success() {
            break; // It is under way already.
        }
    }
    bench.wait_for_state(&key, "delivered");
    thread::sleep(millis(1500)); // The scheduled one would be due.
    assert!(bench.bodies().len() <= 4, "{:?}", bench.bodies());
    let event = bench.event(&key);
    assert_eq!(event["state"], "delivered");
    assert_eq!(
        event["tries"].as_array().unwrap().len(),
        bench.bodies().len()
    );
}

/// redis 6315, 6941, 7059 and 14656, svix 671 and 679, safe-decoder-service 329, openlinker 2163,
/// faststream 2232, dapr 833: what is acknowledged stays, and the store grows.
#[test]
fn a_store_that_grows_for_ever() {
    let bench = Bench::new(&["--keep", "1ms"]);
    let file = bench.inbox.setup.directory().join("inbox.db");
    let body = vec![b'x'; 50_000];
    let mut sizes = Vec::new();
    for round in 0..5 {
        for number in 0..60 {
            let name = format!("{round}-{number}");
            assert_eq!(
                bench.inbox.send(&key(&name), &name, &body).unwrap().status,
                200
            );
        }
        wait_for("the purge", || bench.is_empty().then_some(())).unwrap();
        let wal = file.with_extension("db-wal");
        let size = |path| std::fs::metadata(path).map_or(0, |data| data.len());
        sizes.push(size(file.clone()) + size(wal));
    }
    // A round is 3 MB and the write-ahead log 4 at most; all five rounds would be 15.
    assert!(sizes.iter().all(|size| *size < 10_000_000), "{sizes:?}");
}

/// redis 5570, 5718, 6199 and 10756: what is removed while somebody has it stays pending, and comes
/// back with nothing in it.
#[test]
fn entries_that_are_removed_while_pending_and_come_back_empty() {
    let mut bench = Bench::new(&["--timeout", "1s", "--keep", "1ms"]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    let key = bench.accept("one", "task");
    bench.upstream.wait_for_requests(1).unwrap();
    let discarded = bench.inbox.setup.tool("discard", &[&key]).unwrap();
    assert_eq!(discarded.status.code(), Some(1));
    bench.inbox.kill();
    gate.open();
    bench.upstream.clear();
    bench.upstream.answer(Answer::status(200));
    // Nobody's until its lease ends, and still not to be removed by the purge.
    bench.inbox = bench.inbox.setup.start().unwrap();
    wait_for_within(Duration::from_secs(60), "it again", || {
        (bench.bodies() == ["one"]).then_some(())
    })
    .unwrap();
    wait_for("nothing of it to be left", || {
        bench.is_empty().then_some(())
    })
    .unwrap();
}

/// Streams with MAXLEN in general: the bound on what was read removes what was not.
#[test]
fn a_trim_that_takes_what_was_never_delivered() {
    let bench = Bench::new(&["--keep", "1ms", "--schedule", "1h"]);
    bench.upstream.answer_with(|head| {
        let is_early = head.header("x-callback-guard-id").unwrap() == "early";
        Answer::status(if is_early { 500 } else { 200 })
    });
    let early = bench.accept("early", "early");
    bench.accept("behind", "early");
    // What came later is delivered and removed, again and again, while they wait.
    for number in 0..3 {
        bench.accept(&format!("e{number}"), &format!("task {number}"));
        wait_for("the purge", || {
            let left = bench.inbox.setup.json("list", &[]).unwrap();
            (left.as_array().unwrap().len() == 2).then_some(())
        })
        .unwrap();
    }
    bench.upstream.answer(Answer::status(200));
    let replayed = bench.inbox.setup.tool("replay", &[&early]).unwrap();
    assert!(replayed.status.success());
    bench
        .upstream
        .wait_until("both", |all| {
            let bodies: Vec<_> = all.iter().map(|one| one.body.as_slice()).collect();
            bodies.ends_with(&[b"early", b"behind"])
        })
        .unwrap();
}

/// node-hp-scan-to 1707: dead letters pile up, and nobody sees them.
#[test]
fn dead_letters_that_pile_up_unseen() {
    let mut bench = Bench::new(&["--schedule", "1ms"]);
    bench.upstream.answer(Answer::status(410));
    for number in 0..30 {
        bench.accept(&format!("e{number}"), &format!("task {}", number % 3));
    }
    bench.wait_for_stats("all to be dead", |stats| stats["dead"] == 30);
    // Also after a restart: it is what is in the store that is shown.
    bench.inbox.restart().unwrap();
    let shown = |count: f64| {
        wait_for_within(Duration::from_secs(40), "the metric", || {
            let dead = bench.inbox.metric("callback_guard_inbox_dead_events");
            (dead.unwrap() == count).then_some(())
        })
        .unwrap();
    };
    shown(30.0);
    let listed = bench
        .inbox
        .setup
        .json("list", &["--state", "dead"])
        .unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 30);
    let discarded = bench
        .inbox
        .setup
        .tool("discard", &["--state", "dead"])
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&discarded.stdout),
        "discarded: 30\n"
    );
    shown(0.0);
    assert!(bench.is_empty());
}

/// svix: a delivery that takes long is taken for lost and made again meanwhile.
#[test]
fn a_slow_delivery_is_made_twice() {
    let bench = Bench::new(&["--timeout", "4s", "--concurrency", "8"]);
    bench
        .upstream
        .answer(Answer::status(200).after(millis(3000)));
    let key = bench.accept("one", "task");
    bench.wait_for_state(&key, "delivered");
    assert_eq!(bench.bodies(), ["one"]);
}

/// Outboxes in general: one event that always fails holds up all others.
#[test]
fn a_poisoned_event_that_holds_up_the_others() {
    let bench = Bench::new(&["--schedule", PATIENT, "--concurrency", "1"]);
    bench.upstream.answer_with(|head| {
        let is_poison = head.header("x-callback-guard-id").unwrap() == "poison";
        Answer::status(if is_poison { 500 } else { 200 })
    });
    bench.accept("poison", "poison");
    for number in 0..20 {
        bench.accept(&format!("e{number}"), &format!("task {number}"));
    }
    bench.wait_for_stats("the others", |stats| stats["delivered"] == 20);
}
