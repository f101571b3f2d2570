//! The shape of the configuration text: field names, types and defaults. Unknown fields are errors.
//!
//! An enum of the core whose variants are the words of the configuration derives serde where it is
//! defined. A `Raw` enum is for words that the rest of the crate does not know as they are.

use std::collections::BTreeMap;

use core::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::challenge::RawChallenge;
use super::config_source::ConfigSource;
use callback_guard_core::json::Root;
use callback_guard_core::payload::FieldType;
use callback_guard_core::policy::{HoldHeaders, Mode, OnBodyChange, OnUnknown, Unmatched};
use callback_guard_core::scheme::Unit;
use callback_guard_core::scheme::keys::{Algorithm, PublicEncoding};
use callback_guard_core::store::redis::{OnError, Protocol};

/// The whole configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RawConfig {
    /// Whether verdicts are carried out. Default: `enforce`.
    #[serde(default = "enforce")]
    pub(super) mode: Mode,
    /// What a request gets that matches no source. Default: `reject`.
    #[serde(default = "reject")]
    pub(super) unmatched: Unmatched,
    /// Whether replies say why. Default: true.
    #[serde(default = "yes")]
    pub(super) expose_reason: bool,
    /// Who holds the headers until the decision. Default: `filter`.
    #[serde(default = "filter")]
    pub(super) hold_headers: HoldHeaders,
    /// How many bytes of bodies one worker holds at most, beyond 16 KiB for each request. Default:
    /// 33554432.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1_048_576, max = 1_073_741_824))
    )]
    pub(super) max_held_bytes: Option<u64>,
    /// Where events are remembered. Default: in memory, 100000 of them.
    #[serde(default)]
    pub(super) store: RawStore,
    /// What is logged.
    #[serde(default)]
    pub(super) log: RawLog,
    /// Keeps the last decisions, and shows them on a page. Default: off.
    pub(super) inspector: Option<RawInspector>,
    pub(super) sources: Vec<RawSource>,
}

fn enforce() -> Mode {
    Mode::Enforce
}

fn reject() -> Unmatched {
    Unmatched::Reject
}

fn yes() -> bool {
    true
}

fn filter() -> HoldHeaders {
    HoldHeaders::Filter
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawStore {
    /// `memory`: in the Envoy process; `redis`: shared by many Envoys.
    pub(super) kind: RawStoreKind,
    /// How many events the memory store has room for. Default: 100000.
    #[cfg_attr(feature = "schema", schemars(range(min = 1000, max = 4_000_000)))]
    pub(super) capacity: Option<u32>,
    /// Native build: a variable with the URL of Redis, such as `rediss://user:password@host:6379/0`. In place
    /// of the four for an HTTP front.
    pub(super) url_env: Option<String>,
    /// What the HTTP front of Redis speaks.
    pub(super) protocol: Option<Protocol>,
    /// The Envoy cluster of the HTTP front.
    pub(super) cluster: Option<String>,
    /// The `:authority` of requests to it.
    pub(super) authority: Option<String>,
    /// A variable with the token for it.
    pub(super) token_env: Option<String>,
    /// What keys in Redis begin with. Default: `callback-guard:`.
    pub(super) key_prefix: Option<String>,
    /// How long to wait for it, in milliseconds. Default: 250.
    pub(super) timeout_milliseconds: Option<u64>,
    /// What happens to a request when it does not answer. Default: `memory`.
    pub(super) on_error: Option<OnError>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawStoreKind {
    #[default]
    Memory,
    Redis,
}

/// What is logged.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawLog {
    /// How many refusals a worker logs in a second at most; of the others it logs the number. Default:
    /// 20.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1000)))]
    pub(super) refusals_per_second: u32,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            refusals_per_second: 20,
        }
    }
}

/// The inspector: the last decisions, on a page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawInspector {
    /// Where the page is; no source may match it. Without it decisions are kept and not shown here.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/[!-~]*[^/]$")))]
    pub(super) path: Option<String>,
    /// How many decisions are kept, of those with a genuine signature and of the others.
    /// Default: 200.
    #[serde(default = "events")]
    #[cfg_attr(feature = "schema", schemars(range(min = 10, max = 1000)))]
    pub(super) events: u64,
    /// The environment variable that holds the token of those who may look: 16 to 256 visible ASCII
    /// characters. With `path`, and only then.
    pub(super) token_env: Option<String>,
}

fn events() -> u64 {
    200
}

