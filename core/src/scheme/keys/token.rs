//! Shared tokens, ready to be compared.

use core::fmt;

use hmac::Hmac;
use sha2::Sha256;

use super::algorithm::Algorithm;
use super::mac::{compute, prepare};
use super::signature::SignatureBytes;

/// A shared token: only compared, never computed with.
#[derive(Clone)]
pub struct Token {
    keyed: Hmac<Sha256>,
    /// The token's MAC under itself.
    expected: [u8; 32],
}

impl Token {
    /// Prepares a token. An empty one is refused: everybody has it.
    #[must_use]
    pub fn new(token: &[u8]) -> Option<Self> {
        if token.is_empty() {
            return None;
        }
        let keyed: Hmac<Sha256> = prepare(token)?;
        let expected = compute(&keyed, &[token]).into();
        Some(Self { keyed, expected })
    }

    /// Whether `given` is this token, in a time that tells neither where they differ nor how long
    /// the token is: the MACs of both under the token are compared.
    #[must_use]
    pub fn matches(&self, given: &[u8]) -> bool {
        use hmac::digest::CtOutput;
        let expected = CtOutput::<Hmac<Sha256>>::new(self.expected.into());
        CtOutput::<Hmac<Sha256>>::new(compute(&self.keyed, &[given])) == expected
    }

    /// The HMAC-SHA256 of the concatenation of `parts` under the token, for an answer to the
    /// sender's challenge.
    #[must_use]
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> Option<SignatureBytes> {
        SignatureBytes::new(Algorithm::HmacSha256, &compute(&self.keyed, parts))
    }
}

/// Says that there is a token, and nothing of it.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}
