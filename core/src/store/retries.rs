//! Settlements that the shared store has still to be told, with nobody waiting for them.
//!
//! A settlement comes here when its first attempt has failed, or when its request has ended before.
//! It is tried again, less and less often, until the lease of its claim ends: from then on the
//! store knows by itself that the claim is void.

use std::collections::VecDeque;

use crate::store::Settlement;
use crate::time::UnixMillis;

/// The pause after the first failed attempt, in milliseconds; doubled with each.
pub const FIRST_PAUSE_MILLIS: u64 = 100;
/// The longest pause between two attempts, in milliseconds.
pub const LONGEST_PAUSE_MILLIS: u64 = 5_000;
/// The most settlements that are kept; beyond it the oldest is given up. About 1 MB.
pub const CAPACITY: usize = 8_192;

/// A settlement that the store has still to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The index of the source.
    pub source: usize,
    /// What to tell.
    pub settlement: Settlement,
    /// When it is given up: the end of the lease.
    pub until: UnixMillis,
    /// Whether an attempt has failed already.
    pub is_retry: bool,
    due: UnixMillis,
    pause_millis: u64,
}

impl Errand {
    /// To be run at `due`, and given up at `until`.
    #[must_use]
    pub fn new(source: usize, settlement: Settlement, until: UnixMillis, due: UnixMillis) -> Self {
        Self {
            source,
            settlement,
            until,
            is_retry: false,
            due,
            pause_millis: FIRST_PAUSE_MILLIS,
        }
    }

    /// After a failed attempt: to be run again after a pause.
    #[must_use]
    pub fn again(self, now: UnixMillis) -> Self {
        Self {
            is_retry: true,
            due: UnixMillis::new(now.as_millis().saturating_add(self.pause_millis)),
            pause_millis: self
                .pause_millis
                .saturating_mul(2)
                .min(LONGEST_PAUSE_MILLIS),
            ..self
        }
    }
}

/// The settlements that the store has still to be told.
#[derive(Debug, Default)]
pub struct Backlog(VecDeque<Errand>);

impl Backlog {
    /// Takes one in. Returns the one that had to go for it, if there was no room.
    pub fn push(&mut self, errand: Errand) -> Option<Errand> {
        let dropped = (self.0.len() >= CAPACITY).then(|| self.0.pop_front());
        self.0.push_back(errand);
        dropped.flatten()
    }

    /// Takes out one whose lease has ended.
    pub fn next_ended(&mut self, now: UnixMillis) -> Option<Errand> {
        let at = self.0.iter().position(|errand| errand.until <= now)?;
        self.0.remove(at)
    }

    /// Takes out one that is due.
    pub fn next_due(&mut self, now: UnixMillis) -> Option<Errand> {
        let at = self.0.iter().position(|errand| errand.due <= now)?;
        self.0.remove(at)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
