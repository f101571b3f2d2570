//! The events of a response, and the end of a request: both settle its claim.

use super::Worker;
use super::exchange::{Request, awaited};
use super::verdict::Response;
use crate::effect::{Io, StreamId};
use crate::metrics::Metric;
use crate::outcome::Outcome;
use crate::policy::Mode;
use crate::store::SharedData;

/// The longest response body that is held until its claim is settled, in bytes.
///
/// Half of the smallest buffer that Envoy's advice on edge proxies gives a connection (32 KiB):
/// what does not fit its buffer, Envoy would answer with a 500. A longer response goes on at once.
const MOST_HELD_RESPONSE_BYTES: usize = 16 << 10;

impl Worker {
    /// The head of the response has come. `outcome` reads the outcome of the request, and the
    /// response's status.
    pub fn response_head<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        outcome: impl FnOnce() -> (Outcome, u64),
    ) -> Response {
        let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream) else {
            return Response::default();
        };
        let report = exchange.guard.report();
        let acknowledge_as = report
            .source
            .as_ref()
            .filter(|source| source.mode == Mode::Enforce && report.is_forwarded)
            .and_then(|source| source.acknowledge_as);
        if exchange.guard.claim().is_none() && acknowledge_as.is_none() && report.slot.is_none() {
            return Response::default();
        }
        let (outcome, status) = outcome();
        self.resources
            .show_outcome(io, &mut exchange.guard, outcome, status);
        // Of an outcome that is not known the sender hears at once.
        let holder = matches!(outcome, Outcome::Accepted | Outcome::Refused).then_some(stream);
        exchange.is_response_held = self
            .resources
            .settle(io, &mut exchange.guard, outcome, holder);
        let is_held = exchange.is_response_held;
        self.adjust_ticks();
        Response {
            is_held,
            status: acknowledge_as
                .filter(|wanted| outcome == Outcome::Accepted && u64::from(*wanted) != status),
        }
    }

    /// `held` bytes of the response's body are there. Whether they are held.
    pub fn response_body(&mut self, stream: StreamId, held: usize) -> bool {
        let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream) else {
            return false;
        };
        if exchange.is_response_held && held > MOST_HELD_RESPONSE_BYTES {
            exchange.is_response_held = false;
            self.resources.effects.count(Metric::EarlyResponses);
        }
        exchange.is_response_held
    }

    /// The response's trailers are there. Whether they are held.
    #[must_use]
    pub fn response_trailers(&self, stream: StreamId) -> bool {
        self.exchange(stream)
            .is_some_and(|exchange| exchange.is_response_held)
    }

    /// A request has ended, whatever came before: nothing more will be said of it. `outcome` as for
    /// [`Worker::response_head`].
    pub fn stream_end<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        outcome: impl FnOnce() -> (Outcome, u64),
    ) {
        let Some(Request::Guarded(mut exchange)) = self.requests.remove(&stream) else {
            return;
        };
        self.resources.let_go(&mut exchange);
        let (guard, resources) = (&mut exchange.guard, &mut self.resources);
        if let Some(key) = awaited(guard) {
            resources.waiting.leave(&key, stream);
        }
        if guard.left().is_some() {
            resources.tell(io, stream, guard);
        }
        resources.stores.abandon(io, stream, &mut resources.effects);
        if guard.claim().is_some() || guard.report().slot.is_some() {
            let (outcome, status) = outcome();
            resources.show_outcome(io, guard, outcome, status);
            resources.settle(io, guard, outcome, None);
        }
        self.adjust_ticks();
    }
}
