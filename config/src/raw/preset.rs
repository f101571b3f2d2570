//! The words of the table of presets.

use serde::Deserialize;

use crate::raw::challenge::RawChallenge;
use crate::raw::dedupe::RawKeyPart;
use crate::raw::payload::{RawRequirement, RawRoot};
use crate::raw::secrets::{RawPublicFormat, RawSecretFormat};
use crate::raw::signature::{RawSignature, RawToken};

/// A named scheme, with what goes with it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preset {
    pub(crate) names: Vec<String>,
    pub(crate) signature: Option<RawSignature>,
    pub(crate) token: Option<RawToken>,
    #[serde(default)]
    pub(crate) secret: RawSecretFormat,
    #[serde(default)]
    pub(crate) challenge: Vec<RawChallenge>,
    #[serde(default)]
    pub(crate) public_key: RawPublicFormat,
    #[serde(default)]
    pub(crate) content_types: Vec<String>,
    pub(crate) tolerance_seconds: Option<u64>,
    pub(crate) future_tolerance_seconds: Option<u64>,
    #[serde(default)]
    pub(crate) required: Vec<RawRequirement>,
    #[serde(default)]
    pub(crate) key: Vec<RawKeyPart>,
    pub(crate) root: Option<RawRoot>,
    pub(crate) acknowledge_as: Option<u16>,
    /// The largest body, where the sender's are larger than usual.
    pub(crate) max_body_bytes: Option<u64>,
}
