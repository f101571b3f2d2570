//! The world around the workers: proxies with shared data, a Redis, a network between them, one
//! application, senders.

mod action;
mod callback;
mod setup;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use callback_guard_core::metrics::Metric;
use callback_guard_core::request::RequestHead;
use callback_guard_core::store::redis::Protocol;
use callback_guard_core::testkit::{self, MapShared, NOW};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::worker::{Io, Seed, StreamId, Verdict, Worker};

use crate::ledger::{self, Claim, Doubles, Record};
use crate::redis_server::{Redis, words};
use crate::stepped::Said;

pub(crate) use action::{
    Action, Asked, CallEnd, CallKey, Callback, CallbackKind, Fate, Met, Moment, Upstream,
};
use setup::TIMEOUT_MILLIS;
pub(crate) use setup::{Choice, LEASE_MILLIS, Setup, WINDOW_MILLIS};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Its head is there and held.
    Headed,
    /// Its body is there, and it is held.
    Held,
    Upstream,
    /// Its answer is there and held.
    ResponseHeld,
    /// The sender has its answer.
    Told,
    Over,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Request {
    pub(crate) worker: usize,
    /// Which of the workers that were in that place.
    pub(crate) generation: u64,
    pub(crate) event: usize,
    pub(crate) is_genuine: bool,
    pub(crate) phase: Phase,
    /// Its owner token, once its body was judged.
    pub(crate) owner: u64,
    pub(crate) claim: Claim,
    pub(crate) status: u16,
    pub(crate) held_since: u64,
}

/// What Redis is to do, in words.
#[derive(Debug)]
struct Command(Vec<String>);

impl Command {
    fn new(body: &str) -> Self {
        Self(words(Protocol::Webdis, body))
    }

    fn asked(&self) -> Asked {
        match &self.0[6..] {
            [_] => Asked::Release,
            [delivered, ..] if delivered.starts_with("d:") => Asked::Deliver,
            _ => Asked::Claim,
        }
    }

    fn owner(&self) -> u64 {
        u64::from_str_radix(self.0[5].strip_prefix("c:").unwrap(), 16).unwrap()
    }
}

impl Hash for Command {
    /// The script follows from the rest.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0[3..].hash(state);
    }
}

/// A call on the network.
#[derive(Clone, Debug, Hash)]
struct Call {
    /// When it was made, by Redis' clock.
    made: u64,
    command: Rc<Command>,
    reply: Option<Rc<[u8]>>,
    /// Whether its worker still waits for it.
    is_open: bool,
    /// Whether it can still reach Redis.
    can_arrive: bool,
    answers: u8,
    /// Whether it has been reported to its worker as failed.
    has_failed: bool,
    /// Whether it was made while the circuit was open.
    is_probe: bool,
}

#[derive(Clone, Debug)]
struct Operation {
    callback: Callback,
    now: UnixMillis,
    said: Vec<Said>,
    refuses_header: bool,
    refuses_calls: bool,
}

/// What goes wrong in a callback.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The host refuses the headers for the upstream.
    Header,
    /// The proxy takes no call.
    Calls,
    Dies,
}

#[derive(Clone)]
struct Slot {
    worker: Option<Rc<Worker>>,
    generation: u64,
    operation: Option<Operation>,
    has_ticks: bool,
    is_circuit_open: bool,
    /// Bodies judged: the next owner token.
    judged: u64,
    /// Everything that this worker has been told, in order.
    heard: u64,
    /// What there was when it was last told the time.
    last_tick: u64,
}

#[derive(Clone, Default)]
struct Proxy {
    shared: MapShared,
    /// Steps that have changed it.
    writes: u64,
    gauges: HashMap<usize, i64>,
}

/// What has gone wrong so far, each of which excuses something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    pub(crate) refusals: u8,
    pub(crate) crashes: u8,
    /// Workers that died in a callback: what they had not told the metrics is lost.
    pub(crate) torn: u8,
    pub(crate) flushes: u8,
    pub(crate) clock_steps: u8,
    pub(crate) calls: u8,
    pub(crate) others: u8,
    /// Senders that left, and answers of the upstream that are none.
    pub(crate) exchanges: u8,
}

