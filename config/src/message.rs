//! The signed message as it is configured: its parts, with everything refused that would not protect,
//! and what shows where each part ends.

use crate::error::{ConfigError, Path};
use crate::fields::Fields;
use crate::parameters::Parameters;
use crate::raw::signature::{RawDigest, RawEncoding, RawForm, RawPart, RawSignature};
use callback_guard_core::policy::{HeaderRole, PathRule};
use callback_guard_core::scheme::{
    Bound, DigestText, IdAt, MAX_PARTS, Part, Piece, Shape, SignatureAt, SignaturePlace,
    TimestampAt, TimestampPlace, Unit,
};

/// A part with the form of its value.
struct Formed {
    part: Part,
    shape: Shape,
}

/// Compiles the parts of a message.
pub(super) fn compile(
    path: &Path,
    raw: &RawSignature,
    unit: Option<Unit>,
    route: &PathRule,
    parameters: &mut Parameters<'_>,
    fields: &mut Fields,
) -> Result<Vec<Piece>, ConfigError> {
    let mut parts = Vec::with_capacity(raw.message.len());
    for (index, part) in raw.message.iter().enumerate() {
        let path = path.index(index);
        parts.extend(compile_part(&path, part, unit, parameters, fields)?);
    }
    if !(1..=MAX_PARTS).contains(&parts.len()) {
        let problem = format!("there are {} parts, expected 1 to {MAX_PARTS}", parts.len());
        return Err(ConfigError::new(path, problem));
    }
    bind(path, parts, route)
}

fn compile_part(
    path: &Path,
    raw: &RawPart,
    unit: Option<Unit>,
    parameters: &mut Parameters<'_>,
    fields: &mut Fields,
) -> Result<Vec<Formed>, ConfigError> {
    let given = [
        raw.body,
        raw.body_digest.is_some(),
        raw.form_sorted,
        raw.header.is_some(),
        raw.id,
        raw.literal.is_some(),
        raw.method,
        raw.parameter.is_some(),
        raw.pointer.is_some(),
        raw.query.is_some(),
        raw.timestamp,
        raw.url.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(ConfigError::new(
            path,
            "expected one of `literal`, `parameter`, `header`, `pointer`, `id`, `timestamp`, `method`, \
             `url`, `query`, `body_digest`, `form_sorted` and `body`",
        ));
    }
    for (given, with, name) in [
        (raw.form.is_some(), raw.header.is_some(), "form"),
        (raw.optional, raw.pointer.is_some(), "optional"),
        (raw.target, raw.parameter.is_some(), "target"),
        (
            raw.encoding.is_some(),
            raw.body_digest.is_some(),
            "encoding",
        ),
    ] {
        if given && !with {
            let problem = "does not belong to this part";
            return Err(ConfigError::new(&path.field(name), problem));
        }
    }
    let free = |part| Formed {
        part,
        shape: Shape::Free,
    };
    let literal = |text: &str| Formed {
        part: Part::Literal(text.as_bytes().into()),
        shape: Shape::Literal,
    };
    let one = if raw.body {
        free(Part::Body)
    } else if let Some(RawDigest::Sha256) = raw.body_digest {
        let text = match raw.encoding {
            None | Some(RawEncoding::Hex) => DigestText::Hex,
            Some(RawEncoding::Base64) => DigestText::Base64,
            Some(RawEncoding::Base64Url) => {
                let problem = "expected `hex` or `base64`";
                return Err(ConfigError::new(&path.field("encoding"), problem));
            }
        };
        Formed {
            part: Part::BodyDigest(text),
            shape: Shape::Length(text.length()),
        }
    } else if raw.form_sorted {
        free(Part::FormSorted)
    } else if let Some(name) = &raw.header {
        let header = fields.header(&path.field("header"), name, HeaderRole::Signed)?;
        Formed {
            part: Part::Header(header),
            shape: match raw.form {
                Some(RawForm::Uuid) => Shape::Uuid,
                None => Shape::Free,
            },
        }
    } else if raw.id {
        free(Part::Id)
    } else if raw.method {
        // A source takes no other.
        literal("POST")
    } else if let Some(pointer) = &raw.pointer {
        free(Part::Pointer {
            slot: fields.pointer(&path.field("pointer"), pointer)?,
            optional: raw.optional,
        })
    } else if let Some(name) = &raw.query {
        if name.is_empty() {
            return Err(ConfigError::new(&path.field("query"), "is empty"));
        }
        free(Part::Query {
            target: fields.target(),
            name: name.as_str().into(),
        })
    } else if raw.timestamp {
        Formed {
            part: Part::Timestamp,
            shape: match unit {
                Some(Unit::Milliseconds) => Shape::Digits(13),
                Some(Unit::Rfc3339) => Shape::Rfc3339,
                Some(Unit::Seconds) | None => Shape::Digits(10),
            },
        }
    } else {
        let (path, text, is_url) = match (&raw.literal, &raw.parameter, &raw.url) {
            (Some(text), _, _) => (path.field("literal"), text.as_str(), false),
            (_, Some(name), _) => (path.clone(), parameters.take(name)?, raw.target),
            (_, _, url) => (path.field("url"), url.as_deref().unwrap_or_default(), true),
        };
        if text.is_empty() {
            return Err(ConfigError::new(&path, "is empty"));
        }
        if !is_url {
            return Ok(vec![literal(text)]);
        }
        return url(&path, text, fields).map(Vec::from);
    };
    Ok(vec![one])
}

