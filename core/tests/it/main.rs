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
mod corpus;
mod delivered;
mod fleet;
mod guard;
mod inspector;
mod keys;
mod language;
mod layout;
#[path = "../model/lua.rs"]
mod lua;
mod near_miss;
mod presets;
mod redis;
#[path = "../model/redis_server.rs"]
mod redis_server;
#[path = "../../../tests/support/src/spellings.rs"]
mod spellings;
mod store;
mod support;
mod tidy;
mod vectors;
mod warnings;
mod worker;
