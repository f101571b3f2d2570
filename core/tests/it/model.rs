//! A model of requests on workers over one store, driven through the real guard and the real store.
//!
//! A worker's access to shared data is not atomic: it reads a bucket, computes, and swaps. Here each
//! read and each swap is a step of its own, so another worker can come between any two. Workers
//! crash between any two steps, the clock steps in both directions, the host refuses now and then.
//!
//! What must hold, whatever the order:
//! * While a claim lives, nobody else is sent on with its event.
//! * An event that the upstream answered 2xx, and whose answer came while the claim lived, is not
//!   delivered again inside the window, unless it was evicted.
//! * Nobody is told `duplicate` of an event that the upstream never answered 2xx, nor `in_flight`
//!   where no claim lives.
//! * Once the leases are over, the next attempt at an event that was not answered 2xx gets through.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use callback_guard_core::authenticate::Inputs;
use callback_guard_core::guard::{Guard, Step};
use callback_guard_core::json::Scratch;
use callback_guard_core::outcome::Outcome;
use callback_guard_core::policy::Policy;
use callback_guard_core::reply::Answer;
use callback_guard_core::request::RequestHead;
use callback_guard_core::store::bucket::OwnerToken;
use callback_guard_core::store::local::LocalStore;
use callback_guard_core::store::{
    ClaimAnswer, ClaimRequest, Settlement, SharedData, Swap, Unavailable,
};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;

use crate::support::{MapShared, NOW, Random, Request, configuration, policy};

const LEASE: u64 = 30;
const WINDOW: u64 = 86_400;
const WAIT: u64 = 10;

/// What shared data said to an operation, one entry per step that it has taken.
#[derive(Clone, Debug)]
enum Said {
    Got(Option<Vec<u8>>, Option<u32>),
    Swapped(Swap),
    Refused,
}

/// Shared data that lets an operation take one new step: it is run from its start, hears again what
/// it has heard, takes its step, and is stopped at the next.
struct Stepped<'s> {
    real: &'s mut MapShared,
    said: &'s mut Vec<Said>,
    at: usize,
    is_spent: bool,
    is_stopped: bool,
    refuses: bool,
}

impl<'s> Stepped<'s> {
    fn new(real: &'s mut MapShared, said: &'s mut Vec<Said>, refuses: bool) -> Self {
        Self {
            real,
            said,
            at: 0,
            is_spent: false,
            is_stopped: false,
            refuses,
        }
    }

    fn next(
        &mut self,
        step: impl FnOnce(&mut MapShared) -> Result<Said, Unavailable>,
    ) -> Option<Said> {
        if self.at == self.said.len() {
            if self.is_spent {
                self.is_stopped = true;
                return None;
            }
            self.is_spent = true;
            let said = if self.refuses {
                Said::Refused
            } else {
                step(self.real).unwrap_or(Said::Refused)
            };
            self.said.push(said);
        }
        self.at += 1;
        Some(self.said[self.at - 1].clone())
    }
}

impl SharedData for Stepped<'_> {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        match self.next(|real| {
            real.get(key)
                .map(|(value, version)| Said::Got(value, version))
        }) {
            Some(Said::Got(value, version)) => Ok((value, version)),
            _ => Err(Unavailable),
        }
    }

    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        match self.next(|real| real.set(key, value, version).map(Said::Swapped)) {
            Some(Said::Swapped(swap)) => Ok(swap),
            _ => Err(Unavailable),
        }
    }
}

/// An operation on the store, under way.
#[derive(Debug)]
struct Operation<T> {
    what: T,
    now: UnixMillis,
    said: Vec<Said>,
}

impl<T> Operation<T> {
    fn new(what: T, now: UnixMillis) -> Self {
        Self {
            what,
            now,
            said: Vec::new(),
        }
    }
}

#[derive(Debug)]
enum Phase {
    Claiming(Operation<ClaimRequest>),
    Waiting,
    AtUpstream,
    Settling(Operation<Settlement>),
    Done,
}

struct Actor {
    worker: usize,
    event: usize,
    guard: Guard,
    phase: Phase,
}

/// What is true of a claim, as the model keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Truth {
    /// No outcome has come, or it could not be written.
    Open,
    /// The upstream answered 2xx, and the store knows until then.
    Delivered {
        until: u64,
        then_written: usize,
    },
    Released,
    /// Its lease had ended, and another has taken the event over.
    Superseded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Claim {
    actor: usize,
    event: usize,
    end: u64,
    truth: Truth,
    /// Somebody has written to the store at a time when this was over by the clock: such a writer
    /// clears away what is over, and the clock may step back after.
    cleared: bool,
}

