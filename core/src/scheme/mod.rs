//! A signature scheme as data: where a sender puts signature, timestamp and id, and what it signs.
//!
//! One small language holds every sender whose rule is HMAC-SHA256 over header values, JSON values,
//! literals and the body, or who sends a shared token. The presets are texts in that language; no
//! code knows a sender by name.

pub mod keys;
pub mod token;

use core::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::request::{Occurrence, RequestHead};
use crate::scheme::keys::{Algorithm, HostVerify, Key, Mismatch, SignatureBytes};
use crate::scheme::token::{TokenProof, TokenRule};
use crate::time::UnixMillis;
use crate::verdict::{Code, Rejection};

/// The most parts that a message may have.
pub const MAX_PARTS: usize = 8;

/// The most signatures that are tried for one request. DocuSign, who sends most, sends up to 100.
pub const MAX_SIGNATURES: usize = 100;

/// How a sender authenticates its callbacks, and where it says what they are about.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// What shows that a callback is the sender's.
    pub proof: Proof,
    /// Where the message id is.
    pub id: IdAt,
}

/// What shows that a callback is the sender's.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A signature over parts of the callback.
    Signature(SignatureRule),
    /// A shared token that comes along.
    Token(TokenRule),
}

/// What is signed, and how.
#[derive(Clone, Debug)]
pub struct SignatureRule {
    /// How it is signed.
    pub algorithm: Algorithm,
    /// The keys, any of which may have signed, the first configured first; at least one.
    pub keys: Vec<Key>,
    /// The signed message: its parts in order, at most [`MAX_PARTS`].
    pub message: Vec<Piece>,
    /// Where the signature is.
    pub value: SignatureAt,
    /// Where the timestamp is, if the sender sends one.
    pub timestamp: Option<TimestampAt>,
}

/// A part of the signed message in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The part.
    pub part: Part,
    /// The byte that its value must not hold: it begins the literal that ends the value, or ends
    /// the one that begins it. Otherwise the same message could be cut in two ways.
    pub separator: Option<u8>,
}

/// One part of the signed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The body as received.
    Body,
    /// The value of a captured header, by its place in the source's list.
    Header(usize),
    /// The message id.
    Id,
    /// Fixed bytes.
    Literal(Box<[u8]>),
    /// The value at a JSON pointer, by its slot: a string's text, anything else as it is written.
    Pointer(usize),
    /// The timestamp's own bytes.
    Timestamp,
}

/// Where the signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureAt {
    /// The header's name in lower case; with [`Form::Numbered`] what stands before the number.
    pub header: Box<str>,
    /// How the header is built.
    pub form: Form,
    /// How the bytes are written.
    pub encoding: Encoding,
}

/// How a signature header is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole value, after a fixed prefix (which may be empty).
    Whole {
        /// As in `sha256=`.
        prefix: Box<str>,
    },
    /// A list of entries, of which those with this prefix are signatures; others are skipped.
    Entries {
        /// Between entries: a space or a comma.
        separator: u8,
        /// As in `v1,`.
        prefix: Box<str>,
    },
    /// A list of `key=value` fields, of which those with this key are signatures.
    Fields {
        /// Between fields: a comma or a semicolon.
        separator: u8,
        /// As in `v1`.
        key: Box<str>,
    },
    /// Headers with the numbers 1, 2, … at the end of their name, one signature each.
    Numbered,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Standard alphabet, padded, canonical. Source: RFC 4648, 4 and 3.5.
    Base64,
    /// Two hexadecimal digits a byte, in either case.
    Hex,
}

/// Where the timestamp is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampAt {
    /// The place.
    pub place: TimestampPlace,
    /// What it counts.
    pub unit: Unit,
}

/// The place of the timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimestampPlace {
    /// A field of the signature header's list, by its key.
    Field(Box<str>),
    /// A header of its own, by its name in lower case.
    Header(Box<str>),
    /// A JSON pointer, by its slot.
    Pointer(usize),
}

/// What a timestamp counts since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds: ten digits.
    Seconds,
    /// Milliseconds: thirteen digits.
    Milliseconds,
}

/// Where the message id is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdAt {
    /// Nowhere: the SHA-256 of the body stands for it.
    BodyDigest,
    /// A captured header, by its place in the source's list.
    Header(usize),
    /// JSON pointers: the first present, and all present ones equal.
    Pointers {
        /// Their slots.
        slots: Range<usize>,
        /// Whether the SHA-256 of the body stands for one that is missing.
        or_body_digest: bool,
    },
}

/// What the head of a request says, decoded: all that is needed of it once the body is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Signatures that are still to be checked.
    Signed(Signed),
    /// A token that has been checked.
    Token(TokenProof),
}

