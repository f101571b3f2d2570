//! What is done for one request of a worker, whichever callback runs.

use std::borrow::Cow;
use std::sync::Arc;

use super::exchange::Exchange;
use super::held::Held;
use super::verdict::Verdict;
use super::waiting::Waiting;
use crate::authenticate::Inputs;
use crate::effect::{Effect, Effects, Io, StreamId};
use crate::guard::{Guard, Step};
use crate::json::Scratch;
use crate::log::{Limiter, LogLine, Refusal};
use crate::metrics::SourceMetric;
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::reply::Reply;
use crate::report::EntryTexts;
use crate::store::owners::Owners;
use crate::store::stores::{Settling, Stores};
use crate::store::{ClaimAnswer, SharedData};

/// All that a worker has but its requests.
#[derive(Clone, Debug)]
pub(super) struct Resources {
    pub(super) policy: Arc<Policy>,
    pub(super) stores: Stores,
    pub(super) waiting: Waiting,
    pub(super) effects: Effects,
    pub(super) scratch: Scratch,
    pub(super) owners: Owners,
    /// Which refusals are logged.
    pub(super) refusals: Limiter,
    pub(super) held: Held,
}

impl Resources {
    /// Counts the bytes that are held for a request. False if there is no room for more of them.
    pub(super) fn hold(&mut self, exchange: &mut Exchange, received: usize) -> bool {
        let most = self.policy.max_held_bytes;
        self.held
            .hold(&mut exchange.held, received, most, &mut self.effects)
    }

    /// A request is decided, or gone: nothing is held for it any more.
    pub(super) fn let_go(&mut self, exchange: &mut Exchange) {
        self.held.let_go(&mut exchange.held, &mut self.effects);
    }

    /// Has the guard judge the whole body.
    pub(super) fn judge_body<'b, S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        exchange: &mut Exchange,
        read: &dyn Fn(usize) -> Option<Cow<'b, [u8]>>,
    ) -> Verdict {
        let (guard, received) = (&mut exchange.guard, exchange.received);
        let (Ok(salt), owner, now) = (self.stores.salt(io), self.owners.next(), io.now()) else {
            let step = guard.fail();
            return self.carry_on(io, stream, exchange, step);
        };
        let inputs = Inputs { now, owner, salt };
        if !guard.reads_body() {
            let step = guard.body_ended(&[], &inputs, &mut self.scratch);
            return self.carry_on(io, stream, exchange, step);
        }
        let body = match read(received) {
            Some(body) if body.len() == received => body,
            _ => {
                let step = guard.fail();
                return self.carry_on(io, stream, exchange, step);
            }
        };
        let bytes = u64::try_from(received).unwrap_or(u64::MAX);
        self.effects.record_of(
            guard.report().source_index(),
            SourceMetric::BodyBytes,
            bytes,
        );
        let step = guard.body_ended(&body, &inputs, &mut self.scratch);
        let verdict = self.carry_out(io, stream, guard, step, Some(&body));
        if exchange.guard.is_decided() {
            self.let_go(exchange);
        }
        verdict
    }

    /// As [`Resources::carry_out`], where the body is not at hand.
    pub(super) fn carry_on<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        exchange: &mut Exchange,
        step: Step,
    ) -> Verdict {
        let verdict = self.carry_out(io, stream, &mut exchange.guard, step, None);
        if exchange.guard.is_decided() {
            self.let_go(exchange);
        }
        verdict
    }

    /// Does what the guard says, until the request is answered, forwarded or held.
    #[inline(never)]
    pub(super) fn carry_out<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        guard: &mut Guard,
        mut step: Step,
        body: Option<&[u8]>,
    ) -> Verdict {
        loop {
            step = match step {
                Step::Answer(answer) => {
                    self.tell(io, stream, guard);
                    return Verdict::Reply(Reply::new(&answer, self.policy.expose_reason));
                }
                Step::Claim(request) => {
                    let Some((source, _)) = guard.asks_for() else {
                        return Verdict::Hold;
                    };
                    match self
                        .stores
                        .claim(io, stream, source, &request, &mut self.effects)
                    {
                        Some(answer) => {
                            if let Some(body) = body
                                && answer != ClaimAnswer::Granted
                            {
                                guard.keep_digest(body);
                            }
                            guard.answered(answer, io.now())
                        }
                        None => return Verdict::Hold,
                    }
                }
                Step::Forward => {
                    self.tell(io, stream, guard);
                    return Verdict::Forward;
                }
                Step::Hold => return Verdict::Hold,
                Step::Wait { .. } => {
                    let Some((key, _)) = guard.waits_for() else {
                        return Verdict::Hold;
                    };
                    if self.waiting.join(key, stream) {
                        let source = guard.report().source_index();
                        self.effects.count_of(source, SourceMetric::Waits);
                        return Verdict::Hold;
                    }
                    guard.cannot_wait()
                }
            };
        }
    }

    /// Records a verdict in the metrics, the access log, the inspector and, if it is a refusal, the log.
    #[inline(never)]
    pub(super) fn tell<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        stream: StreamId,
        guard: &mut Guard,
    ) {
        let report = guard.report_mut();
        let Some(verdict) = report.verdict else {
            return;
        };
        let source = report.source_index();
        let effects = &mut self.effects;
        effects.count_of(source, SourceMetric::Verdicts(verdict));
        if report.body_changed {
            effects.count_of(source, SourceMetric::BodyChanges);
        }
        if let Some(millis) = report.held_millis {
            effects.record_of(source, SourceMetric::DecisionMillis, millis);
        }
        effects.push(Effect::Verdict(stream, verdict));
        if report.rejection.is_some() {
            if let Some(count) = self.refusals.left_out(io.now()) {
                effects.push(Effect::Log(Box::new(LogLine::LeftOut(count))));
            }
            if self.refusals.refused(io.now()) == Refusal::Logged
                && let Some(line) = LogLine::of(report)
            {
                effects.push(Effect::Log(Box::new(line)));
            }
        }
        if let Some(inspector) = &self.policy.inspector
            && inspector.records
        {
            let slot = report
                .entry(&mut EntryTexts::default(), io.now())
                .and_then(|entry| inspector.write(io.shared, &entry));
            report.slot = slot.filter(|_| report.is_forwarded);
        }
    }

    /// Records the outcome of a forwarded request in the inspector; once.
    pub(super) fn show_outcome<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        guard: &mut Guard,
        outcome: Outcome,
        status: u64,
    ) {
        if let Some(inspector) = &self.policy.inspector
            && let Some(slot) = guard.report_mut().slot.take()
        {
            inspector.answered(io.shared, slot, outcome, status);
        }
    }

    /// Settles the claim of a request, if it has one. True if the response of `holder` is to be held
    /// until the shared store has answered.
    #[inline(never)]
    pub(super) fn settle<S: SharedData>(
        &mut self,
        io: &mut Io<'_, S>,
        guard: &mut Guard,
        outcome: Outcome,
        holder: Option<StreamId>,
    ) -> bool {
        let Some(claim) = guard.claim() else {
            return false;
        };
        let (source, lease_end) = (Arc::clone(&claim.source), claim.lease_end);
        // A fallback claim has already waited for a time-out: its response does not wait again.
        let holder = holder.filter(|_| !claim.is_fallback);
        self.effects
            .count_of(Some(source.index), SourceMetric::Outcomes(outcome));
        let Some(settlement) = guard.settle(outcome) else {
            return false;
        };
        let settling = Settling {
            source,
            settlement,
            lease_end,
        };
        self.stores.settle(io, settling, holder, &mut self.effects)
    }
}
