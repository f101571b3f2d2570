//! What can happen next in a world.

use callback_guard_core::worker::{CallId, Outcome};

use super::{Phase, World};

/// How the application, and the way to it, deal with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Upstream {
    Accepts,
    /// It has accepted, and its answer is lost.
    AcceptsUnheard,
    Refuses,
    /// The connection broke after the request was sent.
    Breaks,
    /// No healthy upstream.
    NotReached,
}

impl Upstream {
    pub(super) fn accepts(self) -> bool {
        matches!(self, Self::Accepts | Self::AcceptsUnheard)
    }

    pub(super) fn outcome(self) -> (Outcome, u64) {
        match self {
            Self::Accepts => (Outcome::Accepted, 200),
            Self::Refuses => (Outcome::Refused, 500),
            Self::AcceptsUnheard | Self::Breaks => (Outcome::Unknown, 503),
            Self::NotReached => (Outcome::NotReached, 503),
        }
    }
}

/// Names a call: its worker, which one in that place, and its own number for it.
pub(crate) type CallKey = (usize, u64, CallId);

/// How a call ends for the worker that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CallEnd {
    Answer,
    /// What has not reached Redis will not.
    Broken,
    /// It may still reach Redis.
    TimedOut,
    Garbled,
}

/// A callback of a worker. Requests and calls by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Callback {
    Body(usize),
    Response(usize, Upstream),
    /// The stream is over. If it was forwarded and has no answer: whether the application has
    /// accepted it all the same.
    End(usize, bool),
    Call(CallKey, CallEnd),
    Time,
}

impl Callback {
    pub(super) fn kind(self) -> CallbackKind {
        match self {
            Self::Body(_) => CallbackKind::Body,
            Self::Response(..) => CallbackKind::Response,
            Self::End(..) => CallbackKind::End,
            Self::Call(..) => CallbackKind::Call,
            Self::Time => CallbackKind::Time,
        }
    }
}

/// Something that a search has to have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Met {
    Died(Moment),
    Call(Asked, Fate),
    /// A call was made while the circuit was open.
    Probe(Asked),
    CircuitOpened,
    CircuitClosed,
    /// A call that an open circuit refused.
    TurnedAway,
    /// A settlement was sent again.
    Retried,
}

/// When a worker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// Between two callbacks of a request.
    Between(Phase),
    /// In a callback, after so many steps in its store.
    Inside(CallbackKind, usize),
    /// After the last step of a callback: what it wanted done was not done.
    Undone(CallbackKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CallbackKind {
    Body,
    Response,
    End,
    Call,
    Time,
}

/// What a call asks of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    Claim,
    Deliver,
    Release,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// The proxy did not take it.
    NotMade,
    /// It broke before it reached Redis.
    Lost,
    /// It broke, or took too long, after Redis had done what it asks.
    AnswerLost,
    /// It took too long, and may still reach Redis.
    TimedOut,
    /// Its sender left while it was on its way.
    Abandoned,
    /// It reached Redis when nobody waited for it any more.
    Late,
    Garbled,
    /// Its answer came again.
    Doubled,
    /// Its answer came after it had failed.
    AnsweredLate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A request comes to a worker; `true` if it is genuine.
    Arrive(usize, usize, bool),
    /// A callback of a worker begins: its first step, or the whole of it.
    Begin(usize, Callback),
    Step(usize),
    /// The host refuses the next step.
    Refuse(usize),
    /// A call reaches Redis.
    Execute(CallKey),
    /// A call that nobody waits for any more gets lost.
    Drop(CallKey),
    /// The clock of the proxies steps by so many milliseconds.
    Clock(i64),
    /// Nothing else can happen, and somebody waits: so many milliseconds pass.
    Pause(i64),
    Crash(usize),
    /// A new worker takes a dead one's place.
    Revive(usize),
    /// Redis loses everything.
    Flush,
    /// The host refuses a header of a request that this callback forwards.
    RefuseHeader(usize, Callback),
    /// The proxy takes no call from this callback.
    RefuseCalls(usize, Callback),
    /// A callback begins, and its worker dies after the first step, or after the whole of it.
    BeginAndDie(usize, Callback),
    /// A callback goes on, and its worker dies after that step.
    StepAndDie(usize),
}

