//! What the filter logs: one line when it starts, and refusals, of which a flood is only counted.
//!
//! Lines are JSON, one object each, with `event` first. None holds a secret, a signature, a header or
//! payload data.

use serde::Serialize;

use crate::policy::{Mode, PathRule, Policy, Unmatched};
use crate::store::redis::Protocol;
use crate::time::UnixMillis;

/// Whether a refusal is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
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
pub struct Limiter {
    per_second: u32,
    second: u64,
    logged: u32,
    left_out: u64,
}

impl Limiter {
    /// A limiter for so many lines a second; with 0 every one is left out.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: 0,
            logged: 0,
            left_out: 0,
        }
    }

    /// Counts a refusal. Ask [`Limiter::left_out`] first.
    pub fn refused(&mut self, now: UnixMillis) -> Refusal {
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

    /// How many were left out in the seconds before this one, if any were; each is told once.
    pub fn left_out(&mut self, now: UnixMillis) -> Option<u64> {
        if self.left_out == 0 || now.as_seconds() == self.second {
            return None;
        }
        Some(core::mem::take(&mut self.left_out))
    }

    /// When [`Limiter::left_out`] has something to tell, if nothing is refused any more.
    #[must_use]
    pub fn due(&self) -> Option<UnixMillis> {
        let next = self.second.saturating_add(1).saturating_mul(1000);
        (self.left_out > 0).then(|| UnixMillis::new(next))
    }
}

/// The line for refusals that were left out.
#[must_use]
pub fn left_out_line(count: u64) -> String {
    format!(r#"{{"event":"left_out","count":{count}}}"#)
}

/// The line of a filter that starts: what it guards, and what is probably not meant.
#[must_use]
pub fn start_line(policy: &Policy, version: &str) -> String {
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
        version,
        sources: sources.collect(),
        store: match &policy.remote {
            None => "memory",
            Some(remote) => match remote.protocol {
                Protocol::Upstash => "redis by upstash",
                Protocol::Webdis => "redis by webdis",
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
        assert_eq!(limiter.due(), Some(at(2000)));
        assert_eq!(limiter.left_out(at(1999)), None, "its second is not over");
        assert_eq!(limiter.left_out(at(2000)), Some(3));
        assert_eq!(limiter.left_out(at(2000)), None, "told once");
        assert_eq!(limiter.due(), None);
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

    #[test]
    fn the_line_for_the_others_is_json() {
        assert_eq!(left_out_line(7), r#"{"event":"left_out","count":7}"#);
    }
}
