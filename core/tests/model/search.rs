//! How worlds are gone through: all of a small scope, and some of a large one; and how each ends.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use callback_guard_core::metrics::Metric;
use callback_guard_core::testkit::Random;

use crate::ledger::{self, Doubles};
use crate::world::{Action, CallEnd, Callback, LEASE_MILLIS, Met, Phase, Setup, Upstream, World};

/// What a search has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) states: usize,
    pub(crate) ends: usize,
    pub(crate) deliveries: usize,
    pub(crate) conflicts: usize,
    pub(crate) crashes: usize,
    pub(crate) doubles: Doubles,
    /// How often a search has met what.
    pub(crate) met: BTreeMap<Met, usize>,
}

impl Seen {
    fn meet(&mut self, world: &mut World) {
        for met in world.met.drain(..) {
            *self.met.entry(met).or_default() += 1;
        }
    }

    fn add(&mut self, world: &World) {
        self.ends += 1;
        self.deliveries += world.deliveries;
        self.conflicts += world.conflicts;
        self.crashes += usize::from(world.faults.crashes);
        for (sum, count) in self.doubles.iter_mut().zip(world.doubles) {
            *sum += count;
        }
    }
}

/// How much may go wrong in one world.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budget {
    pub(crate) faults: usize,
    pub(crate) kinds: Kinds,
    /// Steps of the clock, at any time.
    pub(crate) clocks: usize,
    /// Pauses of [`PAUSE_MILLIS`] while a worker waits for time to pass and nothing else can happen.
    pub(crate) pauses: usize,
    /// Whether such pauses may come before a body, too.
    pub(crate) has_slow_bodies: bool,
}

/// As long as the circuit rests first.
const PAUSE_MILLIS: i64 = 500;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Kinds {
    #[default]
    All,
    /// Calls to Redis, in every way; and senders leave.
    Calls,
    /// Calls to Redis do not get there.
    Broken,
}

impl Kinds {
    fn has(self, action: Action) -> bool {
        match (self, action) {
            (Self::All, _)
            | (_, Action::Begin(_, Callback::Call(_, CallEnd::Broken)))
            | (
                Self::Calls,
                Action::Begin(_, Callback::Call(..) | Callback::End(..))
                | Action::RefuseCalls(..)
                | Action::Drop(_),
            ) => true,
            (Self::Calls | Self::Broken, _) => false,
        }
    }
}

const AN_HOUR_BACK: i64 = -3_600_000;

fn clocks() -> [i64; 4] {
    [
        50,
        1_100,
        i64::try_from(LEASE_MILLIS).unwrap(),
        AN_HOUR_BACK,
    ]
}

/// A world with these requests: a worker and an event each.
pub(crate) fn requests(setup: &Rc<Setup>, requests: &[(usize, usize)]) -> World {
    let mut world = World::new(setup);
    for (worker, event) in requests {
        world.apply(Action::Arrive(*worker, *event, true));
    }
    world
}

/// A world with these requests, whose first worker asks Redis no more: the claim of the first request was
/// not answered, and neither were two attempts to release it.
pub(crate) fn open_circuit(setup: &Rc<Setup>, all: &[(usize, usize)]) -> World {
    let mut world = requests(setup, all);
    world.apply(Action::Begin(0, Callback::Body(0)));
    world.fail_calls(CallEnd::Broken);
    if world.requests[0].phase == Phase::Upstream {
        world.apply(Action::Begin(0, Callback::Response(0, Upstream::Refuses)));
    }
    world.apply(Action::Begin(0, Callback::End(0, false)));
    for _ in 0..2 {
        world.apply(Action::Pause(100));
        world.apply(Action::Begin(0, Callback::Time));
        world.fail_calls(CallEnd::Broken);
    }
    world.check(
        world.gauge(0, Metric::CircuitsOpen) == 1,
        "three failures in a row open the circuit",
    );
    world
}

