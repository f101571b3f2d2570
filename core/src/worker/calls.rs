//! The ends of calls to the shared store, the time, and the requests that go on by either.

use super::Worker;
use super::exchange::Request;
use super::verdict::Verdict;
use super::waiting::{Group, MOST_ANSWERS};
use crate::effect::{CallId, Effect, Io, StreamId};
use crate::event::EventKey;
use crate::guard::Step;
use crate::log::LogLine;
use crate::store::redis::{self, StoreError};
use crate::store::stores::Ended;
use crate::store::{ClaimAnswer, SharedData};

impl Worker {
    /// A call to the shared store has ended.
    pub fn call_ended<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        call: CallId,
        answer: Result<redis::Answer<'_>, StoreError>,
    ) {
        let resources = &mut self.resources;
        let ended = resources
            .stores
            .call_ended(io, call, answer, &mut resources.effects);
        let mut budget = MOST_ANSWERS;
        resources.stores.is_of_another(true);
        self.call_has_ended(io, ended, &mut budget);
        self.resources.stores.is_of_another(false);
        self.adjust_ticks();
    }

    /// Time has passed.
    pub fn time<S: SharedData>(&mut self, io: &mut Io<'_, S>) {
        self.resources
            .stores
            .time(io.now(), &mut self.resources.effects);
        if let Some(count) = self.resources.refusals.left_out(io.now()) {
            let line = LogLine::LeftOut(count);
            self.resources.effects.push(Effect::Log(Box::new(line)));
        }
        let mut budget = MOST_ANSWERS;
        while budget > 0
            && let Some(ended) = self
                .resources
                .stores
                .turned_away(io, &mut self.resources.effects)
        {
            self.call_has_ended(io, ended, &mut budget);
        }
        self.wake(io, budget);
        self.adjust_ticks();
    }

    /// Asks for the events that are waited for, until enough requests have gone on.
    #[inline(never)]
    fn wake<S: SharedData>(&mut self, io: &mut Io<'_, S>, mut budget: usize) {
        for _ in 0..self.resources.waiting.events() {
            if budget == 0 {
                return;
            }
            let Some((key, mut group)) = self.resources.waiting.take_next() else {
                return;
            };
            if group.is_due(io.now()) {
                self.ask_for(io, key, &mut group, &mut budget);
            }
            self.resources.waiting.put_back(key, group);
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
            self.resources.waiting.remove(group, stream);
            return;
        };
        let guard = &mut exchange.guard;
        let step = guard.woken();
        let (Step::Claim(request), Some((source, _))) = (step, guard.asks_for()) else {
            self.resources.waiting.remove(group, stream);
            return;
        };
        let resources = &mut self.resources;
        let answer = resources
            .stores
            .claim(io, stream, source, &request, &mut resources.effects);
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
        let resources = &mut self.resources;
        match ended {
            Ended::Nobody => {}
            Ended::Settled(stream) => {
                if let Some(Request::Guarded(exchange)) = self.requests.get_mut(&stream)
                    && core::mem::take(&mut exchange.is_response_held)
                {
                    resources.effects.push(Effect::ResumeResponse(stream));
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
                    resources
                        .stores
                        .give_back(io, &source, &request, &mut resources.effects);
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
        match self.resources.waiting.take(&key) {
            Some(mut group) if waits(&group) => {
                group.asker = None;
                self.answer_group(io, key, &mut group, stream, answer, budget);
                self.resources.waiting.put_back(key, group);
            }
            group => {
                if let Some(group) = group {
                    self.resources.waiting.put_back(key, group);
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
        let Some(mut group) = self.resources.waiting.take(&key) else {
            return;
        };
        let deadlines = group.streams.iter().filter_map(|stream| {
            let guard = &self.exchange(*stream)?.guard;
            guard.waits_for().map(|(_, until)| until)
        });
        if let Some(first) = deadlines.min() {
            group.back_off(io.now(), first);
        }
        self.resources.waiting.put_back(key, group);
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
                self.resources.waiting.remove(group, stream);
                continue;
            };
            if guard.waits_for().is_some_and(|(awaited, _)| awaited == key) {
                guard.woken();
            }
            let step = guard.answered(answer, io.now());
            if !matches!(step, Step::Wait { .. }) {
                self.resources.waiting.remove(group, stream);
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
        let resources = &mut self.resources;
        match resources.carry_on(io, stream, exchange, step) {
            Verdict::Forward => resources.effects.push(Effect::Resume(stream)),
            Verdict::Continue | Verdict::Hold => {}
            Verdict::Reply(reply) => resources
                .effects
                .push(Effect::Reply(stream, Box::new(reply))),
        }
    }
}
