//! The shape of the configuration text: field names, types and defaults. Unknown fields are errors.
//!
//! An enum of the core whose variants are the words of the configuration derives serde where it is
//! defined. A `Raw` enum is for words that the rest of the crate does not know as they are.
//!
//! All the rest of the crate is above: what a word means is checked there.

pub(crate) mod challenge;
pub(crate) mod dedupe;
pub(crate) mod inspector;
pub(crate) mod payload;
pub(crate) mod preset;
pub(crate) mod secrets;
pub(crate) mod signature;
pub(crate) mod source;
pub(crate) mod store;

use callback_guard_core::policy::{HoldHeaders, Mode, Unmatched};
use serde::Deserialize;

use inspector::RawInspector;
use source::RawSource;
use store::RawStore;

/// The whole configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RawConfig {
    /// Whether verdicts are carried out. Default: `enforce`.
    #[serde(default = "enforce")]
    pub(crate) mode: Mode,
    /// What a request gets that matches no source. Default: `reject`.
    #[serde(default = "reject")]
    pub(crate) unmatched: Unmatched,
    /// Whether replies say why. Default: true.
    #[serde(default = "yes")]
    pub(crate) expose_reason: bool,
    /// Who holds the headers until the decision. Default: `filter`.
    #[serde(default = "filter")]
    pub(crate) hold_headers: HoldHeaders,
    /// How many bytes of bodies one worker holds at most, beyond 16 KiB for each request. Default:
    /// 33554432.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1_048_576, max = 1_073_741_824))
    )]
    pub(crate) max_held_bytes: Option<u64>,
    /// Where events are remembered. Default: in memory, 100000 of them.
    #[serde(default)]
    pub(crate) store: RawStore,
    /// What is logged.
    #[serde(default)]
    pub(crate) log: RawLog,
    /// Keeps the last decisions, and shows them on a page. Default: off.
    pub(crate) inspector: Option<RawInspector>,
    pub(crate) sources: Vec<RawSource>,
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

/// What is logged.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawLog {
    /// How many refusals a worker logs in a second at most; of the others it logs the number. Default:
    /// 20.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1000)))]
    pub(crate) refusals_per_second: u32,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            refusals_per_second: 20,
        }
    }
}
