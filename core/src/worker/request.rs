//! The events of a request: its head, its body, its trailers, and what could not be done with it.

use std::borrow::Cow;

use super::Worker;
use super::exchange::{Request, awaited, undecided};
use super::verdict::{Verdict, unknown};
use crate::effect::{Io, StreamId};
use crate::guard::Guard;
use crate::outcome::Outcome;
use crate::policy::HoldHeaders;
use crate::request::RequestHead;
use crate::store::SharedData;

impl Worker {
    /// The head of a request has come. `ends` if no body follows.
    ///
    /// Before it goes on, [`Worker::unwanted_headers`] are to be removed from it, and its path replaced by
    /// [`Worker::clean_target`], if there is one.
    pub fn request_head<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        head: &RequestHead<'_>,
        ends: bool,
    ) -> Verdict {
        let resources = &mut self.resources;
        if let Some(inspector) = &resources.policy.inspector
            && let Some(reply) = inspector.answer(io.shared, head, io.now())
        {
            self.requests.insert(stream, Request::Inspected);
            return Verdict::Reply(reply);
        }
        let Some((mut guard, step)) = Guard::open(&resources.policy, head, ends, io.now()) else {
            self.requests.insert(stream, Request::Passed);
            return Verdict::Continue;
        };
        let verdict = resources.carry_out(io, stream, &mut guard, step, None);
        self.insert(stream, guard);
        if self.resources.refusals.has_left_out() {
            self.adjust_ticks();
        }
        match (verdict, self.resources.policy.hold_headers) {
            // Envoy's buffer filter holds it.
            (Verdict::Hold, HoldHeaders::BufferAfter) => Verdict::Continue,
            (verdict, _) => verdict,
        }
    }

    /// The names of headers that are to be removed from a request whose head has come: those that only the
    /// guard may set and, if it is the guard's, those that would have Envoy deliver it several times.
    pub fn unwanted_headers<'h>(
        &self,
        stream: StreamId,
        head: &RequestHead<'h>,
    ) -> impl Iterator<Item = &'h [u8]> {
        let steering = self
            .exchange(stream)
            .map(|_| head.steering_headers())
            .into_iter()
            .flatten();
        head.reserved_headers().chain(steering)
    }

    /// The rewritten path and query of a request whose head has come, if the original held a token.
    #[must_use]
    pub fn clean_target(&self, stream: StreamId, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        self.exchange(stream)?.guard.clean_target(head)
    }

    /// Hands each header for the upstream to `add`, which puts it into the request.
    ///
    /// # Errors
    ///
    /// The first one of `add`: report it by [`Worker::fail`].
    pub fn upstream_headers<E>(
        &self,
        stream: StreamId,
        add: impl FnMut(&'static str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.exchange(stream) {
            // With `buffer_after` the headers have gone before.
            Some(exchange) if self.resources.policy.hold_headers == HoldHeaders::Filter => {
                exchange.guard.report().upstream_headers(add)
            }
            _ => Ok(()),
        }
    }

    /// A part of the body has come: `received` bytes are there in all, and held. `ends` if that is
    /// all; `read` then gives so many bytes of it.
    pub fn request_body<'b, S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        received: usize,
        ends: bool,
        read: &dyn Fn(usize) -> Option<Cow<'b, [u8]>>,
    ) -> Verdict {
        let exchange = match undecided(self.requests.get_mut(&stream)) {
            Ok(exchange) => exchange,
            Err(verdict) => return verdict,
        };
        exchange.received = received;
        let resources = &mut self.resources;
        if !resources.hold(exchange, received) {
            let step = exchange.guard.overloaded();
            return resources.carry_on(io, stream, exchange, step);
        }
        if ends {
            return self.whole_body(io, stream, read);
        }
        let step = exchange.guard.body_grew(received);
        resources.carry_on(io, stream, exchange, step)
    }

    /// Trailers have come: the body has ended, and `read` gives so many bytes of it.
    ///
    /// Those whose names [`is_reserved`](crate::request::is_reserved) are to be removed before.
    pub fn request_trailers<'b, S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        read: &dyn Fn(usize) -> Option<Cow<'b, [u8]>>,
    ) -> Verdict {
        match undecided(self.requests.get_mut(&stream)) {
            Ok(_) => self.whole_body(io, stream, read),
            Err(verdict) => verdict,
        }
    }

    #[inline(never)]
    fn whole_body<'b, S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        read: &dyn Fn(usize) -> Option<Cow<'b, [u8]>>,
    ) -> Verdict {
        let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream) else {
            return unknown();
        };
        let verdict = self.resources.judge_body(io, stream, exchange, read);
        self.adjust_ticks();
        verdict
    }

    /// What a verdict or an effect asks for could not be done with a request, or something of it could
    /// not be read: it is refused. Its claim, if it had one, is released: it has not been forwarded.
    pub fn fail<S: SharedData>(&mut self, io: &mut Io<'_, S>, stream: StreamId) -> Verdict {
        if !matches!(self.requests.get(&stream), Some(Request::Guarded(_))) {
            // Whatever it was, it does not go on.
            self.insert(stream, Guard::of_no_head(&self.resources.policy));
        }
        let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream) else {
            return unknown();
        };
        let (guard, resources) = (&mut exchange.guard, &mut self.resources);
        if let Some(key) = awaited(guard) {
            resources.waiting.leave(&key, stream);
        }
        resources.stores.abandon(io, stream, &mut resources.effects);
        let step = guard.fail();
        let verdict = resources.carry_on(io, stream, exchange, step);
        resources.settle(io, &mut exchange.guard, Outcome::NotReached, None);
        self.adjust_ticks();
        verdict
    }
}
