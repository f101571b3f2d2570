//! Every promise of the filter in a real Envoy, with the repository's own `envoy.yaml`. What reached the
//! upstream is counted there: a leak does not show at the client.
//!
//! Needs Rust and Python alone. What takes longer is in `tests/long`, and what needs root, npm or services
//! in `tests/services`.

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

mod algorithms;
mod challenge;
mod configuration;
mod dedupe;
mod deliver;
mod docs;
mod field;
mod hold;
mod log;
mod observe;
mod refuse;
mod traps;
mod urls;
