//! The body of a callback: from a file, from standard input, or a sample.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

/// Reads a file, or standard input for `-`.
///
/// # Errors
///
/// It cannot be read.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut body = Vec::new();
        std::io::stdin()
            .read_to_end(&mut body)
            .context("standard input")?;
        return Ok(body);
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// An id that no callback had before: 32 hexadecimal digits, as the Suno API has them.
pub(crate) fn fresh_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}
