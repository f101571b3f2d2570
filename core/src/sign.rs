//! Signs callbacks as the senders do: for the `callback-guard` program, and for tests that check
//! that what is signed is what verifies. The filter signs nothing.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::authenticate::{message_texts, text_at};
use crate::json::{self, Document, Scratch};
use crate::policy::Source;
use crate::scheme::keys::SigningKey;
use crate::scheme::token::TokenAt;
use crate::scheme::{
    Form, IdAt, MessageInput, Proof, SignaturePlace, SignatureRule, TimestampPlace, Unit, written,
};
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

/// A callback that its sender could have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Path and query.
    pub target: String,
    /// Headers, without the content type.
    pub headers: Headers,
    /// The body: as it was given, but for what the sender signs inside of it.
    pub body: Vec<u8>,
}

/// What a callback is made of.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'d> {
    /// Path and query, before anything is put into them.
    pub target: &'d str,
    /// Whether the body is sent as JSON.
    pub is_json: bool,
    /// The body.
    pub body: &'d [u8],
    /// The message id, for schemes that carry it in a header; where it is inside the body, the
    /// body's own is signed.
    pub id: &'d str,
}

/// The headers that make `body` a genuine callback of `source`, sent as JSON to the source's own
/// path, signed at `now`. For senders that put something into the URL or the body there is
/// [`callback`].
///
/// # Errors
///
/// As [`callback`].
pub fn sign(
    source: &Source,
    key: &SigningKey,
    body: &[u8],
    id: &str,
    now: UnixMillis,
) -> Result<Headers, Rejection> {
    let draft = Draft {
        target: source.route.path.text(),
        is_json: true,
        body,
        id,
    };
    callback(source, key, &draft, now).map(|callback| callback.headers)
}

/// A genuine callback of `source`, signed with `key` at `now`.
///
/// # Errors
///
/// The [`Rejection`] that the guard would make: a body without an id where the scheme signs one, an
/// id that holds a separator of the message.
pub fn callback(
    source: &Source,
    key: &SigningKey,
    draft: &Draft<'_>,
    now: UnixMillis,
) -> Result<Callback, Rejection> {
    let mut made = Callback {
        target: target(source, key, draft.target),
        headers: Headers::new(),
        body: draft.body.to_vec(),
    };
    match &source.scheme.proof {
        Proof::Token(rule) => put_token(&rule.at, source, key, &mut made),
        Proof::Signature(rule) => put_signature(rule, source, key, draft, now, &mut made)?,
    }
    Ok(made)
}

fn put_token(at: &TokenAt, source: &Source, key: &SigningKey, made: &mut Callback) {
    let text = || String::from_utf8_lossy(key.reveal()).into_owned();
    match at {
        TokenAt::Header(name) => made.headers.push((name.to_string(), text())),
        TokenAt::Basic => {
            let value = format!("Basic {}", STANDARD.encode(key.reveal()));
            made.headers.push(("authorization".to_owned(), value));
        }
        TokenAt::Pointer(slot) => put(source, *slot, &text(), &mut made.body),
        TokenAt::PathSegment { .. } | TokenAt::Query(_) => {}
    }
}

