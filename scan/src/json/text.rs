//! Strings: where they end, and what they say.
//!
//! ```text
//! char = %x20-21 / %x23-5B / %x5D-7F / UTF8-2 / UTF8-3 / UTF8-4
//!      / "\" ( DQUOTE / "\" / "/" / "b" / "f" / "n" / "r" / "t" / "u" 4HEXDIG )
//! ```
//!
//! Source: RFC 8259, section 7; RFC 3629, section 4.

use std::borrow::Cow;

use super::error::{JsonError, malformed};
use super::lanes::{LANES, Lanes};

/// The end of a string that has been checked.
#[derive(Clone, Copy)]
pub(super) struct End {
    /// Offset of the closing quote.
    pub(super) end: usize,
    /// The string contains a backslash.
    pub(super) escaped: bool,
}

/// Eight bytes of the body, the first in the lowest place, if there are as many.
#[inline(always)]
pub(super) fn word(body: &[u8], at: usize) -> Option<u64> {
    body.get(at..)?
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
}

/// Checks a string from the byte behind its opening quote to its closing quote.
#[inline(always)]
pub(super) fn string_end(body: &[u8], at: usize) -> Result<End, JsonError> {
    let plain = Lanes::at(body, at).map_or(0, Lanes::plain);
    string_end_after(body, at + plain)
}

/// As [`string_end`], with what is before `at` known to be plain.
#[inline(always)]
pub(super) fn string_end_after(body: &[u8], at: usize) -> Result<End, JsonError> {
    if body.get(at) == Some(&b'"') {
        return Ok(End {
            end: at,
            escaped: false,
        });
    }
    // Taken apart and put together again, so that the short string's end stays in a register.
    let (end, escaped) = long_string_end(body, at)?;
    Ok(End { end, escaped })
}

#[inline(never)]
fn long_string_end(body: &[u8], mut at: usize) -> Result<(usize, bool), JsonError> {
    let mut escaped = false;
    loop {
        while let Some(lanes) = Lanes::at(body, at) {
            let plain = lanes.plain();
            if plain < LANES {
                at += plain;
                break;
            }
            // Not `plain`, so that the next bytes can be looked at before these are counted.
            at += LANES;
        }
        match body.get(at) {
            Some(b'"') => return Ok((at, escaped)),
            Some(b'\\') => {
                at = escape_end(body, at)?;
                escaped = true;
            }
            Some(0x80..) => at = multibyte_end(body, at)?,
            Some(0..0x20) => return Err(malformed(at, "no control character in a string")),
            // Among the last fifteen bytes of the body.
            Some(_) => at += 1,
            None => return Err(malformed(at, "a closing quote")),
        }
    }
}

/// Checks a run of characters that are not ASCII, and of single plain ones between them.
fn multibyte_end(body: &[u8], mut at: usize) -> Result<usize, JsonError> {
    loop {
        let word = match body.get(at..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => u32::from_le_bytes(*bytes),
            None => last_word(body, at),
        };
        if word & 0x00c0_c0f0 == 0x0080_80e0 {
            // Neither overlong (below U+0800) nor a surrogate (U+D800 to U+DFFF).
            let high = word & 0x200f;
            if high == 0 || high == 0x200d {
                return Err(not_utf8(at));
            }
            at += 3;
        } else if word & 0xc0e0 == 0x80c0 {
            // Not overlong (below U+0080).
            if word & 0x1e == 0 {
                return Err(not_utf8(at));
            }
            at += 2;
        } else if word & 0xc0c0_c0f8 == 0x8080_80f0 {
            // Neither overlong (below U+10000) nor above U+10FFFF.
            let high = (word & 0x07) << 2 | (word >> 12) & 0x03;
            if !(1..=16).contains(&high) {
                return Err(not_utf8(at));
            }
            at += 4;
        } else if word & 0x80 != 0 {
            return Err(not_utf8(at));
        } else if word & 0x8000 != 0 && matches!(word & 0xff, 0x20..=0x21 | 0x23..=0x5b | 0x5d..) {
            at += 1;
        } else {
            return Ok(at);
        }
    }
}

/// The last bytes of the body, with zeros behind, which continue no character.
#[cold]
fn last_word(body: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    for (to, from) in bytes.iter_mut().zip(body.iter().skip(at)) {
        *to = *from;
    }
    u32::from_le_bytes(bytes)
}

#[cold]
fn not_utf8(at: usize) -> JsonError {
    malformed(at, "valid UTF-8")
}

/// Checks an escape, or the two of a surrogate pair, from the backslash.
fn escape_end(body: &[u8], at: usize) -> Result<usize, JsonError> {
    match body.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex4(body, at + 2)? {
            0xd800..0xdc00 => {
                let low = at + 6;
                if body.get(low..low + 2) != Some(b"\\u") {
                    return Err(lone_surrogate(at));
                }
                match hex4(body, low + 2)? {
                    0xdc00..0xe000 => Ok(low + 6),
                    _ => Err(lone_surrogate(at)),
                }
            }
            0xdc00..0xe000 => Err(lone_surrogate(at)),
            _ => Ok(at + 6),
        },
        _ => Err(malformed(at + 1, "one of `\"\\/bfnrtu` after a backslash")),
    }
}

#[cold]
fn lone_surrogate(at: usize) -> JsonError {
    malformed(at, "surrogate escapes in pairs")
}

fn hex4(body: &[u8], start: usize) -> Result<u32, JsonError> {
    let mut code = 0;
    for at in start..start + 4 {
        let digit = match body.get(at) {
            Some(byte @ b'0'..=b'9') => byte - b'0',
            Some(byte @ b'a'..=b'f') => byte - b'a' + 10,
            Some(byte @ b'A'..=b'F') => byte - b'A' + 10,
            _ => return Err(malformed(at, "four hexadecimal digits")),
        };
        code = code << 4 | u32::from(digit);
    }
    Ok(code)
}

/// What a checked string says; `quoted` includes its quotes.
pub(super) fn decoded(quoted: &[u8]) -> Cow<'_, str> {
    let inside = match quoted {
        [b'"', inside @ .., b'"'] => inside,
        _ => quoted,
    };
    if !inside.contains(&b'\\') {
        return String::from_utf8_lossy(inside);
    }
    let mut text = Vec::with_capacity(inside.len());
    decode(inside, &mut text);
    Cow::Owned(String::from_utf8_lossy(&text).into_owned())
}

/// Appends what the inside of a checked string says.
pub(super) fn decode(mut inside: &[u8], text: &mut Vec<u8>) {
    while let Some(at) = inside.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = inside.split_at_checked(at).unwrap_or_default();
        text.extend_from_slice(plain);
        let (character, length) = unescape(escape);
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        inside = escape.get(length..).unwrap_or_default();
    }
    text.extend_from_slice(inside);
}

/// The character of a checked escape, and the escape's length.
fn unescape(escape: &[u8]) -> (char, usize) {
    let short = match escape.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unescape_unicode(escape),
        Some(byte) => char::from(*byte),
        None => char::REPLACEMENT_CHARACTER,
    };
    (short, 2)
}

fn unescape_unicode(escape: &[u8]) -> (char, usize) {
    let first = hex4(escape, 2).unwrap_or_default();
    if let Some(character) = char::from_u32(first) {
        return (character, 6);
    }
    let second = hex4(escape, 8).unwrap_or_default();
    let code = 0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
    (
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
        12,
    )
}
