//! Keys that signatures are verified under.

use core::fmt;

use hmac::Hmac;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::algorithm::Algorithm;
use super::host::{HostVerify, NoVerifier};
use super::mac::{compute, is_mac, prepare};
use super::public::{KeyError, PublicEncoding, PublicKey};
use super::signature::SignatureBytes;

/// A key that a signature is verified under, prepared: HMAC's state after its key block, inner and
/// outer, so that a request pays for its message alone; a public key parsed.
///
/// Source: RFC 2104, section 4 (precomputed intermediate results).
#[derive(Clone)]
pub struct Key(Kind);

#[derive(Clone)]
enum Kind {
    HmacSha1(Box<Hmac<Sha1>>),
    HmacSha256(Hmac<Sha256>),
    HmacSha512(Box<Hmac<Sha512>>),
    Public(Box<PublicKey>),
}

impl Key {
    /// Prepares the bytes of a secret.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if they are empty, which would let anybody sign, or the algorithm has no secret.
    pub fn secret(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        let kind = match algorithm {
            _ if bytes.is_empty() => None,
            Algorithm::HmacSha1 => prepare(bytes).map(Box::new).map(Kind::HmacSha1),
            Algorithm::HmacSha256 => prepare(bytes).map(Kind::HmacSha256),
            Algorithm::HmacSha512 => prepare(bytes).map(Box::new).map(Kind::HmacSha512),
            Algorithm::Ed25519 | Algorithm::EcdsaP256Sha256 | Algorithm::RsaPkcs1Sha256 => None,
        };
        kind.map(Self).ok_or(KeyError("the secret is empty"))
    }

    /// Parses a public key of `algorithm`.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it does not parse, is of another algorithm, or too weak.
    pub fn public(
        algorithm: Algorithm,
        text: &[u8],
        encoding: PublicEncoding,
    ) -> Result<Self, KeyError> {
        let key = PublicKey::parse(algorithm, text, encoding)?;
        Ok(Self(Kind::Public(Box::new(key))))
    }

    /// The MAC of the concatenation of `parts`, for an answer to the sender's challenge; nothing
    /// where the key is a public one.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> Option<SignatureBytes> {
        match &self.0 {
            Kind::HmacSha1(keyed) => {
                SignatureBytes::new(Algorithm::HmacSha1, &compute(&**keyed, parts))
            }
            Kind::HmacSha256(keyed) => {
                SignatureBytes::new(Algorithm::HmacSha256, &compute(keyed, parts))
            }
            Kind::HmacSha512(keyed) => {
                SignatureBytes::new(Algorithm::HmacSha512, &compute(&**keyed, parts))
            }
            Kind::Public(_) => None,
        }
    }

    fn verifies(
        &self,
        parts: &[&[u8]],
        signatures: &[SignatureBytes],
        host: HostVerify,
    ) -> Result<bool, NoVerifier> {
        match &self.0 {
            Kind::HmacSha1(keyed) => Ok(is_mac(&**keyed, parts, signatures)),
            Kind::HmacSha256(keyed) => Ok(is_mac(keyed, parts, signatures)),
            Kind::HmacSha512(keyed) => Ok(is_mac(&**keyed, parts, signatures)),
            Kind::Public(key) => key.verifies(&parts.concat(), signatures, host),
        }
    }
}

/// Says that there is a key, and nothing of it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([redacted])")
    }
}

/// Which of the configured keys, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIndex(pub usize);

/// Why no key verifies a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It is signed under none of them.
    Signature,
    /// The host would have to verify it, and cannot.
    Host,
    /// There is none: the host has yet to deliver the source's secrets.
    NoKey,
}

/// The key under which one of `signatures` authenticates the concatenation of `message`.
///
/// Every secret is tried against every signature, and each comparison takes the same time wherever
/// the bytes differ: the time depends on counts, which are public, never on secret bytes.
///
/// # Errors
///
/// [`Mismatch`].
pub fn verify(
    keys: &[Key],
    message: &[&[u8]],
    signatures: &[SignatureBytes],
    host: HostVerify,
) -> Result<KeyIndex, Mismatch> {
    if keys.is_empty() {
        return Err(Mismatch::NoKey);
    }
    let mut matching = None;
    for (index, key) in keys.iter().enumerate() {
        let is_match = key
            .verifies(message, signatures, host)
            .map_err(|NoVerifier| Mismatch::Host)?;
        if is_match && matching.is_none() {
            matching = Some(KeyIndex(index));
        }
    }
    matching.ok_or(Mismatch::Signature)
}
