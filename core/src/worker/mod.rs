//! All requests of one worker thread, and their claims: events in, verdicts and effects out.
//!
//! A host (the proxy-wasm filter, the native module, the tests) reports each event to a [`Worker`] as it
//! happens, and does two things: it applies the [`Verdict`] to the request whose callback runs, and
//! carries out the [`Effect`]s, in order. An [`Effect::Resume`] or [`Effect::Reply`] for the
//! request whose callback runs is its verdict instead: [`Verdict::Forward`] or [`Verdict::Reply`].
//!
//! | event | method |
//! |---|---|
//! | the head of a request | [`Worker::request_head`] |
//! | a part of its body, the last one, its trailers | [`Worker::request_body`], [`Worker::request_trailers`] |
//! | the head of the response, its body, its trailers | [`Worker::response_head`], [`Worker::response_body`], [`Worker::response_trailers`] |
//! | its end, whatever came before | [`Worker::stream_end`] |
//! | something could not be done | [`Worker::fail`] |
//! | the end of a call to the shared store | [`Worker::call_ended`] |
//! | time has passed | [`Worker::time`] |
//! | there are other secrets | [`Worker::renew`] |
//!
//! An event of an unknown request is refused: a host that loses one does not open a way around.

pub(crate) mod waiting;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::authenticate::Inputs;
use crate::effect::{CallId, Effect, Effects, Io, StreamId};
use crate::event::EventKey;
use crate::guard::{Guard, Step};
use crate::json::Scratch;
use crate::log::{Limiter, Refusal};
use crate::metrics::{Metric, SourceMetric};
use crate::outcome::Outcome;
use crate::policy::{HoldHeaders, Mode, Policy};
use crate::reply::{Answer, Reply};
use crate::report::{EntryTexts, LogLine, Report};
use crate::request::RequestHead;
use crate::store::redis::{self, StoreError};
use crate::store::stores::{Ended, Owners, Settling, Stores};
use crate::store::{ClaimAnswer, SharedData};
use crate::verdict::{Code, Rejection};
use waiting::{Group, Waiting};

pub use waiting::{MOST_ANSWERS, MOST_FOR_ONE_EVENT, MOST_IN_ALL};

/// How often the time is to be reported while requests wait or settlements are to be sent, in
/// milliseconds.
pub const TICK_MILLIS: u32 = 20;

/// The longest response body that is held until its claim is settled, in bytes.
///
/// Half of the smallest buffer that Envoy's advice on edge proxies gives a connection (32 KiB):
/// what does not fit its buffer, Envoy would answer with a 500. A longer response goes on at once.
const MOST_HELD_RESPONSE_BYTES: usize = 16 << 10;

/// Bytes of its body that every request may have held, however many others there are.
const ALWAYS_HELD_BYTES: usize = 16 << 10;

/// By how much the held bytes change before the gauge is updated: a body in one piece costs nothing.
const HELD_STEP_BYTES: usize = 64 << 10;

/// What to do with the request whose callback runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it go on as it is.
    Continue,
    /// Put [`Worker::upstream_headers`] into it, and let it go.
    Forward,
    /// Hold it.
    Hold,
    /// Answer it.
    Reply(Reply),
}

/// What to do with the response whose callback runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Whether it is held, body and trailers included, until [`Effect::ResumeResponse`].
    pub is_held: bool,
    /// The status that takes the place of its own.
    pub status: Option<u16>,
}

/// Random numbers that a worker begins with.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// No two workers that ever share a store may count from near each other.
    pub owner: u64,
    /// The salt of a store that has none yet.
    pub salt: [u8; 16],
}

/// All requests of one thread.
#[derive(Clone, Debug)]
pub struct Worker {
    requests: BTreeMap<StreamId, Request>,
    desk: Desk,
    ticks: Option<u32>,
}

/// All that a worker has but its requests.
#[derive(Clone, Debug)]
struct Desk {
    policy: Arc<Policy>,
    stores: Stores,
    waiting: Waiting,
    effects: Effects,
    scratch: Scratch,
    owners: Owners,
    /// Which refusals are logged.
    refusals: Limiter,
    /// Bytes of bodies that are held for the requests.
    held: usize,
    /// What the gauge shows of them.
    shown: usize,
}

