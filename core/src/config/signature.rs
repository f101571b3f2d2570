//! From the words of `sources[].signature` to a [`Scheme`], with everything refused that would not
//! protect.

use std::collections::BTreeMap;

use super::fields::{Fields, header_name};
use super::raw::{
    RawEncoding, RawId, RawPart, RawSeparator, RawSignature, RawTimestamp, RawToken, RawUnit,
};
use super::secrets::Given;
use super::{ConfigError, Path};
use crate::policy::{HeaderRole, PathRule};
use crate::scheme::token::{TokenAt, TokenRule};
use crate::scheme::{
    Encoding, Form, IdAt, MAX_PARTS, Part, Piece, Proof, Scheme, SignatureAt, SignatureRule,
    TimestampAt, TimestampPlace, Unit,
};

/// Values that the configuration gives to a preset, each with whether it was used.
pub(super) struct Parameters<'p> {
    path: Path,
    values: Vec<(&'p str, &'p str, bool)>,
}

impl<'p> Parameters<'p> {
    pub(super) fn new(path: Path, values: &'p BTreeMap<String, String>) -> Self {
        let values = values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str(), false))
            .collect();
        Self { path, values }
    }

    fn take(&mut self, name: &str) -> Result<&'p str, ConfigError> {
        let path = self.path.field(name);
        match self.values.iter_mut().find(|(given, _, _)| *given == name) {
            None => Err(ConfigError::new(
                &path,
                "is missing, expected the text that the scheme asks for",
            )),
            Some((_, "", _)) => Err(ConfigError::new(
                &path,
                "is empty, expected the text that the scheme asks for",
            )),
            Some((_, value, is_used)) => {
                *is_used = true;
                Ok(value)
            }
        }
    }

    /// Refuses what nobody asked for: a value that its author believes to be part of the message.
    pub(super) fn check_all_used(&self) -> Result<(), ConfigError> {
        match self.values.iter().find(|(_, _, is_used)| !is_used) {
            None => Ok(()),
            Some((name, _, _)) => Err(ConfigError::new(
                &self.path.field(name),
                "is no parameter of this scheme",
            )),
        }
    }
}

/// Compiles the rule of a shared token; `sent` says where the id is if `raw` does not.
pub(super) fn compile_token(
    path: &Path,
    raw: &RawToken,
    sent: Option<&RawId>,
    given: &Given<'_>,
    route: &PathRule,
    fields: &mut Fields,
) -> Result<Scheme, ConfigError> {
    let at = match (&raw.header, &raw.query, raw.path_segment) {
        (Some(name), None, false) => TokenAt::Header(header_name(&path.field("header"), name)?),
        (None, Some(name), false) => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_plain) {
                let problem = "expected a name of letters, digits, `-`, `.`, `_` and `~`";
                return Err(ConfigError::new(&path.field("query"), problem));
            }
            TokenAt::Query(name.as_str().into())
        }
        (None, None, true) => match route {
            PathRule::Prefix(prefix) => TokenAt::PathSegment {
                below: prefix.len(),
            },
            PathRule::Exact(_) => {
                let problem = "is the last segment below `match.path_prefix`, and there is none";
                return Err(ConfigError::new(&path.field("path_segment"), problem));
            }
        },
        _ => {
            let problem = "expected one of `header`, `query` and `path_segment`";
            return Err(ConfigError::new(path, problem));
        }
    };
    Ok(Scheme {
        proof: Proof::Token(TokenRule {
            at,
            tokens: given.tokens()?,
        }),
        id: id(&path.field("id"), raw.id.as_ref().or(sent), fields)?,
    })
}

/// Compiles and checks a scheme.
pub(super) fn compile(
    path: &Path,
    raw: &RawSignature,
    given: &Given<'_>,
    parameters: &mut Parameters<'_>,
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
    let mut parts = Vec::with_capacity(raw.message.len());
    for (index, part) in raw.message.iter().enumerate() {
        let path = message_path.index(index);
        parts.push(self::part(&path, part, parameters, fields)?);
    }
    check_safety(path, &parts, timestamp.as_ref(), &id)?;
    Ok(Scheme {
        proof: Proof::Signature(SignatureRule {
            algorithm: raw.algorithm,
            keys: given.keys(raw.algorithm)?,
            message: pieces(&message_path, parts)?,
            value,
            timestamp,
        }),
        id,
    })
}

