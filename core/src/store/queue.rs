//! Calls to the shared store that wait for their turn.
//!
//! A store that is asked more at once than it can answer in time looks like one that is down. So a
//! worker has [`MOST_CALLS`] calls on their way at most, and the others wait here. Each message id
//! has its turn: whoever makes a thousand events of one id delays that id, and nobody else.

use std::collections::{BTreeMap, VecDeque};

use crate::effect::StreamId;

/// Most calls of a worker that are on their way, not counting those in the background.
pub const MOST_CALLS: usize = 64;

/// What a message id is called in the shared store.
type Id = [u8; 16];

/// What waits, by message id.
#[derive(Clone, Debug)]
pub(crate) struct Queue<T> {
    lines: BTreeMap<Id, VecDeque<(StreamId, T)>>,
    /// Every id of `lines` once, the next to have its turn first.
    turns: VecDeque<Id>,
    /// In which line a request is. It has one call at a time.
    places: BTreeMap<StreamId, Id>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            turns: VecDeque::new(),
            places: BTreeMap::new(),
        }
    }
}

impl<T> Queue<T> {
    /// Behind the others of its id.
    pub(crate) fn push(&mut self, id: Id, stream: StreamId, item: T) {
        let line = self.lines.entry(id).or_default();
        if line.is_empty() {
            self.turns.push_back(id);
        }
        line.push_back((stream, item));
        self.places.insert(stream, id);
    }

    /// The next one of the id whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let id = self.turns.pop_front()?;
        let line = self.lines.get_mut(&id)?;
        let (stream, item) = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&id);
        } else {
            self.turns.push_back(id);
        }
        self.places.remove(&stream);
        Some(item)
    }

    /// Takes out what a request waits with.
    pub(crate) fn take(&mut self, stream: StreamId) -> Option<T> {
        let id = self.places.remove(&stream)?;
        let line = self.lines.get_mut(&id)?;
        let at = line.iter().position(|(known, _)| *known == stream)?;
        let (_, item) = line.remove(at)?;
        if line.is_empty() {
            self.lines.remove(&id);
            self.turns.retain(|known| *known != id);
        }
        Some(item)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}
