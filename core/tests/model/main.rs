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
use search::{Budget, Seen, crowd, exhaust, run};
use world::{Choice, Setup};

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

/// Two requests for one event on two workers of a proxy: every order of their steps, with one fault
/// anywhere or one step of the clock.
#[test]
fn every_interleaving_of_two_requests_keeps_the_promises() {
    for choice in every_choice(&[None]) {
        let setup = Setup::new(choice, 1, 2, 1, true);
        let mut excuses = Vec::new();
        // Without a fault nothing is ever unknown.
        let budgets: &[_] = match choice.on_unknown {
            "release" => &[(1, 0), (0, 1)],
            _ => &[(1, 0)],
        };
        for &(faults, clocks) in budgets {
            let seen = exhaust(&setup, &[(0, 0), (1, 0)], Budget { faults, clocks });
            println!("{choice:?}, {faults} faults, {clocks} clock steps: {seen:?}");
            assert!(seen.states > 2_000 && seen.conflicts > 0, "{seen:?}");
            excuses.extend(doubles(&seen).iter().map(|(double, _)| *double));
        }
        let expected: &[Double] = match choice.on_unknown {
            "release" => &[Double::AnswerLost, Double::LeaseOver],
            _ => &[],
        };
        assert_eq!(excuses, expected, "{choice:?}");
    }
}

/// The same on two proxies that share a Redis.
#[test]
fn every_interleaving_over_two_stores_keeps_the_promises() {
    use Double::{AnswerLost, LeaseOver, OwnStore, RedisLost, Unclaimed};

    let all: [(Choice, Budget, &[Double]); 4] = [
        (
            choice(Some("memory"), "release", "wait"),
            Budget {
                faults: 1,
                clocks: 0,
            },
            &[AnswerLost, OwnStore, RedisLost],
        ),
        (
            choice(Some("reject"), "hold", "reject"),
            Budget {
                faults: 1,
                clocks: 0,
            },
            &[RedisLost],
        ),
        (
            choice(Some("pass"), "release", "reject"),
            Budget {
                faults: 1,
                clocks: 0,
            },
            &[AnswerLost, RedisLost, Unclaimed],
        ),
        (
            choice(Some("memory"), "release", "wait"),
            Budget {
                faults: 0,
                clocks: 1,
            },
            &[LeaseOver],
        ),
    ];
    for (choice, budget, expected) in all {
        let setup = Setup::new(choice, 2, 1, 1, false);
        let seen = exhaust(&setup, &[(0, 0), (1, 0)], budget);
        println!("{choice:?}, {budget:?}: {seen:?}");
        assert!(seen.states > 5_000, "{seen:?}");
        let excuses: Vec<Double> = doubles(&seen).iter().map(|(double, _)| *double).collect();
        assert_eq!(excuses, expected, "{choice:?}");
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
