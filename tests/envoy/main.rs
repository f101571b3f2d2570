//! The filter in a real Envoy, with the repository's own `envoy.yaml`: what it delivers, refuses, tells apart,
//! counts and logs. What reached the upstream is counted there: a leak does not show at the client.
//!
//! Needs Rust and Python alone. Attacks, faults and what single senders do are in `tests/long`, since all of
//! it takes longer than a test at hand may, and what needs root, npm or services in `tests/services`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

mod configuration;
mod dedupe;
mod deliver;
mod hold;
mod log;
mod observe;
mod refuse;
mod traps;
