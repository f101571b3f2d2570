//! What a configuration may say and hardly means to. `check` shows it, and the filter logs it once
//! when it starts.

use core::fmt;

use super::error::Path;
use crate::policy::{Dedupe, KeyPart, PathRule, Source, Unmatched};
use crate::scheme::IdAt;

/// Something in a configuration that is accepted and probably a mistake. Never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    path: Box<str>,
    problem: Box<str>,
}

impl Warning {
    #[cold]
    pub(super) fn new(path: &Path, problem: impl Into<Box<str>>) -> Self {
        Self {
            path: path.0.as_str().into(),
            problem: problem.into(),
        }
    }

    /// The path of the field, as in `sources[0].secrets[1].env`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// Warns of paths that are matched exactly while everything else passes.
pub(super) fn unmatched(
    path: &Path,
    rule: Unmatched,
    sources: &[Source],
    warnings: &mut Vec<Warning>,
) {
    let is_exact = |source: &Source| matches!(source.route.path, PathRule::Exact(_));
    if rule == Unmatched::Pass
        && let Some(index) = sources.iter().position(is_exact)
    {
        let problem = format!(
            "is `pass`, and sources[{index}] matches one exact path: the guard refuses each near miss \
             of it that it knows, but not another path that the application's own rules lead to \
             the same handler; expected `reject`, or `match.path_prefix`"
        );
        warnings.push(Warning::new(path, problem));
    }
}

/// Warns of a key that leaves out the message id: different events may look like one.
pub(super) fn key(path: &Path, dedupe: &Dedupe, id: &IdAt, warnings: &mut Vec<Warning>) {
    let has = |part: KeyPart| dedupe.key.contains(&part);
    let is_whole = match id {
        // The body stands for an id that nobody gives: the key is what names the event.
        IdAt::BodyDigest | IdAt::MessageDigest => true,
        IdAt::Pointers { slots, .. } => slots.clone().all(|slot| has(KeyPart::Pointer(slot))),
        IdAt::Header(index) => has(KeyPart::Header(*index)),
    };
    if has(KeyPart::Id) || is_whole {
        return;
    }
    let problem = "does not hold the message id: of two events that agree in the rest, the second is \
                   answered as a duplicate and never delivered; expected every place of the id among \
                   its parts";
    warnings.push(Warning::new(path, problem));
}
