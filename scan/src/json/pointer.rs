//! JSON pointers, and the tree of them that is walked along with a body.
//!
//! ```text
//! pointer = 1*( "/" *( unescaped / "~0" / "~1" ) )     "~0" is "~", "~1" is "/"
//! ```
//!
//! A token that is a number without leading zeros also counts the elements of an array, from 0. The
//! empty pointer, which is the whole body, is not accepted, and `-`, which is no element, is only a
//! key.
//!
//! Source: RFC 6901.

use std::fmt;

use super::error::{JsonError, malformed};
use crate::fold;

/// A valid, non-empty JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(String);

impl Pointer {
    /// Accepts the text of a JSON pointer, such as `/data/task_id`.
    ///
    /// # Errors
    ///
    /// - [`PointerError::Empty`]: the empty text, which would be the whole body.
    /// - [`PointerError::NoSlash`]: the text does not start with `/`.
    /// - [`PointerError::Tilde`]: a `~` is followed by neither `0` nor `1`.
    ///
    /// Source: RFC 6901, section 3.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Err(PointerError::Empty);
        }
        if !text.starts_with('/') {
            return Err(PointerError::NoSlash {
                pointer: text.to_owned(),
            });
        }
        for (offset, _) in text.match_indices('~') {
            if !matches!(text.as_bytes().get(offset + 1), Some(b'0' | b'1')) {
                return Err(PointerError::Tilde {
                    pointer: text.to_owned(),
                    offset,
                });
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The text, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it leads into an array at the root: its first token is an index.
    #[must_use]
    pub fn begins_with_index(&self) -> bool {
        self.tokens()
            .next()
            .is_some_and(|token| index(&token).is_some())
    }

    /// The decoded tokens, from the root down.
    fn tokens(&self) -> impl Iterator<Item = String> {
        self.0
            .split('/')
            .skip(1)
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no accepted JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointerError {
    /// The text is empty: it would name the whole body.
    Empty,
    /// The text does not start with `/`.
    NoSlash {
        /// The text.
        pointer: String,
    },
    /// A `~` is followed by neither `0` nor `1`.
    Tilde {
        /// The text.
        pointer: String,
        /// Offset of the `~`, in bytes.
        offset: usize,
    },
}

impl fmt::Display for PointerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "the JSON pointer is empty, expected one that names a part of the body, \
                 such as `/data/task_id`",
            ),
            Self::NoSlash { pointer } => write!(
                f,
                "the JSON pointer `{pointer}` does not start with `/`, \
                 expected one such as `/data/task_id`"
            ),
            Self::Tilde { pointer, offset } => write!(
                f,
                "the JSON pointer `{pointer}` has a `~` at byte {offset} that is no escape, \
                 expected `~0` for `~` or `~1` for `/`"
            ),
        }
    }
}

impl std::error::Error for PointerError {}

/// The node of everything that no pointer names.
pub(super) const NOWHERE: usize = 0;

/// The node of the root.
pub(super) const ROOT: usize = 1;

/// What the root of a body may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// An object.
    #[default]
    Object,
    /// An array.
    Array,
    /// Any value.
    Any,
}

impl Root {
    /// Checks the first byte of the root, which is at `at`.
    pub(super) fn check(self, at: usize, byte: Option<u8>) -> Result<(), JsonError> {
        match (self, byte) {
            (Self::Any, _) | (Self::Object, Some(b'{')) | (Self::Array, Some(b'[')) => Ok(()),
            (Self::Object, _) => Err(malformed(at, "an object")),
            (Self::Array, _) => Err(malformed(at, "an array")),
        }
    }
}

/// What to pick out of a body: compiled once, used for every body.
#[derive(Clone, Debug)]
pub struct Selector {
    nodes: Vec<Node>,
    slots: usize,
    collect_urls: bool,
    root: Root,
    refuses_other_case: bool,
}

/// A place that a pointer names or leads through.
#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<Child>,
    /// The pointers that name this place.
    slots: Vec<usize>,
    /// With which letters the keys of the children begin, whatever their case: see [`letter`].
    letters: u32,
}

#[derive(Clone, Debug)]
struct Child {
    key: String,
    /// The key as the index of an array's element.
    index: Option<usize>,
    node: usize,
}

