//! What makes two callbacks the same event.

use core::fmt;

use sha2::{Digest, Sha256};

/// What makes two callbacks the same event: a SHA-256 over the source and the key parts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey([u8; 32]);

impl EventKey {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key as 64 lower-case hexadecimal digits, as the upstream gets it.
    #[must_use]
    pub fn hex(self) -> [u8; 64] {
        let mut digits = [b'0'; 64];
        // Fails for a buffer of another length only.
        let _ = hex::encode_to_slice(self.0, &mut digits);
        digits
    }

    /// As [`EventKey::hex`], as text.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.hex().iter().copied().map(char::from).collect()
    }

    /// The part that chooses the bucket.
    #[must_use]
    pub fn selector(&self) -> u64 {
        self.0.first_chunk().copied().map_or(0, u64::from_le_bytes)
    }

    /// The part that a record keeps. 128 bits: no two events of one store share it by accident.
    pub(crate) fn tag(&self) -> [u8; 16] {
        let mut tag = [0; 16];
        if let Some(part) = self.0.get(8..24) {
            tag.copy_from_slice(part);
        }
        tag
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// Builds an [`EventKey`] from parts that cannot run into each other: each is preceded by what it
/// is and by its length.
///
/// Made once for a source and cloned for each event. A name of up to 55 bytes is one block of SHA-256
/// together with its length, so that the usual event costs one block more.
#[derive(Clone, Debug)]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Begins with the name of the source, so that no two sources share an event.
    #[must_use]
    pub fn new(source: &str) -> Self {
        const BLOCK: usize = 64;
        let mut builder = Self(Sha256::new());
        builder.present(b's', source.as_bytes());
        let unused = BLOCK.saturating_sub(source.len().saturating_add(2));
        builder
            .0
            .update([0; BLOCK].get(..unused).unwrap_or_default());
        builder
    }

    /// Adds a part; `kind` tells a string from a number with the same text.
    pub fn present(&mut self, kind: u8, part: &[u8]) {
        self.0.update([kind]);
        self.add_length(part.len());
        self.0.update(part);
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    fn add_length(&mut self, mut length: usize) {
        while length > 0x7f {
            let [low, ..] = length.to_le_bytes();
            self.0.update([low | 0x80]);
            length >>= 7;
        }
        let [last, ..] = length.to_le_bytes();
        self.0.update([last]);
    }

    /// Adds a part that the callback does not have.
    pub fn absent(&mut self) {
        self.0.update([0]);
    }

    /// The key.
    #[must_use]
    pub fn finish(self) -> EventKey {
        EventKey(self.0.finalize().into())
    }
}
