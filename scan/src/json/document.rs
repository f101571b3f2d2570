//! A body that has been scanned, and the values that were picked out of it.

use std::borrow::Cow;
use std::fmt;

use super::text;

/// A body that has passed [`scan`](super::scan), and what was picked out of it.
pub struct Document<'body, 'scratch> {
    pub(super) body: &'body [u8],
    pub(super) found: &'scratch [Option<Span>],
    pub(super) urls: &'scratch [Extent],
}

impl<'body> Document<'body, '_> {
    /// The value at the selector's pointer number `slot`, if the body has one.
    pub fn get(&self, slot: usize) -> Option<Value<'body>> {
        let span = (*self.found.get(slot)?)?;
        Some(Value {
            kind: span.kind,
            offset: span.extent.start,
            raw: span.extent.of(self.body),
        })
    }

    /// The URL strings with the offset of their opening quote, in document order.
    ///
    /// These are the non-empty strings, alone or in arrays (of arrays), under a key that ends in
    /// `url` or `urls` or is `images`, whatever the case. Empty unless the selector collects them.
    pub fn urls(&self) -> impl Iterator<Item = (usize, Cow<'body, str>)> {
        let body = self.body;
        self.urls
            .iter()
            .map(move |url| (url.start, text::decoded(url.of(body))))
    }
}

/// Redacted: shows nothing of the body.
impl fmt::Debug for Document<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").finish_non_exhaustive()
    }
}

/// A value in the body.
#[derive(Clone, Copy)]
pub struct Value<'body> {
    kind: Kind,
    offset: usize,
    raw: &'body [u8],
}

impl<'body> Value<'body> {
    /// What the value is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where the value begins in the body, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The value's own bytes, quotes or brackets included.
    pub fn raw(&self) -> &'body [u8] {
        self.raw
    }

    /// What the value says as bytes: a string's decoded text, anything else as it is written.
    #[must_use]
    pub fn bytes(&self) -> Cow<'body, [u8]> {
        match self.text() {
            Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
            None => Cow::Borrowed(self.raw),
        }
    }

    /// The decoded text of a string, borrowed if it has no escapes; nothing for other values.
    pub fn text(&self) -> Option<Cow<'body, str>> {
        (self.kind == Kind::String).then(|| text::decoded(self.raw))
    }
}

/// Redacted: shows nothing of the body.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, offset, .. } = self;
        f.debug_struct("Value")
            .field("kind", kind)
            .field("offset", offset)
            .finish_non_exhaustive()
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[...]`
    Array,
    /// `true` or `false`
    Boolean,
    /// `null`
    Null,
    /// A number by the grammar, of any size.
    Number {
        /// Written without fraction and exponent: `200` is, `200.0` and `2e2` are not.
        integer: bool,
    },
    /// `{...}`
    Object,
    /// `"..."`
    String,
}

/// A value's place in the body.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Extent {
    /// The value's bytes.
    pub(super) fn of<'body>(&self, body: &'body [u8]) -> &'body [u8] {
        body.get(self.start..self.end).unwrap_or_default()
    }
}

/// A value that a pointer names.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) kind: Kind,
    pub(super) extent: Extent,
}
