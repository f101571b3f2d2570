//! The keys of the open objects, and the search for duplicates among them.
//!
//! A key is kept as its extent and its first *piece*: seven bytes and, in the top byte, how many
//! bytes are left, at most eight. Equal pieces with a count below eight are equal keys; with eight,
//! the next pieces decide. So most comparisons are one of two integers, and large objects are
//! sorted piece by piece, where an attacker cannot make every comparison read long keys again.

use super::buffer::give_back;
use super::error::JsonError;
use super::lanes::Lanes;
use super::text;

/// Largest number of keys that an object may have for its duplicates to be found at once, by
/// comparing each key with those before it.
pub const LINEAR_KEYS: usize = 16;

/// Number of text bytes in a piece.
const PIECE: usize = 7;

/// All bits of a piece but the count.
const PIECE_TEXT: u64 = (1 << 56) - 1;

/// Smallest piece after which the key goes on.
const PIECE_GOES_ON: u64 = 8 << 56;

/// A key that has been read.
///
/// The extent is in the body, or, for a key that is spelled with escapes, in the decoded keys, which
/// count on from the body's end.
#[derive(Clone, Copy)]
pub(super) struct Key {
    piece: u64,
    start: usize,
    end: usize,
}

/// A state of [`Keys`] to return to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    keys: usize,
    decoded: usize,
}

impl Mark {
    pub(super) const START: Self = Self {
        keys: 0,
        decoded: 0,
    };
}

/// Which pieces the keys of an object have, by one of 64 bits each: a bit that is not set says that
/// the piece is new.
#[derive(Clone, Copy)]
pub(super) struct Seen(u64);

impl Seen {
    pub(super) const NONE: Self = Self(0);

    /// Adds a piece; returns whether it may have been there.
    #[inline(always)]
    fn add(&mut self, piece: u64) -> bool {
        // The top bits of the product depend on all of the piece (Fibonacci hashing).
        let bit = 1 << (piece.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
        let before = self.0;
        self.0 |= bit;
        before & bit != 0
    }
}

/// The keys of the open objects, those of the outermost first.
#[derive(Default)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// The decoded text of keys that are spelled with escapes, each after the offset of its opening
    /// quote in the body.
    decoded: Vec<u8>,
    /// Runs of keys that are equal so far.
    runs: Vec<Run>,
}

struct Run {
    start: usize,
    end: usize,
    /// How many bytes the keys have in common at least.
    depth: usize,
}

