//! Many clients, many Envoys, each event once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use callback_guard_harness::client::{Connection, block_on};
use callback_guard_harness::{FleetSetup, Protocol, Way};

use super::support::{Random, callback};

const CLIENTS: usize = 8;
const EVENTS: usize = 2_000;
const COPIES: usize = 4;

both_ways! {
    two_envoys_deliver_each_event_once,
    four_envoys_deliver_each_event_once,
}

fn two_envoys_deliver_each_event_once(way: Way) {
    check_once(way, 2, 0x5eed_0002);
}

fn four_envoys_deliver_each_event_once(way: Way) {
    check_once(way, 4, 0x5eed_0004);
}

fn check_once(way: Way, envoys: usize, seed: u64) {
    let fleet = FleetSetup::by(way, envoys)
        .guard(|config| config["store"]["timeout_milliseconds"] = 5_000.into())
        .start()
        .unwrap();
    let addresses: Vec<SocketAddr> = fleet
        .envoys
        .iter()
        .map(callback_guard_harness::Envoy::listener_address)
        .collect();
    let mut random = Random(seed);
    // The copies of an event lie side by side, so that they are under way at the same time.
    let plan: Vec<(usize, usize)> = (0..EVENTS * COPIES)
        .map(|index| (index / COPIES, random.below(envoys)))
        .collect();
    let next = AtomicUsize::new(0);
    let answers: Vec<(u16, bool)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| client(&plan, &next, &addresses)))
            .collect();
        let finish = |client: thread::ScopedJoinHandle<'_, _>| client.join().unwrap();
        clients.into_iter().flat_map(finish).collect()
    });
    assert_eq!(answers.len(), EVENTS * COPIES);
    let refused: Vec<_> = answers
        .iter()
        .filter(|(status, _)| *status != 200)
        .collect();
    assert!(refused.is_empty(), "seed {seed:#x}: {refused:?}");
    let mut deliveries: HashMap<String, usize> = HashMap::new();
    for record in fleet.upstream.recorded() {
        let id = record.head.header("x-callback-guard-id").unwrap();
        *deliveries.entry(id).or_default() += 1;
    }
    assert_eq!(deliveries.len(), EVENTS, "seed {seed:#x}");
    let again: Vec<_> = deliveries
        .iter()
        .filter(|(_, count)| **count != 1)
        .collect();
    assert!(again.is_empty(), "seed {seed:#x}: {again:?}");
    let duplicates = answers
        .iter()
        .filter(|(_, is_duplicate)| *is_duplicate)
        .count();
    assert_eq!(duplicates, EVENTS * (COPIES - 1), "seed {seed:#x}");
    assert_eq!(fleet.keys().unwrap().len(), EVENTS);
    assert_eq!(
        fleet.stat("store_fallbacks_total.action.memory").unwrap(),
        0
    );
}

/// Takes one request after another, over a connection of its own to each Envoy.
fn client(
    plan: &[(usize, usize)],
    next: &AtomicUsize,
    addresses: &[SocketAddr],
) -> Vec<(u16, bool)> {
    block_on(async {
        let mut connections = Vec::new();
        for address in addresses {
            connections.push(Connection::open(*address, Protocol::Http1).await.unwrap());
        }
        let mut answers = Vec::new();
        while let Some((event, envoy)) = plan.get(next.fetch_add(1, Ordering::Relaxed)) {
            let request = callback(&format!("load-{event}"));
            let connection = &mut connections[*envoy];
            if !connection.is_open() {
                *connection = Connection::open(addresses[*envoy], Protocol::Http1)
                    .await
                    .unwrap();
            }
            let answer = connection.send(&request).await.unwrap();
            let code = answer.header("x-callback-guard");
            answers.push((answer.status, code.as_deref() == Some("duplicate")));
        }
        answers
    })
    .unwrap()
}
