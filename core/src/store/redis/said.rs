//! What Redis said.

/// The longest reply that is read, in bytes. The longest that the protocol knows has about 120;
/// what is longer is [`StoreError::Malformed`](super::StoreError::Malformed).
pub const MAX_REPLY_BYTES: usize = 4096;

/// What Redis said, by whatever way.
#[derive(Debug)]
pub(super) enum Said {
    Null,
    Flag(bool),
    Text(String),
}
