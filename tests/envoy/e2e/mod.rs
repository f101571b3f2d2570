//! The tests in a real Envoy, with the repository's own `envoy.yaml`. What reached the upstream is
//! counted there: a leak does not show at the client.

mod algorithms;
mod challenge;
mod configuration;
mod dedupe;
mod deliver;
pub mod docs;
mod field;
mod hold;
mod log;
mod measures;
mod observe;
mod refuse;
mod traps;
mod urls;