impl Faults {
    pub(crate) fn count(self) -> usize {
        [
            self.refusals,
            self.crashes,
            self.flushes,
            self.calls,
            self.others,
            self.exchanges,
        ]
        .map(usize::from)
        .iter()
        .sum()
    }
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) setup: Rc<Setup>,
    pub(crate) now: UnixMillis,
    /// Redis has a clock of its own, which does not step back.
    pub(crate) redis_now: u64,
    pub(crate) redis: Redis,
    redis_writes: u64,
    proxies: Vec<Proxy>,
    slots: Vec<Slot>,
    calls: BTreeMap<CallKey, Call>,
    pub(crate) requests: Vec<Request>,
    /// Events that the application has accepted.
    pub(crate) accepted: Vec<bool>,
    pub(crate) faults: Faults,
    pub(crate) doubles: Doubles,
    pub(crate) deliveries: usize,
    pub(crate) conflicts: usize,
    pub(crate) history: Vec<Action>,
    /// What the last action, or those of a run of chance, made happen.
    pub(crate) met: Vec<Met>,
    pub(crate) clock_moves: usize,
    pub(crate) pauses: usize,
    /// When the callback began whose effects are carried out.
    pub(crate) began: u64,
    /// Of a run of chance.
    pub(crate) seed: u64,
}

