//! A callback, and the guard's configuration for it.

use std::sync::Arc;

use callback_guard_core::guard::Inputs;
use callback_guard_core::policy::Policy;
use callback_guard_core::store::bucket::OwnerToken;
use callback_guard_core::time::UnixMillis;

pub(crate) const KEY: &str = "test-webhook-hmac-key";
pub(crate) const TIMESTAMP: &str = "1769670760";
pub(crate) const NOW: UnixMillis = UnixMillis::from_seconds(1_769_670_760);
pub(crate) const INPUTS: Inputs = Inputs {
    now: NOW,
    owner: OwnerToken::new(1),
    salt: [7; 16],
};

/// One source, `suno`, with [`KEY`].
pub(crate) fn policy() -> Arc<Policy> {
    let text = format!(
        r#"{{"sources":[{{"name":"suno","match":{{"path":"/callbacks/suno"}},"preset":"suno","secrets":[{{"value":"{KEY}"}}]}}]}}"#
    );
    Arc::new(callback_guard_config::testkit::policy(&text))
}

/// The head of a callback with this signature, as Envoy hands it over.
pub(crate) fn head(signature: &str) -> [(&[u8], &[u8]); 6] {
    [
        (b":authority", b"hooks.example.com"),
        (b":path", b"/callbacks/suno"),
        (b":method", b"POST"),
        (b"content-type", b"application/json"),
        (b"x-webhook-timestamp", TIMESTAMP.as_bytes()),
        (b"x-webhook-signature", signature.as_bytes()),
    ]
}
