//! Public keys: parsed when the configuration is loaded, so that one that is broken, or of another
//! algorithm, is refused there.

use core::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::VerifyingKey;
use pkcs1::RsaPublicKeyRef;
use serde::Deserialize;
use spki::{AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::algorithm::{Algorithm, LONGEST};
use super::host::{HostCheck, HostVerify, NoVerifier};
use super::signature::SignatureBytes;

/// The shortest RSA modulus, in bytes: 2048 bits.
const SHORTEST_MODULUS: usize = 256;

pub(super) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
pub(super) const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(super) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(super) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// How a public key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PublicEncoding {
    /// The 32 bytes of an Ed25519 key, in base64.
    Base64,
    /// The 32 bytes of an Ed25519 key, in hexadecimal digits.
    Hex,
    /// A SubjectPublicKeyInfo: PEM (`-----BEGIN PUBLIC KEY-----`), or its DER in base64.
    Spki,
}

/// What is wrong with a key; never the key itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError(pub(super) &'static str);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for KeyError {}

/// A public key that has been parsed.
#[derive(Clone)]
pub(super) enum PublicKey {
    Ed25519(VerifyingKey),
    /// DER of a SubjectPublicKeyInfo, for the host.
    Host {
        algorithm: Algorithm,
        der: Box<[u8]>,
    },
}

/// Keys are given with and without padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl PublicKey {
    #[inline(never)]
    pub(super) fn parse(
        algorithm: Algorithm,
        text: &[u8],
        encoding: PublicEncoding,
    ) -> Result<Self, KeyError> {
        if encoding == PublicEncoding::Spki {
            return Self::parse_spki(algorithm, &der(text)?);
        }
        if algorithm != Algorithm::Ed25519 {
            return Err(KeyError(
                "a key of this algorithm is written as a SubjectPublicKeyInfo, expected \
                 `\"encoding\": \"spki\"`",
            ));
        }
        let bytes = match encoding {
            PublicEncoding::Hex => hex::decode(text).ok(),
            PublicEncoding::Base64 | PublicEncoding::Spki => BASE64.decode(text).ok(),
        };
        let bytes = bytes.ok_or(match encoding {
            PublicEncoding::Hex => KeyError("the public key is not valid hex"),
            _ => KeyError("the public key is not valid base64"),
        })?;
        ed25519(&bytes)
    }

    fn parse_spki(algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoRef::try_from(der)
            .map_err(|_| KeyError("the public key is no SubjectPublicKeyInfo"))?;
        let (given, curve) = oids(&info.algorithm);
        let key = info
            .subject_public_key
            .as_bytes()
            .ok_or(KeyError("the public key is no whole number of bytes"))?;
        match (algorithm, given) {
            (Algorithm::Ed25519, ED25519) => return ed25519(key),
            (Algorithm::Ed25519, _) => {
                return Err(KeyError("the public key is of another type than Ed25519"));
            }
            (Algorithm::EcdsaP256Sha256, EC) => {
                if curve != Some(P256) {
                    return Err(KeyError("the public key is on another curve than P-256"));
                }
                if key.len() != 65 || key.first() != Some(&4) {
                    return Err(KeyError("the public key is no uncompressed point of P-256"));
                }
            }
            (Algorithm::EcdsaP256Sha256, _) => {
                return Err(KeyError("the public key is of another type than ECDSA"));
            }
            (Algorithm::RsaPkcs1Sha256, RSA) => {
                let key = RsaPublicKeyRef::try_from(key)
                    .map_err(|_| KeyError("the public key is no RSA key"))?;
                let length = key.modulus.as_bytes().len();
                if !(SHORTEST_MODULUS..=LONGEST).contains(&length) {
                    return Err(KeyError(
                        "the RSA key has a length that is not accepted, expected 2048 to 8192 bits",
                    ));
                }
            }
            (Algorithm::RsaPkcs1Sha256, _) => {
                return Err(KeyError("the public key is of another type than RSA"));
            }
            (Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::HmacSha512, _) => {
                return Err(KeyError("this algorithm has secrets, and no public keys"));
            }
        }
        Ok(Self::Host {
            algorithm,
            der: der.into(),
        })
    }

    /// Whether one of `signatures` is that of `message`. There is nothing secret in it, so the first
    /// match ends it.
    pub(super) fn verifies(
        &self,
        message: &[u8],
        signatures: &[SignatureBytes],
        host: HostVerify,
    ) -> Result<bool, NoVerifier> {
        for signature in signatures {
            let signature = signature.as_slice();
            let is_genuine = match self {
                // Strictly: one signature, one key, no point of small order.
                Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                    .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
                Self::Host { algorithm, der } => host(&HostCheck {
                    algorithm: *algorithm,
                    public_key: der,
                    message,
                    signature,
                })?,
            };
            if is_genuine {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn oids(algorithm: &AlgorithmIdentifierRef<'_>) -> (ObjectIdentifier, Option<ObjectIdentifier>) {
    (algorithm.oid, algorithm.parameters_oid().ok())
}

fn ed25519(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    let bytes = <&[u8; 32]>::try_from(bytes)
        .map_err(|_| KeyError("the public key is no Ed25519 key, which has 32 bytes"))?;
    let key = VerifyingKey::from_bytes(bytes)
        .ok()
        .filter(|key| !key.is_weak())
        .ok_or(KeyError(
            "the public key is no point of Ed25519, or a weak one",
        ))?;
    Ok(PublicKey::Ed25519(key))
}

/// The DER in a PEM text, or in base64.
///
/// Source: RFC 7468, section 13.
fn der(text: &[u8]) -> Result<Vec<u8>, KeyError> {
    const BEGIN: &[u8] = b"-----BEGIN PUBLIC KEY-----";
    const END: &[u8] = b"-----END PUBLIC KEY-----";
    let text = text.trim_ascii();
    let base64 = match text.strip_prefix(BEGIN) {
        Some(rest) => rest
            .strip_suffix(END)
            .ok_or(KeyError("the public key's PEM does not end"))?,
        None if text.starts_with(b"-----") => {
            return Err(KeyError(
                "the PEM is no public key, expected one that begins with `-----BEGIN PUBLIC \
                 KEY-----`",
            ));
        }
        None => text,
    };
    let base64: Vec<u8> = base64
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    BASE64
        .decode(base64)
        .map_err(|_| KeyError("the public key is neither PEM nor DER in base64"))
}