impl Claim {
    fn is_over(&self, now: u64) -> bool {
        let end = match self.truth {
            Truth::Delivered { until, .. } => until,
            _ => self.end,
        };
        self.cleared || end <= now
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The actor takes its next step; at the upstream: this outcome.
    Step(usize),
    Outcome(usize, Outcome),
    /// The host refuses the actor's next step.
    Refuse(usize),
    Crash(usize),
    /// The clock steps by so many milliseconds.
    Clock(i64),
}

struct World<'p> {
    policy: &'p Arc<Policy>,
    store: LocalStore,
    shared: MapShared,
    now: UnixMillis,
    actors: Vec<Actor>,
    claims: Vec<Claim>,
    accepted: Vec<usize>,
    deliveries: Vec<usize>,
    crashes: usize,
    clock_steps: usize,
    refusals: usize,
    conflicts: usize,
    written: usize,
    /// Records of other events that must have been written before one may have been evicted.
    room: usize,
    history: Vec<Action>,
    label: String,
    scratch: Scratch,
}

impl<'p> World<'p> {
    fn new(policy: &'p Arc<Policy>, capacity: u32, room: usize, label: String) -> Self {
        Self {
            policy,
            store: LocalStore::new(capacity),
            shared: MapShared::default(),
            now: NOW,
            actors: Vec::new(),
            claims: Vec::new(),
            accepted: Vec::new(),
            deliveries: Vec::new(),
            crashes: 0,
            clock_steps: 0,
            refusals: 0,
            conflicts: 0,
            written: 0,
            room,
            history: Vec::new(),
            label,
            scratch: Scratch::default(),
        }
    }

    #[track_caller]
    fn check(&self, holds: bool, promise: &str) {
        if !holds {
            let mut text = format!("{}: broken: {promise}\n", self.label);
            let _ = writeln!(text, "now {:?}, claims {:?}", self.now, self.claims);
            let _ = writeln!(text, "history {:?}", self.history);
            panic!("{text}");
        }
    }