/// Signatures and timestamp of a request, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    signatures: Offered,
    timestamp: Option<Timestamp>,
}

/// The signatures of a request; nearly always one, for which nothing is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Offered {
    One(SignatureBytes),
    Several(Vec<SignatureBytes>),
}

impl Signed {
    /// Every signature that the sender offers; at least one.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureBytes] {
        match &self.signatures {
            Offered::One(signature) => core::slice::from_ref(signature),
            Offered::Several(signatures) => signatures,
        }
    }

    /// The timestamp, where the head has it.
    #[must_use]
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref()
    }
}

/// A timestamp: the sender's own digits, and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    digits: [u8; 13],
    unit: Unit,
}

impl Timestamp {
    /// Reads exactly as many ASCII digits as the unit has.
    ///
    /// Nothing else is accepted: two spellings of one time would be two signed messages.
    ///
    /// # Errors
    ///
    /// [`Code::TimestampMalformed`].
    pub fn parse(text: &[u8], unit: Unit) -> Result<Self, Rejection> {
        let (length, expected) = match unit {
            Unit::Seconds => (10, "expected 10 digits"),
            Unit::Milliseconds => (13, "expected 13 digits"),
        };
        let refused = Rejection::because(Code::TimestampMalformed, expected);
        if text.len() != length || !text.iter().all(u8::is_ascii_digit) {
            return Err(refused);
        }
        let mut digits = [0; 13];
        digits
            .get_mut(..length)
            .ok_or(refused)?
            .copy_from_slice(text);
        Ok(Self { digits, unit })
    }

    /// The digits as they came: what the sender signed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let length = match self.unit {
            Unit::Seconds => 10,
            Unit::Milliseconds => 13,
        };
        self.digits.get(..length).unwrap_or_default()
    }

    /// Its age, in seconds; negative if it lies ahead.
    #[must_use]
    pub fn age_seconds(&self, now: UnixMillis) -> Option<i64> {
        let now = i64::try_from(now.as_seconds()).ok()?;
        now.checked_sub(i64::try_from(self.seconds()).ok()?)
    }

    /// Seconds since the epoch.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        let value = self.as_bytes().iter().fold(0_u64, |value, digit| {
            value * 10 + u64::from(digit.wrapping_sub(b'0'))
        });
        match self.unit {
            Unit::Seconds => value,
            Unit::Milliseconds => value / 1000,
        }
    }
}

/// How far a timestamp may be from the proxy's clock, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// The largest accepted age.
    pub past: u64,
    /// The largest accepted lead. Apart from the age: a symmetric window would double the time in
    /// which a copy stays fresh.
    pub future: u64,
}

impl Tolerance {
    /// Checks `timestamp` against the clock.
    ///
    /// # Errors
    ///
    /// [`Code::TimestampTooOld`] or [`Code::TimestampInFuture`], with the distance.
    pub fn check(&self, timestamp: &Timestamp, now: UnixMillis) -> Result<(), Rejection> {
        let (then, now) = (timestamp.seconds(), now.as_seconds());
        let (age, lead) = (now.saturating_sub(then), then.saturating_sub(now));
        if age > self.past {
            return Err(Rejection::stale(Code::TimestampTooOld, age, self.past));
        }
        if lead > self.future {
            return Err(Rejection::stale(Code::TimestampInFuture, lead, self.future));
        }
        Ok(())
    }
}

impl Scheme {
    /// The timestamp's place, if the sender sends one.
    #[must_use]
    pub fn timestamp(&self) -> Option<&TimestampAt> {
        match &self.proof {
            Proof::Signature(rule) => rule.timestamp.as_ref(),
            Proof::Token(_) => None,
        }
    }

    /// Whether the signed message holds the message id.
    #[must_use]
    pub fn signs_id(&self) -> bool {
        matches!(&self.proof, Proof::Signature(rule) if rule.holds(&Part::Id))
    }

    /// Reads the head: signatures and timestamp are decoded, a token is checked at once.
    ///
    /// # Errors
    ///
    /// Those of [`SignatureRule::read_head`] or of [`TokenRule::check`].
    pub fn read_head(&self, head: &RequestHead<'_>) -> Result<Credentials, Rejection> {
        match &self.proof {
            Proof::Signature(rule) => rule.read_head(head).map(Credentials::Signed),
            Proof::Token(rule) => rule.check(head).map(Credentials::Token),
        }
    }
}

impl SignatureRule {
    /// Whether `part` is in the message.
    #[must_use]
    pub fn holds(&self, part: &Part) -> bool {
        self.message.iter().any(|piece| piece.part == *part)
    }

