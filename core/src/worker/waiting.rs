//! Requests that wait for another one to settle its claim on the same event.
//!
//! What waiting costs grows with the events that are waited for, not with the square of the
//! requests: an event is asked for once per tick, on behalf of all that wait for it. How many wait,
//! and how many go on in one callback, is bounded: Envoy nests the replies that a filter makes in
//! one callback, and V8's stack ends at about three hundred.

use std::collections::{BTreeMap, VecDeque};

use crate::effect::StreamId;
use crate::event::EventKey;
use crate::time::UnixMillis;

/// Most requests of a worker that wait for one event.
pub const MOST_FOR_ONE_EVENT: usize = 32;
/// Most requests of a worker that wait.
pub const MOST_IN_ALL: usize = 1_024;
/// Most requests that are answered or resumed in one callback of the host; the rest follow in the
/// next.
pub const MOST_ANSWERS: usize = 32;

/// The first pause before the shared store is asked again, in milliseconds; doubled each time.
const FIRST_PAUSE_MILLIS: u64 = 40;
/// The longest such pause, in milliseconds.
const LONGEST_PAUSE_MILLIS: u64 = 640;

/// The requests of a worker that wait, by event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    groups: BTreeMap<EventKey, Group>,
    /// Every event of `groups` once, the next to be asked for first.
    order: VecDeque<EventKey>,
    /// Requests in all, those of a group that is taken out included.
    count: usize,
}

/// The requests that wait for one event, the longest waiting first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) streams: VecDeque<StreamId>,
    /// The one on whose behalf the shared store has been asked.
    pub(crate) asker: Option<StreamId>,
    /// When the event is asked for again.
    next: UnixMillis,
    pause_millis: u64,
}

impl Group {
    /// Whether the event may be asked for now: after the pause, or if the clock has stepped back since.
    pub(crate) fn is_due(&self, now: UnixMillis) -> bool {
        let left_millis = self.next.millis_since(now);
        self.asker.is_none() && (left_millis == 0 || left_millis > self.pause_millis)
    }

    /// Pauses before the shared store is asked again; not longer than until `latest`.
    pub(crate) fn back_off(&mut self, now: UnixMillis, latest: UnixMillis) {
        self.pause_millis = self
            .pause_millis
            .saturating_mul(2)
            .clamp(FIRST_PAUSE_MILLIS, LONGEST_PAUSE_MILLIS);
        self.next = now.plus_millis(self.pause_millis).min(latest);
    }
}

impl Waiting {
    /// Adds a request. False if too many wait already.
    pub(crate) fn join(&mut self, key: EventKey, stream: StreamId) -> bool {
        if self.count >= MOST_IN_ALL {
            return false;
        }
        let group = self.groups.entry(key).or_default();
        if group.streams.len() >= MOST_FOR_ONE_EVENT {
            return false;
        }
        if group.streams.is_empty() {
            self.order.push_back(key);
        }
        group.streams.push_back(stream);
        self.count = self.count.saturating_add(1);
        true
    }

    /// Removes a request, if it waits for `key`.
    pub(crate) fn leave(&mut self, key: &EventKey, stream: StreamId) {
        let Some(mut group) = self.take(key) else {
            return;
        };
        self.remove(&mut group, stream);
        self.put_back(*key, group);
    }

    /// Removes a request from a group that is taken out.
    pub(crate) fn remove(&mut self, group: &mut Group, stream: StreamId) {
        let before = group.streams.len();
        group.streams.retain(|known| *known != stream);
        self.count = self
            .count
            .saturating_sub(before.saturating_sub(group.streams.len()));
        if group.asker == Some(stream) {
            group.asker = None;
        }
    }

    /// Takes out the group of `key`.
    pub(crate) fn take(&mut self, key: &EventKey) -> Option<Group> {
        self.groups.remove(key)
    }

    /// Takes out the group whose turn it is.
    pub(crate) fn take_next(&mut self) -> Option<(EventKey, Group)> {
        let key = self.order.pop_front()?;
        self.order.push_back(key);
        self.groups.remove(&key).map(|group| (key, group))
    }

    /// Puts back a group that was taken out, unless nobody is left in it.
    pub(crate) fn put_back(&mut self, key: EventKey, group: Group) {
        if group.streams.is_empty() {
            self.order.retain(|known| *known != key);
        } else {
            self.groups.insert(key, group);
        }
    }

    /// How many events are waited for.
    pub(crate) fn events(&self) -> usize {
        self.order.len()
    }

    /// How many requests wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}
