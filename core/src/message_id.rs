//! The message id: what a sender calls the event, in a form that is safe to sign, log and forward.

use core::fmt;

use crate::verdict::{Code, Rejection};

/// The longest message id, in bytes.
const MAX_ID_BYTES: usize = 256;

/// A message id: 1 to 256 bytes, without control character and white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageId(Box<str>);

impl MessageId {
    /// Checks an id.
    ///
    /// # Errors
    ///
    /// [`Code::IdMalformed`] if it is empty, too long, or holds a control character or
    /// white space. What separates it from the rest of a signed message is checked where that is put
    /// together: [`crate::scheme::SignatureRule::with_message`].
    pub(crate) fn parse(text: &str) -> Result<Self, Rejection> {
        let refused = |why| Err(Rejection::because(Code::IdMalformed, why));
        if text.is_empty() {
            return refused("it is empty");
        }
        if text.len() > MAX_ID_BYTES {
            return refused("it is longer than 256 bytes");
        }
        // Nearly every id is of visible ASCII, which needs no look into the tables of Unicode.
        if !text.bytes().all(|byte| byte.is_ascii_graphic())
            && text
                .chars()
                .any(|char| char.is_control() || char.is_whitespace())
        {
            return refused("it holds a control character or a space");
        }
        Ok(Self(text.into()))
    }

    /// Checks an id that came in a header.
    ///
    /// # Errors
    ///
    /// As [`MessageId::parse`]; also if it is not UTF-8.
    pub(crate) fn parse_bytes(bytes: &[u8]) -> Result<Self, Rejection> {
        match core::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => Err(Rejection::because(Code::IdMalformed, "it is not UTF-8")),
        }
    }

    /// The id of a callback that has none: the digest of its body, in hexadecimal digits.
    #[must_use]
    pub(crate) fn digest(digest: &[u8; 32]) -> Self {
        Self(hex::encode(digest).into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
