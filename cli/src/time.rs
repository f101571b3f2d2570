//! The only place that reads the clock; and moments as people write them.

use std::time::{SystemTime, UNIX_EPOCH};

use callback_guard_core::time::UnixMillis;

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

/// A moment as HTTP writes it.
pub(crate) fn http_date(text: &str) -> Option<UnixMillis> {
    millis(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

/// A moment as RFC 3339 writes it.
pub(crate) fn timestamp(text: &str) -> Option<UnixMillis> {
    millis(text.parse().ok()?)
}

fn millis(moment: jiff::Timestamp) -> Option<UnixMillis> {
    Some(UnixMillis::new(moment.as_millisecond().try_into().ok()?))
}

/// For people: as RFC 3339, in UTC.
pub(crate) fn display(moment: UnixMillis) -> String {
    i64::try_from(moment.as_millis())
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(
            || "beyond all calendars".to_owned(),
            |moment| moment.to_string(),
        )
}

/// A span for people: seconds up to two minutes, then minutes, hours or days.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..=120 => format!("{seconds} s"),
        121..=7199 => format!("{seconds} s ({} min)", seconds / 60),
        7200..=172_799 => format!("{seconds} s ({} h)", seconds / 3600),
        _ => format!("{seconds} s ({} days)", seconds / 86_400),
    }
}