impl World {
    /// What can happen next, faults apart.
    pub(crate) fn ordinary(&self, found: &mut Vec<Action>) {
        let is_busy = |worker: usize| self.slots[worker].operation.is_some();
        for (worker, slot) in self.slots.iter().enumerate() {
            if slot.worker.is_none() {
                continue;
            }
            if slot.operation.is_some() {
                found.push(Action::Step(worker));
            } else if slot.has_ticks && slot.last_tick != self.tick_print(worker) {
                found.push(Action::Begin(worker, Callback::Time));
            }
        }
        for (number, request) in self.requests.iter().enumerate() {
            if is_busy(request.worker) {
                continue;
            }
            let mut begin = |callback| found.push(Action::Begin(request.worker, callback));
            match request.phase {
                Phase::Headed => begin(Callback::Body(number)),
                Phase::Upstream => {
                    begin(Callback::Response(number, Upstream::Accepts));
                    begin(Callback::Response(number, Upstream::Refuses));
                }
                Phase::Told => begin(Callback::End(number, false)),
                Phase::Held | Phase::ResponseHeld | Phase::Over => {}
            }
        }
        for (key, call) in &self.calls {
            if call.can_arrive {
                found.push(Action::Execute(*key));
            }
            if call.is_open && call.reply.is_some() && !is_busy(key.0) {
                found.push(Action::Begin(key.0, Callback::Call(*key, CallEnd::Answer)));
            }
        }
    }

    /// What can go wrong next, clocks apart.
    pub(crate) fn faulty(&self, found: &mut Vec<Action>) {
        let is_busy = |worker: usize| self.slots[worker].operation.is_some();
        for (number, request) in self.requests.iter().enumerate() {
            let worker = request.worker;
            if is_busy(worker) {
                continue;
            }
            let mut begin = |callback| found.push(Action::Begin(worker, callback));
            match request.phase {
                Phase::Headed | Phase::Held | Phase::ResponseHeld => {
                    begin(Callback::End(number, false));
                }
                Phase::Upstream => {
                    begin(Callback::End(number, false));
                    begin(Callback::End(number, true));
                    begin(Callback::Response(number, Upstream::AcceptsUnheard));
                    begin(Callback::Response(number, Upstream::Breaks));
                    begin(Callback::Response(number, Upstream::NotReached));
                }
                Phase::Told | Phase::Over => {}
            }
            if request.phase == Phase::Headed && !self.setup.is_stepped {
                let body = Callback::Body(number);
                found.push(Action::RefuseHeader(worker, body));
                if self.setup.is_fleet() {
                    found.push(Action::RefuseCalls(worker, body));
                }
            }
        }
        for (key, call) in &self.calls {
            let slot = &self.slots[key.0];
            let is_alive = slot.worker.is_some() && slot.generation == key.1;
            if call.is_open {
                if !is_busy(key.0) {
                    let mut end = |end| {
                        found.push(Action::Begin(key.0, Callback::Call(*key, end)));
                    };
                    end(CallEnd::Broken);
                    end(CallEnd::TimedOut);
                    if call.reply.is_some() {
                        end(CallEnd::Garbled);
                    }
                }
            } else {
                if call.can_arrive {
                    found.push(Action::Drop(*key));
                }
                // Its answer comes again, or when nobody waits for it any more.
                if is_alive && call.reply.is_some() && call.answers == 1 && !is_busy(key.0) {
                    let answer = Callback::Call(*key, CallEnd::Answer);
                    found.push(Action::Begin(key.0, answer));
                }
            }
        }
        for (worker, slot) in self.slots.iter().enumerate() {
            if slot.operation.is_some() {
                found.push(Action::Refuse(worker));
            }
            if slot.worker.is_some() {
                found.push(Action::Crash(worker));
            } else {
                found.push(Action::Revive(worker));
            }
        }
        if self.setup.is_fleet() {
            found.push(Action::Flush);
        }
        let mut ordinary = Vec::new();
        self.ordinary(&mut ordinary);
        found.extend(ordinary.into_iter().filter_map(|action| match action {
            Action::Begin(worker, callback) => Some(Action::BeginAndDie(worker, callback)),
            Action::Step(worker) => Some(Action::StepAndDie(worker)),
            _ => None,
        }));
    }
}
