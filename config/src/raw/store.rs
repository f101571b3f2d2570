//! The words of `store`.

use callback_guard_core::store::redis::{OnError, Protocol};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawStore {
    /// `memory`: in the Envoy process; `redis`: shared by many Envoys.
    pub(crate) kind: RawStoreKind,
    /// How many events the memory store has room for. Default: 100000.
    #[cfg_attr(feature = "schema", schemars(range(min = 1000, max = 4_000_000)))]
    pub(crate) capacity: Option<u32>,
    /// Native build: a variable with the URL of Redis, such as `rediss://user:password@host:6379/0`. In place
    /// of the four for an HTTP front.
    pub(crate) url_env: Option<String>,
    /// What the HTTP front of Redis speaks.
    pub(crate) protocol: Option<Protocol>,
    /// The Envoy cluster of the HTTP front.
    pub(crate) cluster: Option<String>,
    /// The `:authority` of requests to it.
    pub(crate) authority: Option<String>,
    /// A variable with the token for it.
    pub(crate) token_env: Option<String>,
    /// What keys in Redis begin with. Default: `callback-guard:`.
    pub(crate) key_prefix: Option<String>,
    /// How long to wait for it, in milliseconds. Default: 250.
    pub(crate) timeout_milliseconds: Option<u64>,
    /// What happens to a request when it does not answer. Default: `memory`.
    pub(crate) on_error: Option<OnError>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum RawStoreKind {
    #[default]
    Memory,
    Redis,
}
