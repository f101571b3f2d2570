//! Sixteen bytes of a body at a time: how many of them, from the first on, are of a class.
//!
//! In the module these are a few instructions of WebAssembly's simd128; elsewhere two words of eight
//! bytes are looked at as integers. Both are held to the same tests.

use imp::Sixteen;

/// Number of bytes that are looked at together.
pub(super) const LANES: usize = 16;

/// Sixteen bytes of a body.
#[derive(Clone, Copy)]
pub(super) struct Lanes(Sixteen);

impl Lanes {
    /// The bytes from `at` on, if the body has as many.
    #[inline(always)]
    pub(super) fn at(body: &[u8], at: usize) -> Option<Self> {
        body.get(at..)?
            .first_chunk()
            .map(|bytes| Self(imp::load(bytes)))
    }

    /// How many bytes come before the first that is `"`, `\`, a control character or not ASCII.
    #[inline(always)]
    pub(super) fn plain(self) -> usize {
        imp::plain(self.0)
    }

    /// How many bytes come before the first that is no white space.
    #[inline(always)]
    pub(super) fn space(self) -> usize {
        imp::space(self.0)
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod imp {
    use core::arch::wasm32::{
        i8x16_lt, i8x16_splat, u8x16, u8x16_bitmask, u8x16_eq, u8x16_splat, v128, v128_not,
        v128_or, v128_xor,
    };

    use super::LANES;

    pub(super) type Sixteen = v128;

    #[inline(always)]
    pub(super) fn load(bytes: &[u8; LANES]) -> Sixteen {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        u8x16(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
    }

    /// The place of the first lane that is set.
    #[inline(always)]
    fn first(set: v128) -> usize {
        let marks = u32::from(u8x16_bitmask(set)) | 1 << LANES;
        usize::try_from(marks.trailing_zeros()).unwrap_or(LANES)
    }

    #[inline(always)]
    pub(super) fn plain(bytes: Sixteen) -> usize {
        // XOR with 2 puts the quote right behind the control characters and leaves those together;
        // a byte that is not ASCII is negative.
        let below = i8x16_lt(v128_xor(bytes, i8x16_splat(2)), i8x16_splat(0x21));
        first(v128_or(below, u8x16_eq(bytes, u8x16_splat(b'\\'))))
    }

    #[inline(always)]
    pub(super) fn space(bytes: Sixteen) -> usize {
        let is = |byte| u8x16_eq(bytes, u8x16_splat(byte));
        let lines = v128_or(is(b'\n'), is(b'\r'));
        let blanks = v128_or(is(b' '), is(b'\t'));
        first(v128_not(v128_or(lines, blanks)))
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod imp {
    use super::LANES;

    /// The bytes in their order, the first in the lowest place.
    pub(super) type Sixteen = [u64; 2];

    /// The byte in all eight places.
    const fn repeat(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }

    #[inline(always)]
    pub(super) fn load(bytes: &[u8; LANES]) -> Sixteen {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        [
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        ]
    }

    /// The place of the first byte whose top bit `marks` sets.
    #[inline(always)]
    fn first(bytes: Sixteen, marks: impl Fn(u64) -> u64) -> usize {
        let [low, high] = bytes.map(|word| marks(word) & repeat(0x80));
        let bits = match low {
            0 => 64 + high.trailing_zeros(),
            _ => low.trailing_zeros(),
        };
        usize::try_from(bits / 8).unwrap_or(LANES)
    }

    #[inline(always)]
    pub(super) fn plain(bytes: Sixteen) -> usize {
        // Higher bytes may be marked wrongly, by a borrow from a byte that is marked rightly.
        first(bytes, |word| {
            // XOR with 2 puts the quote right behind the control characters and leaves those
            // together.
            let below = (word ^ repeat(2)).wrapping_sub(repeat(b'"' - 1));
            let backslash = (word ^ repeat(b'\\')).wrapping_sub(repeat(1));
            below | backslash | word
        })
    }

    #[inline(always)]
    pub(super) fn space(bytes: Sixteen) -> usize {
        first(bytes, |word| {
            let is = |byte| zeros(word ^ repeat(byte));
            !(is(b' ') | is(b'\t') | is(b'\n') | is(b'\r'))
        })
    }

    /// Sets the top bit of each byte that is zero, and of no other.
    #[inline(always)]
    fn zeros(word: u64) -> u64 {
        !(((word & repeat(0x7f)) + repeat(0x7f)) | word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A class as [`Lanes`] counts it, and as it is defined.
    type Class = (fn(Lanes) -> usize, fn(u8) -> bool);

    const CLASSES: [Class; 2] = [
        (
            Lanes::plain,
            |byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7f),
        ),
        (Lanes::space, |byte| b" \t\n\r".contains(&byte)),
    ];

    #[test]
    fn classes_are_counted_up_to_the_first_other_byte() {
        let members = [b'a', b' '];
        for ((count, is_member), member) in CLASSES.into_iter().zip(members) {
            for place in 0..LANES {
                for before in (0..=255).filter(|byte| is_member(*byte)) {
                    for byte in 0..=255 {
                        let mut body = [before; LANES];
                        body[place] = byte;
                        body[place + 1..].fill(member);
                        let expected = if is_member(byte) { LANES } else { place };
                        let lanes = Lanes::at(&body, 0).unwrap();
                        assert_eq!(count(lanes), expected, "{body:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_follows_the_first_other_byte_does_not_count() {
        for (count, is_member) in CLASSES {
            for other in (0..=255).filter(|byte| !is_member(*byte)) {
                for after in 0..=255 {
                    let mut body = [after; LANES];
                    body[0] = other;
                    assert_eq!(count(Lanes::at(&body, 0).unwrap()), 0, "{body:?}");
                }
            }
        }
    }

    #[test]
    fn there_are_sixteen_bytes_or_none() {
        let body = [b' '; LANES + 1];
        assert!(Lanes::at(&body, 1).is_some());
        assert!(Lanes::at(&body, 2).is_none());
        assert!(Lanes::at(&body, usize::MAX).is_none());
    }
}
