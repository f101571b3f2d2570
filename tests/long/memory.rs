//! Slow, unfinished and idle requests against the shipped `envoy.yaml`, in the memory that the
//! manifests name. SECURITY.md, "Memory", has the sum that these numbers follow from.
//!
//! The memory is watched in `/proc`: `ulimit -v` is of no use with V8, which reserves address space.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use callback_guard_harness::client;
use serde_json::json;

use callback_guard_support::http2::{DATA, HEADERS, RESET, SETTINGS, frame, hpack, pseudo};
use callback_guard_support::{Guarded, event, now, signed};

/// What the manifests give the container, in MiB.
const CONTAINER: u64 = 512;

/// Files that this process may have open, and so how large an attack it can be. Envoy inherits it.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}

/// Genuine callbacks, one after another, each over a connection of its own, and how they fare.
#[derive(Default)]
struct Bystanders {
    stop: AtomicBool,
    served: AtomicUsize,
    refused: AtomicUsize,
}

impl Bystanders {
    fn run(&self, address: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let response = client::send(address, &signed(&event("bystander").1));
            let is_served = response.is_ok_and(|response| response.status == 200);
            let count = if is_served {
                &self.served
            } else {
                &self.refused
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Runs `attack` while genuine callbacks are sent. Returns how many of them were served, and how many
/// were not.
fn under_attack(guarded: &Guarded, attack: impl FnOnce()) -> (usize, usize) {
    let bystanders = Bystanders::default();
    let address = guarded.address();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| bystanders.run(address));
        }
        attack();
        bystanders.stop.store(true, Ordering::Relaxed);
    });
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    (count(&bystanders.served), count(&bystanders.refused))
}

/// A head with the form of a signature, which only the body's end can show to be wrong.
fn plausible() -> Vec<(&'static str, String)> {
    vec![
        ("content-type", "application/json".to_owned()),
        ("content-length", "1048576".to_owned()),
        ("x-webhook-timestamp", now().to_string()),
        ("x-webhook-signature", format!("{}=", "A".repeat(43))),
    ]
}

/// An HTTP/1.1 connection with a request that has begun.
fn begun(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut head = "POST /callbacks/suno HTTP/1.1\r\nhost: callbacks.test\r\n".to_owned();
    for (name, value) in plausible() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("{head}\r\n{{").as_bytes())?;
    // From here on it takes what there is room for: nobody has to wait for Envoy to read.
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// An HTTP/2 connection with so many requests that have begun.
fn begun_many(address: SocketAddr, streams: u32) -> std::io::Result<TcpStream> {
    let mut block = hpack(&pseudo("/callbacks/suno"));
    block.extend(hpack(&plausible()));
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, b""));
    for id in ids(streams) {
        bytes.extend(frame(HEADERS, 4, id, &block));
        bytes.extend(frame(DATA, 0, id, b"{"));
    }
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&bytes)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// The numbers of a connection's first streams.
fn ids(streams: u32) -> impl Iterator<Item = u32> {
    (0..streams).map(|index| 2 * index + 1)
}

#[test]
fn slow_bodies_neither_end_envoy_nor_keep_genuine_callbacks_out() {
    const STREAMS: u32 = 100;
    const STEP: [u8; 16_000] = [b' '; 16_000];
    let single = 2000.min(files().saturating_sub(500));
    let guarded = Guarded::start();
    let address = guarded.address();
    let (served, refused) = under_attack(&guarded, || {
        let start = Instant::now();
        let mut many: Vec<_> = (0..12)
            .filter_map(|_| begun_many(address, STREAMS).ok())
            .collect();
        let mut single: Vec<_> = (0..single).filter_map(|_| begun(address).ok()).collect();
        assert_eq!(many.len(), 12);
        // Each grows towards its mebibyte and never gets there. Envoy ends them after the 10 s of its
        // request_timeout; by then every byte that it will ever hold at once has been there.
        let mut grown = 1;
        while start.elapsed() < Duration::from_secs(11) {
            if grown + STEP.len() >= 1 << 20 {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            grown += STEP.len();
            for id in ids(STREAMS) {
                let frame = frame(DATA, 0, id, &STEP);
                many.retain_mut(|stream| stream.write_all(&frame).is_ok());
            }
            single.retain_mut(|stream| match stream.write(&STEP) {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
            // Slowly: it is about what is held, not about how much comes.
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert!(guarded.envoy.is_running());
    guarded.assert_alive();
    let most = guarded.envoy.peak_rss_bytes().unwrap() >> 20;
    assert!(most < CONTAINER, "Envoy held {most} MiB");
    let text = format!("{served} genuine callbacks were served, {refused} were not");
    assert!(served >= 20, "{text}");
    assert!(refused * 100 <= served + refused, "{text}");
}

#[test]
fn requests_that_are_begun_and_taken_back_do_not_pile_up() {
    let guarded = Guarded::start();
    let address = guarded.address();
    let block = {
        let mut block = hpack(&pseudo("/callbacks/suno"));
        block.extend(hpack(&[("content-type", "application/json")]));
        block
    };
    let mut connections: Vec<TcpStream> = (0..40)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(address).ok()?;
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            stream
                .write_all(&[preface, frame(SETTINGS, 0, 0, b"")].concat())
                .ok()?;
            stream.set_nonblocking(true).ok()?;
            Some(stream)
        })
        .collect();
    for round in 0..10 {
        let ids = (0..200).map(|index| 2 * (round * 200 + index) + 1);
        let bytes: Vec<u8> = ids
            .flat_map(|id| {
                let mut both = frame(HEADERS, 4, id, &block);
                both.extend(frame(RESET, 0, id, &8_u32.to_be_bytes()));
                both
            })
            .collect();
        for stream in &mut connections {
            // A client whose connection has been ended has nothing more to say.
            let _ = stream.write(&bytes);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let response = client::send(address, &signed(&event("after").1)).unwrap();
    assert_eq!(response.status, 200);
    guarded.assert_alive();
    let most = guarded.envoy.peak_rss_bytes().unwrap() >> 20;
    assert!(most < CONTAINER, "Envoy held {most} MiB");
}

#[test]
fn idle_connections_keep_nobody_out() {
    // On a machine that allows fewer, against an Envoy that takes fewer.
    let idle = 10_000.min(files().saturating_sub(500));
    let most = idle * 4 / 10;
    let guarded = Guarded::builder()
        .render(|render| {
            render.edit(|document| {
                let limit = document
                    .pointer_mut("/overload_manager/resource_monitors/1/typed_config/max_active_downstream_connections")
                    .unwrap();
                assert_eq!(*limit, json!(4000));
                *limit = json!(most);
            })
        })
        .start();
    let address = guarded.address();
    let connections: Vec<_> = (0..idle)
        .filter_map(|_| TcpStream::connect(address).ok())
        .collect();
    let start = Instant::now();
    assert!(connections.len() > most, "{} of {idle}", connections.len());
    let is_served = || {
        client::send(address, &signed(&event("late").1))
            .is_ok_and(|response| response.status == 200)
    };
    while !is_served() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "nobody is served"
        );
    }
    guarded.assert_alive();
}
