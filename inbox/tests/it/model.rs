//! The rules against every crash: a model of two workers on one store, all ways through it; and the
//! store in SQLite against the same rules, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use callback_guard_inbox::delivery::{Delivery, Outcome, State};
use callback_guard_inbox::moment::{Moment, SteadyClock};
use callback_guard_inbox::schedule::Schedule;
use callback_guard_inbox::store::{
    Accepted, ClaimRequest, Claimed, Filter, NewEvent, Place, Release, Selector, Settlement, Store,
    Writer,
};

use crate::support::{Random, key, seeds};

const LEASE: Duration = Duration::from_secs(40);

/// What a worker is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Idle,
    /// It has claimed an event, and has sent nothing.
    Claimed {
        event: usize,
        claim: i64,
    },
    /// The application has got it and answered; the store does not know.
    Answered {
        event: usize,
        claim: i64,
        ok: bool,
    },
}

/// All there is: small enough that every way through it can be gone.
#[derive(Clone, Debug)]
struct World {
    now: Moment,
    /// Id and place in its life, in the order of arrival.
    events: Vec<(u8, Delivery)>,
    workers: [Step; 2],
    claims: i64,
    /// What the application has taken (2xx), in order.
    taken: Vec<usize>,
    failures: u32,
    crashes: u32,
}

impl World {
    fn new() -> Self {
        let now = Moment(0);
        Self {
            now,
            events: vec![
                (0, Delivery::accepted(now)),
                (0, Delivery::accepted(now)),
                (1, Delivery::accepted(now)),
            ],
            workers: [Step::Idle; 2],
            claims: 0,
            taken: Vec::new(),
            failures: 0,
            crashes: 0,
        }
    }

    /// The rule of the stores' statement: the first live event of its id, if it is due.
    fn claimable(&self) -> Option<usize> {
        (0..self.events.len()).find(|&index| {
            let (id, delivery) = self.events[index];
            let is_head = !self.events[..index]
                .iter()
                .any(|(other, before)| *other == id && before.state.is_live());
            is_head && delivery.claim(self.now, 0, LEASE).is_some()
        })
    }

    /// Every world that may come next.
    fn next(&self, schedule: &Schedule) -> Vec<Self> {
        let mut all = Vec::new();
        for worker in 0..self.workers.len() {
            let step = self.workers[worker];
            let mut with = |edit: &dyn Fn(&mut Self)| {
                let mut next = self.clone();
                edit(&mut next);
                all.push(next);
            };
            if step != Step::Idle && self.crashes < 2 {
                with(&|next| {
                    next.workers[worker] = Step::Idle;
                    next.crashes += 1;
                });
            }
            match step {
                Step::Idle => {
                    if let Some(event) = self.claimable() {
                        with(&|next| {
                            next.claims += 1;
                            let claim = next.claims;
                            let delivery = &mut next.events[event].1;
                            *delivery = delivery.claim(next.now, claim, LEASE).unwrap();
                            next.workers[worker] = Step::Claimed { event, claim };
                        });
                    }
                }
                Step::Claimed { event, claim } => {
                    with(&|next| {
                        next.taken.push(event);
                        next.workers[worker] = Step::Answered {
                            event,
                            claim,
                            ok: true,
                        };
                    });
                    if self.failures < 1 {
                        with(&|next| {
                            next.failures += 1;
                            next.workers[worker] = Step::Answered {
                                event,
                                claim,
                                ok: false,
                            };
                        });
                    }
                }
                Step::Answered { event, claim, ok } => with(&|next| {
                    let outcome = Outcome::Answered {
                        status: if ok { 200 } else { 500 },
                        retry_after: None,
                    };
                    let delivery = &mut next.events[event].1;
                    if let Some(settled) = delivery.settle(claim, &outcome, next.now, schedule, 0.0)
                    {
                        *delivery = settled;
                    }
                    next.workers[worker] = Step::Idle;
                }),
            }
        }
        // Time passes: to the next moment at which something is due.
        let due = self
            .events
            .iter()
            .filter(|(_, delivery)| delivery.state.is_live());
        if let Some(due) = due
            .map(|(_, delivery)| delivery.due)
            .filter(|due| *due > self.now)
            .min()
        {
            let mut next = self.clone();
            next.now = due;
            all.push(next);
        }
        all
    }