/// Every order of what can happen from a world on.
pub(crate) fn exhaust(mut first: World, budget: Budget) -> Seen {
    let mut seen = Seen::default();
    seen.meet(&mut first);
    let most_faults = first.faults.count() + budget.faults;
    let most_pauses = first.pauses + budget.pauses;
    let mut known = HashSet::from([first.print()]);
    let mut ahead = vec![first];
    let mut next = Vec::new();
    let mut faulty = Vec::new();
    while let Some(world) = ahead.pop() {
        next.clear();
        world.ordinary(&mut next);
        if next.is_empty() {
            seen.add(&world);
            conclude(world.clone());
        }
        let is_body = |action: &Action| matches!(action, Action::Begin(_, Callback::Body(_)));
        let is_at_rest = next.is_empty() || budget.has_slow_bodies && next.iter().all(is_body);
        if is_at_rest && world.pauses < most_pauses && world.waits_for_time() {
            next.push(Action::Pause(PAUSE_MILLIS));
        }
        if world.faults.count() < most_faults {
            faulty.clear();
            world.faulty(&mut faulty);
            next.extend(faulty.iter().filter(|action| budget.kinds.has(**action)));
        }
        if world.clock_moves < budget.clocks {
            // A callback takes no time, or next to none.
            let most = if world.is_nobody_inside() {
                i64::MAX
            } else {
                50
            };
            next.extend(
                clocks()
                    .into_iter()
                    .filter(|by| by.abs() <= most)
                    .map(Action::Clock),
            );
        }
        for action in &next {
            let mut world = world.clone();
            world.apply(*action);
            seen.meet(&mut world);
            if known.insert(world.print()) {
                ahead.push(world);
            }
        }
    }
    seen.states = known.len();
    seen
}

/// One long run, with everything that can go wrong.
pub(crate) fn run(setup: &Rc<Setup>, seed: u64, steps: usize, seen: &mut Seen) {
    let mut random = Random::new(seed);
    let mut world = World::new(setup);
    world.seed = seed;
    let events = 1 + random.below(setup.events.len());
    // Some runs have few faults, some no clock steps: there nothing may be excused by them.
    let (faults, clocks_in) = ([0, 3, 15][random.below(3)], [0, 1][random.below(2)]);
    let mut next = Vec::new();
    for _ in 0..steps {
        let lot = random.below(100);
        next.clear();
        if lot < 10 && world.live() < 8 {
            let worker = random.below(world.workers());
            if world.is_idle(worker) {
                let is_genuine = random.below(10) > 0;
                world.apply(Action::Arrive(worker, random.below(events), is_genuine));
            }
            continue;
        } else if lot < 10 + faults {
            world.faulty(&mut next);
            // What ends most of a world is rare.
            let is_rare = |action: &Action| {
                matches!(
                    action,
                    Action::Crash(_)
                        | Action::BeginAndDie(..)
                        | Action::StepAndDie(_)
                        | Action::Flush
                )
            };
            let is_in = random.below(4) == 0;
            next.retain(|action| is_in || !is_rare(action));
        } else if lot < 30 + faults {
            let mut by = i64::try_from(random.below(400)).unwrap();
            if clocks_in == 1 && random.below(8) == 0 && world.is_nobody_inside() {
                let all = [
                    -90_000_000,
                    AN_HOUR_BACK,
                    -5_000,
                    5_000,
                    600_000,
                    601_000,
                    86_400_000,
                ];
                by = all[random.below(all.len())];
            }
            next.push(Action::Clock(by));
        } else {
            world.ordinary(&mut next);
        }
        if !next.is_empty() {
            world.apply(next[random.below(next.len())]);
        }
    }
    seen.add(&world);
    seen.meet(&mut world);
    conclude(world);
}

