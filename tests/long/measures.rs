//! What the guard costs in bytes. Run with `--nocapture` to see the figures.

use callback_guard_harness::{Load, Setup, wasm};

use callback_guard_support::{Guarded, event, signed};

#[test]
fn the_module_is_within_its_budget() {
    let size = std::fs::metadata(wasm::module(&|_| {}).unwrap())
        .unwrap()
        .len();
    println!("callback_guard.wasm: {size} bytes");
    // A ConfigMap holds 1 MiB, and an Envoy loads all of it.
    assert!(size <= 716_800, "{size} bytes");
}

#[test]
fn two_workers_with_the_guard_take_little_more_memory_than_without() {
    let requests = |count: usize| (0..count).map(|_| signed(&event("rss").1)).collect();
    let plain = Setup::new().without_guard().workers(2).start().unwrap();
    plain.send_all(requests(1000), Load::http1(8)).unwrap();
    let guarded = Guarded::builder().workers(2).start();
    guarded.send_all(requests(1000), Load::http1(8)).unwrap();
    let megabytes =
        |stack: &callback_guard_harness::Stack| stack.envoy.rss_bytes().unwrap() as f64 / 1e6;
    let (plain, guarded) = (megabytes(&plain), megabytes(&guarded));
    println!("RSS after 1000 events: {plain:.1} MB without, {guarded:.1} MB with the guard");
    // Measured 40 MB; a leak or a second copy of something would be more than half as much again.
    assert!(
        guarded - plain < 60.0,
        "{plain} MB without, {guarded} MB with"
    );
}
