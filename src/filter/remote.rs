//! Carries claims and settlements to a store that many proxies share, and its answers back.
//!
//! The process's own store is asked first: what this proxy has delivered itself, or has in flight,
//! needs no round trip, and a request that falls back on it (`on_error: "memory"`) has its claim
//! there already. Only a claim that the own store grants is asked for in the shared one.
//!
//! Every call is made under the root context, which lives as long as the VM: one that is made for
//! a stream is cut off when that stream ends, and a settlement would be lost. The SDK hands the
//! answer to whichever context was active when the call was made, and drops it where that stream
//! is gone; so a stream that ends leaves what it has in flight to the [`Backlog`], and errands run
//! from the root alone.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use super::host::{self, Shared};
use super::{Flow, Moment, Waiting, Worker, dispatch, now};
use callback_guard_core::guard::Guard;
use callback_guard_core::outcome::Outcome;
use callback_guard_core::pairs;
use callback_guard_core::policy::Policy;
use callback_guard_core::store::circuit::{Circuit, Permit};
use callback_guard_core::store::redis::{MAX_REPLY_BYTES, Remote, StoreError};
use callback_guard_core::store::retries::{Backlog, Errand};
use callback_guard_core::store::{ClaimAnswer, ClaimRequest, Settlement};
use callback_guard_core::time::UnixMillis;

/// How many errands run at the same time.
const MOST_ERRANDS: usize = 8;
/// How long a waiting request pauses before it asks the shared store again, in milliseconds;
/// doubled each time, up to [`LONGEST_PAUSE_MILLIS`].
const FIRST_PAUSE_MILLIS: u64 = 40;
/// The longest pause of a waiting request, in milliseconds.
const LONGEST_PAUSE_MILLIS: u64 = 640;

/// The longest response body that is held until its claim is settled, in bytes.
///
/// Half of the smallest buffer that Envoy's advice on edge proxies gives a connection (32 KiB):
/// what does not fit its buffer, Envoy would answer with a 500. A longer response goes on at once.
pub(super) const MAX_HELD_RESPONSE_BYTES: usize = 16 << 10;

/// The shared store, as one VM sees it.
pub(super) struct Line {
    root: u32,
    circuit: Cell<Circuit>,
    calls: RefCell<Vec<Call>>,
    backlog: RefCell<Backlog>,
    errands: Cell<usize>,
}

/// A call on its way.
struct Call {
    token: u32,
    permit: Permit,
    purpose: Purpose,
}

enum Purpose {
    Claim {
        context: u32,
        guard: Rc<RefCell<Guard>>,
        request: ClaimRequest,
        holds_here: bool,
    },
    Errand(Errand),
    Settle {
        context: u32,
        is_held: Rc<Cell<bool>>,
        errand: Errand,
    },
}

impl Purpose {
    fn context(&self) -> Option<u32> {
        match self {
            Self::Claim { context, .. } | Self::Settle { context, .. } => Some(*context),
            Self::Errand(_) => None,
        }
    }
}

impl Line {
    pub(super) fn new(root: u32) -> Self {
        Self {
            root,
            circuit: Cell::default(),
            calls: RefCell::default(),
            backlog: RefCell::default(),
            errands: Cell::new(0),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.circuit.get().is_open()
    }

    pub(super) fn has_errands(&self) -> bool {
        self.backlog
            .try_borrow()
            .is_ok_and(|backlog| !backlog.is_empty())
    }

    fn keep(&self, call: Call) {
        if let Ok(mut calls) = self.calls.try_borrow_mut() {
            calls.push(call);
        }
    }

    fn take(&self, is_it: impl Fn(&Call) -> bool) -> Option<Call> {
        let mut calls = self.calls.try_borrow_mut().ok()?;
        let at = calls.iter().position(is_it)?;
        Some(calls.swap_remove(at))
    }
}

impl Worker {
    fn line(&self) -> Option<(&Line, &Remote)> {
        Some((self.line.as_ref()?, self.policy.remote.as_ref()?))
    }

