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

use super::document::{Extent, Kind, Span};
use super::error::{JsonError, MAX_DEPTH, malformed};
use super::lanes::{LANES, Lanes};
use super::pointer::{NOWHERE, ROOT, Selector};
use super::scratch::{Container, Frame, Scratch};
use super::text;
use crate::fold;

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
        // The selector's node for the next value, and whether it is a URL if it is a string.
        let mut node = ROOT;
        let mut url = false;
        let (mut at, mut byte) = next(body, 0);
        self.selector.root().check(at, byte)?;
        'member: loop {
            if self.scratch.frame.container == Container::Object {
                (at, byte, node, url) = self.key(at, byte)?;
            }
            let start = at;
            match byte {
                Some(b'{') => {
                    let keys = self.scratch.keys.mark();
                    self.open(Frame::object(start, node, keys))?;
                    (at, byte) = next(body, at + 1);
                    match byte {
                        Some(b'"') => continue 'member,
                        Some(b'}') => {}
                        _ => return Err(malformed(at, "a key or `}`")),
                    }
                }
                Some(b'[') => {
                    self.open(Frame::array(start, node, url))?;
                    (at, byte) = next(body, at + 1);
                    if byte != Some(b']') {
                        node = self.selector.element(node, 0);
                        continue 'member;
                    }
                }
                _ => {
                    let kind;
                    (at, kind) = self.scalar(at, byte, url)?;
                    if node != NOWHERE {
                        self.found(node, kind, start, at);
                    }
                    (at, byte) = next(body, at);
                }
            }
            loop {
                match (self.scratch.frame.container, byte) {
                    (Container::Object, Some(b',')) => {
                        (at, byte) = next(body, at + 1);
                        continue 'member;
                    }
                    (Container::Array, Some(b',')) => {
                        (at, byte) = next(body, at + 1);
                        let frame = &mut self.scratch.frame;
                        url = frame.url;
                        // In an array that is nowhere, so was the element before.
                        if frame.node != NOWHERE {
                            frame.index += 1;
                            node = self.selector.element(frame.node, frame.index);
                        }
                        continue 'member;
                    }
                    (Container::Object, Some(b'}')) => {
                        let keys = self.scratch.frame.keys;
                        self.scratch.keys.check(body, keys)?;
                        self.scratch.keys.release(keys);
                        self.close(Kind::Object, at + 1);
                    }
                    (Container::Array, Some(b']')) => self.close(Kind::Array, at + 1),
                    (Container::Outside, None) => return Ok(()),
                    (Container::Object, _) => return Err(malformed(at, "`,` or `}`")),
                    (Container::Array, _) => return Err(malformed(at, "`,` or `]`")),
                    (Container::Outside, _) => return Err(malformed(at, "the end of the body")),
                }
                (at, byte) = next(body, at + 1);
            }
        }
    }

    /// Reads a key, its colon and the space around, up to the value.
    ///
    /// Returns where the value begins, its first byte, its node, and whether it holds URLs.
    #[inline(always)]
    fn key(
        &mut self,
        at: usize,
        byte: Option<u8>,
    ) -> Result<(usize, Option<u8>, usize, bool), JsonError> {
        let body = self.body;
        if byte != Some(b'"') {
            return Err(malformed(at, "a key"));
        }
        let Scratch { frame, keys, .. } = &mut *self.scratch;
        let (key, end) = keys.read(body, at)?;
        keys.add(body, frame.keys, &mut frame.seen, key, at)?;
        let mut node = NOWHERE;
        if frame.node != NOWHERE {
            let text = keys.text(body, key);
            node = self.selector.member(frame.node, text);
            if node == NOWHERE && self.selector.is_other_case(frame.node, text) {
                return Err(JsonError::AmbiguousKey { offset: at });
            }
        }
        let url = self.selector.collects_urls() && names_urls(keys.text(body, key));
        let (colon, byte) = next(body, end);
        if byte != Some(b':') {
            return Err(malformed(colon, "`:`"));
        }
        let (value, byte) = next(body, colon + 1);
        Ok((value, byte, node, url))
    }

    /// Reads a value that is no container; returns where it ends.
    #[inline(always)]
    fn scalar(
        &mut self,
        start: usize,
        byte: Option<u8>,
        url: bool,
    ) -> Result<(usize, Kind), JsonError> {
        let body = self.body;
        match byte {
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

    /// Begins the container of `frame`.
    fn open(&mut self, frame: Frame) -> Result<(), JsonError> {
        let Scratch {
            frame: around,
            frames,
            ..
        } = &mut *self.scratch;
        if frames.len() >= MAX_DEPTH {
            let offset = frame.start;
            return Err(JsonError::TooDeep { offset });
        }
        frames.push(*around);
        *around = frame;
        Ok(())
    }

    /// Ends the container before `end`.
    fn close(&mut self, kind: Kind, end: usize) {
        let Frame { node, start, .. } = self.scratch.frame;
        if node != NOWHERE {
            self.found(node, kind, start, end);
        }
        self.scratch.frame = self.scratch.frames.pop().unwrap_or(Frame::OUTSIDE);
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

/// Whether the strings under this key are URLs. Names are folded: `resultUrl\u017f` ends in `urls`.
fn names_urls(key: &[u8]) -> bool {
    match key {
        [.., b'u' | b'U', b'r' | b'R', b'l' | b'L']
        | [.., b'u' | b'U', b'r' | b'R', b'l' | b'L', b's' | b'S']
        | [.., b'u' | b'U', b'r' | b'R', b'l' | b'L', 0xc5, 0xbf] => true,
        // An `i`, or the first byte of `\u130` and `\u131`, which fold to it.
        [b'i' | b'I' | 0xc4, ..] => fold::equal(key, b"images"),
        _ => false,
    }
}

/// The first byte from `at` on that is no white space, and where it is.
#[inline(always)]
fn next(body: &[u8], at: usize) -> (usize, Option<u8>) {
    match body.get(at) {
        Some(byte) if *byte > b' ' => (at, Some(*byte)),
        Some(b' ') if body.get(at + 1).is_some_and(|byte| *byte > b' ') => {
            // A single space, as after a colon.
            (at + 1, body.get(at + 1).copied())
        }
        _ => {
            let at = space_end(body, at);
            (at, body.get(at).copied())
        }
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
    if !matches!(body.get(at), Some(b'.' | b'e' | b'E')) {
        return Ok((at, true));
    }
    if body.get(at) == Some(&b'.') {
        at = digits_end(body, at + 1)?;
    }
    if let Some(b'e' | b'E') = body.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = body.get(at) {
            at += 1;
        }
        at = digits_end(body, at)?;
    }
    Ok((at, false))
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