#[derive(Clone, Debug)]
enum Request {
    Guarded(Box<Exchange>),
    /// Answered by the inspector.
    Inspected,
    /// None of ours.
    Passed,
}

/// A request that the guard judges, with its response.
#[derive(Clone, Debug)]
struct Exchange {
    guard: Guard,
    /// Bytes of its body so far.
    received: usize,
    /// As many of them as are held for it.
    held: usize,
    is_response_held: bool,
}

impl Worker {
    /// For one configuration.
    #[must_use]
    pub fn new(policy: Arc<Policy>, seed: Seed) -> Self {
        Self {
            requests: BTreeMap::new(),
            desk: Desk {
                stores: Stores::new(&policy, seed.salt),
                waiting: Waiting::default(),
                effects: Effects::default(),
                scratch: Scratch::default(),
                owners: Owners::new(seed.owner),
                refusals: Limiter::new(policy.refusals_per_second),
                held: 0,
                shown: 0,
                policy,
            },
            ticks: None,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.desk.policy
    }

    /// The same configuration with other secrets: they count from the next request on. Those that have begun
    /// end as they began.
    pub fn renew(&mut self, policy: Arc<Policy>) {
        self.desk.policy = policy;
    }

    /// Moves the effects so far behind those in `all`.
    pub fn take_effects(&mut self, all: &mut Vec<Effect>) {
        all.append(&mut self.desk.effects.0);
    }

    /// What is known of a request that is still there.
    #[must_use]
    pub fn report(&self, stream: StreamId) -> Option<&Report> {
        Some(self.exchange(stream)?.guard.report())
    }

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
        let desk = &mut self.desk;
        if let Some(inspector) = &desk.policy.inspector
            && let Some(reply) = inspector.answer(io.shared, head, io.now())
        {
            self.requests.insert(stream, Request::Inspected);
            return Verdict::Reply(reply);
        }
        let Some((mut guard, step)) = Guard::open(&desk.policy, head, ends, io.now()) else {
            self.requests.insert(stream, Request::Passed);
            return Verdict::Continue;
        };
        let verdict = desk.carry_out(io, stream, &mut guard, step, None);
        self.insert(stream, guard);
        if self.desk.refusals.has_left_out() {
            self.adjust_ticks();
        }
        match (verdict, self.desk.policy.hold_headers) {
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
            Some(exchange) if self.desk.policy.hold_headers == HoldHeaders::Filter => {
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
        let desk = &mut self.desk;
        if !desk.hold(exchange, received) {
            let step = exchange.guard.overloaded();
            return desk.carry_on(io, stream, exchange, step);
        }
        if ends {
            return self.whole_body(io, stream, read);
        }
        let step = exchange.guard.body_grew(received);
        desk.carry_on(io, stream, exchange, step)
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
        let verdict = self.desk.judge_body(io, stream, exchange, read);
        self.adjust_ticks();
        verdict
    }

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
        self.desk
            .show_outcome(io, &mut exchange.guard, outcome, status);
        // Of an outcome that is not known the sender hears at once.
        let holder = matches!(outcome, Outcome::Accepted | Outcome::Refused).then_some(stream);
        exchange.is_response_held = self.desk.settle(io, &mut exchange.guard, outcome, holder);
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
            self.desk.effects.count(Metric::EarlyResponses);
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
        self.desk.let_go(&mut exchange);
        let (guard, desk) = (&mut exchange.guard, &mut self.desk);
        if let Some(key) = awaited(guard) {
            desk.waiting.leave(&key, stream);
        }
        if guard.left().is_some() {
            desk.tell(io, stream, guard);
        }
        desk.stores.abandon(io, stream, &mut desk.effects);
        if guard.claim().is_some() || guard.report().slot.is_some() {
            let (outcome, status) = outcome();
            desk.show_outcome(io, guard, outcome, status);
            desk.settle(io, guard, outcome, None);
        }
        self.adjust_ticks();
    }

    /// What a verdict or an effect asks for could not be done with a request, or something of it could
    /// not be read: it is refused. Its claim, if it had one, is released: it has not been forwarded.
    pub fn fail<S: SharedData>(&mut self, io: &mut Io<'_, S>, stream: StreamId) -> Verdict {
        if !matches!(self.requests.get(&stream), Some(Request::Guarded(_))) {
            // Whatever it was, it does not go on.
            self.insert(stream, Guard::of_no_head(&self.desk.policy));
        }
        let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream) else {
            return unknown();
        };
        let (guard, desk) = (&mut exchange.guard, &mut self.desk);
        if let Some(key) = awaited(guard) {
            desk.waiting.leave(&key, stream);
        }
        desk.stores.abandon(io, stream, &mut desk.effects);
        let step = guard.fail();
        let verdict = desk.carry_on(io, stream, exchange, step);
        desk.settle(io, &mut exchange.guard, Outcome::NotReached, None);
        self.adjust_ticks();
        verdict
    }

