//! The words of `sources[].signature` and `sources[].token`.

use callback_guard_core::scheme::Unit;
use callback_guard_core::scheme::keys::Algorithm;
use serde::Deserialize;

/// A signature scheme in the words of the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawSignature {
    /// How it is signed. Default: `hmac-sha256`.
    #[serde(default)]
    pub(crate) algorithm: Algorithm,
    /// The signed message: its parts in order.
    pub(crate) message: Vec<RawPart>,
    /// Where the signature is.
    pub(crate) value: RawValue,
    /// Where the timestamp is, if there is one.
    pub(crate) timestamp: Option<RawTimestamp>,
    /// Where the message id is. Default: the SHA-256 of the body is used instead.
    pub(crate) id: Option<RawId>,
}

/// A shared token, by its place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawToken {
    /// The token is in this header.
    pub(crate) header: Option<String>,
    /// The token is the last segment of the path, below `match.path_prefix`.
    #[serde(default)]
    pub(crate) path_segment: bool,
    /// The token is in this parameter of the query.
    pub(crate) query: Option<String>,
    /// The token is inside the body, at this JSON pointer.
    pub(crate) pointer: Option<String>,
    /// The token is `user:password`, in `authorization: Basic`.
    #[serde(default)]
    pub(crate) basic: bool,
    /// Where the message id is. Default: the SHA-256 of the body is used instead.
    pub(crate) id: Option<RawId>,
}

/// A part of the message: one of these.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawPart {
    /// The body as received.
    #[serde(default)]
    pub(crate) body: bool,
    /// The digest of the body.
    pub(crate) body_digest: Option<RawDigest>,
    /// With `body_digest`: how it is written. Default: `hex`.
    pub(crate) encoding: Option<RawEncoding>,
    /// With `header`: the only form of its value, where that shows its end.
    pub(crate) form: Option<RawForm>,
    /// The fields of a form, sorted by name, each name and value.
    #[serde(default)]
    pub(crate) form_sorted: bool,
    /// The value of this header.
    pub(crate) header: Option<String>,
    /// The message id.
    #[serde(default)]
    pub(crate) id: bool,
    /// These bytes.
    pub(crate) literal: Option<String>,
    /// The method.
    #[serde(default)]
    pub(crate) method: bool,
    /// With `pointer`: an absent value is empty. Default: false.
    #[serde(default)]
    pub(crate) optional: bool,
    /// The value of this parameter.
    pub(crate) parameter: Option<String>,
    /// The value at this JSON pointer.
    pub(crate) pointer: Option<String>,
    /// The value of this parameter of the query, decoded.
    pub(crate) query: Option<String>,
    /// With `parameter`: path and query follow it, as they do `url`. Default: false.
    #[serde(default)]
    pub(crate) target: bool,
    /// The timestamp's own bytes.
    #[serde(default)]
    pub(crate) timestamp: bool,
    /// The URL that the sender calls: this public base, then path and query.
    pub(crate) url: Option<String>,
}

/// The digest of a body.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum RawDigest {
    Sha256,
}

/// A form whose length is fixed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum RawForm {
    Uuid,
}

/// Where the signature is and how it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawValue {
    /// Entries without key or prefix, behind a signature, are signatures as well. Default: false.
    #[serde(default)]
    pub(crate) continued: bool,
    /// The header with the signature; of several, one match is enough. With `numbered` what is before
    /// the number.
    pub(crate) header: Option<RawNames>,
    /// Headers with the numbers 1, 2, … at the end of their name, one signature each.
    #[serde(default)]
    pub(crate) numbered: bool,
    /// The signature is inside the body, at this JSON pointer.
    pub(crate) pointer: Option<String>,
    /// A prefix that is not part of the signature, as in `sha256=`.
    pub(crate) prefix: Option<String>,
    /// The signature is in this parameter of the query.
    pub(crate) query: Option<String>,
    /// Between the entries of a list.
    pub(crate) separator: Option<RawSeparator>,
    /// The list is of `key=value`, and this is the key of signatures.
    pub(crate) key: Option<String>,
    /// How the signature is written.
    pub(crate) encoding: RawEncoding,
    /// Whether base64 may be without padding. Default: it may not; `base64url` may.
    pub(crate) padding: Option<RawPadding>,
}

/// A name, or a list of names.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a name or a list of names")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum RawNames {
    One(String),
    Several(Vec<String>),
}

impl RawNames {
    pub(crate) fn as_slice(&self) -> &[String] {
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
pub(crate) enum RawPadding {
    Optional,
}

/// Between the entries of a list.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum RawSeparator {
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
pub(crate) enum RawEncoding {
    Base64,
    Base64Url,
    #[default]
    Hex,
}

/// Where the timestamp is: `header`, `key` or `pointer`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawTimestamp {
    /// The timestamp is in this header.
    pub(crate) header: Option<String>,
    /// The timestamp is the field of the signature header with this key.
    pub(crate) key: Option<String>,
    /// The timestamp is in the body, at this JSON pointer.
    pub(crate) pointer: Option<String>,
    /// How it is written. Default: seconds.
    #[serde(default)]
    pub(crate) unit: Unit,
}

/// Where the message id is: `header` or `pointers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawId {
    /// The message id is in this header.
    pub(crate) header: Option<String>,
    /// The message id is the first present of these JSON pointers; all present ones must be equal.
    pub(crate) pointers: Option<Vec<String>>,
    /// Whether the SHA-256 of the body replaces an id that is missing. Default: false.
    #[serde(default)]
    pub(crate) or_body_digest: bool,
}