fn seed_of(worker: usize, generation: u64) -> Seed {
    Seed {
        owner: (u64::try_from(worker).unwrap() + 1) << 32 | generation << 16,
        salt: [7; 16],
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl World {
    pub(crate) fn new(setup: &Rc<Setup>) -> Self {
        let slot = |worker| Slot {
            worker: Some(Rc::new(Worker::new(
                Arc::clone(&setup.policy),
                seed_of(worker, 0),
            ))),
            generation: 0,
            operation: None,
            has_ticks: false,
            is_circuit_open: false,
            judged: 0,
            heard: 0,
            last_tick: 0,
        };
        Self {
            now: NOW,
            redis_now: NOW.as_millis(),
            redis: Redis::default(),
            redis_writes: 0,
            proxies: vec![Proxy::default(); setup.proxies],
            slots: (0..setup.proxies * setup.workers).map(slot).collect(),
            calls: BTreeMap::new(),
            requests: Vec::new(),
            accepted: vec![false; setup.events.len()],
            faults: Faults::default(),
            doubles: Doubles::default(),
            deliveries: 0,
            conflicts: 0,
            history: Vec::new(),
            met: Vec::new(),
            clock_moves: 0,
            pauses: 0,
            began: 0,
            seed: 0,
            setup: Rc::clone(setup),
        }
    }

    #[track_caller]
    pub(crate) fn check(&self, holds: bool, promise: &str) {
        if holds {
            return;
        }
        let mut text = format!(
            "broken: {promise}\n{}, seed {}\n",
            self.setup.label, self.seed
        );
        for (number, request) in self.requests.iter().enumerate() {
            let _ = writeln!(text, "{number}: {request:?}");
        }
        panic!("{text}{:?}, {:?}\n{:?}", self.now, self.redis, self.history);
    }

    pub(crate) fn proxy_of(&self, request: usize) -> usize {
        self.requests[request].worker / self.setup.workers
    }

    pub(crate) fn shared_of(&self, proxy: usize) -> &MapShared {
        &self.proxies[proxy].shared
    }

    /// What a proxy's own store says of an event.
    pub(crate) fn record(&self, proxy: usize, event: usize) -> Option<Record> {
        ledger::records(self.shared_of(proxy))
            .into_iter()
            .find(|(tag, _)| *tag == self.setup.events[event].tag)
            .map(|(_, record)| record)
    }

    pub(crate) fn gauge(&self, proxy: usize, metric: Metric) -> i64 {
        let gauges = &self.proxies[proxy].gauges;
        gauges.get(&metric.index()).copied().unwrap_or(0)
    }

    /// Whether the worker that a request came to still lives.
    pub(crate) fn is_alive(&self, request: &Request) -> bool {
        let slot = &self.slots[request.worker];
        slot.worker.is_some() && slot.generation == request.generation
    }

    pub(crate) fn workers(&self) -> usize {
        self.slots.len()
    }

    /// How many requests are not over.
    pub(crate) fn live(&self) -> usize {
        let is_live = |request: &&Request| request.phase != Phase::Over;
        self.requests.iter().filter(is_live).count()
    }

    /// Whether a worker lives and is in no callback.
    pub(crate) fn is_idle(&self, worker: usize) -> bool {
        self.lives(worker) && self.slots[worker].operation.is_none()
    }

    pub(crate) fn is_nobody_inside(&self) -> bool {
        self.slots.iter().all(|slot| slot.operation.is_none())
    }

    pub(crate) fn lives(&self, worker: usize) -> bool {
        self.slots[worker].worker.is_some()
    }

    /// Two worlds with the same print go on in the same way. A worker is what it has been told.
    pub(crate) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (
            self.now.as_millis(),
            self.redis_now,
            &self.redis,
            &self.requests,
        )
            .hash(&mut hasher);
        (&self.accepted, self.faults, self.clock_moves, self.pauses).hash(&mut hasher);
        for (worker, slot) in self.slots.iter().enumerate() {
            (
                slot.worker.is_some(),
                slot.generation,
                slot.heard,
                slot.has_ticks,
                slot.last_tick == self.tick_print(worker),
            )
                .hash(&mut hasher);
            if let Some(operation) = &slot.operation {
                (
                    operation.callback,
                    operation.now.as_millis(),
                    &operation.said,
                )
                    .hash(&mut hasher);
            }
        }
        for proxy in &self.proxies {
            for (key, value, version) in proxy.shared.sorted() {
                (key, value).hash(&mut hasher);
                if self.setup.is_stepped {
                    version.hash(&mut hasher);
                }
            }
        }
        self.calls.hash(&mut hasher);
        hasher.finish()
    }

    pub(crate) fn apply(&mut self, action: Action) {
        self.history.push(action);
        match action {
            Action::Arrive(worker, event, is_genuine) => self.arrive(worker, event, is_genuine),
            Action::Begin(worker, callback) => {
                self.begin(worker, callback, Wrong::Nothing);
            }
            Action::RefuseHeader(worker, callback) => {
                self.faults.others += 1;
                self.begin(worker, callback, Wrong::Header);
            }
            Action::RefuseCalls(worker, callback) => {
                self.faults.calls += 1;
                self.begin(worker, callback, Wrong::Calls);
            }
            Action::BeginAndDie(worker, callback) => self.begin(worker, callback, Wrong::Dies),
            Action::Step(worker) => self.step(worker, 1, false, false),
            Action::StepAndDie(worker) => self.step(worker, 1, false, true),
            Action::Refuse(worker) => {
                self.faults.refusals += 1;
                self.step(worker, 1, true, false);
            }
            Action::Execute(call) => self.execute(call),
            Action::Drop(call) => {
                self.calls.remove(&call);
            }
            Action::Clock(by) => {
                self.clock_moves += 1;
                self.step_clock(by);
            }
            Action::Pause(millis) => {
                self.pauses += 1;
                self.step_clock(millis);
            }
            Action::Crash(worker) => self.crash(worker),
            Action::Revive(worker) => {
                let slot = &mut self.slots[worker];
                slot.generation += 1;
                slot.judged = 0;
                let seed = seed_of(worker, slot.generation);
                slot.worker = Some(Rc::new(Worker::new(Arc::clone(&self.setup.policy), seed)));
            }
            Action::Flush => {
                self.faults.flushes += 1;
                self.redis = Redis::default();
                self.redis_writes += 1;
                for request in &mut self.requests {
                    request.claim.lose_redis();
                }
            }
        }
    }

    fn step_clock(&mut self, by: i64) {
        self.faults.clock_steps += u8::from(!(0..=5_000).contains(&by));
        self.now = UnixMillis::new(self.now.as_millis().saturating_add_signed(by));
        self.redis_now = self.redis_now.saturating_add_signed(by.max(0));
        let (now, redis_now) = (self.now.as_millis(), self.redis_now);
        for request in &mut self.requests {
            request.claim.time_is(now, redis_now);
            if by < 0 {
                request.held_since = request.held_since.min(now);
            }
        }
    }

    fn crash(&mut self, worker: usize) {
        let slot = &self.slots[worker];
        if let Some(operation) = &slot.operation {
            let moment = Moment::Inside(operation.callback.kind(), operation.said.len());
            self.met.push(Met::Died(moment));
            self.faults.torn += 1;
        } else {
            let is_its = |request: &&Request| {
                request.worker == worker && request.generation == slot.generation
            };
            let phases = self.requests.iter().filter(is_its);
            let phases = phases.map(|request| Met::Died(Moment::Between(request.phase)));
            self.met.extend(phases);
        }
        self.bury(worker);
    }

    fn bury(&mut self, worker: usize) {
        self.faults.crashes += 1;
        let slot = &mut self.slots[worker];
        slot.worker = None;
        slot.operation = None;
        slot.has_ticks = false;
        slot.is_circuit_open = false;
        let generation = slot.generation;
        for request in &mut self.requests {
            if request.worker == worker && request.generation == generation {
                request.phase = Phase::Over;
            }
        }
        for ((of, born, _), call) in &mut self.calls {
            if *of == worker && *born == generation {
                call.is_open = false;
            }
        }
        self.drop_dead_calls();
    }

    /// A call reaches Redis, which does what it says.
    fn execute(&mut self, key: CallKey) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let (command, now) = (Rc::clone(&call.command), self.redis_now);
        // By then a release may have overtaken it.
        let is_late = !call.is_open || now >= call.made + TIMEOUT_MILLIS;
        if !call.is_open {
            self.met.push(Met::Call(command.asked(), Fate::Late));
        }
        let reply = self.redis.answer(Protocol::Webdis, &command.0, now);
        call.reply = Some(reply.as_slice().into());
        call.can_arrive = false;
        self.redis_writes += 1;
        for request in &mut self.requests {
            if request.owner == command.owner() {
                let claim = &mut request.claim;
                claim.redis_ran(&command.0, &reply, now, is_late);
            }
        }
        self.drop_dead_calls();
        self.check_stores();
        self.check(self.redis.endless() == 0, "every key in Redis has an end");
    }

    fn arrive(&mut self, worker: usize, event: usize, is_genuine: bool) {
        let number = self.requests.len();
        let setup = Rc::clone(&self.setup);
        let known = &setup.events[event];
        let mut made = if self.now == NOW {
            known.request.clone()
        } else {
            testkit::Request::genuine(&setup.policy, &known.body, self.now)
        };
        if !is_genuine {
            let of = |name: &str| {
                let mut all = setup.forged.headers.iter();
                let (_, value) = all.find(|(given, _)| given == name.as_bytes()).unwrap();
                std::str::from_utf8(value).unwrap().to_owned()
            };
            made = made.with("x-webhook-signature", &of("x-webhook-signature"));
        }
        let generation = self.slots[worker].generation;
        self.requests.push(Request {
            worker,
            generation,
            event,
            is_genuine,
            phase: Phase::Headed,
            owner: 0,
            claim: Claim::default(),
            status: 0,
            held_since: self.now.as_millis(),
        });
        let pairs = made.pairs();
        let head = RequestHead::new(&pairs);
        let shared = &mut self.proxies[worker / setup.workers].shared;
        let slot = &mut self.slots[worker];
        let state = Rc::make_mut(slot.worker.as_mut().unwrap());
        let mut io = Io::new(shared, self.now);
        let verdict = state.request_head(
            &mut io,
            StreamId(u32::try_from(number).unwrap()),
            &head,
            false,
        );
        slot.heard = hash_of(&(slot.heard, number, event, is_genuine, self.now.as_millis()));
        self.check(verdict == Verdict::Hold, "a head in order is held");
        self.perform(worker, None, false, false);
    }

    fn begin(&mut self, worker: usize, callback: Callback, wrong: Wrong) {
        let is_broken = match callback {
            Callback::Response(_, how) => !matches!(how, Upstream::Accepts | Upstream::Refuses),
            Callback::End(request, _) => self.requests[request].phase != Phase::Told,
            _ => false,
        };
        self.faults.exchanges += u8::from(is_broken);
        match callback {
            Callback::Response(request, how) if how.accepts() => self.accept(request),
            Callback::End(request, true) => self.accept(request),
            Callback::End(request, false) => {
                let known = &self.requests[request];
                let waits = matches!(known.phase, Phase::Held | Phase::ResponseHeld);
                let is_its = |call: &&Call| call.is_open && call.command.owner() == known.owner;
                let calls = self.calls.values().filter(is_its);
                let abandoned = calls.map(|call| Met::Call(call.command.asked(), Fate::Abandoned));
                self.met.extend(abandoned.filter(|_| waits));
            }
            Callback::Call(number, end) => {
                let call = self.calls.get_mut(&number).expect("a call");
                let fate = match (call.is_open, end) {
                    (true, CallEnd::Answer) => None,
                    (true, CallEnd::Garbled) => Some(Fate::Garbled),
                    (true, _) if call.reply.is_some() => Some(Fate::AnswerLost),
                    (true, CallEnd::Broken) => Some(Fate::Lost),
                    (true, CallEnd::TimedOut) => Some(Fate::TimedOut),
                    (false, _) if call.has_failed => Some(Fate::AnsweredLate),
                    (false, _) => Some(Fate::Doubled),
                };
                let asked = call.command.asked();
                self.met.extend(fate.map(|fate| Met::Call(asked, fate)));
                self.faults.calls += u8::from(fate.is_some());
                call.answers += 1;
                call.can_arrive &= end != CallEnd::Broken;
                call.has_failed |= end != CallEnd::Answer;
            }
            _ => {}
        }
        self.slots[worker].operation = Some(Operation {
            callback,
            now: self.now,
            said: Vec::new(),
            refuses_header: wrong == Wrong::Header,
            refuses_calls: wrong == Wrong::Calls,
        });
        let steps = if self.setup.is_stepped { 1 } else { usize::MAX };
        self.step(worker, steps, false, wrong == Wrong::Dies);
    }

    fn accept(&mut self, request: usize) {
        let request = &mut self.requests[request];
        self.accepted[request.event] = true;
        request.claim.is_accepted = true;
    }

    /// Every call that is on its way ends like this.
    pub(crate) fn fail_calls(&mut self, end: CallEnd) {
        let calls = self.calls.iter().filter(|(_, call)| call.is_open);
        let open: Vec<CallKey> = calls.map(|(key, _)| *key).collect();
        for key in open {
            self.apply(Action::Begin(key.0, Callback::Call(key, end)));
        }
    }

    /// Whether somebody waits for time to pass.
    pub(crate) fn waits_for_time(&self) -> bool {
        self.slots.iter().any(|slot| slot.has_ticks)
    }

    /// Whether anything is left to be done.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.waits_for_time()
            && self.calls.values().all(|call| !call.is_open)
            && self
                .requests
                .iter()
                .all(|request| request.phase == Phase::Over)
    }

    /// Forgets the calls that can do nothing any more: their workers are dead.
    fn drop_dead_calls(&mut self) {
        let slots = &self.slots;
        self.calls.retain(|(worker, generation, _), call| {
            let slot = &slots[*worker];
            call.can_arrive || slot.worker.is_some() && slot.generation == *generation
        });
    }

    /// The network is well again: what nobody waits for any more has arrived, or is lost.
    pub(crate) fn mend_network(&mut self) {
        let late = |(_, call): &(&CallKey, &Call)| !call.is_open && call.can_arrive;
        let late: Vec<CallKey> = self
            .calls
            .iter()
            .filter(late)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            self.apply(Action::Execute(key));
        }
        self.calls.retain(|_, call| call.is_open);
    }

    pub(crate) fn close(&mut self) {
        for worker in 0..self.slots.len() {
            if let Some(state) = &mut self.slots[worker].worker {
                Rc::make_mut(state).close();
                self.perform(worker, None, false, false);
            }
        }
    }
}
