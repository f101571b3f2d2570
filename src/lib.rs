//! callback-guard (front page to come).
pub mod config;
pub mod dedupe;
#[cfg(target_arch = "wasm32")]
mod filter;
pub mod guard;
pub mod identity;
pub mod json;
pub mod mac;
pub mod outcome;
pub mod pairs;
pub mod payload;
pub mod policy;
pub mod reply;
pub mod request;
pub mod scheme;
pub mod signer;
pub mod store;
pub mod time;
pub mod verdict;
