//! A signature's bytes.

use core::fmt;

use super::algorithm::Algorithm;

/// A decoded signature, of a length that its algorithm can have.
#[derive(Clone, PartialEq, Eq)]
pub struct SignatureBytes(Bytes);

#[derive(Clone, PartialEq, Eq)]
enum Bytes {
    /// Up to 64 bytes, without an allocation, and how many they are.
    Short([u8; 64], u8),
    Long(Box<[u8]>),
}

impl SignatureBytes {
    /// `bytes` as a signature of `algorithm`; `None` if none has this length.
    #[must_use]
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let (shortest, longest) = algorithm.lengths();
        if !(shortest..=longest).contains(&bytes.len()) {
            return None;
        }
        let mut short = [0; 64];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(bytes);
                Some(Self(Bytes::Short(short, length)))
            }
            _ => Some(Self(Bytes::Long(bytes.into()))),
        }
    }

    /// Decodes a text; `decode` writes the bytes to a buffer and says how many.
    ///
    /// The text is bounded before it is decoded: no spelling of bytes is shorter than base64 or
    /// longer than hex.
    pub(crate) fn decode(
        algorithm: Algorithm,
        text: &[u8],
        decode: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<Self> {
        let (shortest, longest) = algorithm.lengths();
        if text.len() < shortest || text.len() > longest.saturating_mul(2) {
            return None;
        }
        // A whole group of base64, and one more, is written before its length is known.
        let mut short = [0; 72];
        let mut long;
        let buffer: &mut [u8] = if text.len() <= 88 || longest <= 64 {
            &mut short
        } else {
            long = vec![0; text.len()];
            &mut long
        };
        let length = decode(buffer)?;
        Self::new(algorithm, buffer.get(..length)?)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short(bytes, length) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Bytes::Long(bytes) => bytes,
        }
    }
}

/// Says that there is a signature, and nothing of it: it may be one that was expected.
impl fmt::Debug for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignatureBytes({} bytes)", self.as_slice().len())
    }
}
