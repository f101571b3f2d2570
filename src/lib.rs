//! The filter as a proxy-wasm module: translates Envoy's events for `callback-guard-core`, which
//! holds every rule, and carries out what comes back.
//!
//! It compiles for `wasm32-wasip1` alone: on the host there is nothing to link its imports to.
#![cfg(target_arch = "wasm32")]

mod filter;
mod header_map;
mod host;
mod metrics;
mod verify;
