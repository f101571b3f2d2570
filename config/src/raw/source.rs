//! The words of `sources[]`, but for its parts.

use core::fmt;
use std::collections::BTreeMap;

use callback_guard_core::policy::Mode;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::raw::challenge::RawChallenge;
use crate::raw::dedupe::RawDedupeOrOff;
use crate::raw::payload::RawPayload;
use crate::raw::secrets::{RawPublicKey, RawSecret};
use crate::raw::signature::{RawSignature, RawToken};

/// One source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RawSource {
    /// Its name in metrics, logs and headers: 1 to 32 of a-z, 0-9, `_` and `-`; unique.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[a-z0-9_-]{1,32}$")))]
    pub(crate) name: String,
    /// Which requests are its callbacks; the most specific match wins.
    #[serde(rename = "match")]
    pub(crate) route: RawMatch,
    /// As at the top, for this source alone.
    pub(crate) mode: Option<Mode>,
    /// The sender's scheme by name; or `signature`, or `token`.
    pub(crate) preset: Option<String>,
    /// A signature scheme, spelled out.
    pub(crate) signature: Option<RawSignature>,
    /// A shared token instead of a signature.
    pub(crate) token: Option<RawToken>,
    /// Values that the preset asks for.
    #[serde(default)]
    pub(crate) parameters: RawParameters,
    /// What the sender asks before it sends, and the answers; decided in order. Default: the
    /// preset's own.
    #[cfg_attr(feature = "schema", schemars(length(max = 8)))]
    pub(crate) challenge: Option<Vec<RawChallenge>>,
    /// The keys, any of which may have signed: for rotation.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 8)))]
    #[serde(default)]
    pub(crate) secrets: Vec<RawSecret>,
    /// The public keys, instead of secrets, where the sender signs with a private one.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 8)))]
    #[serde(default)]
    pub(crate) public_keys: Vec<RawPublicKey>,
    /// Media types that are accepted. Default: the preset's own, or `application/json`.
    pub(crate) content_types: Option<Vec<String>>,
    /// Accepted age of the timestamp, in seconds. Default: 300.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 86_400)))]
    pub(crate) tolerance_seconds: Option<u64>,
    /// Accepted lead of the timestamp, in seconds. Default: 60.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 86_400)))]
    pub(crate) future_tolerance_seconds: Option<u64>,
    /// Largest body, in bytes. Default: 1048576.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 16_777_216)))]
    pub(crate) max_body_bytes: Option<u64>,
    /// Rules for the payload of an authentic callback.
    #[serde(default)]
    pub(crate) payload: RawPayload,
    /// How duplicates are recognised and treated.
    #[serde(default)]
    pub(crate) dedupe: RawDedupeOrOff,
    /// The status sent to the sender in place of any 2xx of the upstream. Default: the preset's own, or none.
    #[cfg_attr(feature = "schema", schemars(range(min = 200, max = 299)))]
    pub(crate) acknowledge_as: Option<u16>,
}

/// Reads an object whose names are free, each of them once: of two values the author may mean the other.
fn each_once<'d, D: Deserializer<'d>>(reader: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct EachOnce;

    impl<'d> Visitor<'d> for EachOnce {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'d>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
            let mut values = BTreeMap::new();
            while let Some(name) = fields.next_key::<String>()? {
                if values.contains_key(&name) {
                    return Err(A::Error::custom("duplicate field"));
                }
                values.insert(name, fields.next_value()?);
            }
            Ok(values)
        }
    }

    reader.deserialize_map(EachOnce)
}

/// Values by name. One of them can be a token.
#[derive(Default, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawParameters(
    #[serde(deserialize_with = "each_once")] pub(crate) BTreeMap<String, String>,
);

impl fmt::Debug for RawParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawParameters([redacted])")
    }
}

/// Which requests: `path` or `path_prefix`, one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawMatch {
    /// Exactly this path; the query is ignored.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))]
    pub(crate) path: Option<String>,
    /// This path and what lies below it, by whole segments.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))]
    pub(crate) path_prefix: Option<String>,
    /// Only this host, without port. Default: any.
    pub(crate) host: Option<String>,
}
