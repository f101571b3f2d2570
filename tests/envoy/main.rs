//! The filter in a real Envoy, with the repository's own `envoy.yaml`. What reached the upstream is
//! counted there: a leak does not show at the client.
//!
//! Needs Rust and Python alone. What needs root, npm or services is in `tests/services`.

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

mod e2e;
mod faults;
mod hostile;
mod inbox;
mod memory;
#[cfg(target_os = "linux")]
mod native;
#[cfg(target_os = "linux")]
mod pages;
mod rollout;
mod soak;

mod supply;
#[path = "../support/mod.rs"]
mod support;
mod waiting;
