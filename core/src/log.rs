//! What the filter logs: one line when it starts, and refusals, of which a flood is only counted.
//!
//! Lines are JSON, one object each, with `event` first. None holds a secret, a signature, a header or
//! payload data.

use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::message_id::MessageId;
#[cfg(feature = "native")]
use crate::policy::Warning;
use crate::policy::{Mode, PathRule, Policy, Source, Unmatched};
use crate::report::Report;
use crate::store::redis::{Access, Place, Protocol};
use crate::store::{ABSENT, SharedData, Swap};
use crate::time::UnixMillis;
use crate::verdict::Rejection;

/// Whether a refusal is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its line is written.
    Logged,
    /// It is only counted: this second has had its lines.
    LeftOut,
}

/// Lets so many lines through in a second, and counts the others.
///
/// A second is one of the clock, so that no timer is needed while nothing is refused. If the clock
/// is set back, a new second begins.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    per_second: u32,
    second: u64,
    logged: u32,
    left_out: u64,
}

impl Limiter {
    /// A limiter for so many lines a second; with 0 every one is left out.
    #[must_use]
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: 0,
            logged: 0,
            left_out: 0,
        }
    }

    /// Counts a refusal. Ask [`Limiter::left_out`] first.
    pub(crate) fn refused(&mut self, now: UnixMillis) -> Refusal {
        let second = now.as_seconds();
        if second != self.second {
            self.second = second;
            self.logged = 0;
        }
        if self.logged < self.per_second {
            self.logged = self.logged.saturating_add(1);
            return Refusal::Logged;
        }
        self.left_out = self.left_out.saturating_add(1);
        Refusal::LeftOut
    }

    /// How many were left out in the seconds before this one, if any were; each is reported once.
    pub(crate) fn left_out(&mut self, now: UnixMillis) -> Option<u64> {
        if self.left_out == 0 || now.as_seconds() == self.second {
            return None;
        }
        Some(core::mem::take(&mut self.left_out))
    }

    /// Whether there is something to tell once this second is over.
    #[must_use]
    pub(crate) fn has_left_out(&self) -> bool {
        self.left_out > 0
    }
}

/// A line for the log.
#[derive(Clone, Debug)]
pub enum LogLine {
    /// So many refusals of the seconds before have no line of their own.
    LeftOut(u64),
    /// One refusal.
    Refused(Refused),
}

/// One refusal, for the log.
#[derive(Clone, Debug)]
pub struct Refused {
    source: Option<Arc<Source>>,
    rejection: Rejection,
    id: Option<MessageId>,
}

impl LogLine {
    /// The line for a report; `None` if it is not of a refusal.
    #[must_use]
    pub(crate) fn of(report: &Report) -> Option<Self> {
        Some(Self::Refused(Refused {
            source: report.source.clone(),
            rejection: report.rejection.clone()?,
            id: report.id.clone(),
        }))
    }

    /// The line as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::LeftOut(count) => format!(r#"{{"event":"left_out","count":{count}}}"#),
            Self::Refused(refused) => refused.to_json(),
        }
    }
}

impl Refused {
    fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Line<'l> {
            event: &'static str,
            source: Option<&'l str>,
            code: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<&'l str>,
            detail: String,
        }
        let line = Line {
            event: "refused",
            source: self.source.as_ref().map(|source| &*source.name),
            code: self.rejection.code().as_str(),
            id: self.id.as_ref().map(MessageId::as_str),
            detail: self.rejection.to_string(),
        };
        // Strings as JSON: this cannot fail.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// Where the last start is noted in shared data.
const STARTED: &str = "callback-guard.started";

/// Whether nobody in this process has said so far that the filter starts with this configuration.
///
/// Every VM is configured by itself: the one that a configuration is tried with, the main thread's and
/// each worker's. Where the host has no shared data, each says so.
pub fn is_first<S: SharedData>(shared: &mut S, configuration: &[u8]) -> bool {
    let mut hash = Sha256::new();
    hash.update(crate::VERSION);
    hash.update([0]);
    hash.update(configuration);
    let own = hash.finalize();
    let Ok((noted, version)) = shared.get(STARTED) else {
        return true;
    };
    if noted.is_some_and(|noted| noted == own.as_slice()) {
        return false;
    }
    let set = shared.set(STARTED, &own, version.unwrap_or(ABSENT));
    !matches!(set, Ok(Swap::Conflict))
}