/// One source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RawSource {
    /// Its name in metrics, logs and headers: 1 to 32 of a-z, 0-9, `_` and `-`; unique.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[a-z0-9_-]{1,32}$")))]
    pub(super) name: String,
    /// Which requests are its callbacks; the most specific match wins.
    #[serde(rename = "match")]
    pub(super) route: RawMatch,
    /// As at the top, for this source alone.
    pub(super) mode: Option<Mode>,
    /// The sender's scheme by name; or `signature`, or `token`.
    pub(super) preset: Option<String>,
    /// A signature scheme, spelled out.
    pub(super) signature: Option<RawSignature>,
    /// A shared token instead of a signature.
    pub(super) token: Option<RawToken>,
    /// Values that the preset asks for.
    #[serde(default)]
    pub(super) parameters: RawParameters,
    /// What the sender asks before it sends, and the answers; decided in order. Default: the
    /// preset's own.
    #[cfg_attr(feature = "schema", schemars(length(max = 8)))]
    pub(super) challenge: Option<Vec<RawChallenge>>,
    /// The keys, any of which may have signed: for rotation.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 8)))]
    #[serde(default)]
    pub(super) secrets: Vec<RawSecret>,
    /// The public keys, instead of secrets, where the sender signs with a private one.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 8)))]
    #[serde(default)]
    pub(super) public_keys: Vec<RawPublicKey>,
    /// Media types that are accepted. Default: the preset's own, or `application/json`.
    pub(super) content_types: Option<Vec<String>>,
    /// Accepted age of the timestamp, in seconds. Default: 300.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 86_400)))]
    pub(super) tolerance_seconds: Option<u64>,
    /// Accepted lead of the timestamp, in seconds. Default: 60.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 86_400)))]
    pub(super) future_tolerance_seconds: Option<u64>,
    /// Largest body, in bytes. Default: 1048576.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 16_777_216)))]
    pub(super) max_body_bytes: Option<u64>,
    /// Rules for the payload of an authentic callback.
    #[serde(default)]
    pub(super) payload: RawPayload,
    /// How duplicates are recognised and treated.
    #[serde(default)]
    pub(super) dedupe: RawDedupeOrOff,
    /// The status sent to the sender in place of any 2xx of the upstream. Default: the preset's own, or none.
    #[cfg_attr(feature = "schema", schemars(range(min = 200, max = 299)))]
    pub(super) acknowledge_as: Option<u16>,
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
pub(super) struct RawParameters(
    #[serde(deserialize_with = "each_once")] pub(super) BTreeMap<String, String>,
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
pub(super) struct RawMatch {
    /// Exactly this path; the query is ignored.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))]
    pub(super) path: Option<String>,
    /// This path and what lies below it, by whole segments.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))]
    pub(super) path_prefix: Option<String>,
    /// Only this host, without port. Default: any.
    pub(super) host: Option<String>,
}

/// A secret: `env`, `value` or `sds`, one of the three.
//
// No `Debug`: `value` must not be shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawSecret {
    /// A variable of the proxy's environment that holds the secret.
    pub(super) env: Option<String>,
    /// The secret itself, for tests: anyone who can read the configuration can read it.
    pub(super) value: Option<String>,
    /// Native build: the name of a generic secret that Envoy gets by its secret discovery service (SDS).
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub(super) sds: Option<String>,
    /// With `sds`: where Envoy gets it, an `envoy.config.core.v3.ConfigSource`. Default: it is one of the
    /// `static_resources.secrets` of Envoy's own configuration.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<BTreeMap<String, serde_json::Value>>")
    )]
    pub(super) sds_config: Option<ConfigSource>,
    /// How the secret is written. Default: the preset's own, or `utf8`.
    pub(super) encoding: Option<RawSecretEncoding>,
    /// A prefix that is not part of the secret, as in `whsec_`.
    pub(super) prefix: Option<String>,
    /// Whether the variable may be unset. Default: false.
    #[serde(default)]
    pub(super) optional: bool,
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
pub(super) struct RawPublicKey {
    /// A variable of the proxy's environment that holds the key.
    pub(super) env: Option<String>,
    /// The key itself: it is no secret.
    pub(super) value: Option<String>,
    /// How the key is written. Default: the preset's own, or `spki`.
    pub(super) encoding: Option<PublicEncoding>,
    /// A prefix that is not part of the key, as in `whpk_`.
    pub(super) prefix: Option<String>,
    /// Whether the variable may be unset. Default: false.
    #[serde(default)]
    pub(super) optional: bool,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawSecretEncoding {
    #[default]
    Utf8,
    Base64,
    Hex,
}

impl RawSecretEncoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Base64 => "base64",
            Self::Hex => "hex",
        }
    }
}

/// Rules for the payload.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawPayload {
    /// Hosts that URLs in the payload may point to, as `example.com` or `*.example.com`. Default:
    /// not checked.
    pub(super) allowed_url_hosts: Option<Vec<String>>,
    /// Fields that must be there. Default: the preset's own.
    pub(super) required: Option<Vec<RawRequirement>>,
    /// What the root of the body may be; in an array pointers begin with an index. Default: the
    /// preset's own, or `object`.
    pub(super) root: Option<RawRoot>,
}

