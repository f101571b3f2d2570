//! What takes long: in a real Envoy attacks, faults, floods, long runs, roll-outs, algorithms and challenges of
//! single senders, the inbox behind it and the native build; what the built module is made of and costs; all
//! that the pages print. Run by `cargo test-long`.
//!
//! Needs Rust and Python alone, as `cargo test` does.

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
mod calls;
mod challenge;
mod docs;
mod documents;
mod faults;
mod field;
mod hostile;
mod inbox;
mod measures;
mod memory;
#[cfg(target_os = "linux")]
mod native;
#[cfg(target_os = "linux")]
mod pages;
mod rollout;
mod schema;
mod soak;
mod supply;
mod urls;
mod waiting;
