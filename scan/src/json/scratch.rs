//! Memory of a scan: the open containers, their keys, and what has been found.

use std::fmt;

use super::buffer::give_back;
use super::document::{Extent, Span};
use super::keys::{self, Keys};
use super::pointer::NOWHERE;

/// Memory of [`scan`](super::scan), to be used again for the next body.
///
/// A buffer that has grown over 1 MiB is given back: at the end of the scan, or, where the
/// [`Document`](super::Document) still needs it, at the start of the next.
#[derive(Default)]
pub struct Scratch {
    /// The innermost open container.
    pub(super) frame: Frame,
    /// Those around it, the outermost first.
    pub(super) frames: Vec<Frame>,
    pub(super) keys: Keys,
    pub(super) found: Vec<Option<Span>>,
    pub(super) urls: Vec<Extent>,
}

impl Scratch {
    pub(super) fn start(&mut self, slots: usize) {
        self.frame = Frame::OUTSIDE;
        self.frames.clear();
        self.keys.clear();
        self.found.clear();
        self.found.resize(slots, None);
        self.urls.clear();
        give_back(&mut self.urls);
    }

    pub(super) fn trim(&mut self) {
        self.keys.clear();
        self.keys.give_back();
    }
}

/// An empty one: between two scans a scratch holds nothing but room.
impl Clone for Scratch {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Redacted: the buffers hold pieces of a body.
impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// What surrounds the value that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Array,
    Object,
    /// Nothing: the value is the root.
    Outside,
}

/// An open container.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) container: Container,
    /// The strings directly in this array are URLs.
    pub(super) url: bool,
    /// Offset of the bracket.
    pub(super) start: usize,
    /// The selector's node for this container.
    pub(super) node: usize,
    /// Index of the array's element that is being read; not kept up without a node.
    pub(super) index: usize,
    /// What [`keys::Keys`] held when this object was opened; unused for arrays.
    pub(super) keys: keys::Mark,
    /// The keys that this object has had.
    pub(super) seen: keys::Seen,
}

impl Default for Frame {
    fn default() -> Self {
        Self::OUTSIDE
    }
}

impl Frame {
    pub(super) const OUTSIDE: Self = Self {
        container: Container::Outside,
        url: false,
        start: 0,
        node: NOWHERE,
        index: 0,
        keys: keys::Mark::START,
        seen: keys::Seen::NONE,
    };

    pub(super) fn object(start: usize, node: usize, keys: keys::Mark) -> Self {
        Self {
            container: Container::Object,
            start,
            node,
            keys,
            ..Self::OUTSIDE
        }
    }

    pub(super) fn array(start: usize, node: usize, url: bool) -> Self {
        Self {
            container: Container::Array,
            start,
            node,
            url,
            ..Self::OUTSIDE
        }
    }
}
