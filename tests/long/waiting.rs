//! Thousands of requests for events that another request is delivering: the VM lives, and nobody else
//! notices.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, Gate, Load, Request, client};
use serde_json::json;

use callback_guard_support::{Builder, Guarded, event, signed};

const FLOOD: usize = 5_000;
/// As many streams at once as requests: each waits, or is told to come again.
const CONNECTIONS: usize = 50;
const STREAMS: usize = 100;
/// Genuine callbacks that a median is taken of.
const SAMPLES: usize = 101;
/// How often the medians are taken before they count as too far apart. On a machine with more to do
/// than it can, the scheduler has the process wait that has had more of it: the one under the flood.
const ROUNDS: usize = 8;

/// The flood's own: no answer of it is late on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const WAITS: &str = "wasmcustom.callback_guard.waits_total.source.suno";
const IN_FLIGHT: &str = "wasmcustom.callback_guard.requests_total.source.suno.verdict.in_flight";

/// Sends a genuine callback of an event of its own. Returns how long it took.
#[track_caller]
fn bystander(guarded: &Guarded) -> Duration {
    let response = guarded.send(&signed(&event("bystander").1));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("x-callback-guard"), None);
    response.took
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}

/// A guard that delivers what belongs to the flood once the gate is open, and all else at once. Its
/// requests wait for so many seconds, and its deliveries take as long as the gate does.
fn guard_with_gate(builder: Builder, wait_seconds: u64, answer: Answer) -> (Guarded, Gate) {
    let guarded = builder
        .workers(1)
        .configuration(|configuration| {
            configuration["sources"][0]["dedupe"] =
                json!({ "wait_seconds": wait_seconds, "lease_seconds": 600 });
        })
        .route_timeout(Duration::from_secs(300))
        .render(|render| {
            render.connection_manager(|manager| manager["stream_idle_timeout"] = json!("300s"))
        })
        .start();
    let gate = Gate::new();
    let held = answer.when(&gate);
    guarded.upstream.answer_with(move |head| {
        let id = head.header("x-callback-guard-id").unwrap_or_default();
        if id.contains("flood") {
            held.clone()
        } else {
            Answer::status(200)
        }
    });
    (guarded, gate)
}

/// `FLOOD` requests over so many events.
fn requests_over(events: usize) -> Vec<Request> {
    let events: Vec<Request> = (0..events)
        .map(|number| signed(&event(&format!("flood-{number}")).1).deadline(PATIENCE))
        .collect();
    events.iter().cycle().take(FLOOD).cloned().collect()
}

fn begin_flood(guarded: &Guarded, requests: Vec<Request>) -> JoinHandle<BTreeMap<u16, usize>> {
    let address = guarded.address();
    thread::spawn(move || {
        let mut told = BTreeMap::new();
        let load = Load::http2(CONNECTIONS, STREAMS);
        for response in client::send_all(address, requests, load).unwrap() {
            *told.entry(response.unwrap().status).or_default() += 1;
        }
        assert_eq!(told.values().sum::<usize>(), FLOOD, "each has its answer");
        told
    })
}

/// Each of so many bystanders was delivered, and exactly once.
#[track_caller]
fn assert_bystanders_once(guarded: &Guarded, count: usize) {
    let mut delivered = BTreeMap::new();
    for record in guarded.upstream.recorded() {
        let id = record.head.header("x-callback-guard-id").unwrap();
        *delivered.entry(id).or_insert(0) += 1;
    }
    delivered.retain(|id, _| !id.contains("flood"));
    assert_eq!(delivered.len(), count);
    assert!(delivered.values().all(|count| *count == 1), "{delivered:?}");
}

