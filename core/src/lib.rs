//! # callback-guard
//!
//! A proxy-wasm filter for Envoy that lets a callback (webhook) through to an application only when
//! it is authentic, well formed and new. Everything else is answered at the proxy.
//!
//! ## The way of a request
//!
//! [`guard`] tells it in one file; the other modules each do one thing for it.
//!
//! 1. The head comes. [`policy`] finds the source by host and path; [`request`] checks method, media
//!    type, encoding and declared length; [`scheme`] reads signature and timestamp and checks that
//!    the timestamp is fresh. An unsigned flood ends here: no byte of its bodies comes into the
//!    VM. Where at most 16 KiB are declared, the answer waits for them, as Envoy would close the
//!    connection of a request that it answers before its end.
//! 2. The head is held while the body comes. Nothing of it has reached the upstream.
//! 3. The whole body is there. [`json`] scans it once, strictly, and picks out what is needed;
//!    [`message_id`] checks the message id; [`scheme::keys`] verifies the signature, in constant time, under
//!    each secret (first of all, if the sender signs the body); [`payload`] checks the source's
//!    rules. Out of this comes a type that nothing else can make: an authentic callback.
//! 4. Only that can make a claim on its event ([`event`]) in the [`store`]. Granted: the request is
//!    sent on, with the verified id in headers that only the guard can set. Delivered before: the
//!    sender is told `duplicate`, with 200, and stops. Claimed by another request: it waits.
//! 5. The upstream answers. [`outcome`] reads off Envoy whether that was the upstream's own answer,
//!    and the claim is settled: delivered on its 2xx, released otherwise. What was not delivered is
//!    never remembered, so the sender's next attempt goes through.
//!
//! ## Invariants
//!
//! * Only `filter.rs` names `proxy_wasm`, and only `filter/host.rs` is `unsafe`. The rest is pure:
//!   bytes, facts and `now` in, a decision out. It builds and is tested on the host.
//! * Nothing of a request, headers included, reaches the upstream before [`guard::Decision::Forward`]
//!   (or [`guard::Decision::Pass`], for requests that are none of ours).
//! * Nothing that is not authentic is claimed, remembered or forwarded.
//! * The body is parsed once and never re-serialised: the upstream gets the received bytes.
//! * A refusal is one [`verdict::Rejection`], one counter, one log line. No secret, no signature and
//!   no payload stands in any of them.
//! * No input makes the filter panic. What it cannot read it refuses.
//! * Loading a configuration depends on its text and the environment, and on nothing else.

#![forbid(unsafe_code)]

/// The version of the guard.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod authenticate;
pub mod challenge;
pub mod config;
mod content_type;
pub mod effect;
pub mod event;
pub mod guard;
pub mod inspector;
pub mod log;
pub mod message_id;
pub mod metrics;
mod near_miss;
pub mod outcome;
mod path_rule;
pub mod payload;
pub mod policy;
pub mod reply;
pub mod report;
pub mod request;
pub mod scheme;
#[cfg(feature = "sign")]
pub mod sign;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod time;
pub mod verdict;
pub mod worker;

pub use callback_guard_scan::json;
