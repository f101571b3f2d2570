//! From the words of `sources[].signature` to a [`Scheme`], with everything refused that would not
//! protect.

use super::raw::{RawEncoding, RawId, RawPart, RawSeparator, RawSignature, RawTimestamp, RawUnit};
use super::{ConfigError, Fields, Path, header_name};
use crate::policy::HeaderRole;
use crate::scheme::{
    Encoding, Form, IdAt, MAX_PARTS, Part, Scheme, SignatureAt, TimestampAt, TimestampPlace, Unit,
};

/// Compiles and checks a scheme.
pub(super) fn compile(
    path: &Path,
    raw: &RawSignature,
    fields: &mut Fields,
) -> Result<Scheme, ConfigError> {
    let value = value(&path.field("value"), raw)?;
    // First the id: its pointers are neighbours in the list of slots.
    let id = id(&path.field("id"), raw.id.as_ref(), fields)?;
    let timestamp_path = path.field("timestamp");
    let timestamp = match &raw.timestamp {
        Some(raw) => Some(timestamp(&timestamp_path, raw, &value, fields)?),
        None => None,
    };
    let message_path = path.field("message");
    if !(1..=MAX_PARTS).contains(&raw.message.len()) {
        let problem = format!(
            "there are {} parts, expected 1 to {MAX_PARTS}",
            raw.message.len()
        );
        return Err(ConfigError::new(&message_path, problem));
    }
    let mut message = Vec::with_capacity(raw.message.len());
    for (index, part) in raw.message.iter().enumerate() {
        message.push(self::part(&message_path.index(index), part, fields)?);
    }
    let scheme = Scheme {
        message,
        value,
        timestamp,
        id,
    };
    check_safety(path, &scheme)?;
    Ok(scheme)
}

/// Refuses what authenticates nothing.
fn check_safety(path: &Path, scheme: &Scheme) -> Result<(), ConfigError> {
    let has = |part: &Part| scheme.message.contains(part);
    let message = path.field("message");
    let fail = |path: &Path, problem: &str| Err(ConfigError::new(path, problem));
    if !has(&Part::Body) && !has(&Part::Id) {
        return fail(
            &message,
            "covers neither the body nor the id, so it authenticates nothing",
        );
    }
    let points = scheme
        .message
        .iter()
        .any(|part| matches!(part, Part::Pointer(_)))
        || (has(&Part::Id) && matches!(scheme.id, IdAt::Pointers(_)));
    if has(&Part::Body) && points {
        return fail(
            &message,
            "holds the body and a value from inside it; a signed body is checked before it is \
             parsed, and covers the value already",
        );
    }
    if has(&Part::Id) && scheme.id == IdAt::BodyDigest {
        return fail(&message, "holds the id, but `id` says no place for it");
    }
    match &scheme.timestamp {
        None if has(&Part::Timestamp) => {
            return fail(
                &message,
                "holds the timestamp, but `timestamp` says no place for it",
            );
        }
        Some(TimestampAt {
            place: TimestampPlace::Pointer(_),
            ..
        }) => {
            if has(&Part::Timestamp) {
                return fail(&message, "holds a timestamp that is inside the body");
            }
            if !has(&Part::Body) {
                return fail(
                    &path.field("timestamp"),
                    "is inside the body, which is not signed, so it proves no freshness",
                );
            }
        }
        Some(_) if !has(&Part::Timestamp) => {
            return fail(
                &path.field("timestamp"),
                "is not part of the message, so it proves no freshness",
            );
        }
        None if !has(&Part::Body) => {
            return fail(
                path,
                "has neither a timestamp nor the body in its message, so one captured signature \
                 would be good for ever",
            );
        }
        _ => {}
    }
    // Two parts of free length side by side could be cut in two places.
    let is_free = |part: &Part| !matches!(part, Part::Literal(_) | Part::Timestamp);
    for pair in scheme.message.windows(2) {
        if let [left, right] = pair
            && is_free(left)
            && is_free(right)
        {
            return fail(
                &message,
                "has two parts of free length side by side, expected a literal between them",
            );
        }
    }
    Ok(())
}

