//! How much waits, and how much may: counted here, corrected by the store from time to time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::Counts;

/// What waits to be delivered, as this inbox knows it.
///
/// With one inbox on the store it is exact but for what commands change, until the next
/// [`Backlog::correct`]. Several inboxes learn of each other's events then.
#[derive(Debug)]
pub struct Backlog {
    max: Amount,
    now: Mutex<Counted>,
}

/// Events, and the bytes that they take up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    events: u64,
    bytes: u64,
}

impl Amount {
    fn event(bytes: u64) -> Self {
        Self { events: 1, bytes }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_sub(other.events),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

#[derive(Debug, Default)]
struct Counted {
    waiting: Amount,
    /// Changes that the store may or may not know yet.
    in_doubt: Amount,
    /// Those that were in doubt at any time since the store was last asked.
    doubted: Amount,
}

impl Counted {
    fn doubt(&mut self, amount: Amount) {
        self.in_doubt = self.in_doubt.plus(amount);
        self.doubted = self.doubted.plus(amount);
    }
}

/// Room for one event; given back with the value unless it is kept.
#[derive(Debug)]
pub struct Place<'a> {
    backlog: &'a Backlog,
    amount: Amount,
    is_kept: bool,
}

/// An event that may be about to end; it waits on unless [`Ending::ended`] is called.
#[derive(Debug)]
pub struct Ending<'a> {
    backlog: &'a Backlog,
    amount: Amount,
    has_ended: bool,
}

impl Backlog {
    /// An empty one with these limits.
    #[must_use]
    pub fn new(max_events: u64, max_bytes: u64) -> Self {
        Self {
            max: Amount {
                events: max_events,
                bytes: max_bytes,
            },
            now: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for an event of `bytes`; `None` if there is none.
    pub fn reserve(&self, bytes: u64) -> Option<Place<'_>> {
        let mut now = self.lock();
        let amount = Amount::event(bytes);
        let with = now.waiting.plus(amount);
        if with.events > self.max.events || with.bytes > self.max.bytes {
            return None;
        }
        now.waiting = with;
        now.doubt(amount);
        Some(Place {
            backlog: self,
            amount,
            is_kept: false,
        })
    }

    /// The store is about to be told how an attempt of an event of `bytes` went.
    pub fn ending(&self, bytes: u64) -> Ending<'_> {
        let amount = Amount::event(bytes);
        self.lock().doubt(amount);
        Ending {
            backlog: self,
            amount,
            has_ended: false,
        }
    }

    /// Events and bytes that wait.
    #[must_use]
    pub fn amount(&self) -> (u64, u64) {
        let now = self.lock();
        (now.waiting.events, now.waiting.bytes)
    }

    /// The store is about to be asked.
    pub fn begin_count(&self) {
        let mut now = self.lock();
        now.doubted = now.in_doubt;
    }

    /// What the store said since [`Backlog::begin_count`].
    ///
    /// A change that was in doubt meanwhile may be in what the store said, or not. So only a
    /// difference that such changes cannot explain corrects what is known here.
    pub fn correct(&self, counts: &Counts) {
        let mut now = self.lock();
        let said = Amount {
            events: counts.backlog,
            bytes: counts.bytes,
        };
        let (least, most) = (said.minus(now.doubted), said.plus(now.doubted));
        now.waiting.events = now.waiting.events.clamp(least.events, most.events);
        now.waiting.bytes = now.waiting.bytes.clamp(least.bytes, most.bytes);
    }
}

impl Place<'_> {
    /// The event is stored: its room stays taken.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut now = self.backlog.lock();
        now.in_doubt = now.in_doubt.minus(self.amount);
        if !self.is_kept {
            now.waiting = now.waiting.minus(self.amount);
        }
    }
}

impl Ending<'_> {
    /// The event waits no longer.
    pub fn ended(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut now = self.backlog.lock();
        now.in_doubt = now.in_doubt.minus(self.amount);
        if self.has_ended {
            now.waiting = now.waiting.minus(self.amount);
        }
    }
}