    /// A genuine callback of `event` comes to `worker` and gets as far as to ask for its claim.
    fn arrive(&mut self, worker: usize, event: usize) -> usize {
        let body = format!(r#"{{"code":200,"msg":"ok","data":{{"task_id":"event-{event}"}}}}"#);
        let request = Request::genuine(self.policy, &body, self.now);
        self.come(worker, event, &request)
    }

    fn come(&mut self, worker: usize, event: usize, request: &Request) -> usize {
        let pairs = request.pairs();
        let head = RequestHead::new(&pairs);
        let (mut guard, held) = Guard::open(self.policy, &head, false, self.now).unwrap();
        assert_eq!(held, Step::Hold);
        let number = self.actors.len();
        let inputs = Inputs {
            now: self.now,
            owner: OwnerToken::new(u64::try_from(number).unwrap() + 1),
            salt: [7; 16],
        };
        let decision = guard.body_ended(&request.body, &inputs, &mut self.scratch);
        let Step::Claim(claim) = decision else {
            panic!("{decision:?}")
        };
        self.actors.push(Actor {
            worker,
            event,
            guard,
            phase: Phase::Claiming(Operation::new(claim, self.now)),
        });
        number
    }

    /// Whether another request of the same worker is in the middle of an operation: a worker does
    /// one thing at a time.
    fn is_blocked(&self, actor: usize) -> bool {
        let is_inside = |phase: &Phase| match phase {
            Phase::Claiming(operation) => !operation.said.is_empty(),
            Phase::Settling(operation) => !operation.said.is_empty(),
            _ => false,
        };
        self.actors.iter().enumerate().any(|(other, state)| {
            other != actor && state.worker == self.actors[actor].worker && is_inside(&state.phase)
        })
    }

    fn apply(&mut self, action: Action) {
        self.history.push(action);
        match action {
            Action::Step(actor) => self.step(actor, false),
            Action::Refuse(actor) => {
                self.refusals += 1;
                self.step(actor, true);
            }
            Action::Outcome(actor, outcome) => self.outcome(actor, outcome),
            Action::Crash(worker) => {
                self.crashes += 1;
                for actor in &mut self.actors {
                    if actor.worker == worker {
                        actor.phase = Phase::Done;
                    }
                }
            }
            Action::Clock(by) => {
                self.clock_steps += 1;
                self.now = UnixMillis::new(self.now.as_millis().saturating_add_signed(by));
            }
        }
    }

    fn step(&mut self, number: usize, refuses: bool) {
        self.take_step(number, refuses);
        let said = match &self.actors[number].phase {
            Phase::Claiming(operation) => &operation.said,
            Phase::Settling(operation) => &operation.said,
            _ => return,
        };
        if let Some(Said::Swapped(Swap::Conflict)) = said.last() {
            self.conflicts += 1;
        }
    }

    fn take_step(&mut self, number: usize, refuses: bool) {
        let (store, now) = (self.store, self.now);
        let actor = &mut self.actors[number];
        match &mut actor.phase {
            Phase::Claiming(operation) => {
                if operation.said.is_empty() {
                    operation.now = now;
                }
                let mut shared = Stepped::new(&mut self.shared, &mut operation.said, refuses);
                let (answer, _) = store.claim(&mut shared, &operation.what, operation.now);
                if !shared.is_stopped {
                    let then = operation.now;
                    self.claimed(number, answer, then);
                }
            }
            Phase::Settling(operation) => {
                if operation.said.is_empty() {
                    operation.now = now;
                }
                let mut shared = Stepped::new(&mut self.shared, &mut operation.said, refuses);
                let result = store.settle(&mut shared, &operation.what, operation.now);
                if !shared.is_stopped {
                    let (what, then) = (operation.what, operation.now);
                    self.settled(number, what, then, result.map(|(settled, _)| settled));
                }
            }
            Phase::Waiting => {
                let decision = actor.guard.woken();
                let Step::Claim(claim) = decision else {
                    panic!("{decision:?}")
                };
                actor.phase = Phase::Claiming(Operation::new(claim, now));
                self.take_step(number, refuses);
            }
            Phase::AtUpstream | Phase::Done => panic!("no step to take"),
        }
    }

    fn claimed(&mut self, number: usize, answer: ClaimAnswer, then: UnixMillis) {
        let event = self.actors[number].event;
        let millis = then.as_millis();
        match answer {
            ClaimAnswer::GrantedLocally => panic!("there is no shared store"),
            ClaimAnswer::Granted => {
                self.wrote(then);
                for claim in self.claims.clone() {
                    if claim.event != event {
                        continue;
                    }
                    match claim.truth {
                        Truth::Open => {
                            self.check(claim.is_over(millis), "one forward while a claim lives");
                        }
                        Truth::Delivered { then_written, .. } => {
                            let is_over = claim.is_over(millis);
                            let is_evicted = self.written - then_written > self.room;
                            self.check(is_over || is_evicted, "a delivered event is not sent on");
                        }
                        Truth::Released | Truth::Superseded => {}
                    }
                }
                self.claims.push(Claim {
                    actor: number,
                    event,
                    end: then.plus_seconds(LEASE).as_millis(),
                    truth: Truth::Open,
                    cleared: false,
                });
            }
            ClaimAnswer::ClaimedByAnother => {
                // The clock went back: the claim lives a lease from here at the most.
                let most = then.plus_seconds(LEASE).as_millis();
                for claim in &mut self.claims {
                    if claim.event == event && claim.end > most + 1000 {
                        claim.end = most;
                    }
                }
                let lives = self.claims.iter().any(|claim| {
                    claim.event == event && claim.truth == Truth::Open && claim.end > millis
                });
                self.check(lives, "`in_flight` only where a claim lives");
            }
            ClaimAnswer::Delivered(_) => {
                self.check(
                    self.accepted.contains(&event),
                    "`duplicate` only after a 2xx",
                );
            }
            ClaimAnswer::Full | ClaimAnswer::TooMany => {}
            ClaimAnswer::Unavailable => {
                self.check(self.refusals > 0, "the store answers");
            }
        }
        let actor = &mut self.actors[number];
        let decision = actor.guard.answered(answer, then);
        actor.phase = match &decision {
            Step::Forward => Phase::AtUpstream,
            Step::Wait { .. } => Phase::Waiting,
            Step::Answer(_) => Phase::Done,
            _ => panic!("{decision:?}"),
        };
        let fits = match (&decision, answer) {
            (Step::Forward, ClaimAnswer::Granted)
            | (Step::Wait { .. }, ClaimAnswer::ClaimedByAnother)
            | (Step::Answer(Answer::Duplicate), ClaimAnswer::Delivered(_)) => true,
            (Step::Answer(Answer::Refuse(why)), answer) => matches!(
                (why.code(), answer),
                (Code::InFlight, ClaimAnswer::ClaimedByAnother)
                    | (Code::StoreFull, ClaimAnswer::Full)
                    | (Code::StoreUnavailable, ClaimAnswer::Unavailable)
            ),
            _ => false,
        };
        self.check(fits, "the decision fits the store's answer");
        if matches!(decision, Step::Forward) {
            self.deliveries.push(event);
        }
    }

    fn wrote(&mut self, then: UnixMillis) {
        self.written += 1;
        for claim in &mut self.claims {
            claim.cleared = claim.is_over(then.as_millis());
        }
    }

    fn outcome(&mut self, number: usize, outcome: Outcome) {
        let actor = &mut self.actors[number];
        assert!(matches!(actor.phase, Phase::AtUpstream));
        if outcome == Outcome::Accepted {
            self.accepted.push(actor.event);
        }
        actor.phase = match actor.guard.settle(outcome) {
            Some(settlement) => Phase::Settling(Operation::new(settlement, self.now)),
            None => Phase::Done,
        };
    }

    fn settled(
        &mut self,
        number: usize,
        what: Settlement,
        then: UnixMillis,
        result: Result<bool, Unavailable>,
    ) {
        self.actors[number].phase = Phase::Done;
        let is_settled = match result {
            Ok(is_settled) => is_settled,
            Err(Unavailable) => {
                self.check(self.refusals > 0, "the store answers");
                return;
            }
        };
        if is_settled {
            self.wrote(then);
        }
        let written = self.written;
        let at = self.claims.iter().position(|claim| claim.actor == number);
        let Some(at) = at else {
            self.check(false, "only a claim is settled");
            return;
        };
        let claim = self.claims[at];
        self.claims[at].truth = match (is_settled, what) {
            (true, Settlement::Deliver { .. }) => Truth::Delivered {
                until: then.plus_seconds(WINDOW).as_millis(),
                then_written: written,
            },
            (true, Settlement::Release { .. }) => Truth::Released,
            (false, _) => {
                let is_over = claim.is_over(then.as_millis());
                self.check(is_over, "a claim that lives can be settled");
                Truth::Superseded
            }
        };
    }

    /// What can happen next.
    fn actions(&self, found: &mut Vec<Action>) {
        for (number, actor) in self.actors.iter().enumerate() {
            if matches!(actor.phase, Phase::Done) || self.is_blocked(number) {
                continue;
            }
            match &actor.phase {
                Phase::Claiming(_) | Phase::Settling(_) | Phase::Waiting => {
                    found.push(Action::Step(number));
                }
                Phase::AtUpstream => {
                    for outcome in [Outcome::Accepted, Outcome::Refused, Outcome::Unknown] {
                        found.push(Action::Outcome(number, outcome));
                    }
                }
                Phase::Done => {}
            }
        }
    }

    /// Two worlds with the same print go on in the same way.
    fn print(&self) -> String {
        let mut text = format!(
            "{:?} {:?} {:?} {} {} {} ",
            self.now, self.claims, self.accepted, self.crashes, self.clock_steps, self.refusals
        );
        for actor in &self.actors {
            let _ = match &actor.phase {
                // What was heard before a conflict does not matter any more.
                Phase::Claiming(operation) => {
                    write!(text, "C{:?}{:?}", operation.now, operation.said.last())
                }
                Phase::Settling(operation) => {
                    write!(text, "S{:?}{:?}", operation.now, operation.said.last())
                }
                Phase::Waiting => write!(text, "W{:?}", actor.guard),
                Phase::AtUpstream => write!(text, "U"),
                Phase::Done => write!(text, "D"),
            };
        }
        let _ = write!(text, "{:?}", self.shared.sorted());
        text
    }

    /// The rest of the promise: after the leases every event that was not answered 2xx gets
    /// through, and what is remembered is not delivered again.
    fn conclude(&mut self, events: usize) {
        for worker in 0..=self
            .actors
            .iter()
            .map(|actor| actor.worker)
            .max()
            .unwrap_or(0)
        {
            self.apply(Action::Crash(worker));
        }
        // The first attempt may find a claim from a time when the clock was ahead; it lives a lease
        // from then on, and the second by which clocks may differ. The next attempt comes after that.
        let lease = i64::try_from(LEASE + 1).unwrap() * 1000;
        for attempt in 0..2 {
            self.apply(Action::Clock(lease));
            for event in 0..events {
                let number = self.arrive(1000 + event, event);
                while matches!(self.actors[number].phase, Phase::Claiming(_)) {
                    self.apply(Action::Step(number));
                }
                match self.actors[number].phase {
                    Phase::AtUpstream => {
                        self.apply(Action::Outcome(number, Outcome::Accepted));
                        while matches!(self.actors[number].phase, Phase::Settling(_)) {
                            self.apply(Action::Step(number));
                        }
                    }
                    _ if attempt == 0 => {
                        self.apply(Action::Crash(1000 + event));
                    }
                    _ => self.check(
                        self.accepted.contains(&event),
                        "after the lease the next attempt gets through",
                    ),
                }
            }
        }
    }
}

fn policy_with(on_unknown: &str, in_flight: &str) -> Arc<Policy> {
    Arc::new(policy(&configuration(|configuration| {
        configuration["sources"][0]["dedupe"] = serde_json::json!({
            "window_seconds": WINDOW,
            "lease_seconds": LEASE,
            "wait_seconds": WAIT,
            "on_unknown": on_unknown,
            "in_flight": in_flight,
        });
    })))
}

/// Every interleaving of two requests for one event on two workers: every outcome of each, a crash
/// of either worker or a step of the clock between any two steps.
fn exhaust(on_unknown: &str, in_flight: &str) -> usize {
    let policy = policy_with(on_unknown, in_flight);
    let body = r#"{"code":200,"msg":"ok","data":{"task_id":"event-0"}}"#;
    let request = Request::genuine(&policy, body, NOW);
    let clocks = [
        -3_600_000,
        i64::try_from(WAIT).unwrap() * 1000,
        i64::try_from(LEASE).unwrap() * 1000,
        i64::try_from(WINDOW).unwrap() * 1000,
    ];
    let mut seen = HashSet::new();
    let mut ahead = vec![Vec::new()];
    let mut enabled = Vec::new();
    while let Some(schedule) = ahead.pop() {
        let label = format!("{on_unknown} {in_flight}");
        let mut world = World::new(&policy, 1, usize::MAX, label);
        world.come(0, 0, &request);
        world.come(1, 0, &request);
        for action in &schedule {
            world.apply(*action);
        }
        if !seen.insert(world.print()) {
            continue;
        }
        enabled.clear();
        world.actions(&mut enabled);
        if !enabled.is_empty() {
            if world.crashes == 0 {
                enabled.extend([Action::Crash(0), Action::Crash(1)]);
            }
            if world.clock_steps == 0 {
                enabled.extend(clocks.map(Action::Clock));
            }
        }
        for action in &enabled {
            let mut next = schedule.clone();
            next.push(*action);
            ahead.push(next);
        }
        world.conclude(1);
    }
    seen.len()
}

#[test]
fn every_interleaving_of_two_requests_keeps_the_promises() {
    for on_unknown in ["release", "hold"] {
        for in_flight in ["wait", "reject"] {
            let states = exhaust(on_unknown, in_flight);
            println!("{on_unknown}, {in_flight}: {states} states");
            assert!(states > 1000, "{states}");
        }
    }
}

const WORKERS: usize = 4;

/// One long run: requests for few events on four workers, with everything that can go wrong.
fn run(policy: &Arc<Policy>, seed: u64, steps: usize) -> World<'_> {
    let mut random = Random::new(seed);
    let mut world = World::new(policy, 1, 64, format!("seed {seed}"));
    let events = 1 + random.below(4);
    // Some runs have no crash, no clock step and no refusal: there nothing may be lost to them.
    let (crashes, clocks, refusals) = (random.below(2), random.below(2), random.below(2));
    let mut alive = Vec::new();
    let mut enabled = Vec::new();
    for _ in 0..steps {
        alive.retain(|number: &usize| !matches!(world.actors[*number].phase, Phase::Done));
        let lot = random.below(1000);
        if alive.len() < 8 && lot < 120 {
            let number = world.arrive(random.below(WORKERS), random.below(events));
            alive.push(number);
        } else if (120..120 + 4 * crashes).contains(&lot) {
            world.apply(Action::Crash(random.below(WORKERS)));
        } else if (124..130).contains(&lot) {
            // Time passes.
            world.apply(Action::Clock(i64::try_from(random.below(5000)).unwrap()));
        } else if (130..130 + 10 * clocks).contains(&lot) {
            let steps = [
                -90_000_000,
                -3_600_000,
                -31_000,
                -5000,
                10_000,
                30_000,
                31_000,
                86_400_000,
            ];
            world.apply(Action::Clock(steps[random.below(steps.len())]));
        } else {
            enabled.clear();
            world.actions(&mut enabled);
            if enabled.is_empty() {
                continue;
            }
            let action = enabled[random.below(enabled.len())];
            match action {
                Action::Step(number) if refusals == 1 && random.below(50) == 0 => {
                    world.apply(Action::Refuse(number));
                }
                action => world.apply(action),
            }
        }
    }
    if crashes + clocks + refusals == 0 {
        world.settle_all();
    }
    world.conclude(events);
    world
}