impl Keys {
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.decoded.clear();
        self.runs.clear();
    }

    pub(super) fn give_back(&mut self) {
        give_back(&mut self.keys);
        give_back(&mut self.decoded);
        give_back(&mut self.runs);
    }

    #[inline(always)]
    pub(super) fn mark(&self) -> Mark {
        Mark {
            keys: self.keys.len(),
            decoded: self.decoded.len(),
        }
    }

    /// Forgets the keys that came after the mark.
    #[inline(always)]
    pub(super) fn release(&mut self, mark: Mark) {
        self.keys.truncate(mark.keys);
        self.decoded.truncate(mark.decoded);
    }

    /// Checks the key whose opening quote is at `quote`; returns it and the offset behind it.
    #[inline(always)]
    pub(super) fn read(&mut self, body: &[u8], quote: usize) -> Result<(Key, usize), JsonError> {
        let start = quote + 1;
        let mut end = start;
        if let (Some(lanes), Some(word)) = (Lanes::at(body, start), text::word(body, start)) {
            let length = lanes.plain();
            end = start + length;
            if body.get(end) == Some(&b'"') {
                let piece = match length {
                    0..=PIECE => word & ((1 << (8 * length)) - 1) | count(length),
                    _ => word & PIECE_TEXT | PIECE_GOES_ON,
                };
                return Ok((Key { piece, start, end }, end + 1));
            }
        }
        // Taken apart and put together again, so that the short key stays in registers.
        let (Key { piece, start, end }, after) = self.read_long(body, start, end)?;
        Ok((Key { piece, start, end }, after))
    }

    /// As [`Keys::read`], with what is before `at` known to be plain.
    #[inline(never)]
    fn read_long(
        &mut self,
        body: &[u8],
        start: usize,
        at: usize,
    ) -> Result<(Key, usize), JsonError> {
        let text::End { end, escaped } = text::string_end_after(body, at)?;
        let inside = body.get(start..end).unwrap_or_default();
        let mut key = Key {
            piece: 0,
            start,
            end,
        };
        if escaped {
            self.decoded.extend_from_slice(&start.to_ne_bytes());
            key.start = body.len() + self.decoded.len();
            text::decode(inside, &mut self.decoded);
            key.end = body.len() + self.decoded.len();
        }
        key.piece = piece(self.text(body, key), 0);
        Ok((key, end + 1))
    }

    /// Adds a key of the object that was opened at `mark` and has had `seen`.
    ///
    /// Duplicates are found here as long as the object has few keys.
    #[inline(always)]
    pub(super) fn add(
        &mut self,
        body: &[u8],
        mark: Mark,
        seen: &mut Seen,
        key: Key,
        quote: usize,
    ) -> Result<(), JsonError> {
        if seen.add(key.piece) && self.is_among_few(body, mark, key) {
            return Err(JsonError::DuplicateKey { offset: quote });
        }
        self.keys.push(key);
        Ok(())
    }

    /// Whether the object that was opened at `mark` has the key, if it has few.
    #[inline(never)]
    fn is_among_few(&self, body: &[u8], mark: Mark, key: Key) -> bool {
        let before = self.keys.get(mark.keys..).unwrap_or_default();
        before.len() < LINEAR_KEYS
            && before
                .iter()
                .any(|other| other.piece == key.piece && self.same_from(body, *other, key, PIECE))
    }

    /// Looks for duplicates in the object that was opened at `mark` and is complete, unless
    /// [`Keys::add`] has looked.
    #[inline(always)]
    pub(super) fn check(&mut self, body: &[u8], mark: Mark) -> Result<(), JsonError> {
        if self.keys.len() - mark.keys > LINEAR_KEYS {
            return self.check_by_sorting(body, mark);
        }
        Ok(())
    }

    #[cold]
    fn check_by_sorting(&mut self, body: &[u8], mark: Mark) -> Result<(), JsonError> {
        let mut keys = core::mem::take(&mut self.keys);
        let mut runs = core::mem::take(&mut self.runs);
        let mut found = First(None);
        runs.push(Run {
            start: mark.keys,
            end: keys.len(),
            depth: 0,
        });
        while let Some(Run { start, end, depth }) = runs.pop() {
            let run = keys.get_mut(start..end).unwrap_or_default();
            if depth > 0 {
                for key in &mut *run {
                    key.piece = piece(self.text(body, *key), depth);
                }
            }
            run.sort_unstable_by_key(|key| key.piece);
            let depth = depth + PIECE;
            let mut start = start;
            for equal in run.chunk_by(|a, b| a.piece == b.piece) {
                let end = start + equal.len();
                if equal.len() > LINEAR_KEYS {
                    match equal.first() {
                        Some(key) if key.piece < PIECE_GOES_ON => {
                            self.second(body, equal, &mut found);
                        }
                        _ => runs.push(Run { start, end, depth }),
                    }
                } else if equal.len() > 1 {
                    self.compare(body, equal, depth, &mut found);
                }
                start = end;
            }
        }
        self.keys = keys;
        self.runs = runs;
        match found.0 {
            Some(offset) => Err(JsonError::DuplicateKey { offset }),
            None => Ok(()),
        }
    }

    /// Compares a few keys, which are equal up to `depth`, each with each.
    fn compare(&self, body: &[u8], mut keys: &[Key], depth: usize, found: &mut First) {
        while let Some((key, others)) = keys.split_first() {
            for other in others {
                if self.same_from(body, *key, *other, depth) {
                    found.at(self.quote(body, *key).max(self.quote(body, *other)));
                }
            }
            keys = others;
        }
    }

    /// Reports the second of many keys that are all equal.
    fn second(&self, body: &[u8], keys: &[Key], found: &mut First) {
        let mut first = usize::MAX;
        for key in keys {
            let quote = self.quote(body, *key);
            if first != usize::MAX {
                found.at(first.max(quote));
            }
            first = first.min(quote);
        }
    }

    /// The decoded text of a key.
    #[inline(always)]
    pub(super) fn text<'a>(&'a self, body: &'a [u8], key: Key) -> &'a [u8] {
        match key.start.checked_sub(body.len()) {
            None => body.get(key.start..key.end),
            Some(start) => self.decoded.get(start..key.end - body.len()),
        }
        .unwrap_or_default()
    }

    /// Whether two keys whose pieces before `depth` are equal are the same.
    fn same_from(&self, body: &[u8], one: Key, two: Key, depth: usize) -> bool {
        if one.piece < PIECE_GOES_ON {
            return one.piece == two.piece;
        }
        let one = self.text(body, one).get(depth..).unwrap_or_default();
        let two = self.text(body, two).get(depth..).unwrap_or_default();
        one.len() == two.len() && equal(one, two)
    }

    /// Where the opening quote of a key is in the body.
    fn quote(&self, body: &[u8], key: Key) -> usize {
        let start = match key.start.checked_sub(body.len()) {
            None => key.start,
            Some(at) => self
                .decoded
                .get(..at)
                .and_then(<[u8]>::last_chunk)
                .map_or(key.start, |bytes| usize::from_ne_bytes(*bytes)),
        };
        start - 1
    }
}

/// The smallest offset that was reported.
struct First(Option<usize>);

impl First {
    fn at(&mut self, offset: usize) {
        self.0 = Some(self.0.map_or(offset, |first| first.min(offset)));
    }
}

/// A piece's count of the bytes that are left.
#[inline(always)]
fn count(left: usize) -> u64 {
    u64::try_from(left.min(PIECE + 1)).unwrap_or_default() << 56
}

/// Whether two texts of the same length are the same; by words, where `==` goes by bytes on wasm.
fn equal(one: &[u8], two: &[u8]) -> bool {
    let (one_words, one_rest) = one.as_chunks::<8>();
    let (two_words, two_rest) = two.as_chunks::<8>();
    let same =
        |(one, two): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*one) == u64::from_ne_bytes(*two);
    one_words.iter().zip(two_words).all(same) && one_rest == two_rest
}

/// The piece of a key that begins at `depth`.
fn piece(key: &[u8], depth: usize) -> u64 {
    let left = key.get(depth..).unwrap_or_default();
    if let Some(bytes) = left.first_chunk() {
        return u64::from_le_bytes(*bytes) & PIECE_TEXT | PIECE_GOES_ON;
    }
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(left) {
        *to = *from;
    }
    u64::from_le_bytes(bytes) | count(left.len())
}
