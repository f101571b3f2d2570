//! The native tests: the core, driven by a fake host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    unreachable_pub,
    reason = "tests"
)]

mod config;
mod guard;
mod inspector;
mod model;
mod presets;
mod redis;
mod store;
mod support;
mod tidy;
mod vectors;
