//! The words of `inspector`.

use serde::Deserialize;

/// The inspector: the last decisions, on a page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawInspector {
    /// Where the page is; no source may match it. Without it decisions are kept and not shown here.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/[!-~]*[^/]$")))]
    pub(crate) path: Option<String>,
    /// How many decisions are kept, of those with a genuine signature and of the others.
    /// Default: 200.
    #[serde(default = "events")]
    #[cfg_attr(feature = "schema", schemars(range(min = 10, max = 1000)))]
    pub(crate) events: u64,
    /// The environment variable that holds the token of those who may look: 16 to 256 visible ASCII
    /// characters. With `path`, and only then.
    pub(crate) token_env: Option<String>,
}

fn events() -> u64 {
    200
}