/// So many requests for one event on a worker, and one on the other: the first is refused or accepted, and
/// all that waited are answered.
pub(crate) fn crowd(setup: &Rc<Setup>, size: usize) {
    for upstream in [
        Upstream::Accepts,
        Upstream::Refuses,
        Upstream::AcceptsUnheard,
    ] {
        let mut world = World::new(setup);
        for number in 0..size {
            world.apply(Action::Arrive(0, 0, true));
            world.apply(Action::Begin(0, Callback::Body(number)));
        }
        let last = world.workers() - 1;
        if last > 0 {
            world.apply(Action::Arrive(last, 0, true));
        }
        for _ in 0..200 {
            rest(&mut world, upstream);
            if world.is_quiet() {
                break;
            }
            world.apply(Action::Clock(50));
        }
        let is_refused = world.requests.iter().any(|request| request.status == 409);
        world.check(is_refused, "beyond the cap nobody waits");
        conclude(world);
    }
}

/// Nothing goes wrong any more: everything ends, nothing is left behind, and the next attempt at each
/// event gets through.
fn conclude(mut world: World) {
    world.mend_network();
    let pauses = [(12, 50), (6, 500), (15, 3_000)];
    for (count, pause) in pauses {
        for _ in 0..count {
            rest(&mut world, Upstream::Refuses);
            if world.is_quiet() {
                break;
            }
            world.apply(Action::Clock(pause));
        }
        rest(&mut world, Upstream::Refuses);
        if pause == 500 {
            let is_held = |phase| matches!(phase, Phase::Held | Phase::ResponseHeld);
            let is_held = world.requests.iter().any(|request| is_held(request.phase));
            world.check(!is_held, "nobody waits longer than allowed");
        }
    }
    world.check(world.is_quiet(), "everything ends");
    world.check_leaks();
    let faults = world.faults;
    for proxy in 0..world.setup.proxies {
        let records = ledger::records(world.shared_of(proxy));
        let delivered = records
            .iter()
            .filter(|(_, record)| record.is_delivered)
            .count();
        let gauge = |metric| usize::try_from(world.gauge(proxy, metric));
        if faults.torn == 0 {
            let is_right = gauge(Metric::Delivered) == Ok(delivered)
                && gauge(Metric::Claims) == Ok(records.len() - delivered);
            world.check(is_right, "the gauges show what the store holds");
        }
    }
    if faults.crashes == 0 {
        world.close();
        for proxy in 0..world.setup.proxies {
            let is_zero = |metric| world.gauge(proxy, metric) == 0;
            let is_right = is_zero(Metric::HeldBytes) && is_zero(Metric::CircuitsOpen);
            world.check(is_right, "gauges return to zero");
        }
    }
    // A lease from a time when the clock was ahead is cut by the first who asks.
    let attempts = if faults.clock_steps == 0 { 1 } else { 2 };
    for attempt in 1..=attempts {
        world.apply(Action::Clock(i64::try_from(LEASE_MILLIS + 2_000).unwrap()));
        for worker in (0..world.workers()).step_by(world.setup.workers) {
            if !world.lives(worker) {
                world.apply(Action::Revive(worker));
            }
            for event in 0..world.setup.events.len() {
                let number = world.requests.len();
                world.apply(Action::Arrive(worker, event, true));
                for _ in 0..40 {
                    rest(&mut world, Upstream::Accepts);
                    if world.is_quiet() {
                        break;
                    }
                    world.apply(Action::Clock(200));
                }
                let is_through = world.requests[number].status == 200;
                world.check(
                    is_through || attempt < attempts,
                    "after the lease the next attempt gets through",
                );
            }
        }
    }
}

/// Lets everything happen that can happen now; the application answers in one way.
fn rest(world: &mut World, upstream: Upstream) {
    let mut next = Vec::new();
    for _ in 0..10_000 {
        next.clear();
        world.ordinary(&mut next);
        next.retain(|action| match action {
            Action::Begin(_, Callback::Response(_, how)) => *how == upstream,
            _ => true,
        });
        match next.first() {
            Some(action) => world.apply(*action),
            None => return,
        }
    }
    world.check(false, "everything ends");
}
