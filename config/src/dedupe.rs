//! Deduplication as it is configured.

use crate::error::{ConfigError, Path, within};
use crate::fields::Fields;
use crate::raw::dedupe::{RawDedupe, RawDedupeOrOff, RawInFlight, RawKeyPart};
use crate::raw::preset::Preset;
use callback_guard_core::event::KeyBuilder;
use callback_guard_core::policy::{Dedupe, HeaderRole, InFlight, KeyPart, PathRule, Route};
use callback_guard_core::scheme::Tolerance;
use callback_guard_core::store::local::{EVENTS_PER_ID, MOST_EVENTS_PER_ID};

/// How long a delivered event is remembered, in seconds, where the configuration gives none.
const WINDOW_SECONDS: u64 = 86_400;
/// The longest window that may be configured, in seconds: a year.
const LONGEST_WINDOW_SECONDS: u64 = 31_536_000;
/// How long a claim lives, in seconds, where the configuration gives none: twice the 15 s after
/// which Kie gives up on an answer.
const LEASE_SECONDS: u64 = 30;
/// The longest wait, in seconds, where the configuration gives none: within Kie's 15 s.
const WAIT_SECONDS: u64 = 10;

pub(super) fn compile(
    path: &Path,
    source: &str,
    raw: RawDedupeOrOff,
    preset: &Preset,
    route: &Route,
    tolerance: Tolerance,
    fields: &mut Fields,
) -> Result<Dedupe, ConfigError> {
    let (raw, is_on) = match raw {
        RawDedupeOrOff::On(raw) => (raw, true),
        RawDedupeOrOff::Off(_) => (RawDedupe::default(), false),
    };
    let events_per_id = raw.events_per_id.unwrap_or(EVENTS_PER_ID.into());
    let most = MOST_EVENTS_PER_ID.into();
    within(&path.field("events_per_id"), events_per_id, 1, most)?;
    let window_seconds = raw.window_seconds.unwrap_or(WINDOW_SECONDS);
    let window_path = path.field("window_seconds");
    within(&window_path, window_seconds, 1, LONGEST_WINDOW_SECONDS)?;
    let fresh = tolerance.past.saturating_add(tolerance.future);
    if is_on && window_seconds <= fresh {
        let problem = format!(
            "{window_seconds} is too short, expected more than tolerance_seconds and \
             future_tolerance_seconds together ({fresh}), or a replay outlives its record"
        );
        return Err(ConfigError::new(&window_path, problem));
    }
    let lease_seconds = raw.lease_seconds.unwrap_or(LEASE_SECONDS);
    within(&path.field("lease_seconds"), lease_seconds, 1, 600)?;
    let wait_seconds = raw.wait_seconds.unwrap_or(WAIT_SECONDS);
    within(&path.field("wait_seconds"), wait_seconds, 1, 60)?;
    let key = match &raw.key {
        Some(parts) => key_parts(&path.field("key"), parts, fields)?,
        None => {
            let mut key = vec![KeyPart::Id];
            key.extend(key_parts(&path.field("key"), &preset.key, fields)?);
            // Several endpoints may lie below: what comes to one is no copy of what came to another.
            if matches!(route.path, PathRule::Prefix(_)) {
                key.push(KeyPart::Path);
            }
            key
        }
    };
    if key.is_empty() {
        return Err(ConfigError::new(
            &path.field("key"),
            "is empty, expected at least one part",
        ));
    }
    Ok(Dedupe {
        key_of_source: KeyBuilder::new(source),
        key,
        window_seconds,
        lease_seconds,
        in_flight: match raw.in_flight {
            RawInFlight::Reject => InFlight::Reject,
            RawInFlight::Wait => InFlight::Wait {
                seconds: wait_seconds,
            },
        },
        on_unknown: raw.on_unknown,
        on_body_change: raw.on_body_change,
        events_per_id: u16::try_from(events_per_id).unwrap_or(MOST_EVENTS_PER_ID),
        is_on,
    })
}

fn key_parts(
    path: &Path,
    raw: &[RawKeyPart],
    fields: &mut Fields,
) -> Result<Vec<KeyPart>, ConfigError> {
    let mut parts = Vec::with_capacity(raw.len());
    for (index, part) in raw.iter().enumerate() {
        let path = path.index(index);
        let plain = [
            (part.path, KeyPart::Path),
            (part.host, KeyPart::Host),
            (part.body, KeyPart::Body),
        ];
        let mut plain = plain.into_iter().filter(|(is_given, _)| *is_given);
        let plain = (plain.next().map(|(_, part)| part), plain.next().is_some());
        parts.push(match (&part.pointer, &part.header, plain) {
            (Some(pointer), None, (None, _)) => {
                KeyPart::Pointer(fields.pointer(&path.field("pointer"), pointer)?)
            }
            (None, Some(header), (None, _)) => {
                KeyPart::Header(fields.header(&path.field("header"), header, HeaderRole::Key)?)
            }
            (None, None, (Some(part), false)) => part,
            _ => {
                let problem = "expected one of `pointer`, `header`, and `path`, `host` or `body` \
                               with `true`";
                return Err(ConfigError::new(&path, problem));
            }
        });
    }
    Ok(parts)
}