    /// What is told apart: the same world with other numbers for time and claims is the same.
    fn key(&self) -> String {
        let events: Vec<_> = self
            .events
            .iter()
            .map(|(_, delivery)| {
                let claim = match delivery.state {
                    State::Delivering { claim } => self
                        .workers
                        .iter()
                        .position(|step| matches!(step, Step::Claimed { claim: other, .. } | Step::Answered { claim: other, .. } if *other == claim))
                        .map_or(9, |worker| worker),
                    State::Waiting => 7,
                    State::Delivered => 6,
                    State::Dead => 5,
                };
                (claim, delivery.attempts, delivery.due.since(self.now))
            })
            .collect();
        let steps: Vec<_> = self
            .workers
            .iter()
            .map(|step| match step {
                Step::Idle => (0, 0, false),
                Step::Claimed { event, .. } => (1, *event, false),
                Step::Answered { event, ok, .. } => (2, *event, *ok),
            })
            .collect();
        format!(
            "{events:?}{steps:?}{:?}{}{}",
            self.taken, self.failures, self.crashes
        )
    }

    fn check(&self) {
        // Of one id at most one claim holds.
        for id in [0, 1] {
            let held = self.events.iter().filter(|(other, delivery)| {
                *other == id
                    && matches!(delivery.state, State::Delivering { .. })
                    && delivery.due > self.now
            });
            assert!(held.count() <= 1, "{self:?}");
        }
        // The first time that each event of id 0 is taken is in the order of arrival.
        let first = |event| self.taken.iter().position(|&taken| taken == event);
        if let Some(second) = first(1) {
            let is_dead = self.events[0].1.state == State::Dead;
            assert!(
                is_dead || first(0).is_some_and(|first| first < second),
                "{self:?}"
            );
        }
        // Delivered means that the application has taken it.
        for (index, (_, delivery)) in self.events.iter().enumerate() {
            if delivery.state == State::Delivered {
                assert!(first(index).is_some(), "{self:?}");
            }
        }
        // A double is a crash after the answer, or an attempt that outlived its lease.
        if self.crashes == 0 && self.now < Moment(0).after(LEASE) {
            let once: BTreeSet<_> = self.taken.iter().collect();
            assert_eq!(once.len(), self.taken.len(), "{self:?}");
        }
    }
}

#[test]
fn two_workers_lose_nothing_and_keep_the_order_whenever_they_crash() {
    let schedule: Schedule = "1s,1s".parse().unwrap();
    let mut seen = BTreeSet::new();
    let mut open = vec![World::new()];
    let mut ends = 0;
    while let Some(world) = open.pop() {
        if world.taken.len() > 5 || !seen.insert(world.key()) {
            continue;
        }
        world.check();
        let next = world.next(&schedule);
        if next.is_empty() {
            // Nothing can happen any more: then all is delivered.
            ends += 1;
            for (_, delivery) in &world.events {
                assert_eq!(delivery.state, State::Delivered, "{world:?}");
            }
        }
        open.extend(next);
    }
    assert!(seen.len() > 10_000, "{}", seen.len());
    assert!(ends > 10, "{ends}");
}

/// One event of the model that the store is held against.
#[derive(Clone, Debug)]
struct Row {
    id: u64,
    turn: u64,
    delivery: Delivery,
    /// Whether it has been set aside for an earlier event of its id.
    is_aside: bool,
}

struct Pair {
    store: Store,
    writer: Writer,
    time: Arc<AtomicI64>,
    schedule: Schedule,
    rows: BTreeMap<String, Row>,
    turns: u64,
    held: Vec<Claimed>,
    claims: i64,
    paused: bool,
    in_order: bool,
}

impl Pair {
    async fn new(file: PathBuf, in_order: bool) -> Self {
        let time = Arc::new(AtomicI64::new(1_000_000));
        let place = Place::Sqlite(file);
        let clock = SteadyClock::by_hand(Arc::clone(&time));
        let store = Store::open_at(&place, clock).await.unwrap();
        let (writer, _) = Writer::start(&store);
        Self {
            store,
            writer,
            time,
            schedule: "1s,5s,20s".parse().unwrap(),
            rows: BTreeMap::new(),
            turns: 0,
            held: Vec::new(),
            claims: 0,
            paused: false,
            in_order,
        }
    }

    fn now(&self) -> Moment {
        Moment(self.time.load(Ordering::Relaxed))
    }

    async fn accept(&mut self, name: String, id: u64) {
        let key = key(&name);
        let event = NewEvent {
            key: key.clone(),
            source: "suno".into(),
            id: id.to_string(),
            target: "/".into(),
            headers: Vec::new(),
            body: name.into(),
            received_at: self.now(),
        };
        let accepted = self.writer.accept(event).await.unwrap();
        let expected = match self.rows.contains_key(&key) {
            true => Accepted::Known,
            false => Accepted::New,
        };
        assert_eq!(accepted, expected);
        if expected == Accepted::New {
            self.turns += 1;
            let row = Row {
                id,
                turn: self.turns,
                delivery: Delivery::accepted(self.now()),
                is_aside: false,
            };
            self.rows.insert(key, row);
        }
    }

