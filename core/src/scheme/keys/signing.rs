//! Keys that sign, for the `callback-guard` program and for tests. The filter has none: the feature
//! `sign` is never on there.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use spki::der::Encode as _;
use spki::der::asn1::{AnyRef, BitStringRef};
use spki::{AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::algorithm::Algorithm;
use super::key::Key;
use super::public::{BASE64, EC, ED25519, KeyError, P256, RSA};
use super::signature::SignatureBytes;

/// A key that signs: a secret, a token, or a private key.
pub struct SigningKey(Kind);

enum Kind {
    Secret { key: Key, bytes: Box<[u8]> },
    Token(Box<[u8]>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// The bytes before the seed in the PKCS#8 of an Ed25519 key. Source: RFC 8410, 7.
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

impl SigningKey {
    /// The bytes of a secret.
    ///
    /// # Errors
    ///
    /// As [`Key::secret`].
    pub fn secret(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        Ok(Self(Kind::Secret {
            key: Key::secret(algorithm, bytes)?,
            bytes: bytes.into(),
        }))
    }

    /// A token, which comes along as it is.
    #[must_use]
    pub fn token(bytes: &[u8]) -> Self {
        Self(Kind::Token(bytes.into()))
    }

    /// A private key: PKCS#8 as PEM or as DER in base64; for Ed25519 also its seed of 32 bytes, or
    /// seed and public key of 64, in hexadecimal digits or base64, with or without `whsk_`.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it cannot be read, or is of another algorithm.
    pub fn private(algorithm: Algorithm, text: &[u8]) -> Result<Self, KeyError> {
        let kind = match algorithm {
            Algorithm::Ed25519 => {
                let text = text.trim_ascii();
                let text = text.strip_prefix(b"whsk_").unwrap_or(text);
                let bytes = match hex::decode(text) {
                    Ok(bytes) => bytes,
                    Err(_) => pkcs8(text)?,
                };
                let bytes = bytes.strip_prefix(&ED25519_PKCS8).unwrap_or(&bytes);
                let seed = bytes
                    .first_chunk()
                    .filter(|_| bytes.len() == 32 || bytes.len() == 64)
                    .ok_or(KeyError("the private key is no Ed25519 key"))?;
                Kind::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(seed)))
            }
            Algorithm::EcdsaP256Sha256 => EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                &pkcs8(text)?,
                &SystemRandom::new(),
            )
            .map(Kind::Ecdsa)
            .map_err(|_| KeyError("the private key is no PKCS#8 of P-256"))?,
            Algorithm::RsaPkcs1Sha256 => RsaKeyPair::from_pkcs8(&pkcs8(text)?)
                .map(|pair| Kind::Rsa(Box::new(pair)))
                .map_err(|_| KeyError("the private key is no PKCS#8 of RSA"))?,
            Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::HmacSha512 => {
                return Err(KeyError("this algorithm has secrets, and no private keys"));
            }
        };
        Ok(Self(kind))
    }

    /// Signs the concatenation of `parts`.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if the key is a token, which signs nothing, or the system has no random bytes.
    pub fn sign(&self, parts: &[&[u8]]) -> Result<SignatureBytes, KeyError> {
        let failed = KeyError("the key cannot sign");
        let (algorithm, bytes) = match &self.0 {
            Kind::Secret { key, .. } => return key.mac(parts).ok_or(failed),
            Kind::Token(_) => return Err(KeyError("a token signs nothing")),
            Kind::Ed25519(pair) => {
                let signature = pair.sign(&parts.concat());
                (Algorithm::Ed25519, signature.to_bytes().to_vec())
            }
            Kind::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), &parts.concat());
                let signature = signature.map_err(|_| failed)?;
                (Algorithm::EcdsaP256Sha256, signature.as_ref().to_vec())
            }
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, &parts.concat(), &mut signature)
                    .map_err(|_| failed)?;
                (Algorithm::RsaPkcs1Sha256, signature)
            }
        };
        SignatureBytes::new(algorithm, &bytes).ok_or(failed)
    }

    /// The public key, as `public_keys[]` has it with `"encoding": "spki"`; nothing for a secret.
    #[must_use]
    pub fn public_spki(&self) -> Option<String> {
        let (oid, curve, key) = match &self.0 {
            Kind::Secret { .. } | Kind::Token(_) => return None,
            Kind::Ed25519(pair) => (ED25519, None, pair.verifying_key().to_bytes().to_vec()),
            Kind::Ecdsa(pair) => (EC, Some(P256), pair.public_key().as_ref().to_vec()),
            Kind::Rsa(pair) => (RSA, None, pair.public_key().as_ref().to_vec()),
        };
        spki(oid, curve, &key).map(|der| STANDARD.encode(der))
    }

    /// The bytes of a secret or token: they must never be shown. Empty for a private key.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        match &self.0 {
            Kind::Secret { bytes, .. } | Kind::Token(bytes) => bytes,
            Kind::Ed25519(_) | Kind::Ecdsa(_) | Kind::Rsa(_) => &[],
        }
    }
}

/// Says that there is a key, and nothing of it.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([redacted])")
    }
}

fn spki(oid: ObjectIdentifier, curve: Option<ObjectIdentifier>, key: &[u8]) -> Option<Vec<u8>> {
    let parameters = match &curve {
        Some(curve) => Some(AnyRef::from(curve)),
        None if oid == RSA => Some(AnyRef::NULL),
        None => None,
    };
    let info = SubjectPublicKeyInfoRef {
        algorithm: AlgorithmIdentifierRef { oid, parameters },
        subject_public_key: BitStringRef::from_bytes(key).ok()?,
    };
    info.to_der().ok()
}

/// The DER in a PEM text, or in base64.
fn pkcs8(text: &[u8]) -> Result<Vec<u8>, KeyError> {
    let text = text.trim_ascii();
    let inside = text
        .strip_prefix(b"-----BEGIN PRIVATE KEY-----")
        .and_then(|text| text.strip_suffix(b"-----END PRIVATE KEY-----"));
    let base64: Vec<u8> = inside
        .unwrap_or(text)
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    BASE64.decode(base64).map_err(|_| {
        KeyError("the private key is neither PKCS#8 (`-----BEGIN PRIVATE KEY-----`) nor its base64")
    })
}
