//! Strict JSON in one pass: refuses what two parsers could read in two ways, and picks out the few
//! values that the guard needs.
//!
//! ```text
//! body   = ws object ws                     RFC 8259; UTF-8 without a byte order mark
//! object = "{" [ member *( "," member ) ] "}"    no two members with the same decoded key
//! string = DQUOTE *char DQUOTE              no raw control character, no lone surrogate escape
//! number = [ "-" ] int [ frac ] [ exp ]     by grammar only: 1e999 passes
//! depth  <= 64, the root object being depth 1
//! ```
//!
//! Errors are reported in document order, with one exception: in an object of more than
//! [`LINEAR_KEYS`] keys a duplicate is found when the object closes, so that another error further
//! inside the same object comes before it.
//!
//! Time is linear in the body, but for the keys of objects larger than that, which are sorted:
//! `n log n` whatever the keys are, since nothing is hashed. Memory is 16 bytes (on wasm) for each
//! key of an open object and 8 for each URL string, plus a copy of keys that are spelled with
//! escapes: a small multiple of the body.
//!
//! Not done here: no tree, no numbers as numbers (an integer is told from a fraction by its text),
//! no resumption in the middle of a body.

mod keys;
mod pointer;
mod text;

use std::borrow::Cow;

use core::fmt;

use keys::Keys;
use pointer::{NOWHERE, ROOT};
pub use pointer::{Pointer, PointerError, Selector};

/// Largest number of nested containers; the root object is the first.
///
/// Source: the contract. Callbacks in the field are at most 6 deep.
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
/// - [`JsonError::Malformed`]: anything that is not one RFC 8259 object in valid UTF-8 without a
///   byte order mark, an escape of half a surrogate pair, or bytes after the object.
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
    let outcome = Scanner {
        body,
        selector,
        scratch,
    }
    .document();
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
    /// `url` or `urls` (ASCII case ignored) or is `images`. Empty unless the selector collects them.
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

impl core::error::Error for JsonError {}

/// Memory of [`scan`], to be used again for the next body.
///
/// A buffer that has grown over 1 MiB is given back: at the end of the scan, or, where the
/// [`Document`] still needs it, at the start of the next.
#[derive(Default)]
pub struct Scratch {
    frames: Vec<Frame>,
    keys: Keys,
    found: Vec<Option<Span>>,
    urls: Vec<Extent>,
}

impl Scratch {
    fn start(&mut self, slots: usize) {
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

/// A value's place in the body.
#[derive(Clone, Copy)]
struct Extent {
    start: usize,
    end: usize,
}

impl Extent {
    fn of<'body>(&self, body: &'body [u8]) -> &'body [u8] {
        body.get(self.start..self.end).unwrap_or_default()
    }
}

#[derive(Clone, Copy)]
struct Span {
    kind: Kind,
    extent: Extent,
}

/// What surrounds the value that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
    /// Nothing: the value is the root.
    Outside,
}

/// An open container.
#[derive(Clone, Copy)]
struct Frame {
    container: Container,
    /// The strings directly in this array are URLs.
    url: bool,
    /// Offset of the bracket.
    start: usize,
    /// The selector's node for this container.
    node: usize,
    /// Index of the array's element that is being read; not kept up without a node.
    index: usize,
    /// What [`Keys`] held when this object was opened.
    keys: keys::Mark,
}

impl Frame {
    const OUTSIDE: Self = Self {
        container: Container::Outside,
        url: false,
        start: 0,
        node: NOWHERE,
        index: 0,
        keys: keys::Mark::START,
    };
}

struct Scanner<'a> {
    body: &'a [u8],
    selector: &'a Selector,
    scratch: &'a mut Scratch,
}

