//! What makes two callbacks the same event.

use core::fmt;

use sha2::{Digest, Sha256};

pub use crate::message_id::MessageId;

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
    pub(crate) fn hex(self) -> [u8; 64] {
        let mut digits = [b'0'; 64];
        // Fails for a buffer of another length only.
        let _ = hex::encode_to_slice(self.0, &mut digits);
        digits
    }

    /// The key as 64 lower-case hexadecimal digits, as text.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.hex().iter().copied().map(char::from).collect()
    }

    /// The part that a record keeps. 80 bits: no two events of one id share it by accident, and to
    /// make one that shares it with a given event takes 2^80 tries.
    pub(crate) fn tag(&self) -> [u8; 10] {
        let mut tag = [0; 10];
        if let Some(part) = self.0.get(8..18) {
            tag.copy_from_slice(part);
        }
        tag
    }

    /// The event of a message that says something new under the key of one that was delivered: made of
    /// both, so that its retries are duplicates.
    #[must_use]
    pub(crate) fn changed(self, body_sha256: &[u8; 32]) -> Self {
        self.derived(b"changed", body_sha256)
    }

    /// The event of one request alone, where none is remembered.
    #[must_use]
    pub(crate) fn once(self, owner: u64) -> Self {
        self.derived(b"once", &owner.to_le_bytes())
    }

    fn derived(self, why: &[u8], with: &[u8]) -> Self {
        // Longer than any start of a key's own parts: none begins like this.
        let hash = Sha256::new().chain_update(why).chain_update(self.0);
        Self(hash.chain_update(with).finalize().into())
    }
}

/// What the events of one message id have in common: for counting them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdKey {
    /// In the local store: keyed with its salt, so that nobody can choose two that meet.
    pub local: u64,
    /// In a store that many proxies share; zeros where there is none.
    pub shared: [u8; 16],
}

impl IdKey {
    /// Of a source's message id, under the local store's salt.
    #[must_use]
    pub fn new(source: &str, id: &str, salt: &[u8; 16], is_shared: bool) -> Self {
        let parts = [source.as_bytes(), b"\0", id.as_bytes()];
        let mut key = Self {
            local: callback_guard_scan::fingerprint::keyed_parts(&parts, salt),
            shared: [0; 16],
        };
        if is_shared {
            let mut hash = Sha256::new();
            for part in parts {
                hash.update(part);
            }
            let digest: [u8; 32] = hash.finalize().into();
            if let Some(first) = digest.first_chunk() {
                key.shared = *first;
            }
        }
        key
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

    /// Adds a part; `kind` distinguishes a string from a number with the same text.
    pub(crate) fn present(&mut self, kind: u8, part: &[u8]) {
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
    pub(crate) fn absent(&mut self) {
        self.0.update([0]);
    }

    /// The key.
    #[must_use]
    pub(crate) fn finish(self) -> EventKey {
        EventKey(self.0.finalize().into())
    }
}
