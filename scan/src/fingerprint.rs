//! The keyed hash of a body.

use core::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// SipHash-1-3 of `body` under `key`.
// Inlined, it would become a part of a package that is compiled to be small, and take three times
// as long.
#[inline(never)]
#[must_use]
pub fn keyed(body: &[u8], key: &[u8; 16]) -> u64 {
    SipHasher13::new_with_key(key).hash(body)
}

/// SipHash-1-3 of `parts`, one after the other, under `key`. Where one ends and the next begins is
/// for the caller to make clear.
#[must_use]
pub fn keyed_parts(parts: &[&[u8]], key: &[u8; 16]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}
