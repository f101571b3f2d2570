//! Keys: what a signature is verified under, in one place.
//!
//! Nothing outside of this folder knows how long a signature is or how an algorithm works. A MAC and
//! Ed25519 are computed here; RSA and ECDSA are the host's business ([`HostVerify`]): Envoy verifies
//! them itself, so that the module carries no code for them.

#[cfg(feature = "native")]
pub mod native;
mod public;
#[cfg(feature = "sign")]
mod signing;
mod signing_keys;

use core::fmt;

use hmac::digest::Output;
use hmac::digest::common::KeySizeUser;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

pub use public::{KeyError, PublicEncoding};
#[cfg(feature = "sign")]
pub use signing::SigningKey;
pub use signing_keys::SigningKeys;

/// How a callback is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// HMAC with SHA-1. Source: RFC 2104.
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
    /// HMAC with SHA-256.
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
    /// Ed25519, 64 bytes. Source: RFC 8032.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA on P-256 with SHA-256, in DER. Source: RFC 3279, 2.2.3.
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// RSA with PKCS#1 v1.5 padding and SHA-256. Source: RFC 8017, 8.2.
    #[serde(rename = "rsa-pkcs1-sha256")]
    RsaPkcs1Sha256,
}

/// The longest RSA signature, in bytes: that of a key of 8192 bits.
const LONGEST: usize = 1024;

impl Algorithm {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha512 => "hmac-sha512",
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
        }
    }

    /// Whether the sender keeps the key to itself, and the receiver has a public one.
    #[must_use]
    pub const fn is_asymmetric(self) -> bool {
        matches!(
            self,
            Self::Ed25519 | Self::EcdsaP256Sha256 | Self::RsaPkcs1Sha256
        )
    }

    /// Whether the host verifies it.
    #[must_use]
    pub const fn is_hosts(self) -> bool {
        matches!(self, Self::EcdsaP256Sha256 | Self::RsaPkcs1Sha256)
    }

    /// The shortest and the longest signature, in bytes.
    const fn lengths(self) -> (usize, usize) {
        match self {
            Self::HmacSha1 => (20, 20),
            Self::HmacSha256 => (32, 32),
            Self::HmacSha512 | Self::Ed25519 => (64, 64),
            // Two integers of 1 to 33 bytes, with two bytes before each, and two before both.
            Self::EcdsaP256Sha256 => (8, 72),
            Self::RsaPkcs1Sha256 => (256, LONGEST),
        }
    }
}

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
    pub(super) fn decode(
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

/// A question to the host: is this the signature of that message?
#[derive(Clone, Copy, Debug)]
pub struct HostCheck<'c> {
    /// [`Algorithm::EcdsaP256Sha256`] or [`Algorithm::RsaPkcs1Sha256`].
    pub algorithm: Algorithm,
    /// The key: DER of a SubjectPublicKeyInfo, of the algorithm's own type.
    pub public_key: &'c [u8],
    /// The whole message.
    pub message: &'c [u8],
    /// The signature.
    pub signature: &'c [u8],
}

/// The host verifies nothing: it has no such function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVerifier;

/// How a host verifies RSA and ECDSA. Envoy does it itself; natively there is [`native::verify`].
pub type HostVerify = fn(&HostCheck<'_>) -> Result<bool, NoVerifier>;

/// A host that cannot: whatever would need it is answered 503, as it can be neither let through nor
/// called a forgery.
///
/// # Errors
///
/// Always.
pub fn no_verifier(_: &HostCheck<'_>) -> Result<bool, NoVerifier> {
    Err(NoVerifier)
}

/// Asks `verify` a question with a known answer, and one with its opposite.
///
/// # Errors
///
/// [`NoVerifier`] if it gives another answer to either: nothing that it says can be trusted.
pub fn probe(verify: HostVerify) -> Result<(), NoVerifier> {
    // An official vector of SendGrid: its public key, and what it signed.
    // Source: sendgrid-python, test/unit/test_eventwebhook.py.
    const PUBLIC_KEY: [u8; 91] = *include_bytes!("probe/key.der");
    const MESSAGE: &[u8] = include_bytes!("probe/message.bin");
    const SIGNATURE: &[u8] = include_bytes!("probe/signature.der");
    let check = |message: &[u8]| {
        verify(&HostCheck {
            algorithm: Algorithm::EcdsaP256Sha256,
            public_key: &PUBLIC_KEY,
            message,
            signature: SIGNATURE,
        })
    };
    match (check(MESSAGE)?, check(b"another message")?) {
        (true, false) => Ok(()),
        _ => Err(NoVerifier),
    }
}

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
    Public(Box<public::PublicKey>),
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
        let key = public::PublicKey::parse(algorithm, text, encoding)?;
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

fn prepare<M: Mac + KeySizeUser + KeyInit>(key: &[u8]) -> Option<M> {
    <M as KeyInit>::new_from_slice(key).ok()
}

fn compute<M: Mac + Clone>(keyed: &M, parts: &[&[u8]]) -> Output<M> {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

/// Compares each of `signatures` in a time that does not tell where it differs.
fn is_mac<M: Mac + Clone>(keyed: &M, parts: &[&[u8]], signatures: &[SignatureBytes]) -> bool {
    use hmac::digest::CtOutput;
    let expected = CtOutput::<M>::new(compute(keyed, parts));
    let mut found = false;
    for signature in signatures {
        if let Ok(given) = <Output<M>>::try_from(signature.as_slice()) {
            found |= CtOutput::<M>::new(given) == expected;
        }
    }
    found
}

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
    pub fn mac(&self, parts: &[&[u8]]) -> Option<SignatureBytes> {
        SignatureBytes::new(Algorithm::HmacSha256, &compute(&self.keyed, parts))
    }
}

/// Says that there is a token, and nothing of it.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
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
