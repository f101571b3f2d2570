//! Timestamps: in one spelling each, since two spellings of one time would be two signed messages.

use serde::Deserialize;

use crate::time::UnixMillis;
use crate::verdict::{Code, Rejection};

/// Where the timestamp is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampAt {
    /// The place.
    pub place: TimestampPlace,
    /// How it is written.
    pub unit: Unit,
}

/// The place of the timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimestampPlace {
    /// A field of the signature header's list, by its key.
    Field(Box<str>),
    /// A header of its own, by its name in lower case.
    Header(Box<str>),
    /// A JSON pointer, by its slot.
    Pointer(usize),
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Unit {
    /// Seconds since the epoch: ten digits.
    #[default]
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds since the epoch: thirteen digits.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Date and time, with `T` and `Z` in capitals, or an offset. Source: RFC 3339, 5.6.
    #[serde(rename = "rfc3339")]
    Rfc3339,
}

/// The longest text: nine decimals and an offset.
const LONGEST: usize = 35;

/// A timestamp: the sender's own bytes, and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    text: [u8; LONGEST],
    length: u8,
    seconds: u64,
}

impl Timestamp {
    /// Reads exactly as many ASCII digits as the unit has, or a whole time of RFC 3339.
    ///
    /// # Errors
    ///
    /// [`Code::TimestampMalformed`].
    pub fn parse(text: &[u8], unit: Unit) -> Result<Self, Rejection> {
        let (seconds, expected) = match unit {
            Unit::Seconds => (digits(text, 10), "expected 10 digits"),
            Unit::Milliseconds => (
                digits(text, 13).map(|millis| millis / 1000),
                "expected 13 digits",
            ),
            Unit::Rfc3339 => (
                rfc3339(text),
                "expected a time such as 2026-01-29T07:12:40Z",
            ),
        };
        let refused = || Rejection::because(Code::TimestampMalformed, expected);
        let seconds = seconds.ok_or_else(refused)?;
        let mut bytes = [0; LONGEST];
        bytes
            .get_mut(..text.len())
            .ok_or_else(refused)?
            .copy_from_slice(text);
        Ok(Self {
            text: bytes,
            length: u8::try_from(text.len()).map_err(|_| refused())?,
            seconds,
        })
    }

    /// The bytes as they came: what the sender signed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// Its age, in seconds; negative if it lies ahead.
    #[must_use]
    pub(crate) fn age_seconds(&self, now: UnixMillis) -> Option<i64> {
        let now = i64::try_from(now.as_seconds()).ok()?;
        now.checked_sub(i64::try_from(self.seconds).ok()?)
    }

    /// Seconds since the epoch.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.seconds
    }
}

fn digits(text: &[u8], count: usize) -> Option<u64> {
    if text.len() != count || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    number(text)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// How many bytes at the beginning of `bytes` are a time of RFC 3339, with a date that exists.
pub(super) fn rfc3339_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| !is_of_time(*byte));
    let longest = end.unwrap_or(bytes.len()).min(LONGEST);
    // The offset follows the fraction, or the seconds: so its place is known, not searched for.
    let fraction = match bytes.get(19) {
        Some(b'.') => {
            let digits = bytes.get(20..longest)?;
            let count = digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            count.checked_add(1)?
        }
        _ => 0,
    };
    let offset = fraction.checked_add(19)?;
    let length = match bytes.get(offset)? {
        b'Z' => offset.checked_add(1)?,
        _ => offset.checked_add(6)?,
    };
    rfc3339(bytes.get(..length)?).map(|_| length)
}

fn is_of_time(byte: u8) -> bool {
    byte.is_ascii_digit() || b"-:.+TZ".contains(&byte)
}

/// Seconds since the epoch of a text that is a time of RFC 3339, whole.
fn rfc3339(text: &[u8]) -> Option<u64> {
    let field = |from: usize, to: usize| number(text.get(from..to)?);
    for (at, expected) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if text.get(at) != Some(&expected) {
            return None;
        }
    }
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = fraction.iter().take_while(|byte| byte.is_ascii_digit());
        let count = count.count();
        if !(1..=9).contains(&count) {
            return None;
        }
        rest = fraction.get(count..)?;
    }
    let local = days_since_epoch(year, month, day)?
        .checked_mul(86_400)?
        .checked_add(hour * 3600 + minute * 60 + second)?;
    match rest {
        b"Z" => Some(local),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3600 + minutes * 60;
            match sign {
                b'+' => local.checked_sub(offset),
                _ => local.checked_add(offset),
            }
        }
        _ => None,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar that exists and is not before it.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if day < 1 || day > *months.get(index)? {
        return None;
    }
    let before: u64 = months.get(..index)?.iter().sum();
    let past = year.checked_sub(1970)?;
    // Leap days between 1970 and the year: those up to the year before, less those before 1970.
    let last = year.checked_sub(1)?;
    let leap_days = (last / 4 - last / 100 + last / 400).checked_sub(477)?;
    past.checked_mul(365)?
        .checked_add(leap_days)?
        .checked_add(before)?
        .checked_add(day - 1)
}

