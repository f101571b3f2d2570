//! Every rule of callback-guard, a filter for Envoy that lets a callback (webhook) through to an
//! application only when it is authentic, well formed and new.
//!
//! The core has no clock, no I/O and no SDK: bytes, facts and `now` go in, verdicts and effects come
//! out. A shell translates: `src/` for proxy-wasm, `native/` for Envoy's dynamic modules. Tests, fuzz
//! targets, benchmarks and `explain` drive the same types. The crate `config` makes a [`policy::Policy`] of
//! a configuration's text: apart, because it runs once and is compiled for size.
//!
//! ## The life of a request
//!
//! [`worker::Worker`] is all requests of one thread; [`guard::Guard`] is the sequence for one of them.
//! The other modules implement its steps.
//!
//! 1. **The head.** [`policy`] finds the source by host and path, and refuses near misses of a guarded
//!    path. [`request`] checks method, content type, encoding and declared length; [`scheme`] reads
//!    signature and timestamp and checks that the timestamp is fresh. An unsigned flood ends here. For
//!    declared bodies up to 16 KiB the refusal is sent after the body, because Envoy would otherwise
//!    close the connection.
//! 2. **The body** comes while the head is held. Nothing has reached the upstream yet.
//! 3. **The checks.** [`json`] scans the whole body once, strictly; [`event::MessageId`] checks the id;
//!    [`scheme::keys`] verifies the signature (first of all, if the sender signs the body); then the
//!    source's own rules for the payload. The result is a type that nothing else can make: see
//!    `authenticate.rs`. A [`challenge`] of the sender is answered instead.
//! 4. **The claim.** Only an authentic request can claim its [`event`] in the [`store`]. Granted: it is
//!    forwarded, with headers that only the guard can set. Delivered before: `duplicate`, with 200.
//!    Claimed by another request: it waits.
//! 5. **The outcome.** [`worker::Outcome`] says whether the answer was the upstream's own, and the claim is
//!    settled: delivered on its 2xx, otherwise released. What was not delivered is never remembered.
//!
//! ## Invariants
//!
//! * Nothing of a request, headers included, reaches the upstream before [`guard::Step::Forward`], but
//!   for requests that match no source and pass.
//! * Nothing that is not authentic is claimed, remembered or forwarded.
//! * A claim is settled or released, whatever fails after it was granted.
//! * The body is parsed once and never serialised again: the upstream gets the received bytes.
//! * A refusal is one [`verdict::Rejection`], one counter, one log line. None of them contains a
//!   secret, a signature or payload data.
//! * No input makes the guard panic. What it cannot read it refuses.
//! * Loading a configuration (the crate `config`, above this one) depends on its text and the environment, and
//!   on nothing else.

#![forbid(unsafe_code)]

/// The version of the guard.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

// What a host sees: events and effects, its stores, and what it is to log and count.
pub mod log;
pub mod metrics;
pub mod request;
pub mod store;
pub mod time;
pub mod verdict;
pub mod worker;

// What a configuration is made of.
pub mod challenge;
pub mod inspector;
pub mod policy;
pub mod scheme;

// One request, for those who explain and measure it.
pub mod event;
pub mod guard;
pub mod report;

// For those who sign and test.
#[cfg(feature = "sign")]
pub mod sign;
#[cfg(feature = "testkit")]
pub mod testkit;

// The steps of a request, and their parts.
mod authenticate;
mod content_type;
mod effect;
mod message_id;
mod near_miss;
mod outcome;
mod path_rule;
mod payload;
mod reply;
mod words;

pub use callback_guard_scan::json;
