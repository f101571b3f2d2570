//! The store that many proxies share, as one worker sees it: calls on their way, those that wait for
//! their turn, and settlements that are sent in the background.
//!
//! How many calls are on their way at the same time is bounded; the others wait in a queue and are
//! made as time passes. So a flood of events cannot make a store that answers look like one that is down.

use std::sync::Arc;

use crate::effect::{CallId, Effect, Effects, StreamId};
use crate::metrics::{Metric, SourceMetric};
use crate::policy::Source;
use crate::store::circuit::{Circuit, Permit};
use crate::store::queue::{MOST_CALLS, Queue};
use crate::store::redis::{Remote, StoreError};
use crate::store::retries::{PendingSettlement, Retries};
use crate::store::{ClaimRequest, Settlement};
use crate::time::UnixMillis;

/// How many settlements are on their way at the same time with nobody waiting for them.
const MOST_BACKGROUND_CALLS: usize = 8;

/// The store that many proxies share, as one worker sees it.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    pub(super) remote: Arc<Remote>,
    pub(super) circuit: Circuit,
    pub(super) calls: Vec<Call>,
    pub(super) next_call: u64,
    /// What is to be called once there is room for it.
    pub(super) queue: Queue<Purpose>,
    /// Whether what is asked now is queued, though there is room.
    pub(super) queues_all: bool,
    pub(super) retries: Retries,
    pub(super) background_calls: usize,
}

/// A call on its way.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) permit: Permit,
    pub(super) purpose: Purpose,
}

/// A claim that the shared store is asked for.
#[derive(Clone, Debug)]
pub(super) struct PendingClaim {
    pub(super) stream: StreamId,
    pub(super) source: Arc<Source>,
    pub(super) request: ClaimRequest,
    /// Whether the local store has granted it.
    pub(super) holds_locally: bool,
}

/// What a call is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Claim(PendingClaim),
    /// Its request has ended: nobody will see the answer. It counts until it comes, and no longer than it
    /// may take.
    Nothing {
        until: UnixMillis,
    },
    /// In the background.
    Retry(PendingSettlement),
    Settle {
        stream: StreamId,
        pending: PendingSettlement,
    },
}

impl Purpose {
    pub(super) fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Claim(PendingClaim { stream, .. }) | Self::Settle { stream, .. } => Some(*stream),
            Self::Nothing { .. } | Self::Retry(_) => None,
        }
    }
}

impl Fleet {
    pub(super) fn new(remote: &Arc<Remote>) -> Self {
        Self {
            remote: Arc::clone(remote),
            circuit: Circuit::default(),
            calls: Vec::new(),
            next_call: 0,
            queue: Queue::default(),
            queues_all: false,
            retries: Retries::default(),
            background_calls: 0,
        }
    }

    pub(super) fn take(&mut self, is_it: impl Fn(&Call) -> bool) -> Option<Call> {
        let at = self.calls.iter().position(is_it)?;
        Some(self.calls.swap_remove(at))
    }

    /// Makes a call, or queues it for when there is room; unless the circuit is open: then its purpose
    /// comes back.
    #[allow(clippy::result_large_err, reason = "it comes back as it went in")]
    pub(super) fn ask(
        &mut self,
        id: [u8; 16],
        stream: StreamId,
        purpose: Purpose,
        now: UnixMillis,
        effects: &mut Effects,
    ) -> Result<(), Purpose> {
        let is_queued = match self.circuit.is_open() {
            // Who could probe waits for its turn as well.
            true => self.queues_all && self.circuit.would_permit(now),
            false => self.queues_all || !self.queue.is_empty() || !self.has_room(),
        };
        if is_queued {
            self.queue.push(id, stream, purpose);
            return Ok(());
        }
        self.call(purpose, now, effects)
    }

    /// Whether one more call may be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.calls.len().saturating_sub(self.background_calls) < MOST_CALLS
    }

    /// Makes the calls that there is room for.
    pub(super) fn advance(&mut self, now: UnixMillis, effects: &mut Effects) {
        self.calls
            .retain(|call| !matches!(call.purpose, Purpose::Nothing { until } if until <= now));
        while self.has_room()
            && !self.circuit.is_open()
            && let Some(purpose) = self.queue.pop()
        {
            // A circuit that is closed refuses none.
            let _ = self.call(purpose, now, effects);
        }
    }

    /// Makes a call, unless the circuit is open: then its purpose comes back.
    #[allow(clippy::result_large_err, reason = "it comes back as it went in")]
    pub(super) fn call(
        &mut self,
        purpose: Purpose,
        now: UnixMillis,
        effects: &mut Effects,
    ) -> Result<(), Purpose> {
        let Some(permit) = self.circuit.permit(now) else {
            effects.count(Metric::StoreErrors(StoreError::CircuitOpen));
            return Err(purpose);
        };
        let ask = match &purpose {
            Purpose::Claim(claim) => self.remote.claim(&claim.source.name, &claim.request),
            Purpose::Retry(pending) | Purpose::Settle { pending, .. } => self
                .remote
                .settle(&pending.source.name, &pending.settlement),
            Purpose::Nothing { .. } => return Ok(()),
        };
        let id = CallId(self.next_call);
        self.next_call = self.next_call.wrapping_add(1);
        self.calls.push(Call {
            id,
            permit,
            purpose,
        });
        effects.push(Effect::Call { call: id, ask });
        Ok(())
    }

    /// Records the end of a call in the circuit and the metrics.
    pub(super) fn record(
        &mut self,
        permit: Permit,
        error: Option<StoreError>,
        now: UnixMillis,
        effects: &mut Effects,
    ) {
        let transition = match error {
            None => self.circuit.succeeded(permit),
            Some(error) => {
                effects.count(Metric::StoreErrors(error));
                self.circuit.failed(permit, now)
            }
        };
        effects.circuit(transition);
    }

    pub(super) fn settled(
        &mut self,
        pending: PendingSettlement,
        result: Result<bool, StoreError>,
        now: UnixMillis,
        effects: &mut Effects,
    ) {
        match result {
            Ok(true) => {}
            // Its lease has ended, and another request has claimed the event since.
            Ok(false) => drop_settlement(&pending, effects),
            Err(_) => self.schedule(pending.again(now), effects),
        }
    }

    pub(super) fn schedule(&mut self, pending: PendingSettlement, effects: &mut Effects) {
        if let Some(dropped) = self.retries.push(pending) {
            drop_settlement(&dropped, effects);
        }
    }

    pub(super) fn time(&mut self, now: UnixMillis, effects: &mut Effects) {
        self.advance(now, effects);
        while let Some(ended) = self.retries.next_ended(now) {
            drop_settlement(&ended, effects);
        }
        while self.background_calls < MOST_BACKGROUND_CALLS && self.circuit.would_permit(now) {
            let Some(pending) = self.retries.next_due(now) else {
                break;
            };
            if pending.is_retry {
                effects.count(Metric::SettleRetries);
            }
            match self.call(Purpose::Retry(pending), now, effects) {
                Ok(()) => self.background_calls = self.background_calls.saturating_add(1),
                Err(Purpose::Retry(pending)) => self.schedule(pending.again(now), effects),
                Err(_) => {}
            }
        }
    }
}

/// A settlement that will not be sent any more. Of a release nothing is lost: its lease has ended.
fn drop_settlement(pending: &PendingSettlement, effects: &mut Effects) {
    if matches!(pending.settlement, Settlement::Deliver { .. }) {
        effects.count_of(Some(pending.source.index), SourceMetric::SettleFailures);
    }
}
