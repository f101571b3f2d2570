//! How much workers are in each other's way at the store: `cargo bench -p
//! callback-guard-bench-native --bench store`.
//!
//! Envoy keeps shared data in one hash map behind one mutex for the whole process, and copies the
//! value under it, in both directions. This is a model of that, with threads for workers: each claims
//! and settles events of its own, in a store that is full, at full speed and with the CPU time of a
//! request between claim and settling. Of each row the best run counts: what else the machine does only
//! takes away.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "benches"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use callback_guard_core::event::{EventKey, IdKey};
use callback_guard_core::store::bucket::{Fingerprint, OwnerToken};
use callback_guard_core::store::local::LocalStore;
use callback_guard_core::store::{
    ClaimAnswer, ClaimRequest, Settlement, SharedData, Swap, Unavailable,
};
use callback_guard_core::time::UnixMillis;
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

const CAPACITY: u32 = 100_000;
const ROUNDS: usize = 30;
const RUN: Duration = Duration::from_millis(250);
/// What a request costs a worker besides its claim and its settling: CPU, not waiting.
const REQUEST: Duration = Duration::from_micros(30);
const NOW: UnixMillis = UnixMillis::from_seconds(1_769_670_760);

#[derive(Default)]
struct Data {
    values: HashMap<String, (Vec<u8>, u32)>,
    version: u32,
}

/// One worker's way to the data, and what it met on it.
struct Worker<'a> {
    data: &'a Mutex<Data>,
    /// Whether the time under the lock is taken, which takes time itself.
    clocked: bool,
    seen: Seen,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    events: u32,
    locks: u32,
    waits: u32,
    waited: Duration,
    held: Duration,
    conflicts: u32,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.locks += other.locks;
        self.waits += other.waits;
        self.waited += other.waited;
        self.held += other.held;
        self.conflicts += other.conflicts;
    }
}

impl<'a> Worker<'a> {
    fn new(data: &'a Mutex<Data>) -> Self {
        Self {
            data,
            clocked: false,
            seen: Seen::default(),
        }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Data) -> T) -> T {
        let mut data = self.lock();
        let start = self.clocked.then(Instant::now);
        let result = work(&mut data);
        if let Some(start) = start {
            self.seen.held += start.elapsed();
        }
        result
    }

    fn lock(&mut self) -> MutexGuard<'a, Data> {
        self.seen.locks += 1;
        match self.data.try_lock() {
            Ok(data) => data,
            Err(TryLockError::WouldBlock) => {
                let start = Instant::now();
                let data = self.data.lock().unwrap();
                self.seen.waits += 1;
                self.seen.waited += start.elapsed();
                data
            }
            Err(TryLockError::Poisoned(_)) => unreachable!("no worker panics under the lock"),
        }
    }
}

impl SharedData for Worker<'_> {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        Ok(self.with(|data| match data.values.get(key) {
            None => (None, None),
            Some((value, version)) => (Some(value.clone()), Some(*version)),
        }))
    }

    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        let swap = self.with(|data| {
            let next = data.version.wrapping_add(1);
            match data.values.get_mut(key) {
                Some((_, held)) if *held != version => return Swap::Conflict,
                Some((bytes, held)) => {
                    bytes.clear();
                    bytes.extend_from_slice(value);
                    *held = next;
                }
                None => {
                    data.values.insert(key.to_owned(), (value.to_vec(), next));
                }
            }
            data.version = next;
            Swap::Done
        });
        if swap == Swap::Conflict {
            self.seen.conflicts += 1;
        }
        Ok(swap)
    }
}

/// Claims and settles the event with this number, and does `work` in between.
fn event(worker: &mut Worker<'_>, number: u64, work: impl FnOnce()) {
    let store = LocalStore::new(CAPACITY);
    let key = EventKey::from_bytes(Sha256::digest(number.to_le_bytes()).into());
    let owner = OwnerToken::new(number);
    let id = IdKey::new("suno", &number.to_string(), &[7; 16], false);
    let request = ClaimRequest {
        key,
        id,
        events_per_id: 64,
        owner,
        lease_seconds: 30,
    };
    let (answer, _) = store.claim(worker, &request, NOW);
    assert_eq!(answer, ClaimAnswer::Granted);
    work();
    let delivered = Settlement::Deliver {
        key,
        id,
        owner,
        fingerprint: Fingerprint::new(number),
        window_seconds: 86_400,
    };
    let (is_owner, _) = store.settle(worker, &delivered, NOW).unwrap();
    assert!(is_owner);
    worker.seen.events += 1;
}

