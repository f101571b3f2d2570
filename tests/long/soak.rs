//! Half of the throughput of Envoy on this machine, for a long time: genuine callbacks, 5 %
//! forged, 20 % duplicates, and an application that fails on 1 % of the events.
//!
//! `CALLBACK_GUARD_SOAK_SECONDS` is how long, 20 unless it is set; `CALLBACK_GUARD_SOAK_RATE` is
//! requests per second, half of what a short run comes to unless it is set. A sixth of the time is
//! for warming up: after that Envoy's memory must not grow.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use callback_guard_harness::client::{self, Client};
use callback_guard_harness::{Answer, Protocol, Request};

use callback_guard_support::{Change as _, Guarded, body_of, now, random, sign_at, signed};

/// Events that the store holds: few, so that it is full before anything is measured. The youngest
/// half of them is always known.
const CAPACITY: u64 = 8000;

/// How old an event may be, counted in younger ones, to be sent as a duplicate.
const YOUNG: u64 = CAPACITY / 4;

/// By how much the memory of Envoy may grow after the warming up. A leak of a few bytes a request
/// would show: half an hour is millions of them.
const ALLOWED_BYTES: u64 = 4 << 20;

/// Requests under way at once: over a connection each in HTTP/1.1, over shared ones in HTTP/2.
const HTTP1: usize = 6;
const HTTP2_CONNECTIONS: usize = 2;
const HTTP2_STREAMS: usize = 3;

/// How long the rate is looked for, at least.
const SEARCH: Duration = Duration::from_secs(3);

fn variable(name: &str) -> Option<f64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// Whether the application fails on the first delivery of an event, and the status that the sender gets.
fn failure(event: u64) -> Option<u16> {
    match random(event ^ 0x50a4) % 200 {
        0 => Some(500),
        1 => Some(503), // Envoy's, for a connection that was closed.
        _ => None,
    }
}

/// What the application has done with one event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Deliveries {
    accepted: u8,
    failed: u8,
}

#[derive(Default)]
struct Soak {
    /// Requests begun, and the next event.
    turns: AtomicU64,
    events: AtomicU64,
    forged: AtomicU64,
    duplicates: AtomicU64,
    slowest_micros: AtomicU64,
    deliveries: Mutex<Vec<Deliveries>>,
    is_over: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Soak {
    /// What the application does.
    fn answer(&self, id: &str) -> Answer {
        let event: u64 = id.strip_prefix("soak-").unwrap().parse().unwrap();
        let index = usize::try_from(event).unwrap();
        let mut all = self.deliveries.lock().unwrap();
        if all.len() <= index {
            all.resize(index + 1, Deliveries::default());
        }
        let own = &mut all[index];
        match failure(event) {
            Some(status) if own.failed == 0 => {
                own.failed += 1;
                if status == 500 {
                    Answer::status(500)
                } else {
                    Answer::reset()
                }
            }
            _ => {
                own.accepted = own.accepted.saturating_add(1);
                Answer::status(200).body("received\n")
            }
        }
    }

    /// Sends until it is over, one request each `interval`, or as fast as it goes.
    fn send(&self, mut client: Client, first: Instant, interval: Duration) {
        let mut recent = VecDeque::new();
        let mut next = first;
        while !self.is_over.load(Ordering::Relaxed) {
            // Behind its time it makes up for it: the rate is that of the whole.
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next += interval;
            if let Err(error) = self.turn(&mut client, &mut recent) {
                *self.error.lock().unwrap() = Some(error);
                self.is_over.store(true, Ordering::Relaxed);
            }
        }
    }

    fn turn(&self, client: &mut Client, recent: &mut VecDeque<u64>) -> Result<(), String> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let lot = random(turn) % 100;
        let youngest = self.events.load(Ordering::Relaxed);
        recent.retain(|event| youngest - event < YOUNG);
        if lot < 5 {
            self.forged.fetch_add(1, Ordering::Relaxed);
            let genuine = signed(&body_of("forged"));
            let (request, code) = if lot < 2 {
                (genuine.without("x-webhook-signature"), "signature_missing")
            } else {
                let other = sign_at(&body_of("other"), now()).headers;
                let forged = Request {
                    headers: other,
                    ..genuine
                };
                (forged, "signature_mismatch")
            };
            return self.expect(client, &request, 401, Some(code));
        }
        if lot < 25
            && let Some(event) = recent.pop_front()
        {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
            recent.push_back(event);
            let request = signed(&body_of(&format!("soak-{event}")));
            return self.expect(client, &request, 200, Some("duplicate"));
        }
        let event = self.events.fetch_add(1, Ordering::Relaxed);
        let body = body_of(&format!("soak-{event}"));
        if let Some(status) = failure(event) {
            self.expect(client, &signed(&body), status, None)?;
        }
        self.expect(client, &signed(&body), 200, None)?;
        recent.push_back(event);
        if recent.len() > 20 {
            recent.pop_front();
        }
        Ok(())
    }

    fn expect(
        &self,
        client: &mut Client,
        request: &Request,
        status: u16,
        verdict: Option<&str>,
    ) -> Result<(), String> {
        let response = client::block_on(client.send(request)).unwrap();
        let response = response.map_err(|error| format!("{error:#}"))?;
        let micros = u64::try_from(response.took.as_micros()).unwrap();
        self.slowest_micros.fetch_max(micros, Ordering::Relaxed);
        let given = (response.status, response.header("x-callback-guard"));
        if given == (status, verdict.map(ToOwned::to_owned)) {
            return Ok(());
        }
        let body = response.text();
        Err(format!(
            "{status} {verdict:?} expected, not {given:?}: {body}"
        ))
    }

