//! What is wrong with a configuration, and where.

use core::fmt;
use std::borrow::Cow;

/// What is wrong with a configuration: where, what was seen, what is accepted. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    problem: String,
}

impl ConfigError {
    /// Out of line, as all that follows an error: there are many places that can fail, and each
    /// copy would be carried into every VM.
    #[cold]
    #[inline(never)]
    pub(super) fn new<'p>(path: &Path, problem: impl Into<Cow<'p, str>>) -> Self {
        Self::of(path, problem.into())
    }

    #[cold]
    #[inline(never)]
    fn of(path: &Path, problem: Cow<'_, str>) -> Self {
        Self {
            path: path.0.clone(),
            problem: problem.into_owned(),
        }
    }

    /// The path of the bad field, as in `sources[0].secrets[1].env`; empty for the whole text.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

impl core::error::Error for ConfigError {}

/// The path of a field.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(pub(super) String);

impl Path {
    #[inline(never)]
    pub(super) fn field(&self, name: &str) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        Self(path)
    }

    #[inline(never)]
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// Whether the last fields are those of `names`, in which `[]` is any index; the whole text is
    /// the path without a field.
    pub(super) fn ends_with(&self, names: &str) -> bool {
        let mut own = self.0.rsplit('.');
        names
            .rsplit('.')
            .all(|name| match (own.next(), name.strip_suffix("[]")) {
                (Some(own), None) => own == name,
                (Some(own), Some(name)) => {
                    own.strip_prefix(name).is_some_and(|at| at.starts_with('['))
                }
                (None, _) => false,
            })
    }
}

/// `value`, if it is in the range.
#[inline(never)]
pub(super) fn within(path: &Path, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::new(
        path,
        format!("{value} is out of range, expected {least} to {most}"),
    ))
}
