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

mod challenges;
mod config;
mod config_text;
mod fleet;
mod guard;
mod inspector;
mod keys;
mod language;
mod layout;
mod model;
mod near_miss;
mod presets;
mod redis;
#[path = "../../../tests/support/spellings.rs"]
mod spellings;
mod store;
mod support;
mod tidy;
mod vectors;
mod warnings;
mod worker;
