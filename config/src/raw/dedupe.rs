//! The words of `sources[].dedupe`.

use core::fmt;

use callback_guard_core::policy::{OnBodyChange, OnUnknown};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Deduplication.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawDedupe {
    /// What identifies an event within the source. Default: the message id and the preset's own parts.
    pub(crate) key: Option<Vec<RawKeyPart>>,
    /// How long a delivered event is remembered, in seconds; longer than both tolerances together.
    /// Default: 86400.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 31_536_000)))]
    pub(crate) window_seconds: Option<u64>,
    /// How long an unsettled claim blocks other requests, in seconds. Default: 30.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 600)))]
    pub(crate) lease_seconds: Option<u64>,
    /// What happens to a request while another one is delivering the same event. Default: `wait`.
    pub(crate) in_flight: RawInFlight,
    /// The longest wait, in seconds. Default: 10.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 60)))]
    pub(crate) wait_seconds: Option<u64>,
    /// What happens to a claim whose outcome cannot be known. Default: `release`.
    pub(crate) on_unknown: OnUnknown,
    /// What a duplicate with another body gets. Default: `auto`.
    pub(crate) on_body_change: OnBodyChange,
    /// How many different events one message id may make within the window. Default: 64.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 256)))]
    pub(crate) events_per_id: Option<u64>,
}

/// How duplicates are recognised and treated; `false`: no event is remembered, every accepted request is
/// forwarded.
#[derive(Debug)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
pub(crate) enum RawDedupeOrOff {
    Off(Off),
    On(RawDedupe),
}

impl Default for RawDedupeOrOff {
    fn default() -> Self {
        Self::On(RawDedupe::default())
    }
}

/// `false`.
#[derive(Debug)]
pub(crate) struct Off;

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Off {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Off".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": false })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// By hand: derived, an error inside would not say where it is.
impl<'de> Deserialize<'de> for RawDedupeOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawDedupeOrOff;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, or false")
            }

            fn visit_bool<E: serde::de::Error>(self, is_on: bool) -> Result<Self::Value, E> {
                if is_on {
                    let seen = serde::de::Unexpected::Bool(true);
                    return Err(E::invalid_value(seen, &self));
                }
                Ok(RawDedupeOrOff::Off(Off))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                RawDedupe::deserialize(map).map(RawDedupeOrOff::On)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Default for RawDedupe {
    fn default() -> Self {
        Self {
            key: None,
            window_seconds: None,
            lease_seconds: None,
            in_flight: RawInFlight::Wait,
            wait_seconds: None,
            on_unknown: OnUnknown::Release,
            on_body_change: OnBodyChange::Auto,
            events_per_id: None,
        }
    }
}

/// What a request gets whose event another request has claimed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum RawInFlight {
    Reject,
    Wait,
}

/// A part of the dedupe key: `pointer`, `header`, `path`, `host` or `body`, one of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawKeyPart {
    /// A JSON pointer into the body.
    pub(crate) pointer: Option<String>,
    /// A header.
    pub(crate) header: Option<String>,
    /// The path, without query: `true`.
    #[serde(default)]
    pub(crate) path: bool,
    /// The host, in lower case, without port: `true`.
    #[serde(default)]
    pub(crate) host: bool,
    /// The SHA-256 of the body: `true`.
    #[serde(default)]
    pub(crate) body: bool,
}
