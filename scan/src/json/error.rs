//! Why a body is refused.

use std::fmt;

/// Largest number of nested containers; the root is the first.
///
/// Source: the contract. The sender's documented callbacks are at most 6 deep.
pub const MAX_DEPTH: usize = 64;

/// Why a body was refused. Offsets are in bytes from its beginning; nothing of the body is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// A key is that of a member that the selector looks for, but for case.
    AmbiguousKey {
        /// Its opening quote.
        offset: usize,
    },
    /// A key equals another key of the same object after decoding.
    DuplicateKey {
        /// Opening quote of the second of the two, the first such key in the object.
        offset: usize,
    },
    /// The text breaks the grammar, is not UTF-8, or ends too early.
    Malformed {
        /// First byte that cannot be part of an accepted body; the body's length if it ends early.
        offset: usize,
        /// What is accepted there.
        expected: &'static str,
    },
    /// More than [`MAX_DEPTH`] containers are open.
    TooDeep {
        /// Opening bracket of the container that is too deep.
        offset: usize,
    },
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AmbiguousKey { offset } => {
                write!(
                    f,
                    "key with the name of another but for case at byte {offset}"
                )
            }
            Self::DuplicateKey { offset } => write!(f, "duplicate key at byte {offset}"),
            Self::Malformed { offset, expected } => {
                write!(f, "malformed JSON at byte {offset}, expected {expected}")
            }
            Self::TooDeep { offset } => {
                write!(f, "more than {MAX_DEPTH} nested levels at byte {offset}")
            }
        }
    }
}

impl std::error::Error for JsonError {}

#[cold]
pub(super) fn malformed(offset: usize, expected: &'static str) -> JsonError {
    JsonError::Malformed { offset, expected }
}
