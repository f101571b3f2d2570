//! The only place that reads the clock; and moments as people write them.

use std::time::{SystemTime, UNIX_EPOCH};

use callback_guard::time::UnixMillis;

/// The time.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A moment as an argument: Unix seconds, or milliseconds if it has 13 digits.
///
/// # Errors
///
/// What is accepted, if it is neither.
pub(crate) fn parse(text: &str) -> Result<UnixMillis, String> {
    let number = text
        .parse()
        .map_err(|_| "expected Unix time in seconds, as 1769670760".to_owned())?;
    Ok(match text.len() {
        13.. => UnixMillis::new(number),
        _ => UnixMillis::from_seconds(number),
    })
}