impl World<'_> {
    /// Lets everybody finish, with a 500 of the upstream: then no claim may be left.
    fn settle_all(&mut self) {
        let mut enabled = Vec::new();
        loop {
            enabled.clear();
            self.actions(&mut enabled);
            let is_waiting = |number: usize| matches!(self.actors[number].phase, Phase::Waiting);
            let next = enabled.iter().find(|action| match action {
                Action::Step(number) => !is_waiting(*number),
                Action::Outcome(_, outcome) => *outcome == Outcome::Refused,
                _ => false,
            });
            match (next, enabled.first()) {
                (Some(action), _) => self.apply(*action),
                // Who waits asks again as time passes.
                (None, Some(action)) => {
                    self.apply(*action);
                    self.apply(Action::Clock(1000));
                }
                (None, None) => break,
            }
        }
        for event in 0..4 {
            let until = self.now.as_millis();
            let is_held = self.claims.iter().any(|claim| {
                claim.event == event && claim.truth == Truth::Open && claim.end > until
            });
            if is_held {
                // An unknown outcome under `hold`.
                continue;
            }
            let number = self.arrive(2000, event);
            while matches!(self.actors[number].phase, Phase::Claiming(_)) {
                self.apply(Action::Step(number));
            }
            self.check(
                matches!(self.actors[number].phase, Phase::AtUpstream)
                    || self.accepted.contains(&event),
                "without a claim the next attempt gets through at once",
            );
            self.apply(Action::Crash(2000));
        }
    }
}

