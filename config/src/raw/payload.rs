//! The words of `sources[].payload`.

use callback_guard_core::json::Root;
use callback_guard_core::policy::FieldType;
use serde::Deserialize;

/// Rules for the payload.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawPayload {
    /// Hosts that URLs in the payload may point to, as `example.com` or `*.example.com`. Default:
    /// not checked.
    pub(crate) allowed_url_hosts: Option<Vec<String>>,
    /// Fields that must be there. Default: the preset's own.
    pub(crate) required: Option<Vec<RawRequirement>>,
    /// What the root of the body may be; in an array pointers begin with an index. Default: the
    /// preset's own, or `object`.
    pub(crate) root: Option<RawRoot>,
}

/// What the root of a body may be.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) enum RawRoot {
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
pub(crate) struct RawRequirement {
    /// Where the field is: a JSON pointer, as `/data/id`.
    pub(crate) pointer: String,
    /// Its type.
    #[serde(rename = "type")]
    pub(crate) kind: FieldType,
    /// Whether it may be absent or null. Default: false.
    #[serde(default)]
    pub(crate) optional: bool,
}
