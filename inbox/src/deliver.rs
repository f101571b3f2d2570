//! Hands events to the application: claims what is due, attempts it, settles it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::application::Application;
use crate::backlog::Backlog;
use crate::circuit::{Circuit, Permit};
use crate::delivery::{Delivery, LEASE_MARGIN, State};
use crate::metrics::Metrics;
use crate::moment::{Moment, SteadyClock};
use crate::rate::Rate;
use crate::schedule::Schedule;
use crate::store::{ClaimRequest, Claimed, Release, Settlement, Store, Writer};

/// How often the store is asked for what is due when nothing else says so: what other programs have
/// written, and pauses between attempts that have ended.
const POLL: Duration = Duration::from_millis(200);

/// How long after an error of the store it is asked again.
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// What deliveries are made with.
#[derive(Debug)]
pub struct Deliverer {
    /// The store, for payloads.
    pub store: Store,
    /// The store, for claims and settlements.
    pub writer: Writer,
    /// The application.
    pub application: Application,
    /// What waits.
    pub backlog: Arc<Backlog>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Wakes the loop.
    pub wake: Arc<Notify>,
    /// The pauses between attempts.
    pub schedule: Schedule,
    /// The most attempts at once.
    pub concurrency: usize,
    /// The longest attempt.
    pub timeout: Duration,
    /// The most attempts in a second.
    pub rate: Option<u32>,
    /// Whether an event waits for the earlier ones of its id.
    pub in_order: bool,
    /// How long attempts may take to end once the inbox is stopped.
    pub grace: Duration,
}

/// The attempts that are under way: when each began, if it has.
type UnderWay = Mutex<HashMap<i64, (Claimed, Option<Moment>)>>;

struct Run {
    deliverer: Arc<Deliverer>,
    circuit: Mutex<Circuit>,
    under_way: UnderWay,
    clock: SteadyClock,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deliverer {
    /// Delivers until the inbox is stopped; then lets attempts end, and gives the rest back.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let clock = SteadyClock::start();
        let grace = self.grace;
        let mut rate = Rate::new(self.rate, clock.now());
        let run = Arc::new(Run {
            circuit: Mutex::new(Circuit::new(self.schedule.first())),
            under_way: Mutex::default(),
            clock,
            deliverer: Arc::new(self),
        });
        let mut attempts = JoinSet::new();
        while !*stop.borrow() {
            while attempts.try_join_next().is_some() {}
            let pause = run.round(&mut rate, &mut attempts).await;
            if pause > Duration::ZERO {
                tokio::select! {
                    () = run.deliverer.wake.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
        }
        let ended = async { while attempts.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            attempts.shutdown().await;
        }
        run.give_back().await;
    }
}

impl Run {
    /// Claims and begins what may begin now; returns how long nothing new is to be expected.
    async fn round(self: &Arc<Self>, rate: &mut Rate, attempts: &mut JoinSet<()>) -> Duration {
        let deliverer = &self.deliverer;
        let now = self.clock.now();
        let permit = lock(&self.circuit).permit(now);
        deliverer
            .metrics
            .circuit_open
            .set(i64::from(permit != Permit::Free));
        let free = deliverer.concurrency.saturating_sub(attempts.len());
        let wanted = match permit {
            Permit::Free => free,
            Permit::Probe => free.min(1),
            Permit::Nothing => 0,
        };
        let most = rate.available(wanted, now);
        if most == 0 {
            return if free == 0 { POLL } else { POLL / 10 };
        }
        let request = ClaimRequest {
            claim: fastrand::i64(1..),
            most,
            in_order: deliverer.in_order,
            lease: deliverer.timeout + LEASE_MARGIN,
            wall: Moment::wall(),
        };
        let claims = match deliverer.writer.claim(request).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::error!(%error, "nothing can be claimed");
                return AFTER_ERROR;
            }
        };
        rate.take(claims.events.len());
        if permit == Permit::Probe && !claims.events.is_empty() {
            lock(&self.circuit).begin_probe();
        }
        for event in claims.events {
            lock(&self.under_way).insert(event.event, (event.clone(), None));
            attempts.spawn(Arc::clone(self).deliver(event));
        }
        deliverer
            .metrics
            .in_flight
            .set(i64::try_from(attempts.len()).unwrap_or(i64::MAX));
        match claims.is_more && permit == Permit::Free {
            true => Duration::ZERO,
            false => POLL,
        }
    }

