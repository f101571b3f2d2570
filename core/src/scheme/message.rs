//! The signed message: what it is made of, and its one assembly, for the guard, for those who sign and
//! for those who explain.
//!
//! No accepted message has a second reading. A message is its parts one after the other, so a byte
//! could belong to one part or to the next; whoever holds a genuine signature could move it. Of all
//! parts one may hold anything. Every other part of free length is next to parts of a fixed form
//! ([`Shape`]), and read from the outside the first place where these fit must be where the part
//! ends. So the bytes of a message say where each part ends, and another cut is another message.

use sha2::{Digest as _, Sha256};

use super::form;
use super::timestamp::rfc3339_length;
use crate::verdict::{Code, Rejection};

/// The most parts that a message may have.
pub const MAX_PARTS: usize = 16;

/// A part of the signed message in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The part.
    pub part: Part,
    /// The form of its value.
    pub shape: Shape,
    /// Which of its ends the message must show by itself; none for a fixed form, and for the one part
    /// that may hold anything.
    pub bound: Option<Bound>,
}

/// Where a part of free length is next to what shows its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Behind it are parts of a fixed form, as many as this.
    After(usize),
    /// Before it is a literal.
    Before,
}

/// The form of a part's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As many decimal digits: a timestamp.
    Digits(usize),
    /// Any bytes, as many as there are.
    Free,
    /// The bytes of the literal.
    Literal,
    /// Bytes whose number never changes: a digest.
    Length(usize),
    /// A time of RFC 3339. It shows its own end: no time begins another, and none ends another.
    Rfc3339,
    /// 36 characters. Source: RFC 9562, section 4.
    Uuid,
}

/// One part of the signed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The body as received.
    Body,
    /// The SHA-256 of the body.
    BodyDigest(DigestText),
    /// The fields of a form: names sorted, each with its values, sorted and each once. Source: Twilio,
    /// "Validating requests".
    FormSorted,
    /// The value of a captured header, by its place in the source's list.
    Header(usize),
    /// The message id.
    Id,
    /// Fixed bytes.
    Literal(Box<[u8]>),
    /// The value at a JSON pointer, by its slot: a string's text, anything else as it is written.
    Pointer {
        /// Its slot.
        slot: usize,
        /// Whether an absent or null value is replaced by the empty string.
        optional: bool,
    },
    /// The value of this parameter of the query, decoded.
    Query {
        /// The captured path, by its place in the source's list of headers.
        target: usize,
        /// The parameter.
        name: Box<str>,
    },
    /// Path and query as they came.
    Target {
        /// By its place in the source's list of headers.
        target: usize,
        /// The one path and query that is accepted, where nothing shows where they end.
        fixed: Option<Box<[u8]>>,
        /// Whether `bodySHA256` may follow them.
        with_body_hash: bool,
    },
    /// The timestamp's own bytes.
    Timestamp,
}

/// How a digest is written in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestText {
    /// Standard base64, padded.
    Base64,
    /// Lower-case hexadecimal digits.
    Hex,
}

/// What a message can be made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageInput<'m> {
    /// The body as received.
    pub body: &'m [u8],
    /// Whether its content type is JSON.
    pub is_json: bool,
    /// The captured headers of the source.
    pub headers: &'m [Option<Box<[u8]>>],
    /// The message id.
    pub id: Option<&'m [u8]>,
    /// The timestamp's own bytes.
    pub timestamp: Option<&'m [u8]>,
    /// The values at the source's pointers, by slot.
    pub values: &'m [Option<&'m [u8]>],
}

impl<'m> MessageInput<'m> {
    fn header(&self, index: usize) -> Option<&'m [u8]> {
        self.headers.get(index).and_then(Option::as_deref)
    }

    fn query(&self, target: usize) -> &'m [u8] {
        let target = self.header(target).unwrap_or_default();
        form::query(target)
    }
}

/// What the request does not have cannot have been signed.
fn missing() -> Rejection {
    Rejection::because(Code::SignatureMismatch, "a signed field is missing")
}

impl Part {
    /// Whether it covers the whole body.
    #[must_use]
    pub fn covers_body(&self) -> bool {
        matches!(self, Part::Body | Part::BodyDigest(_) | Part::FormSorted)
    }

    /// Whether its bytes are computed rather than copied from the request.
    fn is_derived(&self) -> bool {
        matches!(
            self,
            Part::BodyDigest(_) | Part::FormSorted | Part::Query { .. }
        )
    }