    /// Whether the message holds the body itself: then the MAC is checked before anything is parsed.
    #[must_use]
    pub fn signs_body(&self) -> bool {
        self.holds(&Part::Body)
    }

    /// Reads signature and timestamp from the head: both there, once each, and well formed.
    ///
    /// # Errors
    ///
    /// In this order: `signature_missing`, `timestamp_missing`, `signature_ambiguous`,
    /// `timestamp_ambiguous`, `signature_malformed`, `timestamp_malformed`.
    pub fn read_head(&self, head: &RequestHead<'_>) -> Result<Signed, Rejection> {
        let value = self.value.occurrence(head);
        let stamp = match self.timestamp.as_ref().map(|at| (&at.place, at.unit)) {
            Some((TimestampPlace::Header(name), unit)) => {
                Some((head.occurrence(name.as_bytes()), unit))
            }
            Some((TimestampPlace::Field(key), unit)) => match value {
                Occurrence::Once(list) => Some((self.value.field(list, key), unit)),
                _ => None,
            },
            Some((TimestampPlace::Pointer(_), _)) | None => None,
        };
        let is = |given: Occurrence<'_>| stamp.is_some_and(|(stamp, _)| stamp == given);
        if value == Occurrence::Missing {
            return Err(Rejection::new(Code::SignatureMissing));
        }
        if is(Occurrence::Missing) {
            return Err(Rejection::new(Code::TimestampMissing));
        }
        if value == Occurrence::Several {
            return Err(Rejection::new(Code::SignatureAmbiguous));
        }
        if is(Occurrence::Several) {
            return Err(Rejection::new(Code::TimestampAmbiguous));
        }
        let mut signed = self.value.decode(head, value, self.algorithm)?;
        if let Some((Occurrence::Once(text), unit)) = stamp {
            signed.timestamp = Some(Timestamp::parse(text, unit)?);
        }
        Ok(signed)
    }

    /// Checks the signatures over the message that `material` makes.
    ///
    /// # Errors
    ///
    /// Those of [`SignatureRule::message`]; [`Code::SignatureMismatch`];
    /// [`Code::InternalError`] if the host would have to verify it, and cannot.
    pub fn verify(
        &self,
        material: &Material<'_>,
        signatures: &[SignatureBytes],
        host: HostVerify,
    ) -> Result<(), Rejection> {
        let (parts, length) = self.message(material)?;
        let parts = parts.get(..length).unwrap_or_default();
        match keys::verify(&self.keys, parts, signatures, host) {
            Ok(_) => Ok(()),
            Err(Mismatch::Signature) => Err(Rejection::new(Code::SignatureMismatch)),
            Err(Mismatch::Host) => Err(Rejection::because(
                Code::InternalError,
                "the proxy has no function that verifies this algorithm",
            )),
        }
    }

    /// The parts of the signed message as bytes, in order.
    ///
    /// # Errors
    ///
    /// [`Code::IdMalformed`] or [`Code::SignatureMalformed`] if a part holds the separator that ends
    /// it; [`Code::InternalError`] if one is not there, which the configuration has ruled out.
    pub fn message<'m>(
        &'m self,
        material: &Material<'m>,
    ) -> Result<([&'m [u8]; MAX_PARTS], usize), Rejection> {
        let mut parts: [&[u8]; MAX_PARTS] = [b""; MAX_PARTS];
        for (slot, piece) in parts.iter_mut().zip(&self.message) {
            let bytes = match &piece.part {
                Part::Body => material.body,
                Part::Header(index) => material.headers.get(*index).and_then(Option::as_deref),
                Part::Id => material.id,
                Part::Literal(bytes) => Some(&**bytes),
                Part::Pointer(slot) => material.values.get(*slot).copied().flatten(),
                Part::Timestamp => material.timestamp,
            };
            let bytes = bytes.ok_or(Rejection::because(
                Code::InternalError,
                "a part of the message is gone",
            ))?;
            if piece.separator.is_some_and(|byte| bytes.contains(&byte)) {
                let code = match piece.part {
                    Part::Id => Code::IdMalformed,
                    _ => Code::SignatureMalformed,
                };
                return Err(Rejection::because(
                    code,
                    "a part of the message holds the separator that ends it",
                ));
            }
            *slot = bytes;
        }
        Ok((parts, self.message.len()))
    }
}

/// What a message can be made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Material<'m> {
    /// The body as received.
    pub body: Option<&'m [u8]>,
    /// The captured headers of the source.
    pub headers: &'m [Option<Box<[u8]>>],
    /// The message id.
    pub id: Option<&'m [u8]>,
    /// The timestamp's own bytes.
    pub timestamp: Option<&'m [u8]>,
    /// The values at the source's pointers, by slot.
    pub values: &'m [Option<&'m [u8]>],
}

