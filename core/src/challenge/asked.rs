//! What a request says, as far as challenges read it: fields of its head, and values of its body.

use std::borrow::Cow;

use crate::json::Document;
use crate::request::{Occurrence, RequestHead};
use crate::verdict::{Code, Rejection};

/// The longest value that is echoed, in bytes.
pub const MAX_ECHOED_BYTES: usize = 512;

/// Longer values are of no use: nothing longer is echoed, or can be configured. One byte more is
/// kept, so that a long value is not taken for its beginning.
const MAX_KEPT_BYTES: usize = MAX_ECHOED_BYTES + 1;

/// A part of the head that rules read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldAt {
    /// This header; its name in lower case.
    Header(Box<str>),
    /// This parameter of the query, decoded as forms are.
    Query(Box<str>),
}

/// A value of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueAt {
    /// Of the head, by its place in [`Challenges::fields`](super::Challenges::fields).
    Field(usize),
    /// At a JSON pointer, by its slot.
    Pointer(usize),
}

/// The fields of a head that the challenges of its source read.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'h> {
    method: Cow<'h, [u8]>,
    fields: Vec<Field<'h>>,
}

/// A field, if it is there.
#[derive(Clone)]
pub(crate) enum Field<'h> {
    Missing,
    Once(Cow<'h, [u8]>),
    Several,
}

/// Redacted: a field can be a token.
impl core::fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Field::Missing => "Missing",
            Field::Once(_) => "Once([redacted])",
            Field::Several => "Several",
        })
    }
}

impl<'h> Asked<'h> {
    pub(super) fn new(fields: &[FieldAt], head: &RequestHead<'h>) -> Self {
        let fields = fields.iter().map(|field| match field {
            FieldAt::Header(name) => match head.occurrence(name.as_bytes()) {
                Occurrence::Missing => Field::Missing,
                Occurrence::Once(value) => Field::Once(Cow::Borrowed(value)),
                Occurrence::Several => Field::Several,
            },
            FieldAt::Query(name) => parameter(head.query().unwrap_or_default(), name),
        });
        Self {
            method: Cow::Borrowed(head.method()),
            fields: fields.collect(),
        }
    }

    /// A copy that outlives the head.
    pub(crate) fn into_owned(self) -> Asked<'static> {
        let fields = self.fields.into_iter().map(|field| match field {
            Field::Missing => Field::Missing,
            Field::Once(value) => {
                let kept = value.get(..MAX_KEPT_BYTES).unwrap_or(&value);
                Field::Once(Cow::Owned(kept.to_vec()))
            }
            Field::Several => Field::Several,
        });
        Asked {
            method: Cow::Owned(self.method.into_owned()),
            fields: fields.collect(),
        }
    }

    pub(super) fn method(&self) -> &[u8] {
        &self.method
    }

    pub(super) fn field(&self, index: usize) -> &Field<'h> {
        self.fields.get(index).unwrap_or(&Field::Missing)
    }
}

/// The values of a request, as far as they are known.
pub(super) struct Values<'v> {
    pub(super) asked: &'v Asked<'v>,
    pub(super) document: Option<&'v Document<'v, 'v>>,
}

/// The refusal of a challenge one of whose values could be read in two ways.
pub(super) fn twice() -> Rejection {
    Rejection::because(
        Code::ChallengeMalformed,
        "a query parameter or a header of the challenge is there twice",
    )
}

/// The parameter `name`, however it is spelled.
///
/// Source: the URL standard, `application/x-www-form-urlencoded` parsing: a `+` is a space; an escape
/// that is none stays as it is. What is not UTF-8 becomes U+FFFD: neither may be echoed.
fn parameter<'q>(query: &'q [u8], name: &str) -> Field<'q> {
    let mut values = form_urlencoded::parse(query).filter(|(given, _)| given == name);
    match (values.next(), values.next()) {
        (None, _) => Field::Missing,
        (Some((_, Cow::Borrowed(value))), None) => Field::Once(Cow::Borrowed(value.as_bytes())),
        (Some((_, Cow::Owned(value))), None) => Field::Once(Cow::Owned(value.into_bytes())),
        (Some(_), Some(_)) => Field::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn found(query: &str, expected: Option<&str>) {
        let value = match parameter(query.as_bytes(), "hub.challenge") {
            Field::Missing => None,
            Field::Once(value) => Some(String::from_utf8(value.into_owned()).unwrap()),
            Field::Several => Some("(several)".to_owned()),
        };
        assert_eq!(value.as_deref(), expected, "{query}");
    }

    #[test]
    fn a_parameter_is_found_in_every_spelling_that_a_form_has() {
        found("", None);
        found("challenge=1", None);
        found("Hub.challenge=1", None);
        found("hub.challenge", Some(""));
        found("hub.challenge=", Some(""));
        found("a=b&hub.challenge=1", Some("1"));
        found("hub%2Echallenge=1", Some("1"));
        found("hub.challenge=a+b%20c%2B", Some("a b c+"));
        found("hub.challenge=1=2", Some("1=2"));
        found("hub.challenge=%zz%4", Some("%zz%4"));
        found("hub.challenge=%ff", Some("\u{fffd}"));
        found("hub.challenge=%00", Some("\0"));
        found("hub.challenge=1&hub.challenge=1", Some("(several)"));
        found("hub.challenge=1&hub%2echallenge=2", Some("(several)"));
    }

    #[test]
    fn a_value_that_is_too_long_is_not_kept_as_its_beginning() {
        let long = "a".repeat(2 * MAX_KEPT_BYTES);
        let pairs: &[(&[u8], &[u8])] = &[(b"x", long.as_bytes())];
        let asked = Asked::new(&[FieldAt::Header("x".into())], &RequestHead::new(pairs));
        let kept = match asked.into_owned().field(0) {
            Field::Once(value) => value.len(),
            _ => 0,
        };
        assert_eq!(kept, MAX_ECHOED_BYTES + 1);
    }
}
