//! Forms and queries: `name=value` pairs, percent-encoded.
//!
//! Source: WHATWG URL, 5.1 (application/x-www-form-urlencoded parsing).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::request::Occurrence;

/// How often a parameter came, and its value if that was once.
pub(super) enum Value<'q> {
    Missing,
    Once(Cow<'q, [u8]>),
    Several,
    Malformed,
}

/// How often the parameter `name` is there, and its text as it came.
pub(super) fn occurrence<'q>(query: &'q [u8], name: &str) -> Occurrence<'q> {
    let is_named = |given: &[u8]| decode(given).is_some_and(|given| *given == *name.as_bytes());
    let mut values = pairs(query).filter(|(given, _)| is_named(given));
    match (values.next(), values.next()) {
        (None, _) => Occurrence::Missing,
        (Some((_, value)), None) => Occurrence::Once(value),
        (Some(_), Some(_)) => Occurrence::Several,
    }
}

/// The query of a target; empty where there is none.
pub(super) fn query(target: &[u8]) -> &[u8] {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let _path = parts.next();
    parts.next().unwrap_or_default()
}

/// The parameter `name` of a query, decoded.
pub(super) fn value<'q>(query: &'q [u8], name: &str) -> Value<'q> {
    match occurrence(query, name) {
        Occurrence::Missing => Value::Missing,
        Occurrence::Several => Value::Several,
        Occurrence::Once(text) => decode(text).map_or(Value::Malformed, Value::Once),
    }
}

/// The fields of a form, names sorted, each with its values, sorted and each once. `None` if the body
/// is not a form, or begins in a way that could belong to the URL before it.
pub(super) fn sorted(body: &[u8]) -> Option<Vec<u8>> {
    let mut fields: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (name, value) in pairs(body) {
        let (name, value) = (decode(name)?.into_owned(), decode(value)?.into_owned());
        if name.is_empty() || name.starts_with(b"?") || name.starts_with(b"&") {
            return None;
        }
        fields.entry(name).or_default().insert(value);
    }
    let mut text = Vec::with_capacity(body.len());
    for (name, values) in &fields {
        for value in values {
            text.extend_from_slice(name);
            text.extend_from_slice(value);
        }
    }
    Some(text)
}

fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            (
                parts.next().unwrap_or_default(),
                parts.next().unwrap_or_default(),
            )
        })
}

/// `None` if an escape is broken.
fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|byte| b"%+".contains(byte)) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits = [*rest.next()?, *rest.next()?];
                let mut one = [0];
                hex::decode_to_slice(digits, &mut one).ok()?;
                decoded.extend_from_slice(&one);
            }
            other => decoded.push(*other),
        }
    }
    Some(Cow::Owned(decoded))
}
