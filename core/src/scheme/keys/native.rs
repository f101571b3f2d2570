//! RSA and ECDSA for hosts that are no proxy: the `callback-guard` program, tests, the native module.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use spki::SubjectPublicKeyInfoRef;

use super::algorithm::Algorithm;
use super::host::{HostCheck, NoVerifier};

/// Verifies by `ring`.
///
/// # Errors
///
/// [`NoVerifier`] for an algorithm that is not the host's.
pub fn verify(check: &HostCheck<'_>) -> Result<bool, NoVerifier> {
    let algorithm: &'static dyn VerificationAlgorithm = match check.algorithm {
        Algorithm::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
        Algorithm::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        _ => return Err(NoVerifier),
    };
    // `ring` takes the key itself, without the name of its algorithm around it.
    let Ok(info) = SubjectPublicKeyInfoRef::try_from(check.public_key) else {
        return Ok(false);
    };
    let Some(key) = info.subject_public_key.as_bytes() else {
        return Ok(false);
    };
    let key = UnparsedPublicKey::new(algorithm, key);
    Ok(key.verify(check.message, check.signature).is_ok())
}
