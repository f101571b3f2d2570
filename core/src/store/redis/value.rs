//! What a key holds.

use crate::store::bucket::{Fingerprint, OwnerToken};

pub(super) fn claimed(owner: OwnerToken) -> String {
    format!("c:{:016x}", owner.as_u64())
}

pub(super) fn delivered(owner: OwnerToken, fingerprint: Fingerprint) -> String {
    let (body, signed) = (fingerprint.as_u64(), fingerprint.signed());
    format!("d:{:016x}:{body:016x}:{signed:08x}", owner.as_u64())
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Claimed(OwnerToken),
    Delivered(Fingerprint),
}

impl Value {
    pub(super) fn parse(value: &str) -> Option<Self> {
        if let Some(owner) = value.strip_prefix("c:") {
            return number(owner).map(|owner| Self::Claimed(OwnerToken::new(owner)));
        }
        let (owner, rest) = value.strip_prefix("d:")?.split_once(':')?;
        number(owner)?;
        // Version 0.1 kept no time.
        let (body, signed) = match rest.split_once(':') {
            Some((body, signed)) => (body, u32::try_from(digits(signed, 8)?).ok()?),
            None => (rest, 0),
        };
        let fingerprint = Fingerprint::new(number(body)?).with_signed(signed);
        Some(Self::Delivered(fingerprint))
    }
}

/// 16 lower-case hexadecimal digits.
fn number(text: &str) -> Option<u64> {
    digits(text, 16)
}

/// So many lower-case hexadecimal digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != count || !text.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}