    /// A call to the shared store has ended.
    pub fn call_ended<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        call: CallId,
        answer: Result<redis::Answer<'_>, StoreError>,
    ) {
        let desk = &mut self.desk;
        let ended = desk.stores.call_ended(io, call, answer, &mut desk.effects);
        let mut budget = MOST_ANSWERS;
        desk.stores.is_of_another(true);
        self.call_has_ended(io, ended, &mut budget);
        self.desk.stores.is_of_another(false);
        self.adjust_ticks();
    }

    /// Time has passed.
    pub fn time<S: SharedData>(&mut self, io: &mut Io<'_, S>) {
        self.desk.stores.time(io.now(), &mut self.desk.effects);
        if let Some(count) = self.desk.refusals.left_out(io.now()) {
            let line = LogLine::LeftOut(count);
            self.desk.effects.push(Effect::Log(Box::new(line)));
        }
        let mut budget = MOST_ANSWERS;
        while budget > 0
            && let Some(ended) = self.desk.stores.turned_away(io, &mut self.desk.effects)
        {
            self.call_has_ended(io, ended, &mut budget);
        }
        self.wake(io, budget);
        self.adjust_ticks();
    }

    /// The worker ends, with all its requests: what only it counts is taken back.
    pub fn close(&mut self) {
        self.desk.stores.close(&mut self.desk.effects);
        self.desk.held = 0;
        self.desk.show_held(0);
    }

    /// How many requests wait for another to settle.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.desk.waiting.len()
    }

    fn insert(&mut self, stream: StreamId, guard: Guard) {
        let exchange = Exchange {
            guard,
            received: 0,
            held: 0,
            is_response_held: false,
        };
        self.requests
            .insert(stream, Request::Guarded(Box::new(exchange)));
    }

    fn exchange(&self, stream: StreamId) -> Option<&Exchange> {
        match self.requests.get(&stream)? {
            Request::Guarded(exchange) => Some(exchange),
            Request::Inspected | Request::Passed => None,
        }
    }

    fn guard(&mut self, stream: StreamId) -> Option<&mut Guard> {
        match self.requests.get_mut(&stream)? {
            Request::Guarded(exchange) => Some(&mut exchange.guard),
            Request::Inspected | Request::Passed => None,
        }
    }

    /// Asks for the events that are waited for, until enough requests have gone on.
    #[inline(never)]
    fn wake<S: SharedData>(&mut self, io: &mut Io<'_, S>, mut budget: usize) {
        for _ in 0..self.desk.waiting.events() {
            if budget == 0 {
                return;
            }
            let Some((key, mut group)) = self.desk.waiting.take_next() else {
                return;
            };
            if group.is_due(io.now()) {
                self.ask_for(io, key, &mut group, &mut budget);
            }
            self.desk.waiting.put_back(key, group);
        }
    }

    /// Asks for an event, on behalf of the request that has waited the longest.
    fn ask_for<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        key: EventKey,
        group: &mut Group,
        budget: &mut usize,
    ) {
        let Some(stream) = group.streams.front().copied() else {
            return;
        };
        let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream) else {
            self.desk.waiting.remove(group, stream);
            return;
        };
        let guard = &mut exchange.guard;
        let step = guard.woken();
        let (Step::Claim(request), Some((source, _))) = (step, guard.asks_for()) else {
            self.desk.waiting.remove(group, stream);
            return;
        };
        let desk = &mut self.desk;
        let answer = desk
            .stores
            .claim(io, stream, source, &request, &mut desk.effects);
        match answer {
            Some(answer) => self.answer_group(io, key, group, stream, answer, budget),
            None => group.asker = Some(stream),
        }
    }

    /// A call to the shared store has ended, or will not be made. `budget` requests may go on by it.
    fn call_has_ended<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        ended: Ended,
        budget: &mut usize,
    ) {
        let desk = &mut self.desk;
        match ended {
            Ended::Nobody => {}
            Ended::Settled(stream) => {
                if let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream)
                    && core::mem::take(&mut exchange.is_response_held)
                {
                    desk.effects.push(Effect::ResumeResponse(stream));
                    *budget = budget.saturating_sub(1);
                }
            }
            Ended::Claim {
                stream,
                source,
                request,
                answer,
            } => {
                let asks = match self.requests.get(&stream) {
                    Some(Request::Guarded(exchange)) => exchange.guard.asks_for(),
                    _ => None,
                };
                if asks.is_none_or(|(_, key)| key != request.key) {
                    // Nobody will use what it may have got.
                    desk.stores
                        .give_back(io, &source, &request, &mut desk.effects);
                } else {
                    self.claim_answered(io, stream, request.key, answer, budget);
                }
            }
        }
    }

    /// The store has answered the request that asked for a claim.
    #[inline(never)]
    fn claim_answered<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        key: EventKey,
        answer: ClaimAnswer,
        budget: &mut usize,
    ) {
        let waits = |group: &Group| group.asker == Some(stream);
        match self.desk.waiting.take(&key) {
            Some(mut group) if waits(&group) => {
                group.asker = None;
                self.answer_group(io, key, &mut group, stream, answer, budget);
                self.desk.waiting.put_back(key, group);
            }
            group => {
                if let Some(group) = group {
                    self.desk.waiting.put_back(key, group);
                }
                let Some(guard) = self.guard(stream) else {
                    return;
                };
                let step = guard.answered(answer, io.now());
                *budget = budget.saturating_sub(1);
                self.go_on(io, stream, step);
            }
        }
        self.back_off(io, key);
    }

    /// Has those who wait for an event pause before they ask the shared store again.
    fn back_off<S>(&mut self, io: &Io<'_, S>, key: EventKey) {
        let Some(mut group) = self.desk.waiting.take(&key) else {
            return;
        };
        let deadlines = group.streams.iter().filter_map(|stream| {
            let guard = &self.exchange(*stream)?.guard;
            guard.waits_for().map(|(_, until)| until)
        });
        if let Some(first) = deadlines.min() {
            group.back_off(io.now(), first);
        }
        self.desk.waiting.put_back(key, group);
    }

    /// Gives an answer to the request that asked for it, and to those waiting for the same event that it
    /// answers as well.
    #[inline(never)]
    fn answer_group<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        key: EventKey,
        group: &mut Group,
        asker: StreamId,
        answer: ClaimAnswer,
        budget: &mut usize,
    ) {
        // A claim is for one.
        let is_for_all = !matches!(answer, ClaimAnswer::Granted | ClaimAnswer::GrantedLocally);
        let mut next = Some(asker);
        let mut others = group
            .streams
            .clone()
            .into_iter()
            .filter(|other| *other != asker);
        while let Some(stream) = next.take() {
            let Some(guard) = self.guard(stream) else {
                self.desk.waiting.remove(group, stream);
                continue;
            };
            if guard.waits_for().is_some_and(|(awaited, _)| awaited == key) {
                guard.woken();
            }
            let step = guard.answered(answer, io.now());
            if !matches!(step, Step::Wait { .. }) {
                self.desk.waiting.remove(group, stream);
                *budget = budget.saturating_sub(1);
                self.go_on(io, stream, step);
            }
            if is_for_all && *budget > 0 {
                next = others.next();
            }
        }
    }

    /// Carries out a step of a request whose callback does not run.
    fn go_on<S: SharedData>(&mut self, io: &mut Io<'_, S>, stream: StreamId, step: Step) {
        let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream) else {
            return;
        };
        let desk = &mut self.desk;
        match desk.carry_on(io, stream, exchange, step) {
            Verdict::Forward => desk.effects.push(Effect::Resume(stream)),
            Verdict::Continue | Verdict::Hold => {}
            Verdict::Reply(reply) => desk.effects.push(Effect::Reply(stream, Box::new(reply))),
        }
    }

    /// Asks for the time while there is something to do as it passes.
    fn adjust_ticks(&mut self) {
        let is_needed = self.desk.waiting.len() > 0
            || self.desk.stores.needs_time()
            || self.desk.refusals.has_left_out();
        let ticks = is_needed.then_some(TICK_MILLIS);
        if self.ticks != ticks {
            self.ticks = ticks;
            self.desk.effects.push(Effect::Ticks(ticks));
        }
    }
}

