//! Settlements still to be sent to the shared store in the background.
//!
//! A settlement comes here when its first attempt has failed, or when its request has ended before.
//! It is sent again, less and less often, until the lease of its claim ends: from then on the claim
//! is void anyway.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::policy::Source;
use crate::store::Settlement;
use crate::store::redis::LONGEST_TIMEOUT_MILLIS;
use crate::time::UnixMillis;

/// The pause after the first failed attempt, in milliseconds; doubled with each.
pub(crate) const FIRST_PAUSE_MILLIS: u64 = 100;
/// The longest pause between two attempts, in milliseconds.
pub(crate) const LONGEST_PAUSE_MILLIS: u64 = 5_000;
/// The most settlements that are kept; beyond it the oldest is given up. About 1 MB.
pub const CAPACITY: usize = 8_192;

/// A settlement still to be sent.
#[derive(Clone, Debug)]
pub struct PendingSettlement {
    /// The source.
    pub source: Arc<Source>,
    /// What to send.
    pub settlement: Settlement,
    /// When it is given up: the end of the lease.
    pub until: UnixMillis,
    /// Whether an attempt has failed already.
    pub is_retry: bool,
    due: UnixMillis,
    pause_millis: u64,
}

impl PendingSettlement {
    /// To be sent at `due`, and given up at `until`.
    #[must_use]
    pub fn new(
        source: Arc<Source>,
        settlement: Settlement,
        until: UnixMillis,
        due: UnixMillis,
    ) -> Self {
        Self {
            source,
            settlement,
            until,
            is_retry: false,
            due,
            pause_millis: FIRST_PAUSE_MILLIS,
        }
    }

    /// After a failed attempt: to be sent again after a pause.
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

/// The settlements still to be sent.
#[derive(Clone, Debug, Default)]
pub struct Retries(VecDeque<PendingSettlement>);

impl Retries {
    /// Takes one in. Returns the one that had to go for it, if there was no room.
    pub fn push(&mut self, pending: PendingSettlement) -> Option<PendingSettlement> {
        let dropped = (self.0.len() >= CAPACITY).then(|| self.0.pop_front());
        self.0.push_back(pending);
        dropped.flatten()
    }

    /// Takes out one whose lease has ended.
    pub fn next_ended(&mut self, now: UnixMillis) -> Option<PendingSettlement> {
        let at = self.0.iter().position(|pending| pending.until <= now)?;
        self.0.remove(at)
    }

    /// Takes out one that is due, or was put off before the clock stepped back.
    pub fn next_due(&mut self, now: UnixMillis) -> Option<PendingSettlement> {
        let at = self.0.iter().position(|pending| {
            let left_millis = pending.due.millis_since(now);
            // Nothing is put off for longer.
            left_millis == 0 || left_millis > LONGEST_TIMEOUT_MILLIS
        })?;
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