/// Refuses what authenticates nothing.
fn check_safety(
    path: &Path,
    parts: &[Part],
    timestamp: Option<&TimestampAt>,
    id: &IdAt,
) -> Result<(), ConfigError> {
    let has = |part: &Part| parts.contains(part);
    let message = path.field("message");
    let fail = |path: &Path, problem: &str| Err(ConfigError::new(path, problem));
    if !has(&Part::Body) && !has(&Part::Id) {
        return fail(
            &message,
            "covers neither the body nor the id, so it authenticates nothing",
        );
    }
    let points = parts.iter().any(|part| matches!(part, Part::Pointer(_)))
        || (has(&Part::Id) && matches!(id, IdAt::Pointers { .. }));
    if has(&Part::Body) && points {
        return fail(
            &message,
            "holds the body and a value from inside it; a signed body is checked before it is \
             parsed, and covers the value already",
        );
    }
    if has(&Part::Id) && *id == IdAt::BodyDigest {
        return fail(&message, "holds the id, but `id` says no place for it");
    }
    if !has(&Part::Body)
        && matches!(
            id,
            IdAt::Pointers {
                or_body_digest: true,
                ..
            }
        )
    {
        return fail(
            &path.field("id").field("or_body_digest"),
            "needs a signed body, or whoever changes the body makes a new id",
        );
    }
    match timestamp {
        None if has(&Part::Timestamp) => fail(
            &message,
            "holds the timestamp, but `timestamp` says no place for it",
        ),
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
            Ok(())
        }
        Some(_) if !has(&Part::Timestamp) => fail(
            &path.field("timestamp"),
            "is not part of the message, so it proves no freshness",
        ),
        None if !has(&Part::Body) => fail(
            path,
            "has neither a timestamp nor the body in its message, so one captured signature \
             would be good for ever",
        ),
        _ => Ok(()),
    }
}

/// Gives every part the separator that it must not hold, so that a message can be cut in one way
/// only, or refuses the message.
///
/// One part may hold anything: the body, or else the last of free length. Seen from there outwards,
/// every other part of free length must end at a literal, and must not hold its nearest byte: then
/// the first such byte from the outside is the cut.
fn pieces(path: &Path, parts: Vec<Part>) -> Result<Vec<Piece>, ConfigError> {
    let is_free = |part: &Part| !matches!(part, Part::Literal(_) | Part::Timestamp);
    let anything = parts
        .iter()
        .position(|part| *part == Part::Body)
        .or_else(|| parts.iter().rposition(is_free));
    let mut pieces = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let separator = match anything {
            Some(anything) if is_free(part) && index != anything => {
                let neighbour = if index < anything {
                    parts.get(index + 1).and_then(|part| match part {
                        Part::Literal(bytes) => bytes.first(),
                        _ => None,
                    })
                } else {
                    index
                        .checked_sub(1)
                        .and_then(|before| parts.get(before))
                        .and_then(|part| match part {
                            Part::Literal(bytes) => bytes.last(),
                            _ => None,
                        })
                };
                let Some(byte) = neighbour else {
                    return Err(ConfigError::new(
                        path,
                        "has two parts of free length with no literal between that ends one, so it could be \
                         cut in two ways",
                    ));
                };
                Some(*byte)
            }
            _ => None,
        };
        pieces.push(Piece {
            part: part.clone(),
            separator,
        });
    }
    Ok(pieces)
}

fn part(
    path: &Path,
    raw: &RawPart,
    parameters: &mut Parameters<'_>,
    fields: &mut Fields,
) -> Result<Part, ConfigError> {
    let RawPart {
        body,
        header,
        id,
        literal,
        parameter,
        pointer,
        timestamp,
    } = raw;
    let literal = match (literal, parameter) {
        (None, Some(name)) => Some(parameters.take(name)?),
        (Some(_), Some(_)) => {
            let problem = "expected `literal` or `parameter`, one of the two";
            return Err(ConfigError::new(path, problem));
        }
        (literal, None) => literal.as_deref(),
    };
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
            "expected one of `literal`, `parameter`, `header`, `pointer`, `id`, `timestamp` and `body`",
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
        (Some(name), None) if !raw.or_body_digest => Ok(IdAt::Header(fields.header(
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
            Ok(IdAt::Pointers {
                slots: start..fields.pointers.len(),
                or_body_digest: raw.or_body_digest,
            })
        }
        _ => Err(ConfigError::new(
            path,
            "expected `header` or `pointers`, one of the two; `or_body_digest` goes with `pointers`",
        )),
    }
}