    async fn claim(&mut self, most: usize) {
        self.claims += 1;
        let request = ClaimRequest {
            claim: self.claims,
            most,
            in_order: self.in_order,
            lease: LEASE,
            wall: self.now(),
        };
        let claimed = self.writer.claim(request).await.unwrap().events;
        let now = self.now();
        let mut expected = BTreeSet::new();
        // The first look reads no more rows than are wanted, the next ones read all that there are.
        for look in 0..4 {
            let wanted = most - expected.len();
            let limit = if look == 0 { wanted } else { usize::MAX };
            let (seen, taken) = self.look(limit, wanted, &expected);
            expected.extend(taken);
            if self.paused || seen < limit || expected.len() == most {
                break;
            }
        }
        let got: BTreeSet<String> = claimed.iter().map(|one| one.key.clone()).collect();
        assert_eq!(got, expected);
        for one in &claimed {
            let row = self.rows.get_mut(&one.key).unwrap();
            assert_eq!(one.attempts, row.delivery.attempts);
            row.delivery = row.delivery.claim(now, self.claims, LEASE).unwrap();
        }
        self.held.extend(claimed);
    }

    /// One look of a claim at what is due: how many rows it saw, and which of them it takes. What is
    /// behind another of its id is set aside.
    fn look(
        &mut self,
        limit: usize,
        wanted: usize,
        taken_before: &BTreeSet<String>,
    ) -> (usize, Vec<String>) {
        let now = self.now();
        let mut due: Vec<String> = self
            .rows
            .iter()
            .filter(|(key, row)| {
                !self.paused
                    && !taken_before.contains(*key)
                    && row.delivery.claim(now, self.claims, LEASE).is_some()
            })
            .map(|(key, _)| key.clone())
            .collect();
        due.sort_by_key(|key| (self.rows[key].delivery.due, self.rows[key].turn));
        due.truncate(limit);
        let mut taken = Vec::new();
        for key in &due {
            if taken.len() == wanted {
                break;
            }
            let row = &self.rows[key];
            if !self.in_order || self.head(row.id).as_ref() == Some(key) {
                taken.push(key.clone());
            } else if row.delivery.state == State::Waiting {
                let row = self.rows.get_mut(key).unwrap();
                row.is_aside = true;
                row.delivery.due = now.after(Duration::from_secs(3600));
            }
        }
        (due.len(), taken)
    }

    /// The first live event of an id.
    fn head(&self, id: u64) -> Option<String> {
        self.rows
            .iter()
            .filter(|(_, row)| row.id == id && row.delivery.state.is_live())
            .min_by_key(|(_, row)| row.turn)
            .map(|(key, _)| key.clone())
    }

    /// An event of the id has ended: the next is due if it was set aside.
    fn wake_next(&mut self, id: u64) {
        let now = self.now();
        let Some(head) = self.head(id) else { return };
        let row = self.rows.get_mut(&head).unwrap();
        if std::mem::take(&mut row.is_aside) {
            row.delivery.due = now;
        }
    }

    async fn settle(&mut self, index: usize, outcome: Outcome) {
        let claimed = self.held.swap_remove(index);
        let settlement = Settlement {
            claimed: claimed.clone(),
            outcome,
            error: None,
            at: self.now(),
            took: Duration::ZERO,
            schedule: self.schedule.clone(),
            jitter: 0.5,
        };
        let held = self.writer.settle(Arc::new(settlement)).await.unwrap();
        let now = self.now();
        let next = self.rows.get(&claimed.key).and_then(|row| {
            row.delivery
                .settle(claimed.claim, &outcome, now, &self.schedule, 0.5)
        });
        assert_eq!(held, next.is_some());
        let Some(next) = next else { return };
        let id = self.rows[&claimed.key].id;
        self.rows.get_mut(&claimed.key).unwrap().delivery = next;
        if !next.state.is_live() {
            self.wake_next(id);
        }
    }

    async fn release(&mut self, index: usize) {
        let claimed = self.held.swap_remove(index);
        let release = Release {
            claimed: claimed.clone(),
            began: None,
        };
        let held = self.writer.release(release).await.unwrap();
        let now = self.now();
        let row = self.rows.get_mut(&claimed.key);
        let next = row
            .as_ref()
            .and_then(|row| row.delivery.release(claimed.claim, now));
        assert_eq!(held, next.is_some());
        if let (Some(row), Some(next)) = (row, next) {
            row.delivery = next;
        }
    }

