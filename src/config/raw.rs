//! The shape of the configuration text: field names, types and defaults. Unknown fields are errors.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::payload::FieldType;
use crate::policy::{HoldHeaders, Mode, OnBodyChange, OnUnknown, Unmatched};
use crate::redis::{OnError, Protocol};

/// The whole configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    #[serde(default = "enforce")]
    pub(super) mode: Mode,
    #[serde(default = "reject")]
    pub(super) unmatched: Unmatched,
    #[serde(default = "yes")]
    pub(super) expose_reason: bool,
    #[serde(default = "filter")]
    pub(super) hold_headers: HoldHeaders,
    #[serde(default)]
    pub(super) store: RawStore,
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
pub(super) struct RawStore {
    pub(super) kind: RawStoreKind,
    pub(super) capacity: Option<u32>,
    pub(super) protocol: Option<Protocol>,
    pub(super) cluster: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) token_env: Option<String>,
    pub(super) key_prefix: Option<String>,
    pub(super) timeout_milliseconds: Option<u64>,
    pub(super) on_error: Option<OnError>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawStoreKind {
    #[default]
    Memory,
    Redis,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInspector {
    pub(super) path: Option<String>,
    #[serde(default = "events")]
    pub(super) events: u32,
    pub(super) token_env: Option<String>,
}

fn events() -> u32 {
    200
}

/// One source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSource {
    pub(super) name: String,
    #[serde(rename = "match")]
    pub(super) route: RawMatch,
    pub(super) mode: Option<Mode>,
    pub(super) preset: Option<String>,
    pub(super) signature: Option<RawSignature>,
    pub(super) token: Option<RawToken>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) secrets: Vec<RawSecret>,
    pub(super) content_types: Option<Vec<String>>,
    pub(super) tolerance_seconds: Option<u64>,
    pub(super) future_tolerance_seconds: Option<u64>,
    pub(super) max_body_bytes: Option<u64>,
    #[serde(default)]
    pub(super) payload: RawPayload,
    #[serde(default)]
    pub(super) dedupe: RawDedupe,
    pub(super) acknowledge_as: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMatch {
    pub(super) path: Option<String>,
    pub(super) path_prefix: Option<String>,
    pub(super) host: Option<String>,
}

/// No `Debug`: `value` is a secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSecret {
    pub(super) env: Option<String>,
    pub(super) value: Option<String>,
    pub(super) encoding: Option<RawSecretEncoding>,
    pub(super) prefix: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
}

impl core::fmt::Debug for RawSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RawSecret([redacted])")
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPayload {
    pub(super) allowed_url_hosts: Option<Vec<String>>,
    pub(super) required: Option<Vec<RawRequirement>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRequirement {
    pub(super) pointer: String,
    #[serde(rename = "type")]
    pub(super) kind: FieldType,
    #[serde(default)]
    pub(super) optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawDedupe {
    pub(super) key: Option<Vec<RawKeyPart>>,
    pub(super) window_seconds: Option<u64>,
    pub(super) lease_seconds: Option<u64>,
    pub(super) in_flight: RawInFlight,
    pub(super) wait_seconds: Option<u64>,
    pub(super) on_unknown: OnUnknown,
    pub(super) on_body_change: OnBodyChange,
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
            on_body_change: OnBodyChange::Acknowledge,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawInFlight {
    Reject,
    Wait,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeyPart {
    pub(super) pointer: Option<String>,
    pub(super) header: Option<String>,
}

/// A signature scheme in the words of the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSignature {
    pub(super) message: Vec<RawPart>,
    pub(super) value: RawValue,
    pub(super) timestamp: Option<RawTimestamp>,
    pub(super) id: Option<RawId>,
}

/// A shared token, by its place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawToken {
    pub(super) header: Option<String>,
    #[serde(default)]
    pub(super) path_segment: bool,
    pub(super) query: Option<String>,
    pub(super) id: Option<RawId>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPart {
    #[serde(default)]
    pub(super) body: bool,
    pub(super) header: Option<String>,
    #[serde(default)]
    pub(super) id: bool,
    pub(super) literal: Option<String>,
    pub(super) parameter: Option<String>,
    pub(super) pointer: Option<String>,
    #[serde(default)]
    pub(super) timestamp: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawValue {
    pub(super) header: String,
    #[serde(default)]
    pub(super) numbered: bool,
    pub(super) prefix: Option<String>,
    pub(super) separator: Option<RawSeparator>,
    pub(super) key: Option<String>,
    pub(super) encoding: RawEncoding,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum RawSeparator {
    #[serde(rename = ",")]
    Comma,
    #[serde(rename = ";")]
    Semicolon,
    #[serde(rename = " ")]
    Space,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawEncoding {
    Base64,
    #[default]
    Hex,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTimestamp {
    pub(super) header: Option<String>,
    pub(super) key: Option<String>,
    pub(super) pointer: Option<String>,
    #[serde(default)]
    pub(super) unit: RawUnit,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) enum RawUnit {
    #[default]
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Milliseconds,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawId {
    pub(super) header: Option<String>,
    pub(super) pointers: Option<Vec<String>>,
    #[serde(default)]
    pub(super) or_body_digest: bool,
}

/// A named scheme, with what goes with it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preset {
    pub(super) names: Vec<String>,
    #[allow(dead_code, reason = "for the reader of the table")]
    pub(super) sender: String,
    #[allow(dead_code, reason = "for the reader of the table")]
    pub(super) source: String,
    pub(super) signature: Option<RawSignature>,
    pub(super) token: Option<RawToken>,
    #[serde(default)]
    pub(super) secret: RawSecretFormat,
    #[serde(default)]
    pub(super) content_types: Vec<String>,
    pub(super) tolerance_seconds: Option<u64>,
    pub(super) future_tolerance_seconds: Option<u64>,
    #[serde(default)]
    pub(super) required: Vec<RawRequirement>,
    #[serde(default)]
    pub(super) key: Vec<RawKeyPart>,
    pub(super) acknowledge_as: Option<u16>,
}

/// How a sender writes its secrets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSecretFormat {
    #[serde(default)]
    pub(super) encoding: RawSecretEncoding,
    pub(super) prefix: Option<String>,
}