    /// Asks the stores for a claim. Nothing if the answer comes later.
    pub(super) fn ask(
        &self,
        context: u32,
        shared_guard: &Rc<RefCell<Guard>>,
        guard: &Guard,
        request: &ClaimRequest,
        now: UnixMillis,
    ) -> Option<ClaimAnswer> {
        let (here, change) = self.store.claim(&mut Shared, request, now);
        self.metrics.change(change);
        let Some((line, remote)) = self.line() else {
            return Some(here);
        };
        let holds_here = match here {
            ClaimAnswer::Granted => true,
            ClaimAnswer::Full | ClaimAnswer::Unavailable => false,
            answer => return Some(answer),
        };
        let source = source_name(&self.policy, guard.source());
        let body = remote.claim(source, request);
        match self.call(line, remote, &body, context, now) {
            Ok((token, permit)) => {
                let purpose = Purpose::Claim {
                    context,
                    guard: Rc::clone(shared_guard),
                    request: *request,
                    holds_here,
                };
                line.keep(Call {
                    token,
                    permit,
                    purpose,
                });
                None
            }
            Err(error) => Some(self.resolve(remote, guard, Err(error), holds_here, request, now)),
        }
    }

    /// Makes a call, unless the circuit is open.
    fn call(
        &self,
        line: &Line,
        remote: &Remote,
        body: &str,
        context: u32,
        now: UnixMillis,
    ) -> Result<(u32, Permit), StoreError> {
        let mut circuit = line.circuit.get();
        let permit = circuit.permit(now);
        line.circuit.set(circuit);
        let Some(permit) = permit else {
            self.metrics.store_error(StoreError::CircuitOpen);
            return Err(StoreError::CircuitOpen);
        };
        let token = host::set_effective_context(line.root)
            .ok()
            .and_then(|()| dispatch(remote, body));
        // The stream whose callback this is exists.
        let _ = host::set_effective_context(context);
        let Some(token) = token else {
            self.note(line, permit, Some(StoreError::Unreachable), now);
            return Err(StoreError::Unreachable);
        };
        Ok((token, permit))
    }

    /// Tells the circuit and the metrics how a call has ended.
    fn note(&self, line: &Line, permit: Permit, error: Option<StoreError>, now: UnixMillis) {
        let mut circuit = line.circuit.get();
        let turn = match error {
            None => circuit.succeeded(permit),
            Some(error) => {
                self.metrics.store_error(error);
                circuit.failed(permit, now)
            }
        };
        line.circuit.set(circuit);
        self.metrics.circuit(turn);
    }

    /// What the guard is told of the shared store's answer, or of its silence.
    fn resolve(
        &self,
        remote: &Remote,
        guard: &Guard,
        result: Result<ClaimAnswer, StoreError>,
        holds_here: bool,
        request: &ClaimRequest,
        now: UnixMillis,
    ) -> ClaimAnswer {
        if result.is_err() {
            self.metrics.store_fallback();
        }
        let resolved = remote.on_error.resolve(result, holds_here);
        if holds_here && !resolved.keeps_here {
            self.release_here(request, now);
        }
        if resolved.releases_there {
            self.release_there(guard, request, now, now);
        }
        resolved.answer
    }

    fn release_here(&self, request: &ClaimRequest, now: UnixMillis) {
        if let Ok((_, change)) = self.store.settle(&mut Shared, &release(request), now) {
            self.metrics.change(change);
        }
    }

    /// Has the shared store told, from `due` on, that a claim it may hold is void.
    fn release_there(
        &self,
        guard: &Guard,
        request: &ClaimRequest,
        now: UnixMillis,
        due: UnixMillis,
    ) {
        let until = now.plus_seconds(request.lease_seconds);
        if let Some(source) = guard.source() {
            self.put_off(Errand::new(source, release(request), until, due));
        }
    }

    /// Leaves a settlement to the backlog.
    fn put_off(&self, errand: Errand) {
        let Some((line, _)) = self.line() else { return };
        let dropped = match line.backlog.try_borrow_mut() {
            Ok(mut backlog) => backlog.push(errand),
            Err(_) => Some(errand),
        };
        if let Some(dropped) = dropped {
            self.give_up(&dropped);
        }
        self.adjust_tick();
    }

    fn give_up(&self, errand: &Errand) {
        if matches!(errand.settlement, Settlement::Deliver { .. }) {
            self.metrics.settle_failure(Some(errand.source));
        }
    }