    async fn change(&mut self, key: String, discard: bool) {
        let selector = Selector {
            keys: vec![key.clone()],
            ..Selector::default()
        };
        match discard {
            true => self.store.discard(&selector).await.unwrap(),
            false => self.store.replay(&selector).await.unwrap(),
        };
        let now = self.now();
        let Some(row) = self.rows.get_mut(&key) else {
            return;
        };
        let Some(next) = row.delivery.replay(now) else {
            return;
        };
        let (id, was_waiting) = (row.id, row.delivery.state == State::Waiting);
        if discard {
            self.rows.remove(&key);
            if was_waiting {
                self.wake_next(id);
            }
        } else {
            row.delivery = next;
            row.is_aside = false;
            if !was_waiting {
                self.turns += 1;
                row.turn = self.turns;
            }
        }
    }

    /// Everything in the store is as the model says.
    async fn compare(&self) {
        let listed = self.store.list(&Selector::default(), 0).await.unwrap();
        assert_eq!(listed.len(), self.rows.len());
        for event in listed {
            let row = &self.rows[&event.key];
            let delivery = row.delivery;
            let state = match delivery.state {
                State::Waiting => Filter::Waiting,
                State::Delivering { .. } => Filter::Delivering,
                State::Delivered => Filter::Delivered,
                State::Dead => Filter::Dead,
            };
            assert_eq!(event.state, state, "{}", event.key);
            assert_eq!(
                event.attempts,
                i64::from(delivery.attempts),
                "{}",
                event.key
            );
            if state == Filter::Waiting {
                let next = (!row.is_aside).then(|| delivery.due.to_string());
                assert_eq!(event.next_attempt_at, next, "{}", event.key);
            }
        }
        let counts = self.store.counts().await.unwrap();
        let live = self
            .rows
            .values()
            .filter(|row| row.delivery.state.is_live());
        assert_eq!(counts.backlog, u64::try_from(live.count()).unwrap());
    }
}

#[tokio::test]
async fn the_store_does_what_the_rules_say_whatever_happens() {
    for seed in 1..=seeds(12) {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut pair = Pair::new(folder.path().join("inbox.db"), seed % 4 != 0).await;
        println!("seed {seed}");
        for step in 0..150 {
            match random.below(20) {
                0..=5 => {
                    let name = format!("{}", random.below(40));
                    let id = name.parse::<u64>().unwrap() % 7;
                    pair.accept(name, id).await;
                }
                6..=9 => {
                    pair.claim(usize::try_from(random.below(4)).unwrap() + 1)
                        .await;
                }
                10..=14 if !pair.held.is_empty() => {
                    let index =
                        usize::try_from(random.below(u64::try_from(pair.held.len()).unwrap()))
                            .unwrap();
                    let outcome = match random.below(6) {
                        0..=2 => Outcome::Answered {
                            status: 200,
                            retry_after: None,
                        },
                        3 => Outcome::Answered {
                            status: 410,
                            retry_after: None,
                        },
                        4 => Outcome::Answered {
                            status: 503,
                            retry_after: Some(Duration::from_secs(random.below(10))),
                        },
                        _ => Outcome::Failed,
                    };
                    pair.settle(index, outcome).await;
                }
                15 if !pair.held.is_empty() => pair.release(0).await,
                // A worker dies: nobody settles what it had.
                16 => pair.held.clear(),
                17 => {
                    let name = format!("{}", random.below(40));
                    pair.change(key(&name), random.below(3) == 0).await;
                }
                18 => {
                    pair.paused = !pair.paused;
                    match pair.paused {
                        true => pair.store.pause(None).await.unwrap(),
                        false => drop(pair.store.resume(None).await.unwrap()),
                    }
                }
                _ => {
                    let ahead = i64::try_from(random.below(15_000)).unwrap();
                    pair.time.fetch_add(ahead, Ordering::Relaxed);
                }
            }
            if step % 10 == 9 {
                pair.compare().await;
            }
        }
        // In the end everything is delivered, if the application takes it.
        pair.paused = false;
        pair.store.resume(None).await.unwrap();
        for _ in 0..400 {
            pair.time.fetch_add(30_000, Ordering::Relaxed);
            pair.claim(50).await;
            while !pair.held.is_empty() {
                let outcome = Outcome::Answered {
                    status: 200,
                    retry_after: None,
                };
                pair.settle(0, outcome).await;
            }
            if pair.rows.values().all(|row| !row.delivery.state.is_live()) {
                break;
            }
        }
        pair.compare().await;
        assert!(pair.rows.values().all(|row| !row.delivery.state.is_live()));
    }
}