impl SignatureAt {
    fn occurrence<'a>(&self, head: &RequestHead<'a>) -> Occurrence<'a> {
        if self.form != Form::Numbered {
            return head.occurrence(self.header.as_bytes());
        }
        let (mut found, mut numbers) = (Occurrence::Missing, 0_u128);
        for (number, value) in self.numbered(head) {
            let bit = 1_u128.checked_shl(number).unwrap_or_default();
            if numbers & bit != 0 {
                return Occurrence::Several;
            }
            numbers |= bit;
            if found == Occurrence::Missing {
                found = Occurrence::Once(value);
            }
        }
        found
    }

    /// The headers with a number from 1 to [`MAX_SIGNATURES`] at the end of their name.
    fn numbered<'a>(&self, head: &RequestHead<'a>) -> impl Iterator<Item = (u32, &'a [u8])> {
        head.pairs().filter_map(|(name, value)| {
            let digits = name.strip_prefix(self.header.as_bytes())?;
            // One spelling for each number.
            if !digits.iter().all(u8::is_ascii_digit) || digits.starts_with(b"0") {
                return None;
            }
            let number = core::str::from_utf8(digits).ok()?.parse().ok()?;
            let is_one = usize::try_from(number).is_ok_and(|number| number <= MAX_SIGNATURES);
            is_one.then_some((number, value))
        })
    }

    fn decode(
        &self,
        head: &RequestHead<'_>,
        value: Occurrence<'_>,
        algorithm: Algorithm,
    ) -> Result<Signed, Rejection> {
        let malformed = || Rejection::new(Code::SignatureMalformed);
        let Occurrence::Once(value) = value else {
            return Err(malformed());
        };
        match &self.form {
            Form::Whole { prefix } => {
                let text = value.strip_prefix(prefix.as_bytes());
                self.collect(algorithm, text.into_iter())
            }
            Form::Entries { separator, prefix } => self.collect(
                algorithm,
                split(value, *separator).filter_map(|part| part.strip_prefix(prefix.as_bytes())),
            ),
            Form::Fields { separator, key } => {
                self.collect(algorithm, fields(value, *separator, key))
            }
            Form::Numbered => self.collect(algorithm, self.numbered(head).map(|(_, value)| value)),
        }
        .ok_or_else(malformed)
    }

    /// Decodes what decodes; nothing if nothing does. An entry that does not is no signature of
    /// ours, and no error beside one that is: senders put other versions beside it.
    fn collect<'a>(
        &self,
        algorithm: Algorithm,
        texts: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Signed> {
        let mut found = texts
            .filter_map(|text| self.encoding.decode(text, algorithm))
            .take(MAX_SIGNATURES);
        let first = found.next()?;
        let signatures = match found.next() {
            None => Offered::One(first),
            Some(second) => Offered::Several([first, second].into_iter().chain(found).collect()),
        };
        Some(Signed {
            signatures,
            timestamp: None,
        })
    }

    fn field<'a>(&self, value: &'a [u8], key: &str) -> Occurrence<'a> {
        let Form::Fields { separator, .. } = &self.form else {
            return Occurrence::Missing;
        };
        let mut values = fields(value, *separator, key);
        match (values.next(), values.next()) {
            (None, _) => Occurrence::Missing,
            (Some(value), None) => Occurrence::Once(value),
            (Some(_), Some(_)) => Occurrence::Several,
        }
    }
}

fn split(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    value
        .split(move |byte| *byte == separator)
        .map(<[u8]>::trim_ascii)
}

fn fields<'a>(value: &'a [u8], separator: u8, key: &str) -> impl Iterator<Item = &'a [u8]> {
    split(value, separator).filter_map(move |field| {
        field
            .strip_prefix(key.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
    })
}

impl Encoding {
    /// Decodes a signature of `algorithm`, in the one spelling that each byte sequence has (hex: two).
    #[must_use]
    pub fn decode(self, text: &[u8], algorithm: Algorithm) -> Option<SignatureBytes> {
        SignatureBytes::decode(algorithm, text, |buffer| match self {
            Encoding::Base64 => STANDARD.decode_slice(text, buffer).ok(),
            Encoding::Hex => {
                let length = text.len().checked_div(2)?;
                hex::decode_to_slice(text, buffer.get_mut(..length)?).ok()?;
                Some(length)
            }
        })
    }

    /// Writes a signature as the sender does.
    #[must_use]
    pub fn encode(self, signature: &SignatureBytes) -> String {
        match self {
            Encoding::Base64 => STANDARD.encode(signature.as_slice()),
            Encoding::Hex => hex::encode(signature.as_slice()),
        }
    }
}