/// The time `now` as it is written in `unit`.
#[cfg(feature = "sign")]
#[must_use]
pub fn written(now: UnixMillis, unit: Unit) -> String {
    match unit {
        Unit::Seconds => now.as_seconds().to_string(),
        Unit::Milliseconds => now.as_millis().to_string(),
        Unit::Rfc3339 => {
            let seconds = now.as_seconds();
            let (mut days, time) = (seconds / 86_400, seconds % 86_400);
            let mut year = 1970;
            let length = |year: u64, month: u64| {
                (28..=31)
                    .rev()
                    .find(|day| days_since_epoch(year, month, *day).is_some())
                    .unwrap_or(28)
            };
            let mut month = 1;
            while days >= length(year, month) {
                days -= length(year, month);
                (year, month) = if month == 12 {
                    (year + 1, 1)
                } else {
                    (year, month + 1)
                };
            }
            format!(
                "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}Z",
                days + 1,
                time / 3600,
                time / 60 % 60,
                time % 60
            )
        }
    }
}

/// How far a timestamp may be from the proxy's clock, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// The largest accepted age.
    pub past: u64,
    /// The largest accepted lead. Apart from the age: a symmetric window would double the time in
    /// which a copy stays fresh.
    pub future: u64,
}

impl Tolerance {
    /// Checks `timestamp` against the clock.
    ///
    /// # Errors
    ///
    /// [`Code::TimestampTooOld`] or [`Code::TimestampInFuture`], with the distance.
    pub fn check(&self, timestamp: &Timestamp, now: UnixMillis) -> Result<(), Rejection> {
        let (then, now) = (timestamp.seconds(), now.as_seconds());
        let (age, lead) = (now.saturating_sub(then), then.saturating_sub(now));
        if age > self.past {
            return Err(Rejection::stale(Code::TimestampTooOld, age, self.past));
        }
        if lead > self.future {
            return Err(Rejection::stale(Code::TimestampInFuture, lead, self.future));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn time(text: &str, expected: Option<u64>) {
        let seen = Timestamp::parse(text.as_bytes(), Unit::Rfc3339);
        assert_eq!(seen.ok().map(|time| time.seconds()), expected, "{text}");
    }

    #[test]
    fn a_time_of_rfc_3339_has_one_spelling() {
        time("1970-01-01T00:00:00Z", Some(0));
        time("2026-01-29T07:12:40Z", Some(1_769_670_760));
        time("2026-01-29T07:12:40.123456789Z", Some(1_769_670_760));
        time("2026-01-29T09:12:40+02:00", Some(1_769_670_760));
        time("2026-01-28T23:12:40-08:00", Some(1_769_670_760));
        time("2024-02-29T00:00:00Z", Some(1_709_164_800));
        time("2000-02-29T00:00:00Z", Some(951_782_400));
        for text in [
            "2025-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-29t07:12:40Z",
            "2026-01-29T07:12:40z",
            "2026-01-29 07:12:40Z",
            "2026-01-29T07:12:40",
            "2026-01-29T24:00:00Z",
            "2026-01-29T07:60:00Z",
            "2026-01-29T07:12:60Z",
            "2026-01-29T07:12:40.Z",
            "2026-01-29T07:12:40.1234567890Z",
            "2026-01-29T07:12:40+0200",
            "2026-01-29T07:12:40+24:00",
            "+026-01-29T07:12:40Z",
            "1969-12-31T23:59:59Z",
            "",
        ] {
            time(text, None);
        }
    }

    #[test]
    fn a_time_shows_its_own_end() {
        for text in ["2026-01-29T07:12:40Z", "2026-01-29T07:12:40.5+01:00"] {
            for after in ["", "{}", "9", "Z", "-01:00", ".5Z", "+"] {
                let bytes = format!("{text}{after}");
                assert_eq!(
                    rfc3339_length(bytes.as_bytes()),
                    Some(text.len()),
                    "{bytes}"
                );
            }
        }
        assert_eq!(rfc3339_length(b"2026-01-29T07:12:40.Z"), None);
    }

    #[cfg(feature = "sign")]
    #[test]
    fn what_is_written_is_what_is_read() {
        for seconds in [0, 951_782_399, 951_782_400, 1_769_670_760, 4_107_542_399] {
            let text = written(UnixMillis::from_seconds(seconds), Unit::Rfc3339);
            time(&text, Some(seconds));
        }
    }
}
