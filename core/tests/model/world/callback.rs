//! A callback of a worker: its steps, and what the host does with the verdict and the effects.

use std::rc::Rc;

use callback_guard_core::metrics::Metric;
use callback_guard_core::store::redis::{Answer, Ask, OnError, StoreError};
use callback_guard_core::testkit::MapShared;
use callback_guard_core::worker::{
    Effect, Io, MOST_ANSWERS, MOST_FOR_ONE_EVENT, Outcome, Reply, Response, StreamId, Verdict,
    Worker,
};

use super::{
    Call, CallEnd, CallKey, Callback, Command, Fate, Met, Moment, Operation, Phase, Request, World,
    hash_of, seed_of,
};
use crate::ledger::State;
use crate::stepped::{Said, Stepped};

impl World {
    /// Lets the callback that runs take so many steps; it has ended when it needs no more. The worker may die
    /// then.
    pub(super) fn step(&mut self, worker: usize, steps: usize, refuses: bool, dies: bool) {
        let setup = Rc::clone(&self.setup);
        let slot = &mut self.slots[worker];
        let mut operation = slot.operation.take().expect("a callback that runs");
        let mut state = Rc::clone(slot.worker.as_ref().expect("it lives"));
        let proxy = &mut self.proxies[worker / setup.workers];
        let before = operation.said.len();
        let mut shared = Stepped::new(&mut proxy.shared, &mut operation.said, steps, refuses);
        let run = Rc::make_mut(&mut state);
        let mut io = Io::new(&mut shared, operation.now);
        let calls = &self.calls;
        let result = match operation.callback {
            Callback::Body(request) => {
                let body = setup.events[self.requests[request].event].body.as_bytes();
                let read = |_| Some(body.into());
                Told::Verdict(run.request_body(&mut io, stream(request), body.len(), true, &read))
            }
            Callback::Response(request, how) => {
                Told::Response(run.response_head(&mut io, stream(request), || how.outcome()))
            }
            Callback::End(request, _) => {
                let known = &self.requests[request];
                let outcome = match known.status {
                    // The guard's own answers are not in Envoy's list of what never left.
                    status if known.claim.state == State::None => (Outcome::Unknown, status.into()),
                    0 => (Outcome::Unknown, 0),
                    200 => (Outcome::Accepted, 200),
                    status => (Outcome::Refused, status.into()),
                };
                run.stream_end(&mut io, stream(request), || outcome);
                Told::Nothing
            }
            Callback::Call(number, end) => {
                let call = &calls[&number];
                let http = |status, body| Ok(Answer::Http { status, body });
                let answer = match end {
                    CallEnd::Answer => http(200, call.reply.as_deref().expect("a reply")),
                    CallEnd::Broken => Err(StoreError::Unreachable),
                    CallEnd::TimedOut => http(504, &b"upstream request timeout"[..]),
                    CallEnd::Garbled => http(200, &br#"{"EVAL":[false,"ERR"#[..]),
                };
                run.call_ended(&mut io, number.2, answer);
                Told::Nothing
            }
            Callback::Time => {
                run.time(&mut io);
                Told::Nothing
            }
        };
        let is_stopped = shared.is_stopped;
        for said in &operation.said[before..] {
            match said {
                Said::Swapped { is_done: true } => proxy.writes += 1,
                Said::Swapped { is_done: false } => self.conflicts += 1,
                _ => {}
            }
        }
        let slot = &mut self.slots[worker];
        if is_stopped {
            slot.operation = Some(operation);
            if dies {
                self.crash(worker);
            }
        } else if dies {
            self.undone(worker, &operation);
        } else {
            slot.worker = Some(state);
            self.completed(worker, &operation, result);
        }
    }

    /// The worker has taken the last step of a callback, and dies before anything is done about it.
    fn undone(&mut self, worker: usize, operation: &Operation) {
        let callback = operation.callback;
        self.began = operation.now.as_millis();
        match callback {
            Callback::Body(request) => {
                self.judged(worker, request);
            }
            Callback::Response(request, how) => {
                self.settled(request, how.outcome().0, operation.is_refused());
            }
            Callback::End(request, _) if self.requests[request].phase == Phase::Upstream => {
                self.settled(request, Outcome::Unknown, operation.is_refused());
            }
            _ => {}
        }
        self.met.push(Met::Died(Moment::Undone(callback.kind())));
        self.faults.torn += 1;
        self.bury(worker);
        self.check_stores();
    }

    /// A body has been judged: the request has its owner token.
    fn judged(&mut self, worker: usize, request: usize) {
        let slot = &mut self.slots[worker];
        slot.judged += 1;
        self.requests[request].owner = seed_of(worker, slot.generation).owner + slot.judged;
    }

    fn completed(&mut self, worker: usize, operation: &Operation, result: Told) {
        let callback = operation.callback;
        let is_refused = operation.is_refused();
        // A worker learns only from a call that it waits for.
        let said: Vec<Option<&Vec<u8>>> = operation
            .said
            .iter()
            .map(|said| match said {
                Said::Got(value, _) => value.as_ref(),
                _ => None,
            })
            .collect();
        let reply = match callback {
            Callback::Call(number, _) => Some((number.2, self.calls[&number].reply.clone())),
            _ => None,
        };
        let now = operation.now.as_millis();
        self.began = now;
        let told = match callback {
            Callback::Call(_, end) => hash_of(&end),
            callback => hash_of(&callback),
        };
        let is_idle = callback == Callback::Time && operation.said.is_empty();
        let old = self.slots[worker].heard;
        let slot = &mut self.slots[worker];
        slot.heard = hash_of(&(old, now, told, &said, is_refused, &reply));
        match callback {
            Callback::Body(request) => {
                self.judged(worker, request);
                let request = &mut self.requests[request];
                request.phase = Phase::Held;
                request.held_since = now;
            }
            Callback::Time => slot.last_tick = 0,
            Callback::Call(number, _) => {
                let call = self.calls.get_mut(&number).expect("a call");
                call.is_open = false;
                if !call.can_arrive && call.answers > 1 {
                    self.calls.remove(&number);
                }
            }
            _ => {}
        }
        let running = match callback {
            Callback::Body(request) | Callback::Response(request, _) => Some(request),
            Callback::End(request, _) => Some(request),
            _ => None,
        };
        let effects = self.perform(
            worker,
            running,
            operation.refuses_header,
            operation.refuses_calls,
        );
        if is_idle && effects.count == 0 {
            self.slots[worker].heard = old;
        }
        match (callback, result) {
            (Callback::Body(request), Told::Verdict(verdict)) => {
                let verdict = effects.verdict.unwrap_or(verdict);
                match verdict {
                    Verdict::Hold => {}
                    Verdict::Forward => {
                        self.forward(request, effects.is_fallback, operation.refuses_header);
                        self.perform(worker, running, false, false);
                    }
                    Verdict::Reply(reply) => self.answered(request, &reply),
                    Verdict::Continue => self.check(false, "nothing unverified is forwarded"),
                }
            }
            (Callback::Response(request, how), Told::Response(response)) => {
                let is_held = response.is_held && !effects.resumes_response;
                self.settled(request, how.outcome().0, is_refused);
                self.requests[request].status = u16::try_from(how.outcome().1).unwrap();
                if is_held {
                    self.requests[request].phase = Phase::ResponseHeld;
                } else {
                    self.response_let_go(request);
                }
            }
            (Callback::End(request, _), _) => {
                let known = &self.requests[request];
                if known.phase == Phase::Upstream {
                    self.settled(request, Outcome::Unknown, is_refused);
                }
                self.requests[request].phase = Phase::Over;
            }
            _ => {}
        }
        self.check_stores();
        let slot = &self.slots[worker];
        let waiting = slot.worker.as_ref().map_or(0, |state| state.waiting());
        let held = |request: &&Request| request.worker == worker && request.phase == Phase::Held;
        let most = self.requests.iter().filter(held).count();
        self.check(waiting <= most, "only who is held waits");
        if waiting > MOST_FOR_ONE_EVENT {
            for event in 0..self.accepted.len() {
                let of_event = |request: &&Request| request.event == event;
                let held = self.requests.iter().filter(held).filter(of_event).count();
                self.check(
                    held <= MOST_FOR_ONE_EVENT + 1,
                    "so many wait for one event and no more",
                );
            }
        }
        let tick = self.tick_print(worker);
        if callback == Callback::Time {
            self.slots[worker].last_tick = tick;
        }
    }

    /// What a worker could find changed at a tick.
    pub(super) fn tick_print(&self, worker: usize) -> u64 {
        let slot = &self.slots[worker];
        let writes = self.proxies[worker / self.setup.workers].writes;
        let held = |request: &&Request| request.worker == worker && request.phase == Phase::Held;
        let held = self.requests.iter().filter(held).count();
        hash_of(&(
            writes,
            self.redis_writes,
            self.now.as_millis(),
            held,
            slot.has_ticks,
        )) | 1
    }

    /// Does what a worker wants done.
    pub(super) fn perform(
        &mut self,
        worker: usize,
        running: Option<usize>,
        refuses_header: bool,
        refuses_calls: bool,
    ) -> Performed {
        let mut done = Performed::default();
        let mut gone_on = 0;
        loop {
            let mut effects = Vec::new();
            if let Some(state) = &mut self.slots[worker].worker {
                Rc::make_mut(state).take_effects(&mut effects);
            }
            if effects.is_empty() {
                break;
            }
            done.count += effects.len();
            for effect in effects {
                match effect {
                    Effect::Add(metric, by) => {
                        done.is_fallback |= metric == Metric::Fallbacks;
                        if metric == Metric::CircuitsOpen {
                            self.slots[worker].is_circuit_open = by > 0;
                        }
                        self.met.extend(met(metric, by));
                        let gauges = &mut self.proxies[worker / self.setup.workers].gauges;
                        *gauges.entry(metric.index()).or_default() += by;
                    }
                    Effect::Call { call, ask } if refuses_calls => {
                        let Ask::Post(body) = ask else {
                            unreachable!("the model's stores are behind a front");
                        };
                        let command = Command::new(&body);
                        self.met.push(Met::Call(command.asked(), Fate::NotMade));
                        self.tell(worker, |state, io| {
                            state.call_ended(io, call, Err(StoreError::Unreachable));
                        });
                    }
                    Effect::Call { call, ask } => {
                        self.check(self.setup.is_fleet(), "only a shared store is called");
                        let Ask::Post(body) = ask else {
                            unreachable!("the model's stores are behind a front");
                        };
                        let made = Call {
                            made: self.redis_now,
                            command: Rc::new(Command::new(&body)),
                            reply: None,
                            is_open: true,
                            can_arrive: true,
                            answers: 0,
                            has_failed: false,
                            is_probe: self.slots[worker].is_circuit_open,
                        };
                        if made.is_probe {
                            self.met.push(Met::Probe(made.command.asked()));
                        }
                        self.check_probe(worker, &made);
                        let key = (worker, self.slots[worker].generation, call);
                        self.calls.insert(key, made);
                    }
                    Effect::Reply(stream, reply) => {
                        let request = self.addressed(worker, stream);
                        if running == Some(request) {
                            done.verdict = Some(Verdict::Reply(*reply));
                        } else {
                            gone_on += 1;
                            self.answered(request, &reply);
                        }
                    }
                    Effect::Resume(stream) => {
                        let request = self.addressed(worker, stream);
                        if running == Some(request) {
                            done.verdict = Some(Verdict::Forward);
                        } else {
                            gone_on += 1;
                            self.check_turn(request);
                            self.forward(request, done.is_fallback, refuses_header);
                        }
                    }
                    Effect::ResumeResponse(stream) => {
                        let request = self.addressed(worker, stream);
                        if running == Some(request) {
                            done.resumes_response = true;
                        } else {
                            let is_held = self.requests[request].phase == Phase::ResponseHeld;
                            self.check(is_held, "only a held response is let go");
                            self.response_let_go(request);
                        }
                    }
                    Effect::Verdict(stream, _) => {
                        self.addressed(worker, stream);
                    }
                    Effect::Ticks(millis) => self.slots[worker].has_ticks = millis.is_some(),
                    Effect::Log(_) | Effect::Record(..) => {}
                }
            }
        }
        self.check(
            gone_on <= MOST_ANSWERS,
            "so many go on in one callback and no more",
        );
        done
    }

    /// A request that has waited goes on. With one store who came first waits the longest; with two a claim
    /// that Redis denies joins the others late.
    fn check_turn(&self, number: usize) {
        let known = &self.requests[number];
        let is_before = |other: &Request| {
            other.worker == known.worker
                && other.event == known.event
                && other.phase == Phase::Held
                && other.owner < known.owner
        };
        self.check(
            self.setup.is_fleet() || !self.requests.iter().any(is_before),
            "who has waited the longest goes on first",
        );
    }

    /// A worker makes a call. The probe of a sender that has left is not waited for.
    fn check_probe(&self, worker: usize, made: &Call) {
        let is_probe = |(key, call): (&CallKey, &Call)| {
            let is_its = key.0 == worker && key.1 == self.slots[worker].generation;
            is_its && call.is_open && call.is_probe
        };
        self.check(
            !made.is_probe || self.faults.exchanges > 0 || !self.calls.iter().any(is_probe),
            "an open circuit lets one call through at a time",
        );
    }

    fn tell(&mut self, worker: usize, event: impl FnOnce(&mut Worker, &mut Io<'_, MapShared>)) {
        let shared = &mut self.proxies[worker / self.setup.workers].shared;
        let state = self.slots[worker].worker.as_mut().expect("it lives");
        event(Rc::make_mut(state), &mut Io::new(shared, self.now));
    }

    /// The request that an effect names.
    fn addressed(&self, worker: usize, stream: StreamId) -> usize {
        let number = usize::try_from(stream.0).unwrap();
        let request = self.requests.get(number);
        let is_there = request.is_some_and(|request| {
            request.worker == worker && self.is_alive(request) && request.phase != Phase::Over
        });
        self.check(is_there, "no effect after the end of a stream");
        number
    }

    fn response_let_go(&mut self, number: usize) {
        self.requests[number].phase = Phase::Told;
        let request = &self.requests[number];
        if request.status == 200 {
            self.check_told_accepted(number);
        }
    }

    /// A request goes on to the upstream.
    fn forward(&mut self, number: usize, is_fallback: bool, refuses_header: bool) {
        let request = &self.requests[number];
        self.check(request.is_genuine, "nothing unverified is forwarded");
        self.check(
            request.phase == Phase::Held,
            "a request gets one answer or is forwarded once",
        );
        let (worker, event) = (request.worker, request.event);
        let mut key = None;
        let state = self.slots[worker].worker.as_ref().expect("it lives");
        let added = state.upstream_headers(stream(number), |name, value| {
            if name == "x-callback-guard-key" {
                key = Some(String::from_utf8(value.to_vec()).unwrap());
            }
            if refuses_header { Err(()) } else { Ok(()) }
        });
        if added.is_err() {
            let mut verdict = None;
            self.tell(worker, |state, io| {
                verdict = Some(state.fail(io, stream(number)));
            });
            match verdict {
                Some(Verdict::Reply(reply)) => self.answered(number, &reply),
                _ => self.check(false, "what cannot be marked is not forwarded"),
            }
            return;
        }
        let expected = &self.setup.events[event].key;
        self.check(
            key.as_ref() == Some(expected),
            "the upstream gets the event's key",
        );
        self.check_forward(number, is_fallback);
        self.requests[number].phase = Phase::Upstream;
        self.deliveries += 1;
    }

    /// A request is answered by the guard.
    fn answered(&mut self, number: usize, reply: &Reply) {
        let request = &self.requests[number];
        let is_held = matches!(request.phase, Phase::Held | Phase::Headed);
        self.check(is_held, "a request gets one answer or is forwarded once");
        let code = reply.details.strip_prefix("callback_guard:").unwrap_or("");
        let event = request.event;
        let fits = match (code, reply.status) {
            ("signature_mismatch", 401) => !request.is_genuine,
            ("duplicate", 200) => {
                self.check(self.accepted[event], "no event is swallowed");
                request.is_genuine
            }
            ("in_flight", 409) => request.is_genuine && self.is_claimed_by_another(number),
            ("store_unavailable", 503) => {
                let is_rejecting = self.setup.on_error() == Some(OnError::Reject);
                self.faults.refusals > 0 || is_rejecting && self.faults.calls > 0
            }
            ("internal_error", 503) => self.faults.refusals + self.faults.others > 0,
            _ => false,
        };
        self.check(fits, &format!("the answer `{code}` has its reason"));
        let request = &mut self.requests[number];
        request.phase = Phase::Told;
        request.status = reply.status;
    }

    fn is_claimed_by_another(&self, number: usize) -> bool {
        let (event, owner) = (self.requests[number].event, self.requests[number].owner);
        if !self.setup.is_fleet() {
            let record = self.record(self.proxy_of(number), event);
            return record.is_some_and(|record| !record.is_delivered && record.owner != owner);
        }
        // What Redis said may be out of date.
        let others = |(other, request): (usize, &Request)| {
            other != number && request.event == event && request.owner != 0
        };
        self.requests.iter().enumerate().any(others)
    }
}

fn stream(request: usize) -> StreamId {
    StreamId(u32::try_from(request).unwrap())
}

fn met(metric: Metric, by: i64) -> Option<Met> {
    match metric {
        Metric::CircuitOpenings => Some(Met::CircuitOpened),
        Metric::CircuitsOpen if by < 0 => Some(Met::CircuitClosed),
        Metric::StoreErrors(StoreError::CircuitOpen) => Some(Met::TurnedAway),
        Metric::SettleRetries => Some(Met::Retried),
        _ => None,
    }
}

impl Operation {
    fn is_refused(&self) -> bool {
        let mut said = self.said.iter();
        said.any(|said| matches!(said, Said::Refused))
    }
}

enum Told {
    Verdict(Verdict),
    Response(Response),
    Nothing,
}

#[derive(Default)]
pub(super) struct Performed {
    count: usize,
    verdict: Option<Verdict>,
    resumes_response: bool,
    is_fallback: bool,
}