impl Scanner<'_> {
    fn document(mut self) -> Result<(), JsonError> {
        let body = self.body;
        let mut frame = Frame::OUTSIDE;
        // The selector's node for the next value, and whether it is a URL if it is a string.
        let mut node = ROOT;
        let mut url = false;
        let mut at = skip_space(body, 0);
        if body.get(at) != Some(&b'{') {
            return Err(malformed(at, "an object"));
        }
        'member: loop {
            if frame.container == Container::Object {
                (at, node, url) = self.key(at, &frame)?;
            }
            let start = at;
            let kind = match body.get(at) {
                Some(b'"') => {
                    at = text::string_end(body, at + 1)?.end + 1;
                    if url && at - start > 2 {
                        self.scratch.urls.push(Extent { start, end: at });
                    }
                    Kind::String
                }
                Some(b'-' | b'0'..=b'9') => {
                    let integer;
                    (at, integer) = number_end(body, at)?;
                    Kind::Number { integer }
                }
                Some(b'{') => {
                    self.open(frame, start)?;
                    let keys = self.scratch.keys.mark();
                    let container = Container::Object;
                    frame = Frame {
                        container,
                        url: false,
                        start,
                        node,
                        index: 0,
                        keys,
                    };
                    at = skip_space(body, at + 1);
                    match body.get(at) {
                        Some(b'"') => continue 'member,
                        Some(b'}') => {
                            at += 1;
                            frame = self.close(frame, Kind::Object, at);
                        }
                        _ => return Err(malformed(at, "a key or `}`")),
                    }
                    // Closed and recorded already.
                    node = NOWHERE;
                    Kind::Object
                }
                Some(b'[') => {
                    self.open(frame, start)?;
                    frame = Frame {
                        container: Container::Array,
                        url,
                        start,
                        node,
                        ..frame
                    };
                    frame.index = 0;
                    at = skip_space(body, at + 1);
                    if body.get(at) != Some(&b']') {
                        node = self.selector.element(frame.node, 0);
                        continue 'member;
                    }
                    at += 1;
                    frame = self.close(frame, Kind::Array, at);
                    node = NOWHERE;
                    Kind::Array
                }
                Some(b't') => {
                    at = literal_end(body, at, "`true`", b"true")?;
                    Kind::Boolean
                }
                Some(b'f') => {
                    at = literal_end(body, at, "`false`", b"false")?;
                    Kind::Boolean
                }
                Some(b'n') => {
                    at = literal_end(body, at, "`null`", b"null")?;
                    Kind::Null
                }
                _ => return Err(malformed(at, "a value")),
            };
            if node != NOWHERE {
                self.found(node, kind, start, at);
            }
            loop {
                at = skip_space(body, at);
                let byte = body.get(at);
                match frame.container {
                    Container::Object => match byte {
                        Some(b',') => {
                            at = skip_space(body, at + 1);
                            continue 'member;
                        }
                        Some(b'}') => {
                            self.scratch.keys.check(body, frame.keys)?;
                            at += 1;
                            frame = self.close(frame, Kind::Object, at);
                        }
                        _ => return Err(malformed(at, "`,` or `}`")),
                    },
                    Container::Array => match byte {
                        Some(b',') => {
                            at = skip_space(body, at + 1);
                            url = frame.url;
                            node = NOWHERE;
                            if frame.node != NOWHERE {
                                frame.index += 1;
                                node = self.selector.element(frame.node, frame.index);
                            }
                            continue 'member;
                        }
                        Some(b']') => {
                            at += 1;
                            frame = self.close(frame, Kind::Array, at);
                        }
                        _ => return Err(malformed(at, "`,` or `]`")),
                    },
                    Container::Outside => match byte {
                        None => return Ok(()),
                        Some(_) => return Err(malformed(at, "the end of the body")),
                    },
                }
            }
        }
    }

    /// Reads a key, its colon and the space around, up to the value.
    ///
    /// Returns where the value begins, its node, and whether it holds URLs.
    #[inline(always)]
    fn key(&mut self, at: usize, frame: &Frame) -> Result<(usize, usize, bool), JsonError> {
        let body = self.body;
        let keys = &mut self.scratch.keys;
        if body.get(at) != Some(&b'"') {
            return Err(malformed(at, "a key"));
        }
        let (key, end) = keys.read(body, at)?;
        keys.add(body, frame.keys, key, at)?;
        let mut node = NOWHERE;
        if frame.node != NOWHERE {
            node = self.selector.member(frame.node, keys.text(body, key));
        }
        let url = self.selector.collects_urls() && names_urls(keys.text(body, key));
        let colon = skip_space(body, end);
        if body.get(colon) != Some(&b':') {
            return Err(malformed(colon, "`:`"));
        }
        Ok((skip_space(body, colon + 1), node, url))
    }

    fn open(&mut self, around: Frame, offset: usize) -> Result<(), JsonError> {
        let frames = &mut self.scratch.frames;
        if frames.len() >= MAX_DEPTH {
            return Err(JsonError::TooDeep { offset });
        }
        frames.push(around);
        Ok(())
    }

    /// Ends the container of `frame` before `end`; returns the one around it.
    fn close(&mut self, frame: Frame, kind: Kind, end: usize) -> Frame {
        if frame.container == Container::Object {
            self.scratch.keys.release(frame.keys);
        }
        if frame.node != NOWHERE {
            self.found(frame.node, kind, frame.start, end);
        }
        self.scratch.frames.pop().unwrap_or(Frame::OUTSIDE)
    }

    #[cold]
    fn found(&mut self, node: usize, kind: Kind, start: usize, end: usize) {
        let span = Span {
            kind,
            extent: Extent { start, end },
        };
        for slot in self.selector.slots_at(node) {
            if let Some(found) = self.scratch.found.get_mut(*slot) {
                *found = Some(span);
            }
        }
    }
}