    /// Lets all send at `rate` requests per second, or as fast as they can, as long as `watch`
    /// runs. Returns the rate that they came to.
    fn run(&self, guarded: &Guarded, rate: Option<f64>, watch: impl FnOnce()) -> f64 {
        let mut clients: Vec<Client> = (0..HTTP1)
            .map(|_| Client::new(guarded.address(), Protocol::Http1))
            .collect();
        for _ in 0..HTTP2_CONNECTIONS {
            let first = Client::new(guarded.address(), Protocol::Http2);
            clients.extend((0..HTTP2_STREAMS).map(|_| first.share()));
        }
        let before = self.turns.load(Ordering::Relaxed);
        self.is_over.store(false, Ordering::Relaxed);
        let start = Instant::now();
        let count = u32::try_from(clients.len()).unwrap();
        let interval = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(f64::from(count) / rate)
        });
        thread::scope(|scope| {
            for (client, number) in clients.into_iter().zip(0..count) {
                let first = start + interval * number / count;
                scope.spawn(move || self.send(client, first, interval));
            }
            watch();
            self.is_over.store(true, Ordering::Relaxed);
        });
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(error.as_deref(), None);
        let turns = u32::try_from(self.turns.load(Ordering::Relaxed) - before).unwrap();
        f64::from(turns) / start.elapsed().as_secs_f64()
    }
}

#[test]
fn a_long_run_at_half_of_what_is_possible() {
    let seconds = variable("CALLBACK_GUARD_SOAK_SECONDS").unwrap_or(20.0);
    let guarded = Guarded::builder()
        .workers(2)
        .configuration(|configuration| {
            configuration["store"] = serde_json::json!({ "kind": "memory", "capacity": CAPACITY });
        })
        // A line for each request, or for each refusal, would fill a disk.
        .render(|render| render.connection_manager(|manager| drop(manager["access_log"].take())))
        .map(|setup| {
            setup.options(|options| {
                "wasm:warn,dynamic_modules:warn".clone_into(&mut options.component_log_level);
            })
        })
        .start();
    let soak = Arc::new(Soak::default());
    let application = Arc::clone(&soak);
    guarded
        .upstream
        .answer_with(move |head| application.answer(&head.header("x-callback-guard-id").unwrap()));
    let evictions = "wasmcustom.callback_guard.store_evictions_total";

    let most = soak.run(&guarded, None, || {
        let start = Instant::now();
        while !soak.is_over.load(Ordering::Relaxed)
            && (start.elapsed() < SEARCH || guarded.stat(evictions) < CAPACITY / 10)
        {
            guarded.upstream.clear();
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert!(guarded.stat(evictions) > 0, "the store is not full");
    let rate = variable("CALLBACK_GUARD_SOAK_RATE").unwrap_or(most / 2.0);
    println!("{most:.0} requests a second at most; {rate:.0} a second for {seconds} s");

    soak.slowest_micros.store(0, Ordering::Relaxed);
    let length = Duration::from_secs_f64(seconds);
    let mut samples = Vec::new();
    let reached = soak.run(&guarded, Some(rate), || {
        let start = Instant::now();
        while !soak.is_over.load(Ordering::Relaxed) && start.elapsed() < length {
            samples.push((start.elapsed(), guarded.envoy.rss_bytes().unwrap()));
            // What the application has recorded is not needed, and would grow for ever.
            guarded.upstream.clear();
            thread::sleep((length / 240).min(Duration::from_secs(1)));
        }
    });

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let events = usize::try_from(count(&soak.events)).unwrap();
    let deliveries = soak.deliveries.lock().unwrap();
    assert_eq!(deliveries.len(), events);
    let mut failures = 0_u64;
    for (event, own) in (0..).zip(deliveries.iter()) {
        let failed = u8::from(failure(event).is_some());
        failures += u64::from(failed);
        assert_eq!(
            *own,
            Deliveries {
                accepted: 1,
                failed
            },
            "event {event}"
        );
    }
    println!(
        "{} requests, {reached:.0} a second in the long run, the slowest {} ms: {} forged, \
         {} duplicates, {events} events, of which {failures} failed once; none lost, none twice",
        count(&soak.turns) + failures,
        count(&soak.slowest_micros) / 1000,
        count(&soak.forged),
        count(&soak.duplicates),
    );
    let forwarded = count(&soak.events) + failures;
    assert_eq!(guarded.requests("suno", "forwarded"), forwarded);
    assert_eq!(
        guarded.requests("suno", "duplicate"),
        count(&soak.duplicates)
    );
    guarded.assert_alive();
    let log = guarded.envoy.log();
    let is_bad = |line: &&str| line.contains("[error]") || line.contains("[critical]");
    assert_eq!(log.lines().find(is_bad), None);

    println!("| second | RSS, MB |\n|---|---|");
    for (at, bytes) in samples.iter().step_by(samples.len().div_ceil(12)) {
        println!("| {} | {:.1} |", at.as_secs(), megabytes(*bytes));
    }
    let highest = |samples: &[(Duration, u64)]| samples.iter().map(|(_, bytes)| *bytes).max();
    let warm = samples.partition_point(|(at, _)| *at < length / 6);
    let (base, peak) = (highest(&samples[..warm]), highest(&samples[warm..]));
    let (base, peak) = (base.unwrap(), peak.unwrap());
    let (base_mb, peak_mb) = (megabytes(base), megabytes(peak));
    println!("highest while warming up {base_mb:.1} MB, afterwards {peak_mb:.1} MB");
    assert!(peak <= base + ALLOWED_BYTES, "{base} bytes grew to {peak}");
}

#[allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "to print"
)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
