//! Buffers that are kept from body to body.

/// Largest size of a scratch buffer that is kept for the next body, in bytes.
const KEPT_BYTES: usize = 1 << 20;

pub(super) fn give_back<T>(buffer: &mut Vec<T>) {
    if buffer.capacity().saturating_mul(size_of::<T>()) > KEPT_BYTES {
        *buffer = Vec::new();
    }
}
