//! A durable inbox between callback-guard and an application.
//!
//! ```text
//! sender -> Envoy with the guard -> callback-guard-inbox -> application
//!                                    (durable store)
//! ```
//!
//! It stores each callback that the guard has verified, answers 200, and delivers it when the
//! application can take it: at least once, and in order per message id.
//!
//! - [`delivery`], [`schedule`], [`circuit`] and [`rate`] are the rules; they are pure.
//! - [`store`] keeps events in SQLite or PostgreSQL, many operations to one transaction.
//! - [`server`] takes callbacks, [`deliver`] hands them on through [`application`].
//! - [`inbox`] starts and stops all of it.
//!
//! **Invariants.** No event is answered 200 before the transaction that holds it is committed. Only
//! the holder of a claim settles its event. An event leaves the store only as delivered after
//! `--keep`, or discarded by an operator. Bodies, tokens and secrets are in no log line.

pub mod admin;
pub mod application;
pub mod args;
pub mod backlog;
pub mod callback;
pub mod circuit;
pub mod commands;
pub mod deliver;
pub mod delivery;
pub mod inbox;
pub mod metrics;
pub mod moment;
pub mod rate;
pub mod refusal;
pub mod schedule;
pub mod server;
pub mod settings;
pub mod signing;
pub mod store;
pub mod token;
