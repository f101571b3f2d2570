//! Pauses deliveries to an application that fails, and probes whether it is back.

use std::time::Duration;

use crate::moment::Moment;

/// How many failures in a row open the circuit.
pub const FAILURES: u32 = 10;

/// The longest pause between two probes.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What may be attempted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Anything.
    Free,
    /// One event, to see whether the application is back.
    Probe,
    /// Nothing: the next probe is due later, or one is under way.
    Nothing,
}

/// The circuit of one application.
#[derive(Clone, Debug)]
pub struct Circuit {
    failures: u32,
    probe_at: Moment,
    probing: bool,
    pause: Duration,
}

impl Circuit {
    /// A closed circuit that, once open, probes every `pause` (at most [`LONGEST_PAUSE`]).
    #[must_use]
    pub fn new(pause: Duration) -> Self {
        Self {
            failures: 0,
            probe_at: Moment::default(),
            probing: false,
            pause: pause.min(LONGEST_PAUSE),
        }
    }

    /// Whether deliveries are paused.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.failures >= FAILURES
    }

    /// What may be attempted at `now`.
    #[must_use]
    pub fn permit(&self, now: Moment) -> Permit {
        match self.is_open() {
            false => Permit::Free,
            true if !self.probing && self.probe_at <= now => Permit::Probe,
            true => Permit::Nothing,
        }
    }

    /// A probe has begun.
    pub fn begin_probe(&mut self) {
        self.probing = true;
    }

    /// Records how an attempt ended. `is_alive`: the application took the event, or said 410.
    pub fn record(&mut self, is_alive: bool, now: Moment) {
        self.probing = false;
        if is_alive {
            self.failures = 0;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.probe_at = now.after(self.pause);
    }
}
