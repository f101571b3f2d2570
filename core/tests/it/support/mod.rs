//! Configurations for the tests.

use callback_guard_core::policy::Policy;
use serde_json::{Value, json};

pub use callback_guard_core::testkit::{Host, MapShared, NOW, Request, Seen, private_key};

/// The secret of the known answers.
pub const SECRET: &str = "test-webhook-hmac-key";

/// A configuration with one source, `suno`, and `change` applied to it.
pub fn configuration(change: impl FnOnce(&mut Value)) -> Value {
    let mut configuration = json!({
        "sources": [{
            "name": "suno",
            "match": { "path": "/callbacks/suno" },
            "preset": "suno",
            "secrets": [{ "value": SECRET }],
        }],
    });
    change(&mut configuration);
    configuration
}

/// The policy of a configuration.
#[track_caller]
pub fn policy(configuration: &Value) -> Policy {
    callback_guard_config::testkit::policy(&configuration.to_string())
}
