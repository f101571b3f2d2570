//! The tests in a real Envoy, with the repository's own `envoy.yaml`. What reached the upstream is
//! counted there: a leak does not show at the client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    unreachable_pub,
    reason = "tests"
)]

mod configuration;
mod dedupe;
mod deliver;
mod hold;
mod inspector;
mod measures;
mod observe;
mod refuse;
mod support;
mod traps;
