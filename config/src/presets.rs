//! The table of presets.

use crate::error::ConfigError;
use crate::raw::preset::Preset;
use crate::reading::read;

/// The table of presets, as JSON: for programs that list them or fill in their parameters.
pub const PRESETS: &[u8] = include_bytes!("presets.json");

/// The table of presets: without what is for people alone, which would be a tenth of the module. A
/// test makes it of [`PRESETS`].
pub(crate) fn presets() -> Result<Vec<Preset>, ConfigError> {
    read(include_bytes!("presets.compact.json"))
}
