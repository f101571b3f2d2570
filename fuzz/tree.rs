//! The JSON scanner against `serde_json` for the grammar, and against a slow reference for the rest:
//! for the fuzz target `json` and for the generated bodies of `scan/tests/json.rs`.

use std::collections::HashSet;

use callback_guard_scan::json::{
    Document, JsonError, Kind, MAX_DEPTH, Pointer, Root, Scratch, Selector, scan,
};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A parsed value that keeps duplicate keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Array(Vec<Tree>),
    Boolean(bool),
    Null,
    Number(f64),
    Object(Vec<(String, Tree)>),
    String(String),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TreeVisitor;

        impl<'de> Visitor<'de> for TreeVisitor {
            type Value = Tree;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Boolean(value))
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Number(value.to_string().parse().unwrap()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Number(value.to_string().parse().unwrap()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::String(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = access.next_element()? {
                    elements.push(element);
                }
                Ok(Tree::Array(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(Tree::Object(members))
            }
        }

        deserializer.deserialize_any(TreeVisitor)
    }
}

impl Tree {
    fn depth(&self) -> usize {
        match self {
            Self::Array(elements) => 1 + elements.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => {
                1 + members
                    .iter()
                    .map(|(_, member)| member.depth())
                    .max()
                    .unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn has_duplicates(&self) -> bool {
        match self {
            Self::Array(elements) => elements.iter().any(Self::has_duplicates),
            Self::Object(members) => {
                let mut keys = HashSet::new();
                members
                    .iter()
                    .any(|(key, member)| !keys.insert(key) || member.has_duplicates())
            }
            _ => false,
        }
    }

    /// The value at a JSON pointer.
    pub(crate) fn at(&self, pointer: &str) -> Option<&Self> {
        let Some(rest) = pointer.strip_prefix('/') else {
            return Some(self);
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let token = rest[..end].replace("~1", "/").replace("~0", "~");
        let child = match self {
            Self::Array(elements) => (0..elements.len())
                .find(|index| index.to_string() == token)
                .map(|index| &elements[index]),
            Self::Object(members) => members
                .iter()
                .find(|(key, _)| *key == token)
                .map(|(_, member)| member),
            _ => None,
        };
        child?.at(&rest[end..])
    }

    fn urls<'a>(&'a self, is_url: bool, urls: &mut Vec<&'a str>) {
        match self {
            Self::Array(elements) => elements
                .iter()
                .for_each(|element| element.urls(is_url, urls)),
            Self::Object(members) => {
                for (key, member) in members {
                    let folded = folded(key);
                    let ends = folded.ends_with("url") || folded.ends_with("urls");
                    member.urls(ends || folded == "images", urls);
                }
            }
            Self::String(text) if is_url && !text.is_empty() => urls.push(text),
            _ => {}
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Array(_) => Kind::Array,
            Self::Boolean(_) => Kind::Boolean,
            Self::Null => Kind::Null,
            Self::Number(_) => Kind::Number { integer: true },
            Self::Object(_) => Kind::Object,
            Self::String(_) => Kind::String,
        }
    }
}

/// What `serde_json` says; nothing where it refuses a number for its size, which is allowed here.
pub(crate) fn reference(body: &[u8]) -> Option<Result<Tree, serde_json::Error>> {
    match serde_json::from_slice(body) {
        Err(error) if error.to_string().starts_with("number out of range") => None,
        result => Some(result),
    }
}

const POINTERS: [&str; 12] = [
    "/a",
    "/a/a",
    "/a/0",
    "/a/0/url",
    "/b",
    "/b/1/a",
    "/code",
    "/data",
    "/data/task_id",
    "/url",
    "/url/1",
    "/~0/a~1b",
];

/// Case folding as far as the names in [`POINTERS`] go, which are ASCII.
fn folded(name: &str) -> String {
    let fold = |character: char| match character {
        '\u{130}' | '\u{131}' => 'i',
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

/// Whether an object that a pointer leads through has a name of the pointer's in another case.
fn is_ambiguous(tree: &Tree) -> bool {
    POINTERS.iter().any(|pointer| {
        pointer.match_indices('/').any(|(at, _)| {
            let (around, rest) = pointer.split_at(at);
            let token = rest[1..].split('/').next().unwrap_or_default();
            let token = token.replace("~1", "/").replace("~0", "~");
            match tree.at(around) {
                Some(Tree::Object(members)) => members.iter().any(|(key, _)| {
                    *key != token && folded(key) == folded(&token) || key == "__proto__"
                }),
                _ => false,
            }
        })
    })
}

/// Panics if the scanner and the references do not agree on `body`.
pub(crate) fn check(body: &[u8]) {
    let pointers = POINTERS.map(|text| Pointer::parse(text).unwrap());
    let selector = Selector::new(&pointers, true);
    let mut scratch = Scratch::default();
    let seen = scan(body, &selector, &mut scratch);
    let tree = match reference(body) {
        None => return,
        Some(Err(error)) => {
            // What is too deep for `serde_json` is too deep here, or wrong before that.
            return assert!(seen.is_err(), "accepted what is malformed: {error}");
        }
        Some(Ok(tree)) => tree,
    };
    match seen {
        Ok(document) => {
            check_document(&document, &tree);
            let selector = selector.clone().refusing_other_case();
            let outcome = scan(body, &selector, &mut scratch).map(|_| ());
            match outcome {
                Ok(()) => assert!(!is_ambiguous(&tree)),
                Err(error) => {
                    assert!(matches!(error, JsonError::AmbiguousKey { .. }), "{error}");
                    assert!(is_ambiguous(&tree));
                }
            }
        }
        Err(JsonError::Malformed { expected, .. }) => {
            assert_eq!(expected, "an object");
            assert!(!matches!(tree, Tree::Object(_)));
            check_any_root(body, &tree);
        }
        Err(JsonError::AmbiguousKey { .. }) => panic!("no key is ambiguous to this selector"),
        Err(JsonError::DuplicateKey { .. }) => assert!(tree.has_duplicates()),
        Err(JsonError::TooDeep { .. }) => assert!(tree.depth() > MAX_DEPTH),
    }
}

/// A body that is no object.
fn check_any_root(body: &[u8], tree: &Tree) {
    let is_array = matches!(tree, Tree::Array(_));
    let is_fine = !tree.has_duplicates() && tree.depth() <= MAX_DEPTH;
    for (root, is_allowed) in [(Root::Any, true), (Root::Array, is_array)] {
        let selector = Selector::new(&[], false).with_root(root);
        let mut scratch = Scratch::default();
        let seen = scan(body, &selector, &mut scratch);
        assert_eq!(seen.is_ok(), is_allowed && is_fine, "{root:?}");
    }
}

fn check_document(document: &Document<'_, '_>, tree: &Tree) {
    assert!(matches!(tree, Tree::Object(_)));
    assert!(tree.depth() <= MAX_DEPTH);
    assert!(!tree.has_duplicates());
    for (slot, pointer) in POINTERS.iter().enumerate() {
        let expected = tree.at(pointer);
        let seen = document.get(slot);
        assert_eq!(seen.is_some(), expected.is_some(), "{pointer}");
        let (Some(seen), Some(expected)) = (seen, expected) else {
            continue;
        };
        match (seen.kind(), expected.kind()) {
            (Kind::Number { .. }, Kind::Number { .. }) => {}
            (seen, expected) => assert_eq!(seen, expected),
        }
        assert_eq!(&reference(seen.raw()).unwrap().unwrap(), expected);
        if let Tree::String(text) = expected {
            assert_eq!(&seen.text().unwrap(), text);
        }
    }
    let mut expected = Vec::new();
    tree.urls(false, &mut expected);
    let seen: Vec<_> = document.urls().map(|(_, text)| text).collect();
    assert_eq!(seen, expected);
}
