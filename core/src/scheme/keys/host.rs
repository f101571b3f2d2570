//! What the host verifies: RSA and ECDSA.

use super::algorithm::Algorithm;

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

/// How a host verifies RSA and ECDSA. Envoy does it itself; natively there is `native::verify`.
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
