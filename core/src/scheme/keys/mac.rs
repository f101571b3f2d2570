//! HMACs.

use hmac::digest::Output;
use hmac::digest::common::KeySizeUser;
use hmac::{KeyInit, Mac};

use super::signature::SignatureBytes;

pub(super) fn prepare<M: Mac + KeySizeUser + KeyInit>(key: &[u8]) -> Option<M> {
    <M as KeyInit>::new_from_slice(key).ok()
}

pub(super) fn compute<M: Mac + Clone>(keyed: &M, parts: &[&[u8]]) -> Output<M> {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

/// Compares each of `signatures` in a time that does not tell where it differs.
pub(super) fn is_mac<M: Mac + Clone>(
    keyed: &M,
    parts: &[&[u8]],
    signatures: &[SignatureBytes],
) -> bool {
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
