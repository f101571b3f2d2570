//! The inbox by itself: its rules, its stores, and the program, on SQLite. What needs PostgreSQL or
//! Envoy is in `tests/services/inbox`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(missing_docs, unreachable_pub)]

mod accept;
mod backlog;
mod commands;
mod complaints;
mod crashes;
mod deliver;
mod docs;
mod faults;
mod model;
#[path = "../old/mod.rs"]
mod old;
mod queue;
mod rules;
mod start;
mod support;
#[path = "../trial/mod.rs"]
mod trial;