/// Floods a guard with requests for so many events, whose deliveries are held at a gate that then
/// opens on `answer`; bystanders come meanwhile. Returns what the flood got, by status.
fn flood(answer: Answer, events: usize) -> BTreeMap<u16, usize> {
    let (guarded, gate) = guard_with_gate(Guarded::builder(), 60, answer);
    // The same, with nothing else to do. Asked in turn with the other one, it shares the machine's
    // pace, whatever else runs there.
    let (idle, _gate) = guard_with_gate(Guarded::builder(), 60, Answer::status(200));
    for _ in 0..20 {
        bystander(&guarded);
        bystander(&idle);
    }
    let flooding = begin_flood(&guarded, requests_over(events));
    // Every event is at the upstream, as many wait as may, and all others have their answer.
    let waits = (events * 32).min(1_024);
    let told = FLOOD - events - waits;
    guarded.wait_for_stat(WAITS, u64::try_from(waits).unwrap());
    guarded.wait_for_stat(IN_FLIGHT, u64::try_from(told).unwrap());
    let mut sent = 20;
    let mut medians = Vec::new();
    let is_near = |(busy, idle): &(Duration, Duration)| *busy <= *idle * 3;
    while medians.len() < ROUNDS && !medians.last().is_some_and(is_near) {
        let (busy, idle): (Vec<_>, Vec<_>) = (0..SAMPLES)
            .map(|_| (bystander(&guarded), bystander(&idle)))
            .unzip();
        medians.push((median(busy), median(idle)));
        sent += SAMPLES;
    }
    gate.open();
    for _ in 0..SAMPLES {
        bystander(&guarded);
    }
    let told = flooding.join().unwrap();
    println!("{told:?}: while all wait, and where nobody does: {medians:?}");
    guarded.assert_alive();
    assert_bystanders_once(&guarded, sent + SAMPLES);
    assert!(medians.last().is_some_and(is_near), "{medians:?}");
    told
}

#[test]
fn five_thousand_copies_of_one_event_are_one_delivery() {
    let told = flood(Answer::status(200), 1);
    // One was delivered, 32 waited for it; what came too early is told to come again.
    assert_eq!(told, BTreeMap::from([(200, 33), (409, FLOOD - 33)]));
}

#[test]
fn five_thousand_requests_for_fifty_events_that_fail_end_without_harm() {
    let told = flood(Answer::status(503), 50);
    assert!(told[&503] >= 50, "{told:?}");
    assert!(
        told.keys().all(|status| matches!(status, 409 | 503)),
        "{told:?}"
    );
}

/// Envoy takes the upstream for healthy as long as this accepts connections.
struct Health {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Health {
    fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                drop(listener.accept());
            }
        });
        Self {
            address,
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// While waits end by their deadline, the claims that are waited for are released, and whoever takes
/// one over finds no healthy upstream: Envoy answers it inside the callback that lets it go.
#[test]
fn deadlines_releases_and_no_healthy_upstream_at_once_end_without_harm() {
    const EVENTS: usize = 50;
    let health = Health::start(SocketAddr::from(([127, 0, 0, 1], 0)));
    let address = health.address;
    let builder = Guarded::builder().render(|render| {
        render.cluster(|cluster| {
            cluster["common_lb_config"] = json!({ "healthy_panic_threshold": { "value": 0 } });
            cluster["health_checks"] = json!([{
                "timeout": "5s", "interval": "0.05s", "no_traffic_interval": "0.05s",
                "unhealthy_interval": "0.05s", "unhealthy_threshold": 1, "healthy_threshold": 1,
                "reuse_connection": false, "tcp_health_check": {}
            }]);
            let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
            endpoint["endpoint"]["health_check_config"] = json!({ "port_value": address.port() });
        })
    });
    let (guarded, gate) = guard_with_gate(builder, 1, Answer::status(503));
    guarded.wait_for_stat("cluster.app.membership_healthy", 1);
    bystander(&guarded);
    let requests = requests_over(EVENTS);
    let events: Vec<Request> = requests[..EVENTS].to_vec();
    let flooding = begin_flood(&guarded, requests);
    guarded.upstream.wait_for_requests(1 + EVENTS).unwrap();
    drop(health);
    guarded.wait_for_stat("cluster.app.membership_healthy", 0);
    // More have been told to come again than could not wait: the first deadlines are there.
    let told_at_once = u64::try_from(FLOOD - EVENTS - 1_024).unwrap();
    wait_for("a deadline", || {
        (guarded.stat(IN_FLIGHT) > told_at_once).then_some(())
    })
    .unwrap();
    let unsure = signed(&event("bystander").1);
    assert_eq!(guarded.send(&unsure).status, 503);
    gate.open();
    let told = flooding.join().unwrap();
    println!("{told:?}");
    assert!(told[&503] >= EVENTS, "{told:?}");
    assert!(
        told.keys().all(|status| matches!(status, 409 | 503)),
        "{told:?}"
    );
    assert!(guarded.stat("cluster.app.upstream_cx_none_healthy") > 0);
    guarded.assert_alive();
    let _health = Health::start(address);
    guarded.wait_for_stat("cluster.app.membership_healthy", 1);
    assert_eq!(guarded.send(&unsure).status, 200);
    assert_bystanders_once(&guarded, 2);
    // None of the events counts as delivered.
    guarded.upstream.answer(Answer::status(200));
    for request in &events {
        let response = guarded.send(request);
        assert_eq!(
            (response.status, response.header("x-callback-guard")),
            (200, None)
        );
    }
}
