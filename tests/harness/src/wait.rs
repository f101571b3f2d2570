//! Waiting for something to become true, with an end to it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything here waits before it gives up. Ample: reached only where something is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Looks until `probe` finds something, at most for [`DEADLINE`].
///
/// # Errors
///
/// If nothing is found in time; the message names `what`.
pub fn wait_for<T>(what: &str, probe: impl FnMut() -> Option<T>) -> Result<T> {
    wait_for_within(DEADLINE, what, probe)
}

/// Looks until `probe` finds something, at most for `limit`.
///
/// # Errors
///
/// If nothing is found in time; the message names `what`.
pub fn wait_for_within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    try_wait_for(limit, what, || Ok(probe()))
}

/// Looks until `probe` finds something or fails, at most for `limit`.
///
/// # Errors
///
/// The probe's own error, at once; or that nothing was found in time.
pub fn try_wait_for<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs_f32());
        }
        thread::sleep(INTERVAL);
    }
}
