//! A signature scheme as data: where a sender puts signature, timestamp and id, and what it signs.
//!
//! One small language holds every sender whose rule is a signature over header values, JSON values,
//! the URL, literals and the body, or who sends a shared token. The presets are texts in that
//! language; no code knows a sender by name.

mod form;
mod header;
pub mod keys;
mod message;
mod timestamp;
pub mod token;

use core::ops::Range;

use sha2::{Digest as _, Sha256};

pub use header::{Encoding, Form, MAX_SIGNATURES, SignatureAt, SignaturePlace};
pub use message::{Bound, DigestText, MAX_PARTS, MessageInput, Part, Piece, Shape};
#[cfg(feature = "sign")]
pub use timestamp::written;
pub use timestamp::{Timestamp, TimestampAt, TimestampPlace, Tolerance, Unit};

use crate::request::{Occurrence, RequestHead};
use crate::scheme::keys::{Algorithm, HostVerify, Key, Mismatch, SignatureBytes};
use crate::scheme::token::{TokenProof, TokenRule};
use crate::verdict::{Code, Rejection};
use header::Offered;

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

/// Where the message id is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdAt {
    /// Nowhere: the SHA-256 of the body is used instead.
    BodyDigest,
    /// A captured header, by its place in the source's list.
    Header(usize),
    /// Nowhere: the SHA-256 of the signed message is used instead, where that covers less than the body.
    MessageDigest,
    /// JSON pointers: the first present, and all present ones equal.
    Pointers {
        /// Their slots.
        slots: Range<usize>,
        /// Whether the SHA-256 of the body replaces one that is missing.
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
    /// A token that is inside of the body.
    TokenInBody,
}

/// Signatures and timestamp of a request, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    signatures: Offered,
    timestamp: Option<Timestamp>,
}

impl Signed {
    /// Every signature that the sender offers in the head.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureBytes] {
        self.signatures.as_slice()
    }

    /// The timestamp, where the head has it.
    #[must_use]
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref()
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

    /// The MAC of the concatenation of `parts` under the first secret or token, for an answer to the
    /// sender's challenge; `None` where the keys are public.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> Option<SignatureBytes> {
        match &self.proof {
            Proof::Signature(rule) => rule.keys.first()?.mac(parts),
            Proof::Token(rule) => rule.tokens.first()?.mac(parts),
        }
    }

    /// Reads the head: signatures and timestamp are decoded, a token is checked at once.
    ///
    /// # Errors
    ///
    /// Those of [`SignatureRule::read_head`] or of [`TokenRule::check`].
    pub(crate) fn read_head(&self, head: &RequestHead<'_>) -> Result<Credentials, Rejection> {
        match &self.proof {
            Proof::Signature(rule) => rule.read_head(head).map(Credentials::Signed),
            Proof::Token(rule) => Ok(match rule.check(head)? {
                Some(token) => Credentials::Token(token),
                None => Credentials::TokenInBody,
            }),
        }
    }
}

impl SignatureRule {
    /// Whether `part` is in the message.
    #[must_use]
    pub fn holds(&self, part: &Part) -> bool {
        self.message.iter().any(|piece| piece.part == *part)
    }

    /// Whether the message covers the body itself: then the signature is checked before anything is
    /// parsed.
    #[must_use]
    pub fn signs_body(&self) -> bool {
        self.message.iter().any(|piece| piece.part.covers_body())
    }

    /// Whether the message holds values from inside the body.
    #[must_use]
    pub(crate) fn reads_pointers(&self) -> bool {
        let is_pointer = |piece: &Piece| matches!(piece.part, Part::Pointer { .. });
        self.message.iter().any(is_pointer)
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
        let signatures = self.value.decode(head, self.algorithm)?;
        let timestamp = match stamp {
            Some((Occurrence::Once(text), unit)) => Some(Timestamp::parse(text, unit)?),
            _ => None,
        };
        Ok(Signed {
            signatures,
            timestamp,
        })
    }

    /// Whether signature or signed timestamp are inside the body.
    #[must_use]
    pub(crate) fn reads_body(&self) -> bool {
        let is_inside = |at: &TimestampAt| matches!(at.place, TimestampPlace::Pointer(_));
        matches!(self.value.place, SignaturePlace::Pointer(_))
            || (self.timestamp.as_ref().is_some_and(is_inside) && self.holds(&Part::Timestamp))
    }

    /// Adds to what the head has what the body has; `text` gives the value in a slot.
    ///
    /// # Errors
    ///
    /// `signature_missing`, `timestamp_missing`, `signature_malformed`, `timestamp_malformed`.
    pub(crate) fn read_body<T: AsRef<[u8]>>(
        &self,
        signed: &Signed,
        text: impl Fn(usize) -> Option<T>,
    ) -> Result<Signed, Rejection> {
        let mut signed = signed.clone();
        if let SignaturePlace::Pointer(slot) = self.value.place {
            let value = text(slot).ok_or(Rejection::new(Code::SignatureMissing))?;
            signed.signatures = self.value.decode_text(value.as_ref(), self.algorithm)?;
        }
        if let Some(TimestampAt {
            place: TimestampPlace::Pointer(slot),
            unit,
        }) = self.timestamp
            && self.holds(&Part::Timestamp)
        {
            let value = text(slot).ok_or(Rejection::new(Code::TimestampMissing))?;
            signed.timestamp = Some(Timestamp::parse(value.as_ref(), unit)?);
        }
        Ok(signed)
    }

    /// Assembles the signed message, and gives its parts to `then`. There is no other assembly.
    ///
    /// # Errors
    ///
    /// [`Code::SignatureMismatch`] if a part is missing; [`Code::IdMalformed`] or
    /// [`Code::SignatureMalformed`] if the message could be cut in another way.
    pub fn with_message<T>(
        &self,
        input: &MessageInput<'_>,
        then: impl FnOnce(&[&[u8]]) -> T,
    ) -> Result<T, Rejection> {
        message::assemble(&self.message, input, then)
    }

    /// Checks the signatures over the message that `input` makes.
    ///
    /// # Errors
    ///
    /// Those of [`SignatureRule::with_message`]; [`Code::SignatureMismatch`];
    /// [`Code::InternalError`] if the host would have to verify it, and cannot, or there is no key.
    pub(crate) fn verify(
        &self,
        input: &MessageInput<'_>,
        signatures: &[SignatureBytes],
        host: HostVerify,
    ) -> Result<(), Rejection> {
        let found = self.with_message(input, |parts| {
            keys::verify(&self.keys, parts, signatures, host)
        })?;
        match found {
            Ok(_) => Ok(()),
            Err(Mismatch::Signature) => Err(Rejection::new(Code::SignatureMismatch)),
            Err(Mismatch::Host) => Err(Rejection::because(
                Code::InternalError,
                "the proxy has no function that verifies this algorithm",
            )),
            Err(Mismatch::NoKey) => Err(Rejection::no_secret()),
        }
    }

    /// The SHA-256 of the message.
    ///
    /// # Errors
    ///
    /// Those of [`SignatureRule::with_message`].
    pub(crate) fn digest(&self, input: &MessageInput<'_>) -> Result<[u8; 32], Rejection> {
        self.with_message(input, |parts| {
            let mut digest = Sha256::new();
            for part in parts {
                digest.update(part);
            }
            digest.finalize().into()
        })
    }
}
