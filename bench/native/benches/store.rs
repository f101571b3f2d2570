//! How much workers are in each other's way at the store: `cargo bench -p
//! callback-guard-bench-native --bench store`.
//!
//! Envoy keeps shared data in one hash map behind one mutex for the whole process, and copies the
//! value under it, in both directions. This is a model of that, with a [`Worker`] for each thread: each
//! plays whole requests for events of its own, in a store that is full, at full speed and with the CPU
//! time that Envoy takes between the claim and the response. Of each row the best run counts: what else
//! the machine does only takes away.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "benches"
)]

mod callback;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use callback::{body, policy};
use callback_guard_core::policy::Policy;
use callback_guard_core::request::RequestHead;
use callback_guard_core::store::{SharedData, Swap, Unavailable};
use callback_guard_core::testkit::{NOW, Request};
use callback_guard_core::worker::{Io, Outcome, Seed, StreamId, Verdict, Worker};
use rustix::time::{ClockId, clock_gettime};

const CAPACITY: u64 = 100_000;
const ROUNDS: usize = 30;
const RUN: Duration = Duration::from_millis(250);
/// What a request costs a thread besides the guard: CPU, not waiting.
const REQUEST: Duration = Duration::from_micros(30);

#[derive(Default)]
struct Data {
    values: HashMap<String, (Vec<u8>, u32)>,
    version: u32,
}

/// One worker's way to the data, and what it met on it.
struct Shared<'a> {
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

impl<'a> Shared<'a> {
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

impl SharedData for Shared<'_> {
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

/// A worker, and all that it needs. A token proves its requests: a signature would have to be made for
/// each, and would cost more than what is measured here.
struct Thread<'a> {
    worker: Worker,
    shared: Shared<'a>,
    request: Request,
}

impl<'a> Thread<'a> {
    fn new(policy: &Arc<Policy>, data: &'a Mutex<Data>, owner: u64) -> Self {
        let seed = Seed {
            owner,
            salt: [7; 16],
        };
        Self {
            worker: Worker::new(Arc::clone(policy), seed),
            shared: Shared::new(data),
            request: Request::unsigned("").at(policy, "/callbacks/suno"),
        }
    }

    /// A request for the event with this number, from its head to its end. It is accepted after `work`.
    fn play(&mut self, number: u64, work: impl FnOnce()) {
        const ACCEPTED: (Outcome, u64) = (Outcome::Accepted, 200);
        let stream = StreamId(1);
        let body = body(&number.to_string(), 0);
        let (pairs, worker) = (self.request.pairs(), &mut self.worker);
        let mut io = Io::new(&mut self.shared, NOW);
        let verdict = worker.request_head(&mut io, stream, &RequestHead::new(&pairs), false);
        assert_eq!(verdict, Verdict::Hold);
        let read = |_| Some(body.as_bytes().into());
        let verdict = worker.request_body(&mut io, stream, body.len(), true, &read);
        assert_eq!(verdict, Verdict::Forward);
        work();
        worker.response_head(&mut io, stream, || ACCEPTED);
        worker.stream_end(&mut io, stream, || ACCEPTED);
        worker.take_effects(&mut Vec::new());
        self.shared.seen.events += 1;
    }
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

fn run(policy: &Arc<Policy>, data: &Mutex<Data>, workers: u64, turns: u64, first: u64) -> Run {
    let (stop, ready) = (
        AtomicBool::new(false),
        Barrier::new(usize::try_from(workers).unwrap() + 1),
    );
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|index| {
                let (stop, ready) = (&stop, &ready);
                scope.spawn(move || {
                    let mut number = first + index;
                    let mut thread = Thread::new(policy, data, index << 32);
                    ready.wait();
                    while !stop.load(Ordering::Relaxed) {
                        thread.play(number, || spin(turns));
                        number += workers;
                    }
                    thread.shared.seen
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
fn held(policy: &Arc<Policy>, data: &Mutex<Data>, mut first: u64) -> f64 {
    const EVENTS: u32 = 1_000;
    let mean = |sum: Duration| sum.as_secs_f64() * 1e9 / f64::from(EVENTS);
    let (mut held, mut clock) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..200 {
        let mut thread = Thread::new(policy, data, 0);
        thread.shared.clocked = true;
        for number in first..first + u64::from(EVENTS) {
            thread.play(number, || {});
        }
        first += u64::from(EVENTS);
        let seen = thread.shared.seen;
        held = held.min(mean(seen.held));
        let read = |_| black_box(Instant::now()).elapsed();
        clock = clock.min(mean((0..seen.locks).map(read).sum()));
    }
    held - clock
}

fn main() {
    let store = format!(r#"{{"kind":"memory","capacity":{CAPACITY}}}"#);
    let policy = policy("sunoapi-token", &store);
    let data = Mutex::new(Data::default());
    let mut filler = Thread::new(&policy, &data, 0);
    // Twice, so that every bucket is as full as it will ever be.
    let mut first = 0;
    for number in 0..2 * CAPACITY {
        filler.play(number, || {});
        first = number + 1;
    }
    println!(
        "The lock is held {:.0} ns for an event.\n",
        held(&policy, &data, first)
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
            let run = run(&policy, &data, *workers, *turns, first);
            first += 1 << 32;
            if best.is_none_or(|best| best.rate() < run.rate()) {
                *best = Some(run);
            }
        }
    }

    println!(
        "| between claim and response | threads | events/s | to one thread | CPU for an event, µs | \
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
