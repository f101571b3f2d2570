//! Which paths are a source's own.

/// A rule for the path, on its raw bytes before `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRule {
    /// Exactly this path.
    Exact(Box<str>),
    /// This path and what lies below it, by whole segments.
    Prefix(Box<str>),
}

impl PathRule {
    /// The path, or its beginning.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            PathRule::Exact(path) | PathRule::Prefix(path) => path,
        }
    }

    /// Whether `path` is one of its paths.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            PathRule::Exact(exact) => path == exact.as_bytes(),
            PathRule::Prefix(prefix) => path.strip_prefix(prefix.as_bytes()).is_some_and(|rest| {
                rest.is_empty() || prefix.ends_with('/') || rest.starts_with(b"/")
            }),
        }
    }

    /// An exact path is more specific than any prefix, a longer prefix than a shorter one.
    pub(crate) fn specificity(&self) -> (bool, usize) {
        match self {
            PathRule::Exact(path) => (true, path.len()),
            PathRule::Prefix(path) => (false, path.len()),
        }
    }
}
