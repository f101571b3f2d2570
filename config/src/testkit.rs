//! Policies for tests, fuzz targets and benchmarks.
#![allow(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a test fails by a panic"
)]

use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::native;

/// The policy of a configuration that is right, with no environment.
#[track_caller]
#[must_use]
pub fn policy(configuration: &str) -> Policy {
    match crate::parse(configuration.as_bytes(), &|_| None) {
        Ok(mut policy) => {
            policy.host_verify = native::verify;
            policy
        }
        Err(error) => panic!("{error}: {configuration}"),
    }
}
