//! How much waits, and how much may: counted here, corrected by the store now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::Counts;

/// What waits to be delivered, as this inbox knows it.
///
/// With one inbox on the store it is exact but for what commands change, until the next
/// [`Backlog::correct`]. Several inboxes learn of each other's events then.
#[derive(Debug)]
pub struct Backlog {
    max_events: u64,
    max_bytes: u64,
    now: Mutex<Amount>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    events: i64,
    bytes: i64,
    /// What has changed since the store was last asked.
    since: (i64, i64),
}

impl Amount {
    fn add(&mut self, events: i64, bytes: i64) {
        self.events = self.events.saturating_add(events);
        self.bytes = self.bytes.saturating_add(bytes);
        self.since.0 = self.since.0.saturating_add(events);
        self.since.1 = self.since.1.saturating_add(bytes);
    }
}

/// Room for one event; given back with the value unless it is kept.
#[derive(Debug)]
pub struct Place<'a> {
    backlog: &'a Backlog,
    bytes: i64,
}

impl Backlog {
    /// An empty one with these limits.
    #[must_use]
    pub fn new(max_events: u64, max_bytes: u64) -> Self {
        Self {
            max_events,
            max_bytes,
            now: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Amount> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, events: i64, bytes: i64) {
        self.lock().add(events, bytes);
    }

    /// Room for an event of `bytes`; `None` if there is none.
    pub fn reserve(&self, bytes: u64) -> Option<Place<'_>> {
        let positive = |number| u64::try_from(number).unwrap_or(0);
        let mut now = self.lock();
        let is_full = positive(now.events) >= self.max_events
            || positive(now.bytes).saturating_add(bytes) > self.max_bytes;
        if is_full {
            return None;
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        now.add(1, bytes);
        Some(Place {
            backlog: self,
            bytes,
        })
    }

    /// An event of `bytes` has ended.
    pub fn ended(&self, bytes: u64) {
        self.add(
            -1,
            i64::try_from(bytes).unwrap_or(i64::MAX).saturating_neg(),
        );
    }

    /// Events and bytes that wait.
    #[must_use]
    pub fn amount(&self) -> (u64, u64) {
        let now = self.lock();
        let positive = |number| u64::try_from(number).unwrap_or(0);
        (positive(now.events), positive(now.bytes))
    }

    /// The store is about to be asked.
    pub fn begin_count(&self) {
        self.lock().since = (0, 0);
    }

    /// What the store said, to which is added what has changed since it was asked.
    pub fn correct(&self, counts: &Counts) {
        let mut now = self.lock();
        let (events, bytes) = now.since;
        now.events = i64::try_from(counts.backlog)
            .unwrap_or(i64::MAX)
            .saturating_add(events);
        now.bytes = i64::try_from(counts.bytes)
            .unwrap_or(i64::MAX)
            .saturating_add(bytes);
    }
}

impl Place<'_> {
    /// The event is stored: its room stays taken.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.backlog.add(-1, self.bytes.saturating_neg());
    }
}