    /// Settles in the shared store what is settled in the own one. True if the response has to be
    /// held until its answer.
    pub(super) fn settle_there(
        &self,
        stream: Option<(u32, &Rc<Cell<bool>>)>,
        errand: Errand,
        now: UnixMillis,
    ) -> bool {
        let Some((line, remote)) = self.line() else {
            return false;
        };
        if let Some((context, is_held)) = stream {
            let source = source_name(&self.policy, Some(errand.source));
            let body = remote.settle(source, &errand.settlement);
            if let Ok((token, permit)) = self.call(line, remote, &body, context, now) {
                is_held.set(true);
                let purpose = Purpose::Settle {
                    context,
                    is_held: Rc::clone(is_held),
                    errand,
                };
                line.keep(Call {
                    token,
                    permit,
                    purpose,
                });
                return true;
            }
            self.put_off(errand.again(now));
            return false;
        }
        self.put_off(errand);
        false
    }

    /// A call has been answered, or has failed.
    pub(super) fn on_call_response(&self, token: u32, header_count: usize) {
        let Some((line, remote)) = self.line() else {
            return;
        };
        let Some(Call {
            permit, purpose, ..
        }) = line.take(|call| call.token == token)
        else {
            return;
        };
        let now = now();
        let reply = read_reply(line.root, header_count);
        let read_settle = || match &reply {
            Ok((status, body)) => remote.read_settle(*status, body),
            Err(error) => Err(*error),
        };
        match purpose {
            Purpose::Claim {
                context,
                guard,
                request,
                holds_here,
            } => {
                let result = match &reply {
                    Ok((status, body)) => remote.read_claim(*status, body, request.owner),
                    Err(error) => Err(*error),
                };
                self.note(line, permit, result.err(), now);
                self.on_claim_answer(remote, context, &guard, &request, holds_here, result, now);
            }
            Purpose::Settle {
                context,
                is_held,
                errand,
            } => {
                let result = read_settle();
                self.note(line, permit, result.err(), now);
                self.on_settle_answer(errand, result, now);
                if is_held.replace(false) && host::set_effective_context(context).is_ok() {
                    // If the stream is gone after all, nobody waits for it.
                    let _ = host::resume_response();
                }
            }
            Purpose::Errand(errand) => {
                line.errands.set(line.errands.get().saturating_sub(1));
                let result = read_settle();
                self.note(line, permit, result.err(), now);
                self.on_settle_answer(errand, result, now);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one call")]
    fn on_claim_answer(
        &self,
        remote: &Remote,
        context: u32,
        shared_guard: &Rc<RefCell<Guard>>,
        request: &ClaimRequest,
        holds_here: bool,
        result: Result<ClaimAnswer, StoreError>,
        now: UnixMillis,
    ) {
        let Ok(mut guard) = shared_guard.try_borrow_mut() else {
            return;
        };
        if host::set_effective_context(context).is_err() {
            // The stream is gone: what it may have got nobody will use.
            if holds_here {
                self.release_here(request, now);
            }
            self.release_there(&guard, request, now, now);
            self.stop_waiting(context);
            return;
        }
        let answer = self.resolve(remote, &guard, result, holds_here, request, now);
        let decision = guard.on_store(&self.policy, answer, now);
        match self.carry_out(
            context,
            shared_guard,
            &mut guard,
            decision,
            &Moment::at(now),
        ) {
            Flow::Held => self.back_off(context, &guard, now),
            Flow::Answered => self.stop_waiting(context),
            Flow::SentOn => {
                self.stop_waiting(context);
                // If the stream is gone after all, its end settles the claim.
                let _ = host::resume_request();
            }
        }
    }

    fn on_settle_answer(&self, errand: Errand, result: Result<bool, StoreError>, now: UnixMillis) {
        match result {
            Ok(true) => {}
            // Its lease has ended, and another request has claimed the event since.
            Ok(false) => self.give_up(&errand),
            Err(_) => self.put_off(errand.again(now)),
        }
    }

    /// Has a waiting request pause before it asks the shared store again.
    fn back_off(&self, context: u32, guard: &Guard, now: UnixMillis) {
        let (Ok(mut waiting), Some(deadline)) =
            (self.waiting.try_borrow_mut(), guard.waits_until())
        else {
            return;
        };
        if let Some(one) = waiting.iter_mut().find(|one| one.context == context) {
            let pause = one
                .pause_millis
                .saturating_mul(2)
                .clamp(FIRST_PAUSE_MILLIS, LONGEST_PAUSE_MILLIS);
            one.pause_millis = pause;
            let next = UnixMillis::new(now.as_millis().saturating_add(pause));
            one.next = next.min(deadline);
        }
    }

    /// Whether a waiting request may ask now: it has not asked already, and its pause is over.
    pub(super) fn is_due(one: &Waiting, now: UnixMillis) -> bool {
        one.next <= now && one.guard.try_borrow().is_ok_and(|guard| !guard.is_asking())
    }

    /// Runs the errands that are due.
    pub(super) fn run_errands(&self, now: UnixMillis) {
        let Some((line, remote)) = self.line() else {
            return;
        };
        let take = |take: fn(&mut Backlog, UnixMillis) -> Option<Errand>| {
            let mut backlog = line.backlog.try_borrow_mut().ok()?;
            take(&mut backlog, now)
        };
        while let Some(ended) = take(Backlog::next_ended) {
            self.give_up(&ended);
        }
        while line.errands.get() < MOST_ERRANDS && line.circuit.get().would_permit(now) {
            let Some(errand) = take(Backlog::next_due) else {
                break;
            };
            if errand.is_retry {
                self.metrics.settle_retry();
            }
            let source = source_name(&self.policy, Some(errand.source));
            let body = remote.settle(source, &errand.settlement);
            match self.call(line, remote, &body, line.root, now) {
                Ok((token, permit)) => {
                    line.errands.set(line.errands.get().saturating_add(1));
                    let purpose = Purpose::Errand(errand);
                    line.keep(Call {
                        token,
                        permit,
                        purpose,
                    });
                }
                Err(_) => self.put_off(errand.again(now)),
            }
        }
    }

    /// A stream ends: what it has in flight goes to the backlog, for its answer will reach nobody.
    pub(super) fn abandon(&self, context: u32, guard: &Guard, is_held: &Cell<bool>) {
        let Some((line, remote)) = self.line() else {
            return;
        };
        let is_of_stream = |call: &Call| call.purpose.context() == Some(context);
        let Some(Call {
            permit, purpose, ..
        }) = line.take(is_of_stream)
        else {
            return;
        };
        let now = now();
        let mut circuit = line.circuit.get();
        circuit.abandoned(permit, now);
        line.circuit.set(circuit);
        // The call may still arrive until it times out: what comes before it would be undone.
        let due = UnixMillis::new(now.as_millis().saturating_add(remote.timeout_millis));
        match purpose {
            Purpose::Claim {
                request,
                holds_here,
                ..
            } => {
                if holds_here {
                    self.release_here(&request, now);
                }
                self.release_there(guard, &request, now, due);
            }
            Purpose::Settle { errand, .. } => {
                is_held.set(false);
                self.put_off(Errand::new(
                    errand.source,
                    errand.settlement,
                    errand.until,
                    due,
                ));
            }
            Purpose::Errand(errand) => self.put_off(errand),
        }
    }
}

/// Whether the sender waits for a response whose claim this outcome settles.
pub(super) fn is_response(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Accepted | Outcome::Refused)
}

fn release(request: &ClaimRequest) -> Settlement {
    Settlement::Release {
        key: request.key,
        owner: request.owner,
    }
}

fn source_name(policy: &Policy, source: Option<usize>) -> &str {
    source
        .and_then(|index| policy.sources.get(index))
        .map_or("", |source| &source.name)
}

/// The status and the body of the reply to a call-out.
fn read_reply(root: u32, header_count: usize) -> Result<(u16, Vec<u8>), StoreError> {
    // A connection that broke has no headers at all.
    if header_count == 0 || host::set_effective_context(root).is_err() {
        return Err(StoreError::Unreachable);
    }
    let bytes = host::call_header_pairs().map_err(|_| StoreError::Unreachable)?;
    let pairs = pairs::decode(&bytes).ok_or(StoreError::Malformed)?;
    let status = pairs
        .iter()
        .find(|(name, _)| *name == b":status")
        .and_then(|(_, value)| core::str::from_utf8(value).ok()?.parse().ok())
        .ok_or(StoreError::Malformed)?;
    // One byte more than is allowed shows that there is more.
    let body =
        host::call_body(MAX_REPLY_BYTES.saturating_add(1)).map_err(|_| StoreError::Unreachable)?;
    Ok((status, body))
}
