//! Slow, unfinished and idle requests against the shipped `envoy.yaml`, in the memory that the
//! manifests name. SECURITY.md, "Memory", has the sum that these numbers follow from.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use callback_guard_harness::client;
use serde_json::json;

use crate::support::{Guarded, event, signed};

/// Files that this process may have open, and so how large an attack it can be. Envoy inherits it.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}

#[test]
fn idle_connections_keep_nobody_out_for_longer_than_a_second() {
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
    // A second, and as much again for a machine that is busy.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    guarded.assert_alive();
}