/// What the root of a body may be.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawRoot {
    Any,
    Array,
    Object,
}

impl From<RawRoot> for Root {
    fn from(root: RawRoot) -> Self {
        match root {
            RawRoot::Any => Self::Any,
            RawRoot::Array => Self::Array,
            RawRoot::Object => Self::Object,
        }
    }
}

/// A field that must be there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawRequirement {
    /// Where the field is: a JSON pointer, as `/data/id`.
    pub(super) pointer: String,
    /// Its type.
    #[serde(rename = "type")]
    pub(super) kind: FieldType,
    /// Whether it may be absent or null. Default: false.
    #[serde(default)]
    pub(super) optional: bool,
}

/// Deduplication.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawDedupe {
    /// What identifies an event within the source. Default: the message id and the preset's own parts.
    pub(super) key: Option<Vec<RawKeyPart>>,
    /// How long a delivered event is remembered, in seconds; longer than both tolerances together.
    /// Default: 86400.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 31_536_000)))]
    pub(super) window_seconds: Option<u64>,
    /// How long an unsettled claim blocks other requests, in seconds. Default: 30.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 600)))]
    pub(super) lease_seconds: Option<u64>,
    /// What happens to a request while another one is delivering the same event. Default: `wait`.
    pub(super) in_flight: RawInFlight,
    /// The longest wait, in seconds. Default: 10.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 60)))]
    pub(super) wait_seconds: Option<u64>,
    /// What happens to a claim whose outcome cannot be known. Default: `release`.
    pub(super) on_unknown: OnUnknown,
    /// What a duplicate with another body gets. Default: `auto`.
    pub(super) on_body_change: OnBodyChange,
    /// How many different events one message id may make within the window. Default: 64.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 256)))]
    pub(super) events_per_id: Option<u64>,
}

/// How duplicates are recognised and treated; `false`: no event is remembered, every accepted request is
/// forwarded.
#[derive(Debug)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
pub(super) enum RawDedupeOrOff {
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
pub(super) struct Off;

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
pub(super) enum RawInFlight {
    Reject,
    Wait,
}

/// A part of the dedupe key: `pointer`, `header`, `path`, `host` or `body`, one of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawKeyPart {
    /// A JSON pointer into the body.
    pub(super) pointer: Option<String>,
    /// A header.
    pub(super) header: Option<String>,
    /// The path, without query: `true`.
    #[serde(default)]
    pub(super) path: bool,
    /// The host, in lower case, without port: `true`.
    #[serde(default)]
    pub(super) host: bool,
    /// The SHA-256 of the body: `true`.
    #[serde(default)]
    pub(super) body: bool,
}

/// A signature scheme in the words of the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawSignature {
    /// How it is signed. Default: `hmac-sha256`.
    #[serde(default)]
    pub(super) algorithm: Algorithm,
    /// The signed message: its parts in order.
    pub(super) message: Vec<RawPart>,
    /// Where the signature is.
    pub(super) value: RawValue,
    /// Where the timestamp is, if there is one.
    pub(super) timestamp: Option<RawTimestamp>,
    /// Where the message id is. Default: the SHA-256 of the body is used instead.
    pub(super) id: Option<RawId>,
}

/// A shared token, by its place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawToken {
    /// The token is in this header.
    pub(super) header: Option<String>,
    /// The token is the last segment of the path, below `match.path_prefix`.
    #[serde(default)]
    pub(super) path_segment: bool,
    /// The token is in this parameter of the query.
    pub(super) query: Option<String>,
    /// The token is inside the body, at this JSON pointer.
    pub(super) pointer: Option<String>,
    /// The token is `user:password`, in `authorization: Basic`.
    #[serde(default)]
    pub(super) basic: bool,
    /// Where the message id is. Default: the SHA-256 of the body is used instead.
    pub(super) id: Option<RawId>,
}