    /// The bytes of a part that is derived.
    #[cold]
    fn derive(&self, input: &MessageInput<'_>, has_body_hash: bool) -> Result<Vec<u8>, Rejection> {
        match self {
            Part::BodyDigest(text) => Ok(text.write(input.body)),
            Part::FormSorted if has_body_hash => Ok(Vec::new()),
            // JSON is covered by the hash of the body, or by nothing.
            Part::FormSorted if input.is_json => Err(missing()),
            Part::FormSorted => form::sorted(input.body).ok_or(Rejection::because(
                Code::SignatureMismatch,
                "the body is no form that can be signed",
            )),
            Part::Query { target, name } => match form::value(input.query(*target), name) {
                form::Value::Once(value) => Ok(value.into_owned()),
                form::Value::Missing => Err(missing()),
                form::Value::Several | form::Value::Malformed => Err(Rejection::because(
                    Code::SignatureAmbiguous,
                    "a signed parameter of the query is there more than once, or is broken",
                )),
            },
            _ => Err(missing()),
        }
    }

    /// The bytes of a part that is not derived.
    fn find<'m>(&'m self, input: &MessageInput<'m>) -> Result<&'m [u8], Rejection> {
        let found = match self {
            Part::Body => Some(input.body),
            Part::Header(index) => input.header(*index),
            Part::Id => input.id,
            Part::Literal(bytes) => Some(&**bytes),
            Part::Pointer { slot, optional } => {
                let value = input.values.get(*slot).copied().flatten();
                value.or(optional.then_some(b""))
            }
            Part::Target { target, fixed, .. } => {
                let given = input.header(*target).ok_or_else(missing)?;
                let accepted = without_body_hash(self, given).0;
                if fixed.as_deref().is_some_and(|fixed| accepted != fixed) {
                    return Err(Rejection::because(
                        Code::SignatureMismatch,
                        "path and query are not those that the sender is configured to call",
                    ));
                }
                Some(given)
            }
            Part::Timestamp => input.timestamp,
            Part::BodyDigest(_) | Part::FormSorted | Part::Query { .. } => None,
        };
        found.ok_or_else(missing)
    }
}

/// The parameter in which Twilio sends the hash of a body that is no form.
const BODY_HASH: &[u8] = b"bodySHA256=";

/// A target without the `bodySHA256` at its end, where that may be, and its digits.
fn without_body_hash<'t>(part: &Part, given: &'t [u8]) -> (&'t [u8], Option<&'t [u8]>) {
    let Part::Target {
        with_body_hash: true,
        ..
    } = part
    else {
        return (given, None);
    };
    let split = || {
        let (start, digits) = given.split_at_checked(given.len().checked_sub(64)?)?;
        let start = start.strip_suffix(BODY_HASH)?;
        let start = start.strip_suffix(b"?").or(start.strip_suffix(b"&"))?;
        Some((start, digits))
    };
    match split() {
        Some((start, digits)) => (start, Some(digits)),
        None => (given, None),
    }
}

impl DigestText {
    fn write(self, body: &[u8]) -> Vec<u8> {
        use base64::Engine as _;
        let digest = Sha256::digest(body);
        match self {
            DigestText::Base64 => base64::engine::general_purpose::STANDARD.encode(digest),
            DigestText::Hex => hex::encode(digest),
        }
        .into_bytes()
    }

    /// How long the text is, in bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            DigestText::Base64 => 44,
            DigestText::Hex => 64,
        }
    }
}

/// Assembles the message that `pieces` make of `input`, and gives it to `then`.
///
/// # Errors
///
/// [`Code::SignatureMismatch`] if a part is missing; [`Code::IdMalformed`] or
/// [`Code::SignatureMalformed`] if the message could be cut in another way, or a part has another form
/// than it must have.
pub(super) fn assemble<T>(
    pieces: &[Piece],
    input: &MessageInput<'_>,
    then: impl FnOnce(&[&[u8]]) -> T,
) -> Result<T, Rejection> {
    let has_body_hash = check_body_hash(pieces, input)?;
    let mut derived: Vec<Vec<u8>> = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.part.is_derived()) {
        derived.push(piece.part.derive(input, has_body_hash)?);
    }
    let mut derived = derived.iter();
    let mut parts: [&[u8]; MAX_PARTS] = [b""; MAX_PARTS];
    for (slot, piece) in parts.iter_mut().zip(pieces) {
        *slot = if piece.part.is_derived() {
            derived.next().ok_or_else(missing)?
        } else {
            piece.part.find(input)?
        };
    }
    let parts = parts.get(..pieces.len()).unwrap_or_default();
    for (index, piece) in pieces.iter().enumerate() {
        piece.check(pieces, parts, index)?;
    }
    Ok(then(parts))
}