impl Selector {
    /// Compiles pointers; the value of `pointers[i]` will be in slot `i`.
    ///
    /// Equal pointers all get the value. With `collect_urls` the URL strings are gathered too.
    pub fn new(pointers: &[Pointer], collect_urls: bool) -> Self {
        let nodes = [Node::default(), Node::default()].to_vec();
        let mut selector = Self {
            nodes,
            slots: pointers.len(),
            collect_urls,
            root: Root::Object,
            refuses_other_case: false,
        };
        for (slot, pointer) in pointers.iter().enumerate() {
            let mut at = ROOT;
            for key in pointer.tokens() {
                at = selector.child_or_new(at, key);
            }
            if let Some(node) = selector.nodes.get_mut(at) {
                node.slots.push(slot);
            }
        }
        selector
    }

    /// Accepts bodies with this root; without it, objects.
    #[must_use]
    pub fn with_root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    /// Refuses a key that is one of the pointers' tokens but for case: an application that ignores
    /// case would read its value instead. `__proto__` is refused as well: JavaScript that copies
    /// such an object finds members in it that it does not have.
    #[must_use]
    pub fn refusing_other_case(mut self) -> Self {
        self.refuses_other_case = true;
        self
    }

    fn child_or_new(&mut self, parent: usize, key: String) -> usize {
        let new = self.nodes.len();
        let Some(parent) = self.nodes.get_mut(parent) else {
            return NOWHERE;
        };
        if let Some(child) = parent.children.iter().find(|child| child.key == key) {
            return child.node;
        }
        let index = index(&key);
        parent.letters |= letter(&key) | letter(PROTOTYPE);
        parent.children.push(Child {
            key,
            index,
            node: new,
        });
        self.nodes.push(Node::default());
        new
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn collects_urls(&self) -> bool {
        self.collect_urls
    }

    /// What the root may be.
    #[must_use]
    pub fn root(&self) -> Root {
        self.root
    }

    /// Whether `key` is that of a member of the object at `node`, but for case. Not asked for keys
    /// that are one.
    #[inline(always)]
    pub(super) fn is_other_case(&self, node: usize, key: &[u8]) -> bool {
        if !self.refuses_other_case {
            return false;
        }
        let Some(node) = self.nodes.get(node) else {
            return false;
        };
        let may_be = match key.first() {
            Some(first) if first.is_ascii() => node.letters & bit(*first) != 0,
            first => first.is_some(),
        };
        may_be && node.has_but_for_case(key)
    }

    /// The slots of a node.
    pub(super) fn slots_at(&self, node: usize) -> &[usize] {
        self.nodes.get(node).map_or(&[], |node| &node.slots)
    }

    /// The node of the member `key` of the object at `node`.
    pub(super) fn member(&self, node: usize, key: &[u8]) -> usize {
        self.child(node, |child| child.key.as_bytes() == key)
    }

    /// The node of element `index` of the array at `node`.
    pub(super) fn element(&self, node: usize, index: usize) -> usize {
        self.child(node, |child| child.index == Some(index))
    }

    fn child(&self, node: usize, wanted: impl Fn(&Child) -> bool) -> usize {
        self.nodes
            .get(node)
            .and_then(|node| node.children.iter().find(|child| wanted(child)))
            .map_or(NOWHERE, |child| child.node)
    }
}

/// Source: ECMA-262, B.2.2.1: a setter, for whoever copies members one by one.
const PROTOTYPE: &str = "__proto__";

impl Node {
    #[inline(never)]
    fn has_but_for_case(&self, key: &[u8]) -> bool {
        key == PROTOTYPE.as_bytes()
            || self
                .children
                .iter()
                .any(|child| fold::equal(child.key.as_bytes(), key))
    }
}

/// The bits of the ASCII bytes that keys may begin with that are `key` but for case.
fn letter(key: &str) -> u32 {
    key.chars()
        .next()
        .and_then(|first| u8::try_from(fold::character(first)).ok())
        .filter(u8::is_ascii)
        .map_or(0, bit)
}

/// One of 32 bits for an ASCII byte, the same for both cases of a letter.
#[inline(always)]
fn bit(byte: u8) -> u32 {
    1 << (byte & 0x1f)
}

/// Source: RFC 6901, section 4: digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    if digits && !leading_zero {
        token.parse().ok()
    } else {
        None
    }
}
