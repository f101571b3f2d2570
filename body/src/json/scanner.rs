//! The walk through a body: which token may come where, and what each value is for.
//!
//! ```text
//! object = ws "{" ws [ string ws ":" ws value ws *( "," ws string ws ":" ws value ws ) ] "}"
//! array  = ws "[" ws [ value ws *( "," ws value ws ) ] "]"
//! value  = object / array / string / number / "true" / "false" / "null"
//! ```
//!
//! The containers around the value that is read are on a stack of their own, of at most
//! [`MAX_DEPTH`] frames; there is no recursion.
//!
//! Source: RFC 8259.

use super::keys;
use super::lanes::{LANES, Lanes};
use super::pointer::{NOWHERE, ROOT};
use super::text;
use super::{JsonError, Kind, MAX_DEPTH, Scratch, Selector, malformed};

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
pub(super) struct Frame {
    container: Container,
    /// The strings directly in this array are URLs.
    url: bool,
    /// Offset of the bracket.
    start: usize,
    /// The selector's node for this container.
    node: usize,
    /// Index of the array's element that is being read; not kept up without a node.
    index: usize,
    /// What [`keys::Keys`] held when this object was opened; unused for arrays.
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

    fn object(start: usize, node: usize, keys: keys::Mark) -> Self {
        Self {
            container: Container::Object,
            start,
            node,
            keys,
            ..Self::OUTSIDE
        }
    }

    fn array(start: usize, node: usize, url: bool) -> Self {
        Self {
            container: Container::Array,
            start,
            node,
            url,
            ..Self::OUTSIDE
        }
    }
}

/// One scan of one body.
pub(super) struct Scanner<'a> {
    body: &'a [u8],
    selector: &'a Selector,
    scratch: &'a mut Scratch,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(body: &'a [u8], selector: &'a Selector, scratch: &'a mut Scratch) -> Self {
        Self {
            body,
            selector,
            scratch,
        }
    }

    /// Checks the whole body and leaves in the scratch what was picked out.
    pub(super) fn document(mut self) -> Result<(), JsonError> {
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
            match body.get(at) {
                Some(b'{') => {
                    self.open(frame, start)?;
                    frame = Frame::object(start, node, self.scratch.keys.mark());
                    at = skip_space(body, at + 1);
                    match body.get(at) {
                        Some(b'"') => continue 'member,
                        Some(b'}') => {}
                        _ => return Err(malformed(at, "a key or `}`")),
                    }
                }
                Some(b'[') => {
                    self.open(frame, start)?;
                    frame = Frame::array(start, node, url);
                    at = skip_space(body, at + 1);
                    if body.get(at) != Some(&b']') {
                        node = self.selector.element(node, 0);
                        continue 'member;
                    }
                }
                _ => {
                    let kind;
                    (at, kind) = self.scalar(at, url)?;
                    if node != NOWHERE {
                        self.found(node, kind, start, at);
                    }
                }
            }
            loop {
                at = skip_space(body, at);
                match (frame.container, body.get(at)) {
                    (Container::Object, Some(b',')) => {
                        at = skip_space(body, at + 1);
                        continue 'member;
                    }
                    (Container::Array, Some(b',')) => {
                        at = skip_space(body, at + 1);
                        url = frame.url;
                        // In an array that is nowhere, so was the element before.
                        if frame.node != NOWHERE {
                            frame.index += 1;
                            node = self.selector.element(frame.node, frame.index);
                        }
                        continue 'member;
                    }
                    (Container::Object, Some(b'}')) => {
                        self.scratch.keys.check(body, frame.keys)?;
                        self.scratch.keys.release(frame.keys);
                        at += 1;
                        frame = self.close(&frame, Kind::Object, at);
                    }
                    (Container::Array, Some(b']')) => {
                        at += 1;
                        frame = self.close(&frame, Kind::Array, at);
                    }
                    (Container::Outside, None) => return Ok(()),
                    (Container::Object, _) => return Err(malformed(at, "`,` or `}`")),
                    (Container::Array, _) => return Err(malformed(at, "`,` or `]`")),
                    (Container::Outside, _) => return Err(malformed(at, "the end of the body")),
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

    /// Reads a value that is no container; returns where it ends.
    #[inline(always)]
    fn scalar(&mut self, start: usize, url: bool) -> Result<(usize, Kind), JsonError> {
        let body = self.body;
        match body.get(start) {
            Some(b'"') => {
                let end = text::string_end(body, start + 1)?.end + 1;
                if url && end - start > 2 {
                    self.scratch.urls.push(Extent { start, end });
                }
                Ok((end, Kind::String))
            }
            Some(b'-' | b'0'..=b'9') => {
                let (end, integer) = number_end(body, start)?;
                Ok((end, Kind::Number { integer }))
            }
            Some(b't') => Ok((literal_end(body, start, b"true", "`true`")?, Kind::Boolean)),
            Some(b'f') => Ok((
                literal_end(body, start, b"false", "`false`")?,
                Kind::Boolean,
            )),
            Some(b'n') => Ok((literal_end(body, start, b"null", "`null`")?, Kind::Null)),
            _ => Err(malformed(start, "a value")),
        }
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
    fn close(&mut self, frame: &Frame, kind: Kind, end: usize) -> Frame {
        if frame.node != NOWHERE {
            self.found(frame.node, kind, frame.start, end);
        }
        self.scratch.frames.pop().unwrap_or(Frame::OUTSIDE)
    }

    /// Keeps a value for the pointers that name it.
    #[inline(never)]
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

#[inline(always)]
fn skip_space(body: &[u8], at: usize) -> usize {
    match body.get(at) {
        Some(byte) if *byte <= b' ' => match body.get(at + 1) {
            // A single space, as after a colon.
            Some(next) if *byte == b' ' && *next > b' ' => at + 1,
            _ => space_end(body, at),
        },
        _ => at,
    }
}

#[inline(never)]
fn space_end(body: &[u8], mut at: usize) -> usize {
    while let Some(lanes) = Lanes::at(body, at) {
        let space = lanes.space();
        if space < LANES {
            return at + space;
        }
        at += LANES;
    }
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = body.get(at) {
        at += 1;
    }
    at
}

/// Where a number ends, and whether it is written as an integer.
///
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
    literal: &[u8],
    expected: &'static str,
) -> Result<usize, JsonError> {
    for byte in literal {
        if body.get(at) != Some(byte) {
            return Err(malformed(at, expected));
        }
        at += 1;
    }
    Ok(at)
}
