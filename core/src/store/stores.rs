//! Claims over both stores: the local one and, where it is configured, the one that many proxies
//! share.
//!
//! The local store is asked first: what this proxy has delivered itself, or has in flight, needs no
//! round trip, and a request that falls back on it (`on_error: "memory"`) has its claim there
//! already. The shared store is asked only after the local one has granted.
//!
//! A call is made in a callback of its own request, or as time passes, and never in that of another
//! request: the SDK of proxy-wasm hands the answer to the context in whose callback the call was made,
//! and drops it if that one is gone.
//!
//! A request that ends while its call is in flight leaves that to the
//! [`Retries`](crate::store::retries::Retries): nobody will see
//! the answer.

use std::sync::Arc;

use crate::effect::{CallId, Effects, Io, StreamId};
use crate::metrics::{Metric, SourceMetric};
use crate::policy::{Policy, Source};
use crate::store::circuit::{Circuit, Transition};
use crate::store::fleet::{Call, Fleet, PendingClaim, Purpose};
use crate::store::local::{self, LocalStore};
use crate::store::redis::{Answer, StoreError};
use crate::store::retries::PendingSettlement;
use crate::store::{ClaimAnswer, ClaimRequest, Settlement, SharedData, Unavailable};
use crate::time::UnixMillis;

/// The stores of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    local: LocalStore,
    fleet: Option<Fleet>,
    fresh_salt: [u8; 16],
    salt: Option<[u8; 16]>,
}

/// A claim that is to be settled, and for how long it holds.
#[derive(Clone, Debug)]
pub(crate) struct Settling {
    pub(crate) source: Arc<Source>,
    pub(crate) settlement: Settlement,
    pub(crate) lease_end: UnixMillis,
}

/// Who learns of the end of a call.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// The request that asked for this claim.
    Claim {
        stream: StreamId,
        source: Arc<Source>,
        request: ClaimRequest,
        answer: ClaimAnswer,
    },
    /// The request whose response is held.
    Settled(StreamId),
    Nobody,
}

impl Stores {
    pub(crate) fn new(policy: &Arc<Policy>, fresh_salt: [u8; 16]) -> Self {
        Self {
            local: LocalStore::of_ids(policy.capacity, policy.events_per_id()),
            fleet: policy.remote.as_ref().map(Fleet::new),
            fresh_salt,
            salt: None,
        }
    }