/// A part of the message: one of these.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawPart {
    /// The body as received.
    #[serde(default)]
    pub(super) body: bool,
    /// The digest of the body.
    pub(super) body_digest: Option<RawDigest>,
    /// With `body_digest`: how it is written. Default: `hex`.
    pub(super) encoding: Option<RawEncoding>,
    /// With `header`: the only form of its value, where that shows its end.
    pub(super) form: Option<RawForm>,
    /// The fields of a form, sorted by name, each name and value.
    #[serde(default)]
    pub(super) form_sorted: bool,
    /// The value of this header.
    pub(super) header: Option<String>,
    /// The message id.
    #[serde(default)]
    pub(super) id: bool,
    /// These bytes.
    pub(super) literal: Option<String>,
    /// The method.
    #[serde(default)]
    pub(super) method: bool,
    /// With `pointer`: an absent value is empty. Default: false.
    #[serde(default)]
    pub(super) optional: bool,
    /// The value of this parameter.
    pub(super) parameter: Option<String>,
    /// The value at this JSON pointer.
    pub(super) pointer: Option<String>,
    /// The value of this parameter of the query, decoded.
    pub(super) query: Option<String>,
    /// With `parameter`: path and query follow it, as they do `url`. Default: false.
    #[serde(default)]
    pub(super) target: bool,
    /// The timestamp's own bytes.
    #[serde(default)]
    pub(super) timestamp: bool,
    /// The URL that the sender calls: this public base, then path and query.
    pub(super) url: Option<String>,
}

/// The digest of a body.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawDigest {
    Sha256,
}

/// A form whose length is fixed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawForm {
    Uuid,
}

/// Where the signature is and how it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawValue {
    /// Entries without key or prefix, behind a signature, are signatures as well. Default: false.
    #[serde(default)]
    pub(super) continued: bool,
    /// The header with the signature; of several, one match is enough. With `numbered` what is before
    /// the number.
    pub(super) header: Option<RawNames>,
    /// Headers with the numbers 1, 2, … at the end of their name, one signature each.
    #[serde(default)]
    pub(super) numbered: bool,
    /// The signature is inside the body, at this JSON pointer.
    pub(super) pointer: Option<String>,
    /// A prefix that is not part of the signature, as in `sha256=`.
    pub(super) prefix: Option<String>,
    /// The signature is in this parameter of the query.
    pub(super) query: Option<String>,
    /// Between the entries of a list.
    pub(super) separator: Option<RawSeparator>,
    /// The list is of `key=value`, and this is the key of signatures.
    pub(super) key: Option<String>,
    /// How the signature is written.
    pub(super) encoding: RawEncoding,
    /// Whether base64 may be without padding. Default: it may not; `base64url` may.
    pub(super) padding: Option<RawPadding>,
}

/// A name, or a list of names.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a name or a list of names")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawNames {
    One(String),
    Several(Vec<String>),
}

impl RawNames {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(name) => core::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// Whether padding is needed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawPadding {
    Optional,
}

/// Between the entries of a list.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawSeparator {
    #[serde(rename = ",")]
    Comma,
    #[serde(rename = ";")]
    Semicolon,
    #[serde(rename = " ")]
    Space,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawEncoding {
    Base64,
    Base64Url,
    #[default]
    Hex,
}

/// Where the timestamp is: `header`, `key` or `pointer`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawTimestamp {
    /// The timestamp is in this header.
    pub(super) header: Option<String>,
    /// The timestamp is the field of the signature header with this key.
    pub(super) key: Option<String>,
    /// The timestamp is in the body, at this JSON pointer.
    pub(super) pointer: Option<String>,
    /// How it is written. Default: seconds.
    #[serde(default)]
    pub(super) unit: Unit,
}

/// Where the message id is: `header` or `pointers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawId {
    /// The message id is in this header.
    pub(super) header: Option<String>,
    /// The message id is the first present of these JSON pointers; all present ones must be equal.
    pub(super) pointers: Option<Vec<String>>,
    /// Whether the SHA-256 of the body replaces an id that is missing. Default: false.
    #[serde(default)]
    pub(super) or_body_digest: bool,
}

/// A named scheme, with what goes with it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preset {
    pub(super) names: Vec<String>,
    pub(super) signature: Option<RawSignature>,
    pub(super) token: Option<RawToken>,
    #[serde(default)]
    pub(super) secret: RawSecretFormat,
    #[serde(default)]
    pub(super) challenge: Vec<RawChallenge>,
    #[serde(default)]
    pub(super) public_key: RawPublicFormat,
    #[serde(default)]
    pub(super) content_types: Vec<String>,
    pub(super) tolerance_seconds: Option<u64>,
    pub(super) future_tolerance_seconds: Option<u64>,
    #[serde(default)]
    pub(super) required: Vec<RawRequirement>,
    #[serde(default)]
    pub(super) key: Vec<RawKeyPart>,
    pub(super) root: Option<RawRoot>,
    pub(super) acknowledge_as: Option<u16>,
    /// The largest body, where the sender's are larger than usual.
    pub(super) max_body_bytes: Option<u64>,
}

/// How a sender writes its secrets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSecretFormat {
    #[serde(default)]
    pub(super) encoding: RawSecretEncoding,
    pub(super) prefix: Option<String>,
}

/// How a sender writes its public keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPublicFormat {
    pub(super) encoding: Option<PublicEncoding>,
    pub(super) prefix: Option<String>,
}