#[test]
fn long_runs_with_everything_that_can_go_wrong_keep_the_promises() {
    // `CALLBACK_GUARD_SEEDS=10000..20000` runs others.
    let seeds = std::env::var("CALLBACK_GUARD_SEEDS").unwrap_or("0..400".to_owned());
    let (first, last) = seeds.split_once("..").unwrap();
    let (mut delivered, mut conflicts, mut crashes) = (0, 0, 0);
    for seed in first.parse::<u64>().unwrap()..last.parse().unwrap() {
        let policy = policy_with(
            ["release", "hold"][usize::from(seed & 1 == 1)],
            ["wait", "reject"][usize::from(seed & 2 == 2)],
        );
        let world = run(&policy, seed, 400);
        delivered += world.deliveries.len();
        crashes += world.crashes;
        conflicts += world.conflicts;
    }
    println!("{delivered} deliveries, {conflicts} conflicts, {crashes} crashes");
    assert!(delivered > 0 && conflicts > 0 && crashes > 0);
}

/// A store of one bucket, in which the youngest 64 events are always known, and many more events
/// than that, while others come and go.
#[test]
fn an_event_is_forgotten_only_for_many_younger_ones() {
    for seed in 0..20 {
        let policy = policy_with("release", "reject");
        let mut random = Random::new(seed);
        let mut world = World::new(&policy, 1, 2 * 64, format!("seed {seed}"));
        for _ in 0..400 {
            let number = world.arrive(random.below(WORKERS), random.below(160));
            let mut others = vec![number];
            if random.below(4) == 0 {
                others.push(world.arrive(WORKERS + random.below(WORKERS), random.below(160)));
            }
            loop {
                let mut enabled = Vec::new();
                world.actions(&mut enabled);
                enabled.retain(|action| !matches!(action, Action::Outcome(_, Outcome::Unknown)));
                if enabled.is_empty() {
                    break;
                }
                world.apply(enabled[random.below(enabled.len())]);
            }
        }
        let size = world.shared.size();
        assert!(size <= 160 * 32 + 32, "seed {seed}: {size} bytes");
        let again = world.deliveries.len() - world.deliveries.iter().collect::<HashSet<_>>().len();
        assert!(again > 0, "seed {seed}: nothing was evicted");
    }
}