/// Work that takes CPU: `turns` of it.
fn spin(turns: u64) {
    let mut value = turns | 1;
    for _ in 0..turns {
        value = black_box(value.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
    black_box(value);
}

/// The turns that take [`REQUEST`] while nothing else runs: by the clock of the machine, a worker
/// that is not running would think that it works.
fn turns() -> u64 {
    const SAMPLE: u64 = 1_000_000;
    let fastest = (0..20)
        .map(|_| {
            let start = Instant::now();
            spin(SAMPLE);
            start.elapsed()
        })
        .min()
        .unwrap();
    SAMPLE * u64::try_from(REQUEST.as_nanos()).unwrap() / u64::try_from(fastest.as_nanos()).unwrap()
}

/// What all workers of one run saw together, and what it took.
#[derive(Clone, Copy)]
struct Run {
    seen: Seen,
    length: Duration,
    cpu: Duration,
}

impl Run {
    fn rate(&self) -> f64 {
        f64::from(self.seen.events) / self.length.as_secs_f64()
    }
}

fn cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

fn run(data: &Mutex<Data>, workers: u64, turns: u64, first: u64) -> Run {
    let (stop, ready) = (
        AtomicBool::new(false),
        Barrier::new(usize::try_from(workers).unwrap() + 1),
    );
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|index| {
                let (stop, ready) = (&stop, &ready);
                scope.spawn(move || {
                    let mut worker = Worker::new(data);
                    let mut number = first + index;
                    ready.wait();
                    while !stop.load(Ordering::Relaxed) {
                        event(&mut worker, number, || spin(turns));
                        number += workers;
                    }
                    worker.seen
                })
            })
            .collect();
        ready.wait();
        let (start, before) = (Instant::now(), cpu());
        thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for thread in threads {
            seen.add(&thread.join().unwrap());
        }
        Run {
            seen,
            length: start.elapsed(),
            cpu: cpu().saturating_sub(before),
        }
    })
}

/// How long the lock is held for one event, in nanoseconds: of many events in a row the shortest mean,
/// less what reading the clock takes, by its own shortest mean.
fn held(data: &Mutex<Data>, mut first: u64) -> f64 {
    const EVENTS: u32 = 1_000;
    let mean = |sum: Duration| sum.as_secs_f64() * 1e9 / f64::from(EVENTS);
    let (mut held, mut clock) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..200 {
        let mut worker = Worker::new(data);
        worker.clocked = true;
        for number in first..first + u64::from(EVENTS) {
            event(&mut worker, number, || {});
        }
        first += u64::from(EVENTS);
        held = held.min(mean(worker.seen.held));
        let read = |_| black_box(Instant::now()).elapsed();
        clock = clock.min(mean((0..worker.seen.locks).map(read).sum()));
    }
    held - clock
}

fn main() {
    let data = Mutex::new(Data::default());
    let mut filler = Worker::new(&data);
    // Twice, so that every bucket is as full as it will ever be.
    let mut first = 0;
    for number in 0..2 * u64::from(CAPACITY) {
        event(&mut filler, number, || {});
        first = number + 1;
    }
    println!(
        "The lock is held {:.0} ns for an event.\n",
        held(&data, first)
    );
    first += 1_000_000;

    let turns = turns();
    let setups: Vec<(u64, u64)> = [0, turns]
        .into_iter()
        .flat_map(|turns| [1, 2, 4, 8].map(|workers| (workers, turns)))
        .collect();
    let mut best: Vec<Option<Run>> = vec![None; setups.len()];
    for _ in 0..ROUNDS {
        for ((workers, turns), best) in setups.iter().zip(&mut best) {
            let run = run(&data, *workers, *turns, first);
            first += 1 << 32;
            if best.is_none_or(|best| best.rate() < run.rate()) {
                *best = Some(run);
            }
        }
    }

    println!(
        "| between claim and settling | threads | events/s | to one thread | CPU for an event, µs | \
         locks that had to wait | waiting for an event, µs | conflicts in a million events |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let mut one = 0.0;
    for ((workers, turns), best) in setups.iter().zip(&best) {
        let best = best.unwrap();
        let events = f64::from(best.seen.events);
        if *workers == 1 {
            one = best.rate();
        }
        println!(
            "| {} | {workers} | {:.0} | {:.2} | {:.2} | {:.2} % | {:.2} | {:.0} |",
            if *turns == 0 {
                "nothing"
            } else {
                "30 µs of CPU"
            },
            best.rate(),
            best.rate() / one,
            best.cpu.as_secs_f64() * 1e6 / events,
            100.0 * f64::from(best.seen.waits) / f64::from(best.seen.locks),
            best.seen.waited.as_secs_f64() * 1e6 / events,
            1e6 * f64::from(best.seen.conflicts) / events,
        );
    }
}