/// Whether the strings under this key are URLs.
fn names_urls(key: &[u8]) -> bool {
    matches!(
        key,
        [.., b'u' | b'U', b'r' | b'R', b'l' | b'L']
            | [.., b'u' | b'U', b'r' | b'R', b'l' | b'L', b's' | b'S']
            | b"images"
    )
}

#[cold]
fn malformed(offset: usize, expected: &'static str) -> JsonError {
    JsonError::Malformed { offset, expected }
}

#[inline(always)]
fn skip_space(body: &[u8], at: usize) -> usize {
    match body.get(at) {
        Some(byte) if *byte <= b' ' => space_end(body, at),
        _ => at,
    }
}

fn space_end(body: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = body.get(at) {
        at += 1;
    }
    at
}

/// Source: RFC 8259, section 6.
#[inline(always)]
fn number_end(body: &[u8], mut at: usize) -> Result<(usize, bool), JsonError> {
    if body.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match body.get(at) {
        Some(b'0') => at + 1,
        _ => digits_end(body, at)?,
    };
    let mut integer = true;
    if body.get(at) == Some(&b'.') {
        integer = false;
        at = digits_end(body, at + 1)?;
    }
    if let Some(b'e' | b'E') = body.get(at) {
        integer = false;
        at += 1;
        if let Some(b'+' | b'-') = body.get(at) {
            at += 1;
        }
        at = digits_end(body, at)?;
    }
    Ok((at, integer))
}

#[inline(always)]
fn digits_end(body: &[u8], start: usize) -> Result<usize, JsonError> {
    let mut at = start;
    while let Some(b'0'..=b'9') = body.get(at) {
        at += 1;
    }
    if at == start {
        Err(malformed(at, "a digit"))
    } else {
        Ok(at)
    }
}

fn literal_end(
    body: &[u8],
    mut at: usize,
    expected: &'static str,
    literal: &[u8],
) -> Result<usize, JsonError> {
    for byte in literal {
        if body.get(at) != Some(byte) {
            return Err(malformed(at, expected));
        }
        at += 1;
    }
    Ok(at)
}
