//! The words of `sources[].secrets` and `sources[].public_keys`.

use core::fmt;
#[cfg(feature = "schema")]
use std::collections::BTreeMap;

use callback_guard_core::scheme::keys::PublicEncoding;
use serde::Deserialize;

use crate::config_source::ConfigSource;

/// A secret: `env`, `value` or `sds`, one of the three.
//
// No `Debug`: `value` must not be shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawSecret {
    /// A variable of the proxy's environment that holds the secret.
    pub(crate) env: Option<String>,
    /// The secret itself, for tests: anyone who can read the configuration can read it.
    pub(crate) value: Option<String>,
    /// Native build: the name of a generic secret that Envoy gets by its secret discovery service (SDS).
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub(crate) sds: Option<String>,
    /// With `sds`: where Envoy gets it, an `envoy.config.core.v3.ConfigSource`. Default: it is one of the
    /// `static_resources.secrets` of Envoy's own configuration.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<BTreeMap<String, serde_json::Value>>")
    )]
    pub(crate) sds_config: Option<ConfigSource>,
    /// How the secret is written. Default: the preset's own, or `utf8`.
    pub(crate) encoding: Option<RawSecretEncoding>,
    /// A prefix that is not part of the secret, as in `whsec_`.
    pub(crate) prefix: Option<String>,
    /// Whether the variable may be unset. Default: false.
    #[serde(default)]
    pub(crate) optional: bool,
}

impl fmt::Debug for RawSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawSecret([redacted])")
    }
}

/// A public key: `env` or `value`, one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawPublicKey {
    /// A variable of the proxy's environment that holds the key.
    pub(crate) env: Option<String>,
    /// The key itself: it is no secret.
    pub(crate) value: Option<String>,
    /// How the key is written. Default: the preset's own, or `spki`.
    pub(crate) encoding: Option<PublicEncoding>,
    /// A prefix that is not part of the key, as in `whpk_`.
    pub(crate) prefix: Option<String>,
    /// Whether the variable may be unset. Default: false.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum RawSecretEncoding {
    #[default]
    Utf8,
    Base64,
    Hex,
}

impl RawSecretEncoding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Base64 => "base64",
            Self::Hex => "hex",
        }
    }
}

/// How a sender writes its secrets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSecretFormat {
    #[serde(default)]
    pub(crate) encoding: RawSecretEncoding,
    pub(crate) prefix: Option<String>,
}

/// How a sender writes its public keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPublicFormat {
    pub(crate) encoding: Option<PublicEncoding>,
    pub(crate) prefix: Option<String>,
}