/// The request, if it is the guard's and still to be decided; else what to do with what came of it.
fn undecided(request: Option<&mut Request>) -> Result<&mut Exchange, Verdict> {
    let exchange = match request {
        Some(Request::Guarded(exchange)) => exchange,
        Some(Request::Inspected) => return Err(Verdict::Hold),
        Some(Request::Passed) => return Err(Verdict::Continue),
        None => return Err(unknown()),
    };
    match (
        exchange.guard.is_decided(),
        exchange.guard.report().is_forwarded,
    ) {
        (false, _) => Ok(exchange),
        (true, true) => Err(Verdict::Continue),
        (true, false) => Err(Verdict::Hold),
    }
}

/// The event that a request waits for, or asks for.
fn awaited(guard: &Guard) -> Option<EventKey> {
    let waits = guard.waits_for().map(|(key, _)| key);
    waits.or_else(|| guard.asks_for().map(|(_, key)| key))
}

/// The answer to a request of which nothing is known.
fn unknown() -> Verdict {
    let rejection = Rejection::new(Code::InternalError);
    Verdict::Reply(Reply::new(&Answer::Refuse(rejection), false))
}

impl Desk {
    /// Counts the bytes that are held for a request. False if there is no room for more of them.
    fn hold(&mut self, exchange: &mut Exchange, received: usize) -> bool {
        let more = received.saturating_sub(exchange.held);
        let total = self.held.saturating_add(more);
        if received > ALWAYS_HELD_BYTES && more > 0 && total > self.policy.max_held_bytes {
            return false;
        }
        self.held = total;
        exchange.held = exchange.held.saturating_add(more);
        self.show_held(HELD_STEP_BYTES);
        true
    }

