//! HMAC-SHA256 under prepared secrets, compared in constant time.

use core::fmt;

use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A decoded HMAC-SHA256 value.
pub type Signature = [u8; 32];

/// A secret, ready to use: the state of HMAC after its key block, inner and outer, so that a
/// request pays for its message alone.
///
/// Source: RFC 2104, section 4 (precomputed intermediate results).
#[derive(Clone)]
pub struct SigningSecret {
    keyed: Hmac<Sha256>,
    key: Box<[u8]>,
}

impl SigningSecret {
    /// Prepares `key`. An empty key is refused: it would let anybody sign.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        if key.is_empty() {
            return None;
        }
        Hmac::new_from_slice(key).ok().map(|keyed| Self {
            keyed,
            key: key.into(),
        })
    }

    /// Whether `token` is this secret itself, in a time that does not tell where they differ.
    ///
    /// The MACs of both under the secret are compared, so that the length does not show either.
    #[must_use]
    pub fn is(&self, token: &[u8]) -> bool {
        self.compute(&[token]) == self.compute(&[&self.key])
    }

    /// The key, for those who sign: it must never be shown.
    pub(crate) fn reveal(&self) -> &[u8] {
        &self.key
    }

    /// The MAC of the concatenation of `parts`.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> Signature {
        self.compute(parts).into_bytes().into()
    }

    fn compute(&self, parts: &[&[u8]]) -> CtOutput<Hmac<Sha256>> {
        let mut mac = self.keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize()
    }
}

/// Says that there is a secret, and nothing of it.
impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret([redacted])")
    }
}

/// The index of a secret under which one of `signatures` authenticates the concatenation of `parts`.
///
/// Every secret is tried against every signature, and each comparison takes the same time wherever
/// the bytes differ: the time depends on counts, which are public, never on secret bytes.
#[must_use]
pub fn verify<'s>(
    secrets: &[SigningSecret],
    parts: &[&[u8]],
    signatures: impl Iterator<Item = &'s Signature> + Clone,
) -> Option<usize> {
    let mut matching = None;
    for (index, secret) in secrets.iter().enumerate() {
        let expected = secret.compute(parts);
        for signature in signatures.clone() {
            let equal = CtOutput::<Hmac<Sha256>>::new((*signature).into()) == expected;
            if equal && matching.is_none() {
                matching = Some(index);
            }
        }
    }
    matching
}
