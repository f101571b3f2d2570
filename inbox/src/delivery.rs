//! The life of an event: which states it has, and what moves it from one to the next.
//!
//! ```text
//!            claim                 2xx
//! waiting ----------> delivering ------> delivered --+
//!   ^  ^                |  |  |  410, or             | replay
//!   |  +-- other answer-+  |  |  no attempt left     v
//!   |      lease over -----+  +--------> dead ----> waiting
//!   +------------------------------------------------+
//! ```
//!
//! All of it is pure: the time, the jitter and the number of a claim are arguments. The stores keep
//! these values and write what is decided here; which event of an id is the first is theirs to find.

use std::time::Duration;

use crate::moment::Moment;
use crate::schedule::Schedule;

/// What an attempt's lease lasts beyond the time-out of the attempt.
pub const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// The longest `retry-after` that is respected; a longer one counts as this.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for its next attempt.
    Waiting,
    /// An attempt is under way, or its worker has died: then the claim ends with its lease.
    Delivering {
        /// The number of the claim: only its holder may settle.
        claim: i64,
    },
    /// The application has answered 2xx.
    Delivered,
    /// No more attempts, unless it is replayed.
    Dead,
}

impl State {
    /// Whether the event is still to be delivered.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Waiting | Self::Delivering { .. })
    }
}

/// An event's place in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where it is.
    pub state: State,
    /// Attempts of this series whose outcome is known.
    ///
    /// An attempt whose worker died does not count: a crash uses up no step of the schedule.
    pub attempts: u32,
    /// Waiting: the next attempt. Delivering: the lease's end. Ended: when it ended.
    pub due: Moment,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The application answered.
    Answered {
        /// With this status.
        status: u16,
        /// And asked for this pause.
        retry_after: Option<Duration>,
    },
    /// No answer: no connection, no such host, time-out, connection lost.
    Failed,
}

impl Outcome {
    /// Whether the event is delivered.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(
            self,
            Self::Answered {
                status: 200..=299,
                ..
            }
        )
    }

    /// Whether the application wants none of this event, ever.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Answered { status: 410, .. })
    }
}

impl Delivery {
    /// An event that has just arrived: due at once.
    #[must_use]
    pub fn accepted(now: Moment) -> Self {
        Self {
            state: State::Waiting,
            attempts: 0,
            due: now,
        }
    }

    /// The event under a new claim, if it is due and nobody's.
    #[must_use]
    pub fn claim(self, now: Moment, claim: i64, lease: Duration) -> Option<Self> {
        (self.state.is_live() && self.due <= now).then(|| Self {
            state: State::Delivering { claim },
            due: now.after(lease),
            ..self
        })
    }

    /// The event after an attempt; `None` if `claim` no longer holds it.
    #[must_use]
    pub fn settle(
        self,
        claim: i64,
        outcome: &Outcome,
        now: Moment,
        schedule: &Schedule,
        jitter: f64,
    ) -> Option<Self> {
        if self.state != (State::Delivering { claim }) {
            return None;
        }
        let attempts = self.attempts.saturating_add(1);
        let ended = |state| Self {
            state,
            attempts,
            due: now,
        };
        if outcome.is_success() {
            return Some(ended(State::Delivered));
        }
        let delay = match (outcome.is_gone(), schedule.delay(attempts, jitter)) {
            (false, Some(delay)) => delay,
            _ => return Some(ended(State::Dead)),
        };
        let asked = match outcome {
            Outcome::Answered {
                retry_after: Some(asked),
                ..
            } => (*asked).min(LONGEST_RETRY_AFTER),
            _ => Duration::ZERO,
        };
        Some(Self {
            state: State::Waiting,
            attempts,
            due: now.after(delay.max(asked)),
        })
    }

    /// The event given back without an outcome, by an inbox that stops; `None` as for `settle`.
    #[must_use]
    pub fn release(self, claim: i64, now: Moment) -> Option<Self> {
        (self.state == State::Delivering { claim }).then_some(Self {
            state: State::Waiting,
            due: now,
            ..self
        })
    }

    /// The event at the start of a new series of attempts; `None` while an attempt is under way.
    ///
    /// A waiting event may be replayed too: it is the same series begun anew, never a second one.
    #[must_use]
    pub fn replay(self, now: Moment) -> Option<Self> {
        match self.state {
            State::Delivering { .. } => None,
            State::Waiting | State::Delivered | State::Dead => Some(Self::accepted(now)),
        }
    }
}

/// Reads a `retry-after`: seconds, or an HTTP date.
///
/// Source: RFC 9110, section 10.2.3.
#[must_use]
pub fn retry_after(value: &str, wall: Moment) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(Moment::from_system(date).since(wall))
}
