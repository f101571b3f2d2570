//! The interleaving model: [`Worker`](callback_guard_core::worker::Worker)s on proxies with a store of
//! their own, with or without a Redis that they share, one application, and everything that can go
//! wrong between them.
//!
//! A callback of a worker reads a bucket, computes, and swaps: each is a step of its own here, so that
//! another worker of the proxy can come between any two. Calls to Redis arrive or get lost, are
//! answered, late, twice or never; Redis runs the scripts that the core sends. Senders leave, workers
//! die, the host refuses, clocks step, Redis forgets.
//!
//! Every `check` in `world.rs`, `ledger.rs` and `search.rs` is a promise that holds whatever the order.
//! `core/tests/mutations/run.sh` proves that a broken one is noticed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "tests"
)]

mod ledger;
mod lua;
mod redis_server;
mod search;
mod stepped;
mod world;

use ledger::Double;
use search::{Budget, Kinds, Seen, crowd, exhaust, open_circuit, requests, run};
use world::{Asked, CallbackKind, Choice, Fate, Met, Moment, Phase, Setup};

fn choice(
    on_error: Option<&'static str>,
    on_unknown: &'static str,
    in_flight: &'static str,
) -> Choice {
    Choice {
        on_error,
        on_unknown,
        in_flight,
    }
}

