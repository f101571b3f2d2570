//! Faults around the inbox: a disk that is full, a clock that is set.

use std::process::Command;

use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, Clock, Upstream};

use crate::support::{Bench, failing, key, setup};

#[test]
fn on_a_full_disk_the_answer_is_503_nothing_is_lost_and_room_is_enough_to_go_on() {
    let upstream = Upstream::start().unwrap();
    // No file may grow beyond 1 MiB: that is what a full disk is to the inbox.
    let limit = ["prlimit", "--fsize=1048576:unlimited"];
    let setup = setup(&upstream).wrapper(&limit);
    let bench = Bench {
        inbox: setup.start().unwrap(),
        upstream,
    };
    bench
        .inbox
        .setup
        .clone()
        .wrapper(&[])
        .tool("pause", &[])
        .unwrap();
    let body = vec![b'x'; 20_000];
    let send = |number: usize| {
        let response = bench
            .inbox
            .send(&key(&number.to_string()), &number.to_string(), &body);
        response.unwrap()
    };
    let mut stored = Vec::new();
    let mut refused = Vec::new();
    for number in 0..200 {
        let response = send(number);
        match response.status {
            200 => stored.push(number),
            503 => {
                assert_eq!(response.json().unwrap()["code"], "store_unavailable");
                refused.push(number);
            }
            other => panic!("{other}: {}", response.text()),
        }
    }
    assert!(
        stored.len() >= 10 && refused.len() >= 10,
        "{} {}",
        stored.len(),
        refused.len()
    );
    // Room again, without a restart: what was refused is taken, as if it had never been sent.
    let process = bench.inbox.process_id().unwrap().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &process, "--fsize=unlimited:unlimited"])
        .status();
    assert!(raised.unwrap().success());
    for number in refused {
        let response = send(number);
        assert_eq!(response.status, 200, "{number}: {}", response.text());
        assert_eq!(
            response.header("x-callback-guard-inbox").unwrap(),
            "accepted"
        );
    }
    let tools = bench.inbox.setup.clone().wrapper(&[]);
    tools.tool("resume", &[]).unwrap();
    wait_for("all to be delivered", || {
        (tools.json("stats", &[]).unwrap()["delivered"] == 200).then_some(())
    })
    .unwrap();
    assert_eq!(bench.upstream.heads(), 200);
}

#[test]
fn a_disk_that_is_full_at_once_costs_nothing_that_was_answered() {
    let upstream = Upstream::start().unwrap();
    let setup = setup(&upstream).wrapper(&["prlimit", "--fsize=1048576:unlimited"]);
    let mut bench = Bench {
        inbox: setup.start().unwrap(),
        upstream,
    };
    let tools = bench.inbox.setup.clone().wrapper(&[]);
    tools.tool("pause", &[]).unwrap();
    let body = vec![b'x'; 50_000];
    let mut stored = 0;
    for number in 0..60 {
        let response = bench
            .inbox
            .send(&key(&number.to_string()), &number.to_string(), &body);
        stored += usize::from(response.unwrap().status == 200);
    }
    assert!((5..60).contains(&stored), "{stored}");
    bench.inbox.kill();
    bench.inbox = tools.start().unwrap();
    tools.tool("resume", &[]).unwrap();
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == stored);
    assert_eq!(bench.upstream.heads(), stored);
}

const DAY: i64 = 86_400;

#[test]
fn a_clock_that_is_set_neither_delays_nor_repeats_an_attempt() {
    let clock = Clock::new().unwrap();
    let bench = Bench::with(|setup| {
        setup
            .clock(&clock)
            .arguments(["--schedule", &["200ms"; 60].join(",")])
    });
    for (number, ahead) in [DAY, -DAY, 0, 365 * DAY].into_iter().enumerate() {
        bench.upstream.clear();
        bench.upstream.answer(failing());
        let key = bench.accept(&format!("e{number}"), &format!("task {number}"));
        bench
            .upstream
            .wait_until("an attempt", |all| !all.is_empty())
            .unwrap();
        clock.set(ahead).unwrap();
        let before = bench.upstream.heads();
        bench
            .upstream
            .wait_until("three more", |all| all.len() >= before + 3)
            .unwrap();
        bench.upstream.answer(Answer::status(200));
        bench.wait_for_state(&key, "delivered");
        let after = bench.upstream.heads();
        // 200 ms apart whatever the wall clock says: no burst.
        let all = bench.upstream.recorded();
        for pair in all.windows(2) {
            let pause = pair[1].head.at - pair[0].head.at;
            assert!(pause >= crate::support::millis(150), "{pause:?}");
        }
        assert_eq!(after, bench.upstream.heads());
    }
}

#[test]
fn a_clock_set_back_between_two_runs_does_not_hold_events_up() {
    let clock = Clock::new().unwrap();
    clock.set(DAY).unwrap();
    let mut bench = Bench::with(|setup| setup.clock(&clock).arguments(["--schedule", "1s"]));
    bench.upstream.answer(failing());
    bench.inbox.setup.tool("pause", &[]).unwrap();
    let key = bench.accept("one", "task");
    bench.inbox.kill();
    clock.set(0).unwrap();
    bench.upstream.answer(Answer::status(200));
    bench.inbox = bench.inbox.setup.start().unwrap();
    bench.inbox.setup.tool("resume", &[]).unwrap();
    bench.wait_for_state(&key, "delivered");
    assert!(
        bench
            .inbox
            .log()
            .unwrap()
            .contains("the clock has been set back since the last run")
    );
}
