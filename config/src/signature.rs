//! From the words of `sources[].signature` to a [`Scheme`], with everything refused that would not
//! protect.

use crate::error::{ConfigError, Path};
use crate::fields::{Fields, header_name};
use crate::message;
use crate::parameters::Parameters;
use crate::raw::signature::{
    RawEncoding, RawId, RawPadding, RawSeparator, RawSignature, RawTimestamp, RawToken, RawValue,
};
use crate::secrets::Given;
use callback_guard_core::policy::{HeaderRole, PathRule};
use callback_guard_core::scheme::token::{TokenAt, TokenRule};
use callback_guard_core::scheme::{
    Encoding, Form, IdAt, Part, Proof, Scheme, SignatureAt, SignaturePlace, SignatureRule,
    TimestampAt, TimestampPlace,
};

/// The most headers that may hold a signature.
const MAX_HEADERS: usize = 8;

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
        (None, None, false) if raw.basic && raw.pointer.is_none() => TokenAt::Basic,
        (None, None, false) if !raw.basic && raw.pointer.is_some() => {
            let pointer = raw.pointer.as_deref().unwrap_or_default();
            TokenAt::Pointer(fields.pointer(&path.field("pointer"), pointer)?)
        }
        _ if raw.basic || raw.pointer.is_some() => {
            let problem =
                "expected one of `header`, `query`, `path_segment`, `pointer` and `basic`";
            return Err(ConfigError::new(path, problem));
        }
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
            let problem =
                "expected one of `header`, `query`, `path_segment`, `pointer` and `basic`";
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
    route: &PathRule,
    parameters: &mut Parameters<'_>,
    fields: &mut Fields,
) -> Result<Scheme, ConfigError> {
    let value = value(&path.field("value"), &raw.value, fields)?;
    // First the id: its pointers are neighbours in the list of slots.
    let id = id(&path.field("id"), raw.id.as_ref(), fields)?;
    let timestamp_path = path.field("timestamp");
    let timestamp = match &raw.timestamp {
        Some(raw) => Some(timestamp(&timestamp_path, raw, &value, fields)?),
        None => None,
    };
    let unit = timestamp.as_ref().map(|at| at.unit);
    let path_of_message = path.field("message");
    let message = message::compile(&path_of_message, raw, unit, route, parameters, fields)?;
    let id = match id {
        IdAt::BodyDigest if message.iter().any(|piece| piece.part == Part::FormSorted) => {
            IdAt::MessageDigest
        }
        id => id,
    };
    message::check_safety(path, &message, &value, timestamp.as_ref(), &id)?;
    for piece in &message {
        if let Part::Pointer { slot, .. } = piece.part {
            fields.refuse_second(slot);
        }
    }
    Ok(Scheme {
        proof: Proof::Signature(SignatureRule {
            algorithm: raw.algorithm,
            keys: given.keys(raw.algorithm)?,
            message,
            value,
            timestamp,
        }),
        id,
    })
}

fn value(path: &Path, raw: &RawValue, fields: &mut Fields) -> Result<SignatureAt, ConfigError> {
    let place = match (&raw.header, &raw.query, &raw.pointer) {
        (Some(names), None, None) => {
            let names = names.as_slice();
            if names.is_empty() || names.len() > MAX_HEADERS {
                let problem = format!("there are {}, expected 1 to {MAX_HEADERS}", names.len());
                return Err(ConfigError::new(&path.field("header"), problem));
            }
            let mut headers = Vec::with_capacity(names.len());
            for name in names {
                headers.push(header_name(&path.field("header"), name)?);
            }
            SignaturePlace::Headers(headers)
        }
        (None, Some(name), None) => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_plain) {
                let problem = "expected a name of letters, digits, `-`, `.`, `_` and `~`";
                return Err(ConfigError::new(&path.field("query"), problem));
            }
            SignaturePlace::Query(name.as_str().into())
        }
        (None, None, Some(pointer)) => {
            SignaturePlace::Pointer(fields.pointer(&path.field("pointer"), pointer)?)
        }
        _ => {
            let problem = "expected one of `header`, `query` and `pointer`";
            return Err(ConfigError::new(path, problem));
        }
    };
    let separator = raw.separator.map(|separator| match separator {
        RawSeparator::Comma => b',',
        RawSeparator::Semicolon => b';',
        RawSeparator::Space => b' ',
    });
    let boxed = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    let continued = raw.continued;
    let form = match (raw.numbered, separator, &raw.key, &raw.prefix) {
        (false, None, None, _) if !continued => Form::Whole {
            prefix: boxed(&raw.prefix),
        },
        (false, Some(separator), None, _) => Form::Entries {
            separator,
            prefix: boxed(&raw.prefix),
            continued,
        },
        (false, Some(separator), Some(key), None) if !key.is_empty() => Form::Fields {
            separator,
            key: key.as_str().into(),
            continued,
        },
        (true, None, None, None)
            if !continued
                && matches!(&place, SignaturePlace::Headers(names) if names.len() == 1) =>
        {
            Form::Numbered
        }
        _ => {
            return Err(ConfigError::new(
                path,
                "expected `prefix`, or `separator` and `prefix`, or `separator` and `key` (each with \
                 `continued` or not), or `numbered` with one `header`",
            ));
        }
    };
    let encoding = match (raw.encoding, raw.padding) {
        (RawEncoding::Base64, None) => Encoding::Base64,
        (RawEncoding::Base64, Some(RawPadding::Optional)) => Encoding::Base64Unpadded,
        (RawEncoding::Base64Url, _) => Encoding::Base64Url,
        (RawEncoding::Hex, None) => Encoding::Hex,
        (RawEncoding::Hex, Some(_)) => {
            let problem = "is of base64, and the encoding is `hex`";
            return Err(ConfigError::new(&path.field("padding"), problem));
        }
    };
    Ok(SignatureAt {
        place,
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
    Ok(TimestampAt {
        place,
        unit: raw.unit,
    })
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
