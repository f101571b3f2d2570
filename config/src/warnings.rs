//! What a configuration may say and hardly means to. `check` shows it, and the filter logs it once
//! when it starts.

use crate::error::Path;
use callback_guard_core::policy::{Dedupe, KeyPart, PathRule, Source, Unmatched, Warning};
use callback_guard_core::scheme::IdAt;

/// The shortest secret, in bytes, that nobody guesses.
pub(super) const LEAST_SECRET: usize = 16;

/// What was found so far.
#[derive(Default)]
pub(super) struct Warnings {
    pub(super) list: Vec<Warning>,
    /// The secrets of the sources so far, for as long as the configuration is being read.
    secrets: Vec<(Path, Vec<u8>)>,
}

impl Warnings {
    fn add(&mut self, path: &Path, problem: impl Into<Box<str>>) {
        self.list.push(Warning::new(&path.0, problem));
    }

    /// Warns of a secret that was probably not meant to be as it is: `text` as it was given at `path`,
    /// `key` as it is used by the source at `source`.
    pub(super) fn secret(&mut self, source: &Path, path: &Path, text: &[u8], key: Vec<u8>) {
        let is_stray = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_whitespace() || b"\"'`".contains(byte))
        };
        if is_stray(text.first()) || is_stray(text.last()) {
            self.add(
                path,
                "the secret begins or ends with white space or a quote, which is part of it as it is: \
                 expected the bare secret",
            );
        }
        if key.len() < LEAST_SECRET {
            let problem = format!(
                "the secret has {} bytes, which can be guessed from one captured callback: expected at \
                 least {LEAST_SECRET} random ones",
                key.len()
            );
            self.add(path, problem);
        }
        let other = self
            .secrets
            .iter()
            .find(|(other, known)| other.0 != source.0 && *known == key);
        if let Some((other, _)) = other {
            let problem = format!(
                "is a secret of {} as well: who can send for one of them can send for both; expected \
                 secrets of its own",
                other.0
            );
            self.add(path, problem);
        }
        self.secrets.push((source.clone(), key));
    }
}

/// Warns of paths that are matched exactly while everything else passes.
pub(super) fn unmatched(path: &Path, rule: Unmatched, sources: &[Source], warnings: &mut Warnings) {
    let is_exact = |source: &Source| matches!(source.route.path, PathRule::Exact(_));
    if rule == Unmatched::Pass
        && let Some(index) = sources.iter().position(is_exact)
    {
        let problem = format!(
            "is `pass`, and sources[{index}] matches one exact path: the guard refuses each near miss \
             of it that it knows, but not another path that the application's own rules lead to \
             the same handler; expected `reject`, or `match.path_prefix`"
        );
        warnings.add(path, problem);
    }
}

/// Warns of a verify token that may be guessed.
pub(super) fn verify_token(path: &Path, token: &str, warnings: &mut Warnings) {
    let length = token.len();
    if length < LEAST_SECRET {
        let problem = format!(
            "has {length} bytes, so somebody may guess it and get a challenge answered; expected at \
             least {LEAST_SECRET} random ones"
        );
        warnings.add(path, problem);
    }
}

/// Warns of a key that leaves out the message id: different events may look like one.
pub(super) fn key(path: &Path, dedupe: &Dedupe, id: &IdAt, warnings: &mut Warnings) {
    let has = |part: KeyPart| dedupe.key.contains(&part);
    let is_whole = match id {
        // The digest replaces a missing id: the key alone identifies the event.
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
    warnings.add(path, problem);
}
