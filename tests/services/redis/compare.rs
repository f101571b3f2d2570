//! What the shared store costs, beside the memory store, in the same run on the same machine.

use std::fs;
use std::time::Duration;

use callback_guard_harness::client::{self, Load};
use callback_guard_harness::{Envoy, Filter, FleetSetup, Setup, Way};

use super::support::callback;

const WARM_UP: usize = 200;
const REQUESTS: usize = 2_000;

both_ways! {
    the_cost_of_each_store,
}

struct Figures {
    p50: Duration,
    p99: Duration,
    /// CPU time of Envoy for each request.
    cpu: Duration,
}

fn the_cost_of_each_store(way: Way) {
    let mut memory = Setup::new().workers(1);
    if way == Way::Connection {
        memory = memory.filter(Filter::Native);
    }
    let memory = memory.start().unwrap();
    let memory = measure(&memory.envoy, "memory");
    // Long, so that a busy machine makes no call time out: each is counted.
    let fleet = FleetSetup::by(way, 1)
        .workers(1)
        .guard(|config| config["store"]["timeout_milliseconds"] = 5_000.into())
        .start()
        .unwrap();
    let redis = measure(&fleet.envoys[0], "redis");
    assert_eq!(
        fleet.stat("store_fallbacks_total.action.memory").unwrap(),
        0
    );
    // One round trip to claim, one to settle.
    assert_eq!(fleet.calls().unwrap(), 2 * (WARM_UP + REQUESTS));
    println!(
        "{way:?}: {REQUESTS} callbacks over 4 connections, one worker, loopback, each a new event"
    );
    println!(
        "{:<8} {:>9} {:>9} {:>14}",
        "store", "p50 us", "p99 us", "CPU us/request"
    );
    for (name, figures) in [("memory", &memory), ("redis", &redis)] {
        println!(
            "{name:<8} {:>9} {:>9} {:>14}",
            figures.p50.as_micros(),
            figures.p99.as_micros(),
            figures.cpu.as_micros()
        );
    }
}

fn measure(envoy: &Envoy, name: &str) -> Figures {
    let run = |name: &str, count: usize| {
        let requests = (0..count)
            .map(|number| callback(&format!("{name}-{number}")))
            .collect();
        let answers = client::send_all(envoy.listener_address(), requests, Load::http1(4)).unwrap();
        let took = |answer: anyhow::Result<client::Response>| {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 200);
            answer.took
        };
        let mut times: Vec<_> = answers.into_iter().map(took).collect();
        times.sort();
        times
    };
    run(&format!("warm-{name}"), WARM_UP);
    let before = cpu(envoy);
    let times = run(name, REQUESTS);
    let spent = cpu(envoy).saturating_sub(before);
    Figures {
        p50: times[REQUESTS / 2],
        p99: times[REQUESTS * 99 / 100],
        cpu: spent / u32::try_from(REQUESTS).unwrap(),
    }
}

/// User and system time of the process. Source: proc(5), `/proc/pid/stat`, fields 14 and 15, in
/// hundredths of a second.
fn cpu(envoy: &Envoy) -> Duration {
    let text = fs::read_to_string(format!("/proc/{}/stat", envoy.process_id())).unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(10 * ticks)
}
