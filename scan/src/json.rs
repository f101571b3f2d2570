//! Strict JSON in one pass: refuses what two parsers could read in two ways, and picks out the few
//! values that the guard needs.
//!
//! ```text
//! body   = ws root ws                       RFC 8259; UTF-8 without a byte order mark
//! root   = object                           or what the selector allows
//! object = "{" [ member *( "," member ) ] "}"    no two members with the same decoded key
//! string = DQUOTE *char DQUOTE              no raw control character, no lone surrogate escape
//! number = [ "-" ] int [ frac ] [ exp ]     by grammar only: 1e999 passes
//! depth  <= 64, the root being depth 1
//! ```
//!
//! Errors are reported in document order, with one exception: in an object of more than
//! [`LINEAR_KEYS`] keys a duplicate is found when the object closes, so that another error further
//! inside the same object comes before it.
//!
//! Time is linear in the body, but for the keys of objects larger than that, which are sorted:
//! `n log n` whatever the keys are, since nothing is hashed. On wasm a key of an open object takes
//! 16 bytes and a URL string 8, and keys that are spelled with escapes are copied: at the worst,
//! while a buffer is moved to grow, seven times the body, and next to nothing for honest ones.
//!
//! It builds no tree, does not convert numbers (an integer is recognised by its text), and does not
//! resume in the middle of a body.

mod keys;
mod lanes;
mod pointer;
mod scanner;
mod text;

use std::borrow::Cow;
use std::fmt;

use keys::Keys;
pub use pointer::{Pointer, PointerError, Root, Selector};
use scanner::{Extent, Frame, Scanner, Span};

/// Largest number of nested containers; the root is the first.
///
/// Source: the contract. The sender's documented callbacks are at most 6 deep.
pub const MAX_DEPTH: usize = 64;

/// Largest number of keys that an object may have for its duplicates to be found at once, by
/// comparing each key with those before it.
pub const LINEAR_KEYS: usize = 16;

/// Largest size of a scratch buffer that is kept for the next body, in bytes.
const KEPT_BYTES: usize = 1 << 20;

/// Checks the whole `body` and picks out what `selector` names.
///
/// `scratch` is only memory that is used again from body to body; no body influences the next.
///
/// # Errors
///
/// - [`JsonError::Malformed`]: anything that is not one RFC 8259 value in valid UTF-8 without a
///   byte order mark, another root than the selector allows, an escape of half a surrogate pair, or
///   bytes after the root.
/// - [`JsonError::AmbiguousKey`]: a key is one of the selector's but for case, if the selector
///   refuses that.
/// - [`JsonError::DuplicateKey`]: two keys of one object are the same after decoding.
/// - [`JsonError::TooDeep`]: more than [`MAX_DEPTH`] containers are open.
///
/// Source: RFC 8259.
pub fn scan<'body, 'scratch>(
    body: &'body [u8],
    selector: &Selector,
    scratch: &'scratch mut Scratch,
) -> Result<Document<'body, 'scratch>, JsonError> {
    scratch.start(selector.slots());
    let outcome = Scanner::new(body, selector, scratch).document();
    scratch.trim();
    outcome?;
    Ok(Document {
        body,
        found: &scratch.found,
        urls: &scratch.urls,
    })
}

/// A body that has passed [`scan`], and what was picked out of it.
pub struct Document<'body, 'scratch> {
    body: &'body [u8],
    found: &'scratch [Option<Span>],
    urls: &'scratch [Extent],
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

/// Why a body was refused. Offsets are in bytes from its beginning; nothing of the body is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// A key is that of a member that the selector looks for, but for case.
    AmbiguousKey {
        /// Its opening quote.
        offset: usize,
    },
    /// A key equals another key of the same object after decoding.
    DuplicateKey {
        /// Opening quote of the second of the two, the first such key in the object.
        offset: usize,
    },
    /// The text breaks the grammar, is not UTF-8, or ends too early.
    Malformed {
        /// First byte that cannot be part of an accepted body; the body's length if it ends early.
        offset: usize,
        /// What is accepted there.
        expected: &'static str,
    },
    /// More than [`MAX_DEPTH`] containers are open.
    TooDeep {
        /// Opening bracket of the container that is too deep.
        offset: usize,
    },
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AmbiguousKey { offset } => {
                write!(
                    f,
                    "key with the name of another but for case at byte {offset}"
                )
            }
            Self::DuplicateKey { offset } => write!(f, "duplicate key at byte {offset}"),
            Self::Malformed { offset, expected } => {
                write!(f, "malformed JSON at byte {offset}, expected {expected}")
            }
            Self::TooDeep { offset } => {
                write!(f, "more than {MAX_DEPTH} nested levels at byte {offset}")
            }
        }
    }
}

impl std::error::Error for JsonError {}

#[cold]
fn malformed(offset: usize, expected: &'static str) -> JsonError {
    JsonError::Malformed { offset, expected }
}

/// Memory of [`scan`], to be used again for the next body.
///
/// A buffer that has grown over 1 MiB is given back: at the end of the scan, or, where the
/// [`Document`] still needs it, at the start of the next.
#[derive(Default)]
pub struct Scratch {
    /// The innermost open container.
    frame: Frame,
    /// Those around it, the outermost first.
    frames: Vec<Frame>,
    keys: Keys,
    found: Vec<Option<Span>>,
    urls: Vec<Extent>,
}

impl Scratch {
    fn start(&mut self, slots: usize) {
        self.frame = Frame::OUTSIDE;
        self.frames.clear();
        self.keys.clear();
        self.found.clear();
        self.found.resize(slots, None);
        self.urls.clear();
        give_back(&mut self.urls);
    }

    fn trim(&mut self) {
        self.keys.clear();
        self.keys.give_back();
    }
}

/// An empty one: between two scans a scratch holds nothing but room.
impl Clone for Scratch {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Redacted: the buffers hold pieces of a body.
impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

fn give_back<T>(buffer: &mut Vec<T>) {
    if buffer.capacity().saturating_mul(size_of::<T>()) > KEPT_BYTES {
        *buffer = Vec::new();
    }
}