/// Whether the request comes with the hash of its body, which must then be right.
fn check_body_hash(pieces: &[Piece], input: &MessageInput<'_>) -> Result<bool, Rejection> {
    for piece in pieces {
        if let Part::Target { target, .. } = piece.part
            && let Some(given) = input.header(target)
            && let (_, Some(digits)) = without_body_hash(&piece.part, given)
        {
            let mut digest = [0; 32];
            let is_hex = hex::decode_to_slice(digits, &mut digest).is_ok();
            if !is_hex || digest != *Sha256::digest(input.body) {
                return Err(Rejection::because(
                    Code::SignatureMismatch,
                    "`bodySHA256` is not the hash of the body",
                ));
            }
            return Ok(true);
        }
    }
    Ok(false)
}

impl Piece {
    /// Checks that the value has its form, and that the message shows where it ends.
    fn check(&self, pieces: &[Piece], parts: &[&[u8]], index: usize) -> Result<(), Rejection> {
        let value = parts.get(index).copied().unwrap_or_default();
        if self.shape == Shape::Uuid && self.shape.fits(&[], value) != Some(value.len()) {
            return Err(Rejection::because(
                Code::SignatureMalformed,
                "a signed header is no UUID",
            ));
        }
        let is_cut = match self.bound {
            None => true,
            Some(Bound::Before) => {
                let literal = index
                    .checked_sub(1)
                    .and_then(|before| parts.get(before).copied())
                    .unwrap_or_default();
                ends_first(literal, value)
            }
            Some(Bound::After(count)) => {
                let start = index.saturating_add(1);
                let fixed = pieces.get(start..start.saturating_add(count));
                let rest = parts.get(start..).unwrap_or_default();
                begins_first(fixed.unwrap_or_default(), value, rest)
            }
        };
        if is_cut {
            return Ok(());
        }
        let code = match self.part {
            Part::Id => Code::IdMalformed,
            _ => Code::SignatureMalformed,
        };
        Err(Rejection::because(
            code,
            "it holds what separates it from the rest of the signed message",
        ))
    }
}

/// The longest value of a fixed form, literals aside: a digest.
const LONGEST_FIXED: usize = 64;

/// Whether `fixed` fits nowhere in `value` and what follows, before the end of `value`.
fn begins_first(fixed: &[Piece], value: &[u8], rest: &[&[u8]]) -> bool {
    // Nearly always: the literal's first byte is not in it.
    if let Some(Piece {
        part: Part::Literal(literal),
        ..
    }) = fixed.first()
        && literal.first().is_some_and(|byte| !value.contains(byte))
    {
        return true;
    }
    let longest = |piece: &Piece| match &piece.part {
        Part::Literal(literal) => literal.len(),
        _ => LONGEST_FIXED,
    };
    let reach: usize = fixed.iter().map(longest).sum();
    let mut bytes = value.to_vec();
    for part in rest {
        let room = value
            .len()
            .saturating_add(reach)
            .saturating_sub(bytes.len());
        bytes.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
    }
    (0..value.len()).all(|at| {
        let mut seen = bytes.get(at..).unwrap_or_default();
        for piece in fixed {
            let literal: &[u8] = match &piece.part {
                Part::Literal(literal) => literal,
                _ => &[],
            };
            let length = piece.shape.fits(literal, seen);
            match length.and_then(|length| seen.get(length..)) {
                Some(rest) => seen = rest,
                None => return true,
            }
        }
        false
    })
}

/// Whether `literal`, which is before `value`, is not there once more, further behind.
fn ends_first(literal: &[u8], value: &[u8]) -> bool {
    if literal.last().is_some_and(|byte| !value.contains(byte)) {
        return true;
    }
    let bytes = [literal, value].concat();
    let mut windows = bytes.windows(literal.len().max(1)).skip(1);
    !windows.any(|window| window == literal)
}

impl Shape {
    /// How many bytes at the beginning of `bytes` have this form, if they do.
    fn fits(self, literal: &[u8], bytes: &[u8]) -> Option<usize> {
        match self {
            Shape::Digits(count) => {
                let digits = bytes.get(..count)?;
                digits.iter().all(u8::is_ascii_digit).then_some(count)
            }
            Shape::Free => None,
            Shape::Literal => bytes.starts_with(literal).then_some(literal.len()),
            Shape::Length(count) => bytes.get(..count).map(<[u8]>::len),
            Shape::Rfc3339 => rfc3339_length(bytes),
            Shape::Uuid => {
                let text = bytes.get(..36)?;
                let is_uuid = text.iter().enumerate().all(|(at, byte)| match at {
                    8 | 13 | 18 | 23 => *byte == b'-',
                    _ => byte.is_ascii_hexdigit(),
                });
                is_uuid.then_some(36)
            }
        }
    }
}