    /// The local store's salt.
    pub(crate) fn salt<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
    ) -> Result<[u8; 16], Unavailable> {
        match self.salt {
            Some(salt) => Ok(salt),
            None => {
                let salt = local::salt(io.shared, self.fresh_salt)?;
                self.salt = Some(salt);
                Ok(salt)
            }
        }
    }

    /// Asks for a claim. `None` if the answer comes later, by [`Stores::call_ended`].
    #[inline(never)]
    pub(crate) fn claim<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        source: &Arc<Source>,
        request: &ClaimRequest,
        effects: &mut Effects,
    ) -> Option<ClaimAnswer> {
        let (answer, change) = self.local.claim(io.shared, request, io.now());
        effects.change(change);
        let Some(fleet) = &mut self.fleet else {
            return Some(answer);
        };
        let holds_locally = match answer {
            ClaimAnswer::Granted => true,
            ClaimAnswer::Full | ClaimAnswer::Unavailable => false,
            answer => return Some(answer),
        };
        let claim = PendingClaim {
            stream,
            source: Arc::clone(source),
            request: *request,
            holds_locally,
        };
        let purpose = Purpose::Claim(claim.clone());
        match fleet.ask(request.id.shared, stream, purpose, io.now(), effects) {
            Ok(()) => None,
            Err(_) => {
                let refused = Err(StoreError::CircuitOpen);
                Some(self.resolve(io, &claim, refused, effects))
            }
        }
    }

    /// Settles a claim. True if the response of `holder` is to be held until the shared store has
    /// answered.
    #[inline(never)]
    pub(crate) fn settle<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        settling: Settling,
        holder: Option<StreamId>,
        effects: &mut Effects,
    ) -> bool {
        let Settling {
            source,
            settlement,
            lease_end,
        } = settling;
        let index = Some(source.index);
        match self.local.settle(io.shared, &settlement, io.now()) {
            Ok((is_settled, change)) => {
                effects.change(change);
                match settlement {
                    Settlement::Release { .. } if is_settled => {
                        effects.count_of(index, SourceMetric::Releases);
                    }
                    Settlement::Deliver { .. } if !is_settled => {
                        effects.count_of(index, SourceMetric::SettleFailures);
                    }
                    Settlement::Release { .. } | Settlement::Deliver { .. } => {}
                }
            }
            Err(Unavailable) => effects.count_of(index, SourceMetric::SettleFailures),
        }
        let Some(fleet) = &mut self.fleet else {
            return false;
        };
        let pending = PendingSettlement::new(source, settlement, lease_end, io.now());
        let Some(stream) = holder else {
            fleet.schedule(pending, effects);
            return false;
        };
        let id = settlement.id().shared;
        let purpose = Purpose::Settle { stream, pending };
        match fleet.ask(id, stream, purpose, io.now(), effects) {
            Ok(()) => true,
            Err(Purpose::Settle { pending, .. }) => {
                fleet.schedule(pending.again(io.now()), effects);
                false
            }
            Err(_) => false,
        }
    }

    /// A claim that nobody will use is void in both stores.
    pub(crate) fn give_back<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        source: &Arc<Source>,
        request: &ClaimRequest,
        effects: &mut Effects,
    ) {
        self.release_locally(io, request, effects);
        self.release_remotely(source, request, io.now(), io.now(), effects);
    }

    /// Maps the shared store's reply or failure to the answer for the guard.
    #[inline(never)]
    fn resolve<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        claim: &PendingClaim,
        result: Result<ClaimAnswer, StoreError>,
        effects: &mut Effects,
    ) -> ClaimAnswer {
        let (source, request, holds_locally) = (&claim.source, &claim.request, claim.holds_locally);
        let Some(fleet) = &self.fleet else {
            return ClaimAnswer::Unavailable;
        };
        if result.is_err() {
            effects.count(Metric::Fallbacks);
        }
        let resolved = fleet.remote.on_error.resolve(result, holds_locally);
        if holds_locally && !resolved.keeps_locally {
            self.release_locally(io, request, effects);
        }
        if resolved.releases_remotely {
            self.release_remotely(source, request, io.now(), io.now(), effects);
        }
        resolved.answer
    }

    fn release_locally<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        request: &ClaimRequest,
        effects: &mut Effects,
    ) {
        let release = Settlement::release(request);
        if let Ok((_, change)) = self.local.settle(io.shared, &release, io.now()) {
            effects.change(change);
        }
    }

    /// Schedules a release in the shared store, not before `due`.
    fn release_remotely(
        &mut self,
        source: &Arc<Source>,
        request: &ClaimRequest,
        now: UnixMillis,
        due: UnixMillis,
        effects: &mut Effects,
    ) {
        if let Some(fleet) = &mut self.fleet {
            let until = now.plus_seconds(request.lease_seconds);
            let release = Settlement::release(request);
            let pending = PendingSettlement::new(Arc::clone(source), release, until, due);
            fleet.schedule(pending, effects);
        }
    }

    /// A call has been answered, or has failed.
    #[inline(never)]
    pub(crate) fn call_ended<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        call: CallId,
        answer: Result<Answer<'_>, StoreError>,
        effects: &mut Effects,
    ) -> Ended {
        let Some(fleet) = &mut self.fleet else {
            return Ended::Nobody;
        };
        let Some(Call {
            permit, purpose, ..
        }) = fleet.take(|known| known.id == call)
        else {
            return Ended::Nobody;
        };
        let remote = Arc::clone(&fleet.remote);
        match purpose {
            Purpose::Nothing { .. } => Ended::Nobody,
            Purpose::Claim(claim) => {
                let owner = claim.request.owner;
                let result = answer.and_then(|answer| remote.read_claim(answer, owner));
                fleet.record(permit, result.err(), io.now(), effects);
                self.claim_ended(io, claim, result, effects)
            }
            Purpose::Settle { stream, pending } => {
                let result = answer.and_then(|answer| remote.read_settle(answer));
                fleet.record(permit, result.err(), io.now(), effects);
                fleet.settled(pending, result, io.now(), effects);
                Ended::Settled(stream)
            }
            Purpose::Retry(pending) => {
                fleet.background_calls = fleet.background_calls.saturating_sub(1);
                let result = answer.and_then(|answer| remote.read_settle(answer));
                fleet.record(permit, result.err(), io.now(), effects);
                fleet.settled(pending, result, io.now(), effects);
                Ended::Nobody
            }
        }
    }

    fn claim_ended<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        claim: PendingClaim,
        result: Result<ClaimAnswer, StoreError>,
        effects: &mut Effects,
    ) -> Ended {
        Ended::Claim {
            answer: self.resolve(io, &claim, result, effects),
            stream: claim.stream,
            source: claim.source,
            request: claim.request,
        }
    }

    /// Whether the callback that runs from here on may be that of another request than one that asks.
    pub(crate) fn is_of_another(&mut self, is_of_another: bool) {
        if let Some(fleet) = &mut self.fleet {
            fleet.queues_all = is_of_another;
        }
    }

    /// The circuit is open: takes the next one out of the queue, as if its call had been refused.
    pub(crate) fn turned_away<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        effects: &mut Effects,
    ) -> Option<Ended> {
        let fleet = self.fleet.as_mut()?;
        if !fleet.circuit.is_open() {
            return None;
        }
        let purpose = fleet.queue.pop()?;
        effects.count(Metric::StoreErrors(StoreError::CircuitOpen));
        Some(match purpose {
            Purpose::Claim(claim) => {
                self.claim_ended(io, claim, Err(StoreError::CircuitOpen), effects)
            }
            Purpose::Settle { stream, pending } => {
                fleet.schedule(pending.again(io.now()), effects);
                Ended::Settled(stream)
            }
            Purpose::Retry(pending) => {
                fleet.schedule(pending, effects);
                Ended::Nobody
            }
            Purpose::Nothing { .. } => Ended::Nobody,
        })
    }

    /// A request ends: what it has in flight is settled in the background.
    #[inline(never)]
    pub(crate) fn abandon<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        effects: &mut Effects,
    ) {
        let Some(fleet) = &mut self.fleet else { return };
        let (purpose, due) = if let Some(purpose) = fleet.queue.take(stream) {
            // Redis has not heard of it.
            (purpose, None)
        } else {
            let is_its = |call: &&mut Call| call.purpose.stream() == Some(stream);
            let Some(call) = fleet.calls.iter_mut().find(is_its) else {
                return;
            };
            // The call may still arrive until it times out, and could overtake a release.
            let due = io.now().plus_millis(fleet.remote.timeout_millis);
            let purpose = core::mem::replace(&mut call.purpose, Purpose::Nothing { until: due });
            fleet.circuit.abandoned(call.permit, io.now());
            (purpose, Some(due))
        };
        match purpose {
            Purpose::Claim(PendingClaim {
                source,
                request,
                holds_locally,
                ..
            }) => {
                if holds_locally {
                    self.release_locally(io, &request, effects);
                }
                if let Some(due) = due {
                    self.release_remotely(&source, &request, io.now(), due, effects);
                }
            }
            Purpose::Settle { pending, .. } => {
                let PendingSettlement {
                    source,
                    settlement,
                    until,
                    ..
                } = pending;
                let due = due.unwrap_or(io.now());
                fleet.schedule(
                    PendingSettlement::new(source, settlement, until, due),
                    effects,
                );
            }
            Purpose::Retry(pending) => fleet.schedule(pending, effects),
            Purpose::Nothing { .. } => {}
        }
    }

    /// Time has passed: sends what is due in the background.
    pub(crate) fn time(&mut self, now: UnixMillis, effects: &mut Effects) {
        if let Some(fleet) = &mut self.fleet {
            fleet.time(now, effects);
        }
    }

    /// Whether there is something to do as time passes.
    pub(crate) fn needs_time(&self) -> bool {
        self.fleet
            .as_ref()
            .is_some_and(|fleet| !fleet.retries.is_empty() || !fleet.queue.is_empty())
    }

    /// The worker ends: what only it counts is taken back.
    pub(crate) fn close(&mut self, effects: &mut Effects) {
        if let Some(fleet) = &mut self.fleet
            && fleet.circuit.is_open()
        {
            effects.circuit(Transition::Closed);
            fleet.circuit = Circuit::default();
        }
    }
}
