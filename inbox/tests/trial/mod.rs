//! A trial by chance: senders that send, and inboxes, an application and a database that are killed
//! in between. At the end everything that was answered 200 must have arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use callback_guard_harness::upstream::unused_address;
use callback_guard_harness::wait::wait_for_within;
use callback_guard_harness::{Inbox, InboxSetup, client};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// One event that the application has got, whole.
#[derive(Clone, Debug)]
pub struct Got {
    pub key: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An application that notes what it gets, and can be killed: its connections end at once, answered
/// or not. What it has noted stays, as in a database.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    runtime: Option<Runtime>,
}

impl App {
    pub fn start() -> Self {
        let mut app = Self {
            address: unused_address().unwrap(),
            got: Arc::default(),
            runtime: None,
        };
        app.revive();
        app
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn got(&self) -> Vec<Got> {
        lock(&self.got).clone()
    }

    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub fn revive(&mut self) {
        self.kill();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (address, got) = (self.address, Arc::clone(&self.got));
        runtime.spawn(async move {
            // The killed one's port may be free a moment later.
            let listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let got = Arc::clone(&got);
                tokio::spawn(async move {
                    let service = service_fn(move |request| note(request, Arc::clone(&got)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn note(
    request: Request<Incoming>,
    got: Arc<Mutex<Vec<Got>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let key = &request.headers()["x-callback-guard-key"];
    let one = Got {
        key: key.to_str().unwrap().to_owned(),
    };
    let body = request.into_body().collect().await?.to_bytes();
    // The body is the event's own, whatever happened on the way.
    assert_eq!(body, one.key.as_bytes());
    lock(&got).push(one);
    // Time for a kill between the work and the answer.
    tokio::time::sleep(Duration::from_millis(3)).await;
    Ok(Response::new(Full::default()))
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Events that the senders sent.
    pub sent: usize,
    /// Those that were answered 200.
    pub answered: usize,
    /// Answered and not delivered.
    pub lost: usize,
    /// Deliveries beyond the first.
    pub doubles: usize,
    /// Processes that were killed.
    pub kills: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.lost += other.lost;
        self.doubles += other.doubles;
        self.kills += other.kills;
    }
}

/// A deterministic source of chance.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn pause(&mut self, from: u64, to: u64) {
        thread::sleep(Duration::from_millis(from + self.below(to - from)));
    }
}

const SENDERS: u64 = 4;

/// How long a trial lasts. On a slow machine it goes on until it has had enough answers, or for
/// [`PATIENCE`].
const TRIAL: Duration = Duration::from_millis(1500);
const LEAST_ANSWERS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs one trial with `inboxes` on one store, and checks it. `setup` makes the first inbox's flags
/// from the application's URL.
pub fn run(seed: u64, inboxes: usize, setup: impl FnOnce(&str) -> InboxSetup) -> Tally {
    let mut chance = Chance::new(seed);
    let app = Mutex::new(App::start());
    let first = setup(&lock(&app).url()).arguments([
        "--timeout",
        "1s",
        // So often that none dies by chance.
        "--schedule",
        &["100ms"; 100].join(","),
    ]);
    let mut setups = vec![first.clone()];
    for _ in 1..inboxes {
        setups.push(first.another().unwrap());
    }
    // The database may be away just now: then it is tried again.
    let start = |setup: &InboxSetup| {
        // A database that was killed recovers first, on a busy machine in more than a minute.
        let patience = Duration::from_secs(180);
        wait_for_within(patience, "the inbox", || setup.start().ok()).unwrap()
    };
    let mut running: Vec<Inbox> = setups.iter().map(start).collect();
    let addresses: Vec<SocketAddr> = running.iter().map(Inbox::address).collect();
    let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut kills = 0;
    let (sent, answered) = thread::scope(|scope| {
        let (addresses, over, answers) = (&addresses, &over, &answers);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let chance = Chance::new(seed * 100 + sender);
                scope.spawn(move || send(seed, sender, chance, addresses, over, answers))
            })
            .collect();
        let begin = Instant::now();
        let is_enough = || answers.load(Ordering::Relaxed) >= LEAST_ANSWERS;
        while begin.elapsed() < TRIAL || !is_enough() && begin.elapsed() < PATIENCE {
            chance.pause(20, 250);
            kills += 1;
            if chance.below(3) == 0 {
                lock(&app).kill();
                chance.pause(10, 200);
                lock(&app).revive();
            } else {
                let index = usize::try_from(chance.below(u64::try_from(inboxes).unwrap())).unwrap();
                running[index].kill();
                chance.pause(1, 100);
                running[index] = start(&setups[index]);
            }
        }
        over.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        let mut answered = BTreeSet::new();
        for sender in senders {
            let (all, ok) = sender.join().unwrap();
            sent.push(all);
            answered.extend(ok);
        }
        (sent, answered)
    });

    assert!(
        answered.len() >= LEAST_ANSWERS,
        "seed {seed}: {} events were answered",
        answered.len()
    );
    let drained = wait_for_within(Duration::from_secs(120), "all to be delivered", || {
        let stats = first.json("stats", &[]).ok()?;
        (stats["waiting"] == 0 && stats["delivering"] == 0).then_some(stats)
    });
    let stats = drained.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    assert_eq!(stats["dead"], 0, "seed {seed}");

    let got = lock(&app).got();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for one in &got {
        *times.entry(&one.key).or_default() += 1;
    }
    let lost: Vec<_> = answered
        .iter()
        .filter(|key| !times.contains_key(key.as_str()))
        .collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    // A double is an event whose attempt had no known outcome, and the store says so.
    for (key, times) in times.iter().filter(|(_, times)| **times > 1) {
        let minute = Duration::from_secs(60);
        let event = wait_for_within(minute, key, || first.json("show", &[key]).ok()).unwrap();
        let tries = event["tries"].as_array().unwrap();
        let unknown = tries.iter().filter(|one| one["status"].is_null()).count();
        assert!(
            unknown >= times - 1,
            "seed {seed}: {key} came {times} times: {tries:?}"
        );
        assert!(
            tries.len() >= *times,
            "seed {seed}: {key} came {times} times: {tries:?}"
        );
    }
    check_order(seed, &sent, &got);
    Tally {
        sent: sent.iter().map(Vec::len).sum(),
        answered: answered.len(),
        lost: lost.len(),
        doubles: got.len() - times.len(),
        kills,
    }
}

/// Sends events one after the other, each up to three times, as a sender does.
fn send(
    seed: u64,
    sender: u64,
    mut chance: Chance,
    addresses: &[SocketAddr],
    over: &AtomicBool,
    answers: &AtomicUsize,
) -> (Vec<(String, String)>, Vec<String>) {
    let (mut all, mut answered) = (Vec::new(), Vec::new());
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{seed}-{sender}-{}", chance.below(3));
        let key = format!("{seed:016x}{sender:016x}{number:032x}");
        all.push((key.clone(), id.clone()));
        for _ in 0..3 {
            let index = chance.below(u64::try_from(addresses.len()).unwrap());
            let address = addresses[usize::try_from(index).unwrap()];
            let request = callback_guard_harness::inbox::callback(&key, &id, key.as_bytes());
            if client::send(address, &request).is_ok_and(|response| response.status == 200) {
                answered.push(key);
                answers.fetch_add(1, Ordering::Relaxed);
                break;
            }
            chance.pause(10, 100);
        }
        chance.pause(1, 15);
    }
    (all, answered)
}

/// The first delivery of each event of an id is after that of the one before.
fn check_order(seed: u64, sent: &[Vec<(String, String)>], got: &[Got]) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, one) in got.iter().enumerate() {
        first.entry(&one.key).or_insert(index);
    }
    for all in sent {
        let mut last: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        for (key, id) in all {
            let Some(&index) = first.get(key.as_str()) else {
                continue;
            };
            if let Some((before, other)) = last.insert(id, (index, key)) {
                assert!(before < index, "seed {seed}: {key} before {other}");
            }
        }
    }
}

/// Runs trials side by side, a few at a time: most of each is waiting for leases.
pub fn run_all(seeds: u64, at_once: usize, trial: impl Fn(u64) -> Tally + Sync) -> Tally {
    let next = Mutex::new(1..=seeds);
    let total = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some(seed) = lock(&next).next() else {
                        return;
                    };
                    let tally = trial(seed);
                    *lock(&total) += tally;
                }
            });
        }
    });
    let total = *lock(&total);
    println!("{seeds} seeds: {total:?}");
    total
}