/// The line of a filter that starts: what it guards, and what is probably not meant.
#[must_use]
pub fn start_line(policy: &Policy) -> String {
    let sources = policy.sources.iter().map(|source| {
        let (path, is_prefix) = match &source.route.path {
            PathRule::Exact(path) => (path, false),
            PathRule::Prefix(path) => (path, true),
        };
        StartSource {
            name: &source.name,
            preset: source.preset.as_deref(),
            path: (!is_prefix).then_some(path),
            path_prefix: is_prefix.then_some(path),
            host: source.route.host.as_deref(),
            monitor: source.mode == Mode::Monitor,
        }
    });
    let line = Start {
        event: "start",
        version: crate::VERSION,
        sources: sources.collect(),
        store: match &policy.remote {
            None => "memory",
            Some(remote) => match &remote.access {
                Access::Front(front) => match front.protocol {
                    Protocol::Upstash => "redis by upstash",
                    Protocol::Webdis => "redis by webdis",
                },
                Access::Server(server) => match (&server.place, server.is_tls) {
                    (Place::At(_), false) => "redis",
                    (Place::At(_), true) => "redis by TLS",
                    (Place::Sentinels { .. }, false) => "redis by Sentinel",
                    (Place::Sentinels { .. }, true) => "redis by Sentinel and TLS",
                },
            },
        },
        capacity: policy.capacity,
        unmatched: match policy.unmatched {
            Unmatched::Pass => "pass",
            Unmatched::Reject => "reject",
        },
        warnings: policy.warnings.iter().map(ToString::to_string).collect(),
    };
    serde_json::to_string(&line).unwrap_or_default()
}

/// The line of a secret that Envoy has delivered: what it made worth a warning, or why it is not taken.
#[cfg(feature = "native")]
#[must_use]
pub fn secret_line(name: &str, taken: &Result<Vec<Warning>, String>) -> String {
    let warnings = taken.as_ref().map(Vec::as_slice).unwrap_or_default();
    let line = Secret {
        event: "secret",
        name,
        taken: taken.is_ok(),
        problem: taken.as_ref().err(),
        warnings: warnings.iter().map(ToString::to_string).collect(),
    };
    serde_json::to_string(&line).unwrap_or_default()
}

/// The line of secrets that have not been delivered.
#[cfg(feature = "native")]
#[must_use]
pub fn missing_secrets_line(names: &[&str]) -> String {
    let line = MissingSecrets {
        event: "secrets_missing",
        names,
    };
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(feature = "native")]
#[derive(Serialize)]
struct Secret<'s> {
    event: &'static str,
    name: &'s str,
    taken: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'s String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[cfg(feature = "native")]
#[derive(Serialize)]
struct MissingSecrets<'s> {
    event: &'static str,
    names: &'s [&'s str],
}

#[derive(Serialize)]
struct Start<'p> {
    event: &'static str,
    version: &'p str,
    sources: Vec<StartSource<'p>>,
    store: &'static str,
    capacity: u32,
    unmatched: &'static str,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct StartSource<'p> {
    name: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_prefix: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'p str>,
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    monitor: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> UnixMillis {
        UnixMillis::new(millis)
    }

    #[test]
    fn a_second_has_its_lines_and_a_count_of_the_others() {
        let mut limiter = Limiter::new(2);
        let flood: Vec<_> = (0..5).map(|_| limiter.refused(at(1000))).collect();
        use Refusal::{LeftOut, Logged};
        assert_eq!(flood, [Logged, Logged, LeftOut, LeftOut, LeftOut]);
        assert!(limiter.has_left_out());
        assert_eq!(limiter.left_out(at(1999)), None, "its second is not over");
        assert_eq!(limiter.left_out(at(2000)), Some(3));
        assert_eq!(limiter.left_out(at(2000)), None, "told once");
        assert!(!limiter.has_left_out());
        assert_eq!(limiter.refused(at(2000)), Logged);
    }

    #[test]
    fn what_nobody_asked_for_is_told_with_the_next_seconds() {
        let mut limiter = Limiter::new(0);
        for millis in [1000, 2000, 3000] {
            assert_eq!(limiter.refused(at(millis)), Refusal::LeftOut);
        }
        assert_eq!(limiter.left_out(at(4000)), Some(3));
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nothing() {
        let mut limiter = Limiter::new(1);
        assert_eq!(limiter.refused(at(90_000)), Refusal::Logged);
        assert_eq!(limiter.refused(at(90_000)), Refusal::LeftOut);
        assert_eq!(limiter.left_out(at(5000)), Some(1));
        assert_eq!(limiter.refused(at(5000)), Refusal::Logged);
    }
}
