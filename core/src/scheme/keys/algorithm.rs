//! How a callback is signed.

use serde::Deserialize;

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
pub(super) const LONGEST: usize = 1024;

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
    pub(super) const fn lengths(self) -> (usize, usize) {
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
