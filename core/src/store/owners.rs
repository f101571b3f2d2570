//! Who claims.

use crate::store::bucket::OwnerToken;

/// Makes owner tokens that no other claim has.
#[derive(Clone, Debug)]
pub(crate) struct Owners(u64);

impl Owners {
    /// Counts from a random number, so that no two workers meet.
    pub(crate) fn new(random: u64) -> Self {
        Self(random)
    }

    pub(crate) fn next(&mut self) -> OwnerToken {
        self.0 = self.0.wrapping_add(1);
        OwnerToken::new(self.0)
    }
}
