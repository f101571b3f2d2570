//! What a [`Worker`](crate::worker::Worker) wants done by its host, beyond the verdict on the
//! callback that runs.

use core::cell::Cell;

use crate::log::LogLine;
use crate::metrics::{Metric, SourceMetric};
use crate::reply::Reply;
use crate::store::bucket::Change;
use crate::store::circuit::Transition;
use crate::store::redis::Ask;
use crate::time::UnixMillis;
use crate::verdict::Code;

/// Names one request of a worker: in a proxy-wasm VM its context's number. No two that live at the
/// same time have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// Names one call to the shared store, from [`Effect::Call`] to
/// [`Worker::call_ended`](crate::worker::Worker::call_ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Something to be done by the host, in order. Small, as a request has about ten: what is rare and
/// large is boxed.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Add to a counter or a gauge.
    Add(Metric, i64),
    /// Ask the shared store, by the [`Access`](crate::store::redis::Access) of its
    /// [`Remote`](crate::store::redis::Remote). Where that cannot even begin, report
    /// [`StoreError::Unreachable`](crate::store::redis::StoreError::Unreachable). Comes in an event of the
    /// request that asks, or with the time; never in an event of another request.
    Call {
        /// What its end is reported with.
        call: CallId,
        /// What it is asked.
        ask: Ask,
    },
    /// Write a line to the log, if it takes lines of the level `info`.
    Log(Box<LogLine>),
    /// Put a value into a histogram.
    Record(Metric, u64),
    /// Answer a request that is held.
    Reply(StreamId, Box<Reply>),
    /// Put [`Worker::upstream_headers`](crate::worker::Worker::upstream_headers) into a request that is
    /// held, and let it go.
    Resume(StreamId),
    /// Let a response go that is held.
    ResumeResponse(StreamId),
    /// Report the time every so many milliseconds from now on; `None`: no more.
    Ticks(Option<u32>),
    /// Put the verdict on a request into the access log.
    Verdict(StreamId, Code),
}

/// A list of effects, with a word for each that comes often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects(pub(crate) Vec<Effect>);

impl Effects {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    pub(crate) fn add(&mut self, metric: Metric, by: i64) {
        if by != 0 {
            self.push(Effect::Add(metric, by));
        }
    }

    pub(crate) fn count(&mut self, metric: Metric) {
        self.push(Effect::Add(metric, 1));
    }

    pub(crate) fn count_of(&mut self, source: Option<usize>, metric: SourceMetric) {
        self.count(Metric::Source(source, metric));
    }

    pub(crate) fn record_of(&mut self, source: Option<usize>, metric: SourceMetric, value: u64) {
        self.push(Effect::Record(Metric::Source(source, metric), value));
    }

    /// How the numbers of the local store have moved.
    pub(crate) fn change(&mut self, change: Change) {
        self.add(Metric::Claims, change.claims);
        self.add(Metric::Delivered, change.delivered);
        self.add(Metric::Evictions, i64::from(change.evicted));
    }

    /// The circuit to the shared store has opened or closed.
    pub(crate) fn circuit(&mut self, transition: Transition) {
        match transition {
            Transition::Closed => self.add(Metric::CircuitsOpen, -1),
            Transition::None => {}
            Transition::Opened => {
                self.count(Metric::CircuitOpenings);
                self.count(Metric::CircuitsOpen);
            }
        }
    }
}

/// What a host has for every event: its shared data and the time.
#[derive(Debug)]
pub struct Io<'i, S> {
    /// Shared data of all workers of the process.
    pub shared: &'i mut S,
    now: Cell<Option<UnixMillis>>,
    clock: fn() -> UnixMillis,
}

impl<'i, S> Io<'i, S> {
    /// Of shared data and the time.
    pub fn new(shared: &'i mut S, now: UnixMillis) -> Self {
        Self {
            shared,
            now: Cell::new(Some(now)),
            clock: UnixMillis::default,
        }
    }

    /// Of shared data and a clock, which is asked when the time is needed, once: of half of the events
    /// of a request nobody needs it, and in a proxy to ask is a call.
    pub fn with_clock(shared: &'i mut S, clock: fn() -> UnixMillis) -> Self {
        Self {
            shared,
            now: Cell::new(None),
            clock,
        }
    }

    /// The time of the event.
    pub(crate) fn now(&self) -> UnixMillis {
        let now = self.now.get().unwrap_or_else(self.clock);
        self.now.set(Some(now));
        now
    }
}