    /// A request is decided, or gone: nothing is held for it any more.
    fn let_go(&mut self, exchange: &mut Exchange) {
        let held = core::mem::take(&mut exchange.held);
        self.held = self.held.saturating_sub(held);
        self.show_held(HELD_STEP_BYTES);
    }

    /// Updates the gauge, if the held bytes have changed by a step, or are zero.
    fn show_held(&mut self, step: usize) {
        let is_none = self.held == 0 && self.shown > 0;
        if !is_none && self.held.abs_diff(self.shown) < step.max(1) {
            return;
        }
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let by = signed(self.held).saturating_sub(signed(self.shown));
        self.shown = self.held;
        self.effects.add(Metric::HeldBytes, by);
    }

    /// Has the guard judge the whole body.
    fn judge_body<'b, S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        exchange: &mut Exchange,
        read: &dyn Fn(usize) -> Option<Cow<'b, [u8]>>,
    ) -> Verdict {
        let (guard, received) = (&mut exchange.guard, exchange.received);
        let (Ok(salt), owner, now) = (self.stores.salt(io), self.owners.next(), io.now()) else {
            let step = guard.fail();
            return self.carry_on(io, stream, exchange, step);
        };
        let inputs = Inputs { now, owner, salt };
        if !guard.reads_body() {
            let step = guard.body_ended(&[], &inputs, &mut self.scratch);
            return self.carry_on(io, stream, exchange, step);
        }
        let body = match read(received) {
            Some(body) if body.len() == received => body,
            _ => {
                let step = guard.fail();
                return self.carry_on(io, stream, exchange, step);
            }
        };
        let bytes = u64::try_from(received).unwrap_or(u64::MAX);
        self.effects.record_of(
            guard.report().source_index(),
            SourceMetric::BodyBytes,
            bytes,
        );
        let step = guard.body_ended(&body, &inputs, &mut self.scratch);
        let verdict = self.carry_out(io, stream, guard, step, Some(&body));
        if exchange.guard.is_decided() {
            self.let_go(exchange);
        }
        verdict
    }

    /// As [`Desk::carry_out`], where the body is not at hand.
    fn carry_on<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        exchange: &mut Exchange,
        step: Step,
    ) -> Verdict {
        let verdict = self.carry_out(io, stream, &mut exchange.guard, step, None);
        if exchange.guard.is_decided() {
            self.let_go(exchange);
        }
        verdict
    }

    /// Does what the guard says, until the request is answered, forwarded or held.
    #[inline(never)]
    fn carry_out<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        guard: &mut Guard,
        mut step: Step,
        body: Option<&[u8]>,
    ) -> Verdict {
        loop {
            step = match step {
                Step::Answer(answer) => {
                    self.tell(io, stream, guard);
                    return Verdict::Reply(Reply::new(&answer, self.policy.expose_reason));
                }
                Step::Claim(request) => {
                    let Some((source, _)) = guard.asks_for() else {
                        return Verdict::Hold;
                    };
                    match self
                        .stores
                        .claim(io, stream, source, &request, &mut self.effects)
                    {
                        Some(answer) => {
                            if let Some(body) = body
                                && answer != ClaimAnswer::Granted
                            {
                                guard.keep_digest(body);
                            }
                            guard.answered(answer, io.now())
                        }
                        None => return Verdict::Hold,
                    }
                }
                Step::Forward => {
                    self.tell(io, stream, guard);
                    return Verdict::Forward;
                }
                Step::Hold => return Verdict::Hold,
                Step::Wait { .. } => {
                    let Some((key, _)) = guard.waits_for() else {
                        return Verdict::Hold;
                    };
                    if self.waiting.join(key, stream) {
                        let source = guard.report().source_index();
                        self.effects.count_of(source, SourceMetric::Waits);
                        return Verdict::Hold;
                    }
                    guard.cannot_wait()
                }
            };
        }
    }

    /// Records a verdict in the metrics, the access log, the inspector and, if it is a refusal, the log.
    #[inline(never)]
    fn tell<S: SharedData>(&mut self, io: &mut Io<'_, S>, stream: StreamId, guard: &mut Guard) {
        let report = guard.report_mut();
        let Some(verdict) = report.verdict else {
            return;
        };
        let source = report.source_index();
        let effects = &mut self.effects;
        effects.count_of(source, SourceMetric::Verdicts(verdict));
        if report.body_changed {
            effects.count_of(source, SourceMetric::BodyChanges);
        }
        if let Some(millis) = report.held_millis {
            effects.record_of(source, SourceMetric::DecisionMillis, millis);
        }
        effects.push(Effect::Verdict(stream, verdict));
        if report.rejection.is_some() {
            if let Some(count) = self.refusals.left_out(io.now()) {
                effects.push(Effect::Log(Box::new(LogLine::LeftOut(count))));
            }
            if self.refusals.refused(io.now()) == Refusal::Logged
                && let Some(line) = LogLine::of(report)
            {
                effects.push(Effect::Log(Box::new(line)));
            }
        }
        if let Some(inspector) = &self.policy.inspector
            && inspector.records
        {
            let slot = report
                .entry(&mut EntryTexts::default(), io.now())
                .and_then(|entry| inspector.write(io.shared, &entry));
            report.slot = slot.filter(|_| report.is_forwarded);
        }
    }

    /// Records the outcome of a forwarded request in the inspector; once.
    fn show_outcome<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        guard: &mut Guard,
        outcome: Outcome,
        status: u64,
    ) {
        if let Some(inspector) = &self.policy.inspector
            && let Some(slot) = guard.report_mut().slot.take()
        {
            inspector.answered(io.shared, slot, outcome, status);
        }
    }

    /// Settles the claim of a request, if it has one. True if the response of `holder` is to be held
    /// until the shared store has answered.
    #[inline(never)]
    fn settle<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        guard: &mut Guard,
        outcome: Outcome,
        holder: Option<StreamId>,
    ) -> bool {
        let Some(claim) = guard.claim() else {
            return false;
        };
        let (source, lease_end) = (Arc::clone(&claim.source), claim.lease_end);
        // A fallback claim has already waited for a time-out: its response does not wait again.
        let holder = holder.filter(|_| !claim.is_fallback);
        self.effects
            .count_of(Some(source.index), SourceMetric::Outcomes(outcome));
        let Some(settlement) = guard.settle(outcome) else {
            return false;
        };
        let settling = Settling {
            source,
            settlement,
            lease_end,
        };
        self.stores.settle(io, settling, holder, &mut self.effects)
    }
}
