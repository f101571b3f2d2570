//! The end by Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;

/// The exit code after Ctrl-C.
///
/// Source: POSIX shells report 128 and the number of the signal, 2.
pub(super) const INTERRUPTED: u8 = 130;

/// Ends the demo if Ctrl-C was pressed.
pub(super) fn stop_if(interrupted: &AtomicBool) -> anyhow::Result<()> {
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