/// The public base of a URL, then path and query. What is behind a `?` is the query that the sender
/// is configured to call.
fn url(path: &Path, text: &str, fields: &mut Fields) -> Result<[Formed; 2], ConfigError> {
    let (base, query) = match text.split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (text, None),
    };
    let host = base
        .strip_prefix("https://")
        .or_else(|| base.strip_prefix("http://"))
        .unwrap_or_default();
    let is_byte = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if host.is_empty() || host.starts_with('/') || base.ends_with('/') || !text.bytes().all(is_byte)
    {
        return Err(ConfigError::new(
            path,
            "expected the public URL up to the path that the proxy gets, without a `/` at its end, \
             such as `https://hooks.example.com`",
        ));
    }
    Ok([
        Formed {
            part: Part::Literal(base.as_bytes().into()),
            shape: Shape::Literal,
        },
        Formed {
            part: Part::Target {
                target: fields.target(),
                // For the moment the query alone: what is before it follows in `bind`.
                fixed: query.map(|query| query.as_bytes().into()),
                with_body_hash: false,
            },
            shape: Shape::Free,
        },
    ])
}

/// Gives every part of free length what shows where it ends, so that a message can be cut in one way
/// only, or refuses the message.
///
/// One part may hold anything: the body or the form, or else the last of free length. Seen from there
/// outwards, every other part of free length must be next to parts of a fixed form that begin with a
/// literal (or a time of RFC 3339). A URL that is not is fixed itself: to the source's path and the
/// configured query.
fn bind(path: &Path, parts: Vec<Formed>, route: &PathRule) -> Result<Vec<Piece>, ConfigError> {
    let is_free = |formed: &Formed| formed.shape == Shape::Free;
    let has_form = parts.iter().any(|formed| formed.part == Part::FormSorted);
    let whole = |formed: &Formed| matches!(formed.part, Part::Body | Part::FormSorted);
    if parts.iter().filter(|formed| whole(formed)).count() > 1 {
        return Err(ConfigError::new(path, "holds the body twice"));
    }
    let anything = parts
        .iter()
        .position(whole)
        .or_else(|| parts.iter().rposition(is_free));
    let mut pieces: Vec<Piece> = Vec::with_capacity(parts.len());
    for (index, formed) in parts.iter().enumerate() {
        let mut piece = Piece {
            part: formed.part.clone(),
            shape: formed.shape,
            bound: None,
        };
        let fixed_after = parts
            .iter()
            .skip(index.saturating_add(1))
            .take_while(|formed| !is_free(formed))
            .count();
        let bound = match anything {
            Some(anything) if is_free(formed) && index < anything => {
                let next = parts.get(index.saturating_add(1));
                next.filter(|next| matches!(next.shape, Shape::Literal | Shape::Rfc3339))
                    .map(|_| Bound::After(fixed_after))
            }
            Some(anything) if is_free(formed) && index > anything => index
                .checked_sub(1)
                .and_then(|before| parts.get(before))
                .filter(|before| before.shape == Shape::Literal)
                .map(|_| Bound::Before),
            _ => {
                fix_query(path, &mut piece, false, route, has_form)?;
                pieces.push(piece);
                continue;
            }
        };
        piece.bound = bound;
        if bound.is_none() && !matches!(piece.part, Part::Target { .. }) {
            return Err(ConfigError::new(
                path,
                "has two parts of free length with no literal between that ends one, so it could be \
                 cut in two ways",
            ));
        }
        fix_query(path, &mut piece, bound.is_none(), route, has_form)?;
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Makes a URL one that is fixed, where nothing shows its end or the configuration has its query.
fn fix_query(
    path: &Path,
    piece: &mut Piece,
    is_unbound: bool,
    route: &PathRule,
    has_form: bool,
) -> Result<(), ConfigError> {
    let Part::Target {
        fixed,
        with_body_hash,
        ..
    } = &mut piece.part
    else {
        return Ok(());
    };
    if !is_unbound && fixed.is_none() {
        return Ok(());
    }
    let PathRule::Exact(exact) = route else {
        return Err(ConfigError::new(
            path,
            "holds a URL whose end nothing shows, so the path must be exact, expected `match.path`",
        ));
    };
    let mut target = exact.as_bytes().to_vec();
    if let Some(query) = fixed.take().filter(|query| !query.is_empty()) {
        target.push(b'?');
        target.extend_from_slice(&query);
    }
    *fixed = Some(target.into());
    *with_body_hash = has_form;
    Ok(())
}

/// Refuses what authenticates nothing.
pub(super) fn check_safety(
    path: &Path,
    pieces: &[Piece],
    value: &SignatureAt,
    timestamp: Option<&TimestampAt>,
    id: &IdAt,
) -> Result<(), ConfigError> {
    let has = |part: &Part| pieces.iter().any(|piece| piece.part == *part);
    let signs_body = pieces.iter().any(|piece| piece.part.covers_body());
    let pointers = || {
        pieces.iter().filter_map(|piece| match piece.part {
            Part::Pointer { slot, .. } => Some(slot),
            _ => None,
        })
    };
    let message = path.field("message");
    let fail = |path: &Path, problem: &str| Err(ConfigError::new(path, problem));
    if !signs_body && !has(&Part::Id) && pointers().next().is_none() {
        return fail(
            &message,
            "covers neither the body nor the id, so it authenticates nothing",
        );
    }
    let points =
        pointers().next().is_some() || (has(&Part::Id) && matches!(id, IdAt::Pointers { .. }));
    if signs_body && points {
        return fail(
            &message,
            "holds the body and a value from inside it; a signed body is checked before it is \
             parsed, and covers the value already",
        );
    }
    let in_body = matches!(value.place, SignaturePlace::Pointer(_));
    if signs_body && in_body {
        return fail(
            &path.field("value"),
            "is inside the body, which is signed: no body holds its own signature",
        );
    }
    if has(&Part::Id) && matches!(id, IdAt::BodyDigest | IdAt::MessageDigest) {
        return fail(&message, "holds the id, but `id` says no place for it");
    }
    match id {
        IdAt::Header(index) if !has(&Part::Id) && !has(&Part::Header(*index)) => {
            return fail(
                &path.field("id").field("header"),
                "is no part of the message, so whoever replays a callback could give it any id",
            );
        }
        IdAt::Pointers {
            or_body_digest: true,
            ..
        } if !signs_body => {
            return fail(
                &path.field("id").field("or_body_digest"),
                "needs a signed body, or whoever changes the body makes a new id",
            );
        }
        IdAt::Pointers { slots, .. } if !signs_body && !has(&Part::Id) => {
            let mut slots = slots.clone();
            if slots.any(|slot| !pointers().any(|signed| signed == slot)) {
                return fail(
                    &path.field("id").field("pointers"),
                    "is no part of the message, and the body is not signed, so whoever replays a \
                     callback could give it any id",
                );
            }
        }
        _ => {}
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
            if has(&Part::Timestamp) && signs_body {
                return fail(&message, "holds a timestamp that is inside the body");
            }
            if !has(&Part::Timestamp) && !signs_body {
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
        // A sender that puts its signature into the body signs some fields, and no time.
        None if !signs_body && !in_body => fail(
            path,
            "has neither a timestamp nor the body in its message, so one captured signature \
             would be good for ever",
        ),
        _ => Ok(()),
    }
}
