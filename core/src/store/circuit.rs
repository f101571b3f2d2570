//! A circuit breaker: a store that has failed a few times is not asked for a while.
//!
//! | state | a call is | it becomes |
//! |---|---|---|
//! | closed | allowed | open, after [`FAILURES`] failures in a row |
//! | open | refused | half open, after [`REST_MILLIS`], doubled with each failed probe up to [`LONGEST_REST_MILLIS`] |
//! | half open | allowed once, as a probe | closed if the probe succeeds, open if it fails |
//!
//! One per VM: a store that is down costs each worker [`FAILURES`] time-outs in a row, then one
//! per rest. Calls that were on their way when the circuit opened change nothing.

use crate::time::UnixMillis;

/// How many failures in a row open the circuit.
pub const FAILURES: u32 = 3;
/// How long an open circuit rests before the first probe, in milliseconds.
pub const REST_MILLIS: u64 = 500;
/// The longest rest, in milliseconds.
pub const LONGEST_REST_MILLIS: u64 = 4_000;

/// How calls of late have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circuit(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    HalfOpen { rest_millis: u64 },
    Open { rest_millis: u64, until: UnixMillis },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// The permission for one call. Its end is reported with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// One call of many.
    Call,
    /// The call that decides whether an open circuit closes.
    Probe,
}

/// What the end of a call did to the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It was open and is closed.
    Closed,
    /// It is as it was.
    None,
    /// It was closed and is open.
    Opened,
}

impl Circuit {
    /// Allows a call, or does not. Whoever gets a permit reports the call's end.
    pub fn permit(&mut self, now: UnixMillis) -> Option<Permit> {
        match self.0 {
            State::Closed { .. } => Some(Permit::Call),
            State::Open { rest_millis, until } if has_rested(rest_millis, until, now) => {
                self.0 = State::HalfOpen { rest_millis };
                Some(Permit::Probe)
            }
            State::HalfOpen { .. } | State::Open { .. } => None,
        }
    }

    /// Whether [`Circuit::permit`] would allow a call.
    #[must_use]
    pub fn would_permit(&self, now: UnixMillis) -> bool {
        match self.0 {
            State::Closed { .. } => true,
            State::HalfOpen { .. } => false,
            State::Open { rest_millis, until } => has_rested(rest_millis, until, now),
        }
    }

    /// Whether it is not closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.0, State::Closed { .. })
    }

    /// A call has ended well.
    pub fn succeeded(&mut self, permit: Permit) -> Transition {
        match (self.0, permit) {
            (State::Closed { .. }, _) => {
                self.0 = State::Closed { failures: 0 };
                Transition::None
            }
            (_, Permit::Probe) => {
                self.0 = State::Closed { failures: 0 };
                Transition::Closed
            }
            (_, Permit::Call) => Transition::None,
        }
    }

    /// A call has failed.
    pub fn failed(&mut self, permit: Permit, now: UnixMillis) -> Transition {
        match (self.0, permit) {
            (State::Closed { failures }, _) => {
                let failures = failures.saturating_add(1);
                if failures < FAILURES {
                    self.0 = State::Closed { failures };
                    return Transition::None;
                }
                self.0 = open(REST_MILLIS, now);
                Transition::Opened
            }
            (State::HalfOpen { rest_millis }, Permit::Probe) => {
                let rest_millis = rest_millis.saturating_mul(2).min(LONGEST_REST_MILLIS);
                self.0 = open(rest_millis, now);
                Transition::None
            }
            _ => Transition::None,
        }
    }

    /// The result of a call will not be seen: if it was the probe, another is allowed.
    pub fn abandoned(&mut self, permit: Permit, now: UnixMillis) {
        if let (State::HalfOpen { rest_millis }, Permit::Probe) = (self.0, permit) {
            self.0 = State::Open {
                rest_millis,
                until: now,
            };
        }
    }
}

/// Whether a rest is over, or was begun before the clock stepped back.
fn has_rested(rest_millis: u64, until: UnixMillis, now: UnixMillis) -> bool {
    let left_millis = until.millis_since(now);
    left_millis == 0 || left_millis > rest_millis
}

fn open(rest_millis: u64, now: UnixMillis) -> State {
    State::Open {
        rest_millis,
        until: UnixMillis::new(now.as_millis().saturating_add(rest_millis)),
    }
}
