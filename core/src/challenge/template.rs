//! What the answer to a challenge is made of: fixed text, values of the request, and MACs of such values.

use std::borrow::Cow;

use super::asked::{Field, MAX_ECHOED_BYTES, ValueAt, Values, twice};
use crate::json::Kind;
use crate::reply::ChallengeReply;
use crate::scheme::{Encoding, Scheme};
use crate::verdict::{Code, Rejection};

/// What an echoed value may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Letters, digits and `._~+/=-`: they mean nothing in JSON strings, headers, HTML and logs.
    Strict,
    /// Also `:` and space, which Microsoft Graph's validation token has.
    Text,
}

impl Alphabet {
    /// Whether values may hold `byte`.
    #[must_use]
    pub const fn has(self, byte: u8) -> bool {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => true,
            b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-' => true,
            b':' | b' ' => matches!(self, Alphabet::Text),
            _ => false,
        }
    }
}

/// What an answer is made of.
#[derive(Clone, Debug)]
pub struct Template {
    /// The HTTP status: one of 200 to 299.
    pub status: u16,
    /// `text/plain` or a JSON media type.
    pub content_type: Box<str>,
    /// Names in lower case, and what their values are made of.
    pub headers: Vec<(Box<str>, Vec<Part>)>,
    /// What the body is made of.
    pub body: Vec<Part>,
    /// What values may be made of.
    pub alphabet: Alphabet,
}

/// One part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// This text.
    Literal(Box<str>),
    /// A value of the request.
    Value(ValueAt),
    /// The MAC of a value of the request, with the source's algorithm, under its first secret.
    Mac {
        /// The value, always of the strict alphabet.
        of: ValueAt,
        /// How the MAC is written.
        encoding: Encoding,
    },
}

impl Template {
    pub(super) fn fill(
        &self,
        rule: usize,
        values: &Values<'_>,
        scheme: &Scheme,
    ) -> Result<ChallengeReply, Rejection> {
        let text = |parts: &[Part]| {
            let mut text = String::new();
            for part in parts {
                match part {
                    Part::Literal(literal) => text.push_str(literal),
                    Part::Value(at) => text.push_str(&values.echo(*at, self.alphabet)?),
                    Part::Mac { of, encoding } => {
                        let value = values.echo(*of, Alphabet::Strict)?;
                        let mac = scheme.mac(&[value.as_bytes()]);
                        let mac = mac.ok_or(Rejection::new(Code::InternalError))?;
                        text.push_str(&encoding.encode(&mac));
                    }
                }
            }
            Ok(text)
        };
        let body = text(&self.body)?;
        let mut headers = vec![
            (Cow::Borrowed("content-type"), self.content_type.to_string()),
            (
                Cow::Borrowed("x-content-type-options"),
                "nosniff".to_owned(),
            ),
        ];
        for (name, parts) in &self.headers {
            headers.push((Cow::Owned(name.to_string()), text(parts)?));
        }
        Ok(ChallengeReply {
            rule,
            status: self.status,
            headers,
            body,
        })
    }
}

impl Values<'_> {
    /// The value at `at`, if it may be echoed.
    fn echo(&self, at: ValueAt, alphabet: Alphabet) -> Result<Cow<'_, str>, Rejection> {
        let refused = |why| Rejection::because(Code::ChallengeMalformed, why);
        let value = match at {
            ValueAt::Field(index) => match self.asked.field(index) {
                Field::Missing => None,
                Field::Once(value) => Some(Cow::Borrowed(&**value)),
                Field::Several => return Err(twice()),
            },
            ValueAt::Pointer(slot) => self
                .document
                .and_then(|document| document.get(slot))
                .filter(|value| matches!(value.kind(), Kind::String | Kind::Number { .. }))
                .map(|value| value.bytes()),
        };
        let value = value.ok_or(refused("a value that the answer needs is missing"))?;
        if !(1..=MAX_ECHOED_BYTES).contains(&value.len()) {
            return Err(refused("a value to be echoed must have 1 to 512 bytes"));
        }
        if !value.iter().all(|byte| alphabet.has(*byte)) {
            return Err(refused(match alphabet {
                Alphabet::Strict => {
                    "a value to be echoed must be made of A-Z, a-z, 0-9 and ._~+/=-"
                }
                Alphabet::Text => {
                    "a value to be echoed must be made of A-Z, a-z, 0-9, ._~+/=-, `:` and space"
                }
            }));
        }
        // Every character that is allowed is ASCII.
        let not_text = || refused("a value to be echoed must be ASCII");
        match value {
            Cow::Borrowed(bytes) => core::str::from_utf8(bytes)
                .map(Cow::Borrowed)
                .map_err(|_| not_text()),
            Cow::Owned(bytes) => String::from_utf8(bytes)
                .map(Cow::Owned)
                .map_err(|_| not_text()),
        }
    }
}