fn part(path: &Path, raw: &RawPart, fields: &mut Fields) -> Result<Part, ConfigError> {
    let RawPart {
        body,
        header,
        id,
        literal,
        pointer,
        timestamp,
    } = raw;
    match (body, header, id, literal, pointer, timestamp) {
        (true, None, false, None, None, false) => Ok(Part::Body),
        (false, Some(name), false, None, None, false) => Ok(Part::Header(fields.header(
            &path.field("header"),
            name,
            HeaderRole::Signed,
        )?)),
        (false, None, true, None, None, false) => Ok(Part::Id),
        (false, None, false, Some(literal), None, false) => {
            if literal.is_empty() {
                return Err(ConfigError::new(&path.field("literal"), "is empty"));
            }
            Ok(Part::Literal(literal.as_bytes().into()))
        }
        (false, None, false, None, Some(pointer), false) => Ok(Part::Pointer(
            fields.pointer(&path.field("pointer"), pointer)?,
        )),
        (false, None, false, None, None, true) => Ok(Part::Timestamp),
        _ => Err(ConfigError::new(
            path,
            "expected one of `literal`, `header`, `pointer`, `id`, `timestamp` and `body`",
        )),
    }
}

fn value(path: &Path, raw: &RawSignature) -> Result<SignatureAt, ConfigError> {
    let raw = &raw.value;
    let header = header_name(&path.field("header"), &raw.header)?;
    let separator = raw.separator.map(|separator| match separator {
        RawSeparator::Comma => b',',
        RawSeparator::Semicolon => b';',
        RawSeparator::Space => b' ',
    });
    let boxed = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    let form = match (raw.numbered, separator, &raw.key, &raw.prefix) {
        (false, None, None, _) => Form::Whole {
            prefix: boxed(&raw.prefix),
        },
        (false, Some(separator), None, _) => Form::Entries {
            separator,
            prefix: boxed(&raw.prefix),
        },
        (false, Some(separator), Some(key), None) if !key.is_empty() => Form::Fields {
            separator,
            key: key.as_str().into(),
        },
        (true, None, None, None) => Form::Numbered,
        _ => {
            return Err(ConfigError::new(
                path,
                "expected `prefix`, or `separator` and `prefix`, or `separator` and `key`, or \
                 `numbered`",
            ));
        }
    };
    let encoding = match raw.encoding {
        RawEncoding::Base64 => Encoding::Base64,
        RawEncoding::Hex => Encoding::Hex,
    };
    Ok(SignatureAt {
        header,
        form,
        encoding,
    })
}

fn timestamp(
    path: &Path,
    raw: &RawTimestamp,
    value: &SignatureAt,
    fields: &mut Fields,
) -> Result<TimestampAt, ConfigError> {
    let place = match (&raw.header, &raw.key, &raw.pointer) {
        (Some(name), None, None) => {
            TimestampPlace::Header(header_name(&path.field("header"), name)?)
        }
        (None, Some(key), None) => {
            if !matches!(value.form, Form::Fields { .. }) {
                let problem = "names a field, but the signature header is no list of fields";
                return Err(ConfigError::new(&path.field("key"), problem));
            }
            TimestampPlace::Field(key.as_str().into())
        }
        (None, None, Some(pointer)) => {
            TimestampPlace::Pointer(fields.pointer(&path.field("pointer"), pointer)?)
        }
        _ => {
            let problem = "expected one of `header`, `key` and `pointer`";
            return Err(ConfigError::new(path, problem));
        }
    };
    let unit = match raw.unit {
        RawUnit::Seconds => Unit::Seconds,
        RawUnit::Milliseconds => Unit::Milliseconds,
    };
    Ok(TimestampAt { place, unit })
}

fn id(path: &Path, raw: Option<&RawId>, fields: &mut Fields) -> Result<IdAt, ConfigError> {
    let Some(raw) = raw else {
        return Ok(IdAt::BodyDigest);
    };
    match (&raw.header, &raw.pointers) {
        (Some(name), None) => Ok(IdAt::Header(fields.header(
            &path.field("header"),
            name,
            HeaderRole::Id,
        )?)),
        (None, Some(pointers)) if !pointers.is_empty() => {
            let path = path.field("pointers");
            let start = fields.pointers.len();
            for (index, pointer) in pointers.iter().enumerate() {
                let path = path.index(index);
                if fields.pointer(&path, pointer)? != start + index {
                    return Err(ConfigError::new(&path, "is there twice"));
                }
            }
            Ok(IdAt::Pointers(start..fields.pointers.len()))
        }
        _ => Err(ConfigError::new(
            path,
            "expected `header` or `pointers`, one of the two",
        )),
    }
}
