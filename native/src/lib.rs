//! The guard as a dynamic module of Envoy: translates Envoy's hooks for `callback-guard-core`, which
//! holds every rule, and does what comes back.
//!
//! | file | what |
//! |---|---|
//! | [`abi`] | types, functions and hooks, as Envoy's header has them |
//! | [`envoy`] | Envoy's functions as safe calls |
//! | [`hooks`] | what Envoy calls; a panic ends here, as a 500 |
//! | [`config`] | a configuration: what its workers share, and a worker for each thread |
//! | [`shared`] | what the workers of a configuration share |
//! | [`metrics`] | its metrics |
//! | [`secrets`] | secrets that Envoy delivers, and the policy that they make |
//! | [`worker`] | a worker, and the effects that it wants done |
//! | [`stream`] | one request |
//! | [`clock`] | time for those who wait |
//! | [`calls`], [`caller`] | calls to a shared store, and the receiver of their ends |
//! | [`connection`], [`link`], [`dial`] | a connection to Redis: its thread and calls, kept, and opened |
//! | [`store`] | the memory store's data |
//!
//! Threads: a stream lives on one of Envoy's worker threads. A worker is locked while the core runs, and
//! for nothing else: not while Envoy answers or resumes a request, because that runs further hooks.
//! Others (the clock, calls to a shared store) lock it as well; what they want done with a stream is left
//! in its mail, and Envoy is asked to have it fetched on the stream's own thread.

#[macro_use]
mod abi;
mod caller;
mod calls;
mod clock;
mod config;
mod connection;
mod dial;
mod envoy;
mod hooks;
mod link;
mod metrics;
mod probe;
mod secrets;
mod shared;
mod store;
mod stream;
mod worker;
