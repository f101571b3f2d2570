//! The reply of Redis.

/// The longest reply that is read, in bytes. The longest that the protocol knows has about 120;
/// what is longer is [`StoreError::Malformed`](super::StoreError::Malformed).
pub const MAX_REPLY_BYTES: usize = 4096;

/// The reply of Redis, whichever way it came.
#[derive(Debug)]
pub(super) enum RedisReply {
    Null,
    Flag(bool),
    Text(String),
}