fn every_choice(on_error: &[Option<&'static str>]) -> Vec<Choice> {
    let mut all = Vec::new();
    for on_error in on_error {
        for on_unknown in ["release", "hold"] {
            for in_flight in ["wait", "reject"] {
                all.push(choice(*on_error, on_unknown, in_flight));
            }
        }
    }
    all
}

/// How often an event was doubled, and why.
fn doubles(seen: &Seen) -> Vec<(Double, u32)> {
    let counts = Double::ALL.into_iter().zip(seen.doubles);
    counts.filter(|(_, count)| *count > 0).collect()
}

/// How much goes wrong in a small scope. `CALLBACK_GUARD_FAULTS=2` searches larger ones.
fn faults() -> usize {
    let given = std::env::var("CALLBACK_GUARD_FAULTS");
    given.map_or(1, |faults| faults.parse().unwrap())
}

/// Whether events were doubled for these reasons alone. With more faults there are more.
fn is_expected(found: &[Double], expected: &[Double]) -> bool {
    let are_there = expected.iter().all(|double| found.contains(double));
    are_there && (faults() > 1 || found.len() == expected.len())
}

/// Two requests for one event on two workers of a proxy: every order of their steps, with one fault
/// anywhere or one step of the clock.
#[test]
fn every_interleaving_of_two_requests_keeps_the_promises() {
    for choice in every_choice(&[None]) {
        let setup = Setup::new(choice, 1, 2, 1, true);
        let mut excuses = Vec::new();
        // Without a fault nothing is ever unknown.
        let budgets: &[_] = match choice.on_unknown {
            "release" => &[(faults(), 0), (0, 1)],
            _ => &[(faults(), 0)],
        };
        for &(faults, clocks) in budgets {
            let budget = Budget {
                faults,
                clocks,
                ..Budget::default()
            };
            let seen = exhaust(requests(&setup, &[(0, 0), (1, 0)]), budget);
            println!("{choice:?}, {faults} faults, {clocks} clock steps: {seen:?}");
            assert!(seen.states > 2_000 && seen.conflicts > 0, "{seen:?}");
            if faults > 0 && choice.in_flight == "wait" {
                let all = [
                    Moment::Between(Phase::Held),
                    Moment::Inside(CallbackKind::Time, 1),
                    Moment::Undone(CallbackKind::Time),
                ];
                has_met(&seen, all.map(Met::Died));
            }
            excuses.extend(doubles(&seen).iter().map(|(double, _)| *double));
        }
        let expected: &[Double] = match choice.on_unknown {
            "release" => &[Double::AnswerLost, Double::LeaseOver],
            _ => &[],
        };
        assert!(is_expected(&excuses, expected), "{choice:?}: {excuses:?}");
    }
}

/// The same on two proxies that share a Redis.
#[test]
fn every_interleaving_over_two_stores_keeps_the_promises() {
    use Double::{AnswerLost, LeaseOver, OwnStore, RedisLost, Unclaimed};

    let a_fault = Budget {
        faults: faults(),
        ..Budget::default()
    };
    let a_clock = Budget {
        clocks: 1,
        ..Budget::default()
    };
    let all: [(Choice, Budget, &[Double]); 4] = [
        (
            choice(Some("memory"), "release", "wait"),
            a_fault,
            &[AnswerLost, OwnStore, RedisLost],
        ),
        (
            choice(Some("reject"), "hold", "reject"),
            a_fault,
            &[RedisLost],
        ),
        (
            choice(Some("pass"), "release", "reject"),
            a_fault,
            &[AnswerLost, RedisLost, Unclaimed],
        ),
        (
            choice(Some("memory"), "release", "wait"),
            a_clock,
            &[LeaseOver],
        ),
    ];
    for (choice, budget, expected) in all {
        let setup = Setup::new(choice, 2, 1, 1, false);
        let seen = exhaust(requests(&setup, &[(0, 0), (1, 0)]), budget);
        println!("{choice:?}, {budget:?}: {seen:?}");
        assert!(seen.states > 5_000, "{seen:?}");
        let excuses: Vec<Double> = doubles(&seen).iter().map(|(double, _)| *double).collect();
        assert!(is_expected(&excuses, expected), "{choice:?}: {excuses:?}");
        if budget.faults > 0 {
            has_met(&seen, [Met::Call(Asked::Claim, Fate::NotMade)]);
            for asked in [Asked::Claim, Asked::Deliver, Asked::Release] {
                has_met(&seen, OF_ONE_FAULT.map(|fate| Met::Call(asked, fate)));
            }
        }
    }
}

/// How a call fails by one fault, whatever else happens.
const OF_ONE_FAULT: [Fate; 6] = [
    Fate::Lost,
    Fate::AnswerLost,
    Fate::TimedOut,
    Fate::Late,
    Fate::Garbled,
    Fate::Doubled,
];

/// A search has met all of these.
#[track_caller]
fn has_met(seen: &Seen, all: impl IntoIterator<Item = Met>) {
    let missing: Vec<Met> = all
        .into_iter()
        .filter(|met| !seen.met.contains_key(met))
        .collect();
    assert!(missing.is_empty(), "not met: {missing:?}");
}

/// One request with two faults, on the local store alone and on both: its worker dies at every moment, and
/// its calls fail in every way.
#[test]
fn a_worker_may_die_and_a_call_may_fail_at_every_moment() {
    use CallbackKind::{Body, Call, End, Response, Time};
    use Moment::{Between, Inside, Undone};

    // The salt is read and written once, then a bucket by each callback.
    let on_any_store = [
        Between(Phase::Headed),
        Inside(Body, 1),
        Inside(Body, 2),
        Inside(Body, 3),
        Undone(Body),
        Between(Phase::Upstream),
        Inside(Response, 1),
        Undone(Response),
        Between(Phase::Told),
        Inside(End, 1),
        Undone(End),
        Between(Phase::Over),
    ];
    let on_both_stores = [
        Between(Phase::Held),
        Undone(Call),
        Between(Phase::ResponseHeld),
        Undone(Time),
    ];
    let budget = Budget {
        faults: 1 + faults(),
        ..Budget::default()
    };
    let setup = Setup::new(choice(None, "release", "wait"), 1, 1, 1, true);
    let seen = exhaust(requests(&setup, &[(0, 0)]), budget);
    println!("the local store: {seen:?}");
    has_met(&seen, on_any_store.map(Met::Died));
    for on_error in ["memory", "reject", "pass"] {
        let setup = Setup::new(choice(Some(on_error), "release", "wait"), 1, 1, 1, true);
        let seen = exhaust(requests(&setup, &[(0, 0)]), budget);
        println!("{on_error}: {seen:?}");
        has_met(&seen, on_any_store.map(Met::Died));
        has_met(&seen, on_both_stores.map(Met::Died));
        for asked in [Asked::Claim, Asked::Deliver, Asked::Release] {
            let all = OF_ONE_FAULT
                .into_iter()
                .chain([Fate::Abandoned, Fate::AnsweredLate]);
            has_met(&seen, all.map(|fate| Met::Call(asked, fate)));
        }
    }
}

/// One request whose calls do not get to Redis, several in a row, while time passes; and requests that come
/// to a worker that asks Redis no more, with everything that can happen to the probe.
#[test]
fn the_circuit_opens_and_closes() {
    for on_error in ["memory", "reject", "pass"] {
        let setup = Setup::new(choice(Some(on_error), "release", "wait"), 1, 1, 2, false);
        let budget = Budget {
            faults: 3 + faults(),
            kinds: Kinds::Broken,
            pauses: 6,
            ..Budget::default()
        };
        let seen = exhaust(requests(&setup, &[(0, 0)]), budget);
        println!("{on_error}: {seen:?}");
        has_met(
            &seen,
            [Met::Retried, Met::CircuitOpened, Met::CircuitClosed],
        );
        let budget = Budget {
            faults: faults(),
            kinds: Kinds::Calls,
            pauses: 3,
            has_slow_bodies: true,
            ..Budget::default()
        };
        let seen = exhaust(open_circuit(&setup, &[(0, 0), (0, 1)]), budget);
        println!("{on_error}, open: {seen:?}");
        has_met(
            &seen,
            [
                Met::TurnedAway,
                Met::Retried,
                Met::Probe(Asked::Claim),
                Met::Probe(Asked::Release),
                Met::Call(Asked::Claim, Fate::Abandoned),
                Met::CircuitClosed,
            ],
        );
    }
}

/// Long runs of chance: more workers, events and requests, and everything that can go wrong.
#[test]
fn long_runs_with_everything_that_can_go_wrong_keep_the_promises() {
    let all = every_choice(&[None, Some("memory"), Some("reject"), Some("pass")]);
    // `CALLBACK_GUARD_SEEDS=10000..20000` runs others.
    let seeds = std::env::var("CALLBACK_GUARD_SEEDS").unwrap_or("0..200".to_owned());
    let (first, last) = seeds.split_once("..").unwrap();
    let mut seen = Seen::default();
    for seed in first.parse::<u64>().unwrap()..last.parse().unwrap() {
        let number = usize::try_from(seed).unwrap();
        let choice = all[number % all.len()];
        let proxies = 1 + usize::from(choice.on_error.is_some());
        let setup = Setup::new(choice, proxies, 2, 3, number % 3 > 0);
        run(&setup, seed, 300, &mut seen);
    }
    println!("{seen:?}, doubled: {:?}", doubles(&seen));
    assert!(seen.conflicts > 0 && seen.crashes > 0, "{seen:?}");
    assert_eq!(doubles(&seen).len(), Double::ALL.len(), "{seen:?}");
}

/// Many requests for one event come to one worker, and some to another.
#[test]
fn crowds_wait_within_the_caps() {
    for choice in every_choice(&[None, Some("memory"), Some("reject"), Some("pass")]) {
        let proxies = 1 + usize::from(choice.on_error.is_some());
        let setup = Setup::new(choice, proxies, 1, 2, false);
        crowd(&setup, 40);
    }
}