    /// One attempt, from the payload to the settlement.
    async fn deliver(self: Arc<Self>, claimed: Claimed) {
        let deliverer = &self.deliverer;
        let deadline = Instant::now() + deliverer.timeout + LEASE_MARGIN;
        let payload = match deliverer.store.payload(claimed.event).await {
            Ok(Some(payload)) => payload,
            Ok(None) => {
                // Discarded between claim and attempt.
                lock(&self.under_way).remove(&claimed.event);
                return;
            }
            Err(error) => {
                tracing::error!(%error, key = claimed.key, "a body cannot be read");
                tokio::time::sleep(AFTER_ERROR).await;
                let release = Release {
                    claimed: claimed.clone(),
                    began: None,
                };
                // If that fails too, the claim ends with its lease.
                let _ = deliverer.writer.release(release).await;
                lock(&self.under_way).remove(&claimed.event);
                return;
            }
        };
        let at = Moment::wall();
        if let Some((_, began)) = lock(&self.under_way).get_mut(&claimed.event) {
            *began = Some(at);
        }
        let began = Instant::now();
        let attempt = deliverer.application.attempt(&claimed, payload).await;
        let took = began.elapsed();
        let is_alive = attempt.outcome.is_success() || attempt.outcome.is_gone();
        let was_open = {
            let mut circuit = lock(&self.circuit);
            let was_open = circuit.is_open();
            circuit.record(is_alive, self.clock.now());
            (was_open, circuit.is_open())
        };
        match was_open {
            (false, true) => tracing::warn!("the application fails: deliveries pause, and probe"),
            (true, false) => tracing::info!("the application is back: deliveries go on"),
            _ => {}
        }
        deliverer.metrics.attempt(&attempt.outcome);
        let settlement = Arc::new(Settlement {
            claimed,
            outcome: attempt.outcome,
            error: attempt.error,
            at,
            took,
            schedule: deliverer.schedule.clone(),
            jitter: fastrand::f64(),
        });
        self.settle(&settlement, deadline).await;
        lock(&self.under_way).remove(&settlement.claimed.event);
        deliverer.wake.notify_one();
    }

    /// Writes how the attempt ended, again and again while the lease lasts.
    async fn settle(&self, settlement: &Arc<Settlement>, deadline: Instant) {
        let deliverer = &self.deliverer;
        let claimed = &settlement.claimed;
        let ending = deliverer.backlog.ending(claimed.bytes);
        loop {
            match deliverer.writer.settle(Arc::clone(settlement)).await {
                Ok(true) => break,
                Ok(false) => {
                    deliverer.metrics.lost_claims.inc();
                    tracing::warn!(key = claimed.key, "the attempt ended after its lease");
                    return;
                }
                Err(error) if Instant::now() < deadline => {
                    tracing::error!(%error, key = claimed.key, "an attempt cannot be recorded");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
                Err(error) => {
                    tracing::error!(%error, key = claimed.key, "the event will be delivered again");
                    return;
                }
            }
        }
        let held = Delivery {
            state: State::Delivering {
                claim: claimed.claim,
            },
            attempts: claimed.attempts,
            due: Moment::default(),
        };
        let next = held.settle(
            claimed.claim,
            &settlement.outcome,
            Moment::default(),
            &settlement.schedule,
            settlement.jitter,
        );
        let is_delivered = match next.map(|next| next.state) {
            Some(State::Delivered) => true,
            Some(State::Dead) => false,
            _ => return,
        };
        ending.ended();
        deliverer.metrics.ended(&claimed.source, is_delivered);
        if is_delivered {
            let age = Moment::wall().since(claimed.received_at);
            deliverer
                .metrics
                .delivery_seconds
                .observe(age.as_secs_f64());
        } else {
            tracing::warn!(
                key = claimed.key,
                source = claimed.source,
                id = claimed.id,
                "an event is dead"
            );
        }
    }

    /// Gives back what is still claimed.
    async fn give_back(&self) {
        let left: Vec<_> = lock(&self.under_way).drain().collect();
        let releases = left.into_iter().map(|(_, (claimed, began))| {
            let writer = self.deliverer.writer.clone();
            tokio::spawn(async move {
                let release = Release { claimed, began };
                if let Err(error) = writer.release(release).await {
                    tracing::error!(%error, "a claim could not be given back: it ends with its lease");
                }
            })
        });
        for release in releases.collect::<Vec<_>>() {
            let _ = release.await;
        }
    }
}