fn put_signature(
    rule: &SignatureRule,
    source: &Source,
    key: &SigningKey,
    draft: &Draft<'_>,
    now: UnixMillis,
    made: &mut Callback,
) -> Result<(), Rejection> {
    let unit = rule.timestamp.as_ref().map_or(Unit::Seconds, |at| at.unit);
    let timestamp = written(now, unit);
    if let Some(TimestampPlace::Pointer(slot)) = rule.timestamp.as_ref().map(|at| &at.place)
        && !rule.signs_body()
    {
        put(source, *slot, &timestamp, &mut made.body);
    }
    let mut captured: Vec<Option<Box<[u8]>>> = Vec::with_capacity(source.headers.len());
    for (index, header) in source.headers.iter().enumerate() {
        let is_id = source.scheme.id == IdAt::Header(index);
        let value = match &*header.name {
            ":path" => made.target.clone(),
            name if is_id || rule.holds(&crate::scheme::Part::Header(index)) => {
                made.headers.push((name.to_owned(), draft.id.to_owned()));
                draft.id.to_owned()
            }
            _ => {
                captured.push(None);
                continue;
            }
        };
        captured.push(Some(value.into_bytes().into()));
    }
    let body = made.body.clone();
    let mut scratch = Scratch::default();
    let document = json::scan(&body, &source.selector, &mut scratch).ok();
    let document = document.as_ref();
    let texts = message_texts(source, rule, document);
    let values: Vec<Option<&[u8]>> = texts.iter().map(Option::as_deref).collect();
    let id = signed_id(source, draft.id, document);
    let input = MessageInput {
        body: &body,
        is_json: draft.is_json,
        headers: &captured,
        id: id.as_deref(),
        timestamp: Some(timestamp.as_bytes()),
        values: &values,
    };
    let signature = rule
        .with_message(&input, |parts| key.sign(parts))?
        .map_err(|_| Rejection::because(Code::InternalError, "the key cannot sign"))?;
    let text = rule.value.encoding.encode(&signature);
    let at_header = match rule.timestamp.as_ref().map(|at| &at.place) {
        Some(TimestampPlace::Header(name)) => {
            made.headers.push((name.to_string(), timestamp.clone()));
            None
        }
        Some(TimestampPlace::Field(key)) => Some(key),
        Some(TimestampPlace::Pointer(_)) | None => None,
    };
    let value = match &rule.value.form {
        Form::Whole { prefix } | Form::Entries { prefix, .. } => format!("{prefix}{text}"),
        Form::Fields { separator, key, .. } => {
            let stamp = at_header.map_or(String::new(), |field| {
                format!("{field}={timestamp}{}", char::from(*separator))
            });
            format!("{stamp}{key}={text}")
        }
        Form::Numbered => text,
    };
    match &rule.value.place {
        SignaturePlace::Headers(names) => {
            let name = names.first().map_or("", |name| &**name);
            let number = if rule.value.form == Form::Numbered {
                "1"
            } else {
                ""
            };
            made.headers.push((format!("{name}{number}"), value));
        }
        SignaturePlace::Query(name) => {
            made.target = TokenAt::Query(name.clone()).put(&made.target, value.as_bytes());
        }
        SignaturePlace::Pointer(slot) => put(source, *slot, &value, &mut made.body),
    }
    Ok(())
}

/// The id that is signed: the header's, or the first in the body.
fn signed_id<'i>(
    source: &Source,
    given: &'i str,
    document: Option<&Document<'i, '_>>,
) -> Option<Cow<'i, [u8]>> {
    match &source.scheme.id {
        IdAt::Pointers { slots, .. } => slots.clone().find_map(|slot| text_at(document, slot)),
        _ => Some(Cow::Borrowed(given.as_bytes())),
    }
}

/// Sets the string at the pointer in `slot` of a JSON body; a body that is none stays as it is.
fn put(source: &Source, slot: usize, text: &str, body: &mut Vec<u8>) {
    let Some(pointer) = source.pointers.get(slot) else {
        return;
    };
    let Ok(mut root) = serde_json::from_slice::<serde_json::Value>(body) else {
        return;
    };
    let mut place = &mut root;
    for token in pointer.as_str().split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        if let serde_json::Value::Array(items) = place {
            let index: usize = name.parse().unwrap_or(usize::MAX);
            match items.get_mut(index) {
                Some(item) => place = item,
                None => return,
            }
            continue;
        }
        if !place.is_object() {
            *place = serde_json::Value::Object(serde_json::Map::new());
        }
        let Some(fields) = place.as_object_mut() else {
            return;
        };
        place = fields.entry(name).or_insert(serde_json::Value::Null);
    }
    *place = text.into();
    *body = root.to_string().into_bytes();
}
