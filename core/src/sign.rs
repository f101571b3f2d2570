//! Signs callbacks as the senders do: for the `callback-guard` program, and for tests that check
//! that what is signed is what verifies. The filter signs nothing.

use crate::json::{self, Kind, Scratch};
use crate::policy::Source;
use crate::scheme::keys::SigningKey;
use crate::scheme::token::TokenAt;
use crate::scheme::{Form, IdAt, Material, Part, Proof, TimestampPlace, Unit};
use crate::time::UnixMillis;
use crate::verdict::{Code, Rejection};

/// Header names and values, in the order in which they are written.
pub type Headers = Vec<(String, String)>;

/// `target` (path and query) as the sender of `source` calls it: with the token in it, where the
/// source has a token that belongs there.
#[must_use]
pub fn target(source: &Source, key: &SigningKey, target: &str) -> String {
    match &source.scheme.proof {
        Proof::Signature(_) => target.to_owned(),
        Proof::Token(rule) => rule.at.put(target, key.reveal()),
    }
}

/// The headers that make `body` a genuine callback of `source`, signed at `now` under `secret`.
///
/// `id` is for schemes that carry the message id in a header; where it is inside the body, the
/// body's own is signed. A token that belongs into the path or the query is put there by
/// [`target`].
///
/// # Errors
///
/// The [`Rejection`] that the guard would make: a body without an id where the scheme signs one, an
/// id that holds a separator of the message.
pub fn sign(
    source: &Source,
    key: &SigningKey,
    body: &[u8],
    id: &str,
    now: UnixMillis,
) -> Result<Headers, Rejection> {
    let scheme = &source.scheme;
    let mut headers = Headers::new();
    let mut captured = Vec::with_capacity(source.headers.len());
    for (index, header) in source.headers.iter().enumerate() {
        let is_id = scheme.id == IdAt::Header(index);
        captured.push(is_id.then(|| id.as_bytes().into()));
        if is_id {
            headers.push((header.name.to_string(), id.to_owned()));
        }
    }
    let rule = match &scheme.proof {
        Proof::Signature(rule) => rule,
        Proof::Token(token) => {
            if let TokenAt::Header(name) = &token.at {
                let token = String::from_utf8_lossy(key.reveal()).into_owned();
                headers.push((name.to_string(), token));
            }
            return Ok(headers);
        }
    };
    let unit = rule.timestamp.as_ref().map_or(Unit::Seconds, |at| at.unit);
    let timestamp = match unit {
        Unit::Seconds => now.as_seconds().to_string(),
        Unit::Milliseconds => now.as_millis().to_string(),
    };
    let mut scratch = Scratch::default();
    let mut values = vec![None; source.pointers.len()];
    let mut message_id = Some(id.as_bytes().to_vec());
    let reads_body = rule
        .message
        .iter()
        .any(|piece| matches!(piece.part, Part::Pointer(_) | Part::Id));
    if reads_body && let Ok(document) = json::scan(body, &source.selector, &mut scratch) {
        for (slot, value) in values.iter_mut().enumerate() {
            *value = document
                .get(slot)
                .map(|value| (value.kind(), value.bytes().into_owned()));
        }
        if let IdAt::Pointers { slots, .. } = &scheme.id {
            let present = values
                .get(slots.clone())
                .unwrap_or_default()
                .iter()
                .flatten();
            message_id = present
                .filter(|(kind, _)| *kind != Kind::Null)
                .map(|(_, bytes)| bytes.clone())
                .next();
        }
    }
    let values: Vec<Option<&[u8]>> = values
        .iter()
        .map(|value| value.as_ref().map(|(_, bytes)| bytes.as_slice()))
        .collect();
    let material = Material {
        body: Some(body),
        headers: &captured,
        id: message_id.as_deref(),
        timestamp: Some(timestamp.as_bytes()),
        values: &values,
    };
    let (parts, length) = rule.message(&material)?;
    let signature = key
        .sign(parts.get(..length).unwrap_or_default())
        .map_err(|_| Rejection::because(Code::InternalError, "the key cannot sign"))?;
    let text = rule.value.encoding.encode(&signature);
    let at_header = match rule.timestamp.as_ref().map(|at| &at.place) {
        Some(TimestampPlace::Header(name)) => {
            headers.push((name.to_string(), timestamp.clone()));
            None
        }
        Some(TimestampPlace::Field(key)) => Some(key),
        Some(TimestampPlace::Pointer(_)) | None => None,
    };
    let name = &rule.value.header;
    headers.push(match &rule.value.form {
        Form::Whole { prefix } | Form::Entries { prefix, .. } => {
            (name.to_string(), format!("{prefix}{text}"))
        }
        Form::Fields { separator, key } => {
            let stamp = at_header.map_or(String::new(), |field| {
                format!("{field}={timestamp}{}", char::from(*separator))
            });
            (name.to_string(), format!("{stamp}{key}={text}"))
        }
        Form::Numbered => (format!("{name}1"), text),
    });
    Ok(headers)
}
