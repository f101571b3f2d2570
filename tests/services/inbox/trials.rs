//! Inboxes, applications and databases that are killed at any instant: 50 seeds a store, or as many
//! as `CALLBACK_GUARD_SEEDS` says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use callback_guard_harness::inbox::program;
use callback_guard_harness::{InboxSetup, Postgres};

use super::trial::{self, Chance, Tally};

/// Trials side by side: most of each is waiting for leases.
const AT_ONCE: usize = 10;

fn seeds() -> u64 {
    std::env::var("CALLBACK_GUARD_SEEDS").map_or(50, |count| count.parse().unwrap())
}

fn check(total: Tally) {
    assert_eq!(total.lost, 0);
    // Each kill costs the attempts that were under way, 16 at most.
    assert!(total.doubles <= total.kills * 16, "{total:?}");
}

#[test]
fn sqlite_loses_nothing_that_was_answered() {
    let program = program(false, &|_| {}).unwrap();
    check(trial::run_all(seeds(), AT_ONCE, |seed| {
        trial::run(seed, 1, |url| InboxSetup::new(&program, url).unwrap())
    }));
}

#[test]
fn postgres_loses_nothing_that_was_answered_with_one_two_and_four_inboxes() {
    let program = program(false, &|_| {}).unwrap();
    let database = Postgres::start().unwrap();
    let url = database.url();
    let database = Mutex::new(database);
    let over = AtomicBool::new(false);
    let killed = AtomicUsize::new(0);
    let total = thread::scope(|scope| {
        // One server for all trials, each with a database of its own: its death meets them all.
        scope.spawn(|| {
            let mut chance = Chance::new(4711);
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(500 + chance.below(4000)));
                let mut database = database.lock().unwrap();
                database.kill();
                thread::sleep(Duration::from_millis(chance.below(800)));
                database.restart().unwrap();
                killed.fetch_add(1, Ordering::Relaxed);
            }
        });
        let total = trial::run_all(seeds(), AT_ONCE, |seed| {
            let inboxes = [1, 2, 4][usize::try_from(seed % 3).unwrap()];
            database
                .lock()
                .unwrap()
                .query(&format!("CREATE DATABASE trial_{seed}"))
                .unwrap();
            trial::run(seed, inboxes, |to| {
                InboxSetup::new(&program, to)
                    .unwrap()
                    .store(&url.replace("/postgres", &format!("/trial_{seed}")))
            })
        });
        over.store(true, Ordering::Relaxed);
        total
    });
    println!(
        "the database was killed {} times",
        killed.load(Ordering::Relaxed)
    );
    assert_eq!(total.lost, 0);
}
