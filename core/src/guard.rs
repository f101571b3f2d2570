//! The life of a request, from its head to the settling of its claim.
//!
//! [`Guard`] is the state of one request. Whoever drives it brings the events (head, body, the
//! store's answer, the upstream's answer, time) and does what the [`Step`] says. The guard calls
//! nobody and reads no clock.
//!
//! | state | event | step |
//! |---|---|---|
//! | (none) | head | [`Hold`](Step::Hold), [`Answer`](Step::Answer), [`Forward`](Step::Forward); no guard for what passes |
//! | draining: decided by its head | the end of the body | `Answer` |
//! | asked: refused by its head, unless its body is a challenge | the whole body | `Answer`, `Forward` |
//! | receiving | part of the body | `Hold`, `Answer`, `Forward` |
//! | receiving | the whole body | [`Claim`](Step::Claim), `Answer`, `Forward` |
//! | claiming | the store's answer | `Forward`, `Answer`, [`Wait`](Step::Wait) |
//! | waiting | time | `Claim`, `Answer` |
//! | decided | the outcome | a [`Settlement`], or none |
//!
//! The claim is kept outside the state, so that no change of state can lose it: it stays until
//! `Guard::settle` takes it.

use std::sync::Arc;

pub use crate::authenticate::Inputs;
use crate::authenticate::{Authentic, Pending, authenticate, challenge_or, check_head, limit};
use crate::challenge::{Asked, Challenges, MAX_UNVERIFIED_BYTES};
use crate::event::{EventKey, IdKey};
use crate::json::Scratch;
use crate::outcome::Outcome;
use crate::policy::{
    BodyChange, Destination, HoldHeaders, InFlight, Mode, OnBodyChange, OnUnknown, Policy, Source,
    Unmatched,
};
use crate::reply::Answer;
use crate::report::{Check, Report};
use crate::request::{Occurrence, RequestHead};
use crate::store::bucket::{Fingerprint, OwnerToken};
use crate::store::{ClaimAnswer, ClaimRequest, Settlement};
use crate::time::UnixMillis;
use crate::verdict::{Code, Rejection};

/// What to do with a request next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answer it here; the upstream must not see it.
    Answer(Answer),
    /// Ask the store for this claim, and bring its answer to [`Guard::answered`].
    Claim(ClaimRequest),
    /// Put [`Worker::upstream_headers`](crate::worker::Worker::upstream_headers) into it, and forward it.
    Forward,
    /// Hold it: there is more to come.
    Hold,
    /// Hold it, and call `Guard::woken` from time to time, until this moment at the latest: another
    /// request has claimed the event.
    Wait {
        /// When the wait ends.
        until: UnixMillis,
    },
}

/// Largest declared body, in bytes, for which a refusal by the head is delayed until the body has
/// arrived.
///
/// Envoy closes an HTTP/1 connection on which it answers before the request has ended: the sender
/// pays for a new one, and may lose the answer with the old one. A body of this size is in what Envoy
/// reads at once (16 KiB), so that nothing more is held for it; it is never taken into the VM.
///
/// Source: Envoy 1.40 as seen in `tests/envoy/refuse.rs`.
const AWAITED_BODY_BYTES: u64 = 16 << 10;

/// Why a near miss is refused: what an operator reads in the log.
const NEAR_MISS: &str =
    "the path is a near miss of the source's, which an application may take for it";

/// The state of one request.
#[derive(Clone, Debug)]
pub struct Guard {
    policy: Arc<Policy>,
    state: State,
    claim: Option<Claim>,
    report: Report,
}

#[derive(Clone, Debug)]
enum State {
    /// The head is in order; the body comes.
    Receiving(Callback),
    /// Decided by its head; answered when its short body has ended.
    Draining(Answer),
    /// Refused by its head, unless its short body proves to be a challenge.
    Asked(Arc<Source>, Asked<'static>, Rejection),
    /// The store has been asked. With the end of the wait, if it waits.
    Claiming(Verified, Option<UnixMillis>),
    /// Another request has claimed the event.
    Waiting(Verified, UnixMillis),
    /// Answered or forwarded.
    Decided,
}

/// A request whose head is in order.
#[derive(Clone, Debug)]
struct Callback {
    source: Arc<Source>,
    pending: Pending,
    since: UnixMillis,
}

/// A request that is authentic and well formed.
#[derive(Clone, Debug)]
struct Verified {
    source: Arc<Source>,
    authentic: Authentic,
    since: UnixMillis,
}

/// A claim that this request has to settle.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The source of the event.
    pub source: Arc<Source>,
    /// The event.
    pub key: EventKey,
    /// The end of its lease, or a little later: counted from the store's answer.
    pub lease_end: UnixMillis,
    /// Whether the local store granted it, because the shared one did not answer.
    pub is_fallback: bool,
    id: IdKey,
    owner: OwnerToken,
    fingerprint: Fingerprint,
}

impl Guard {
    /// The head is there. `ends` if no body will follow. `None` if the request matches no source and
    /// passes: nothing is to be done but to remove the reserved headers.
    #[must_use]
    pub fn open(
        policy: &Arc<Policy>,
        head: &RequestHead<'_>,
        ends: bool,
        now: UnixMillis,
    ) -> Option<(Self, Step)> {
        let mut guard = Self::of_no_head(policy);
        let (index, is_near_miss) = match policy.destination(head) {
            Destination::Source(index) => (index, false),
            Destination::NearMiss(index) => (index, true),
            Destination::Elsewhere if policy.unmatched == Unmatched::Pass => return None,
            Destination::Elsewhere => (usize::MAX, false),
        };
        let Some(source) = policy.sources.get(index).cloned() else {
            let rejection = Rejection::new(Code::NoSource);
            let step = guard.end_head(Mode::Enforce, rejection.into(), head, ends);
            return Some((guard, step));
        };
        guard.report.source = Some(Arc::clone(&source));
        if is_near_miss {
            let rejection = Rejection::because(Code::NoSource, NEAR_MISS);
            let step = guard.end_head(source.mode, rejection.into(), head, ends);
            return Some((guard, step));
        }
        if let Some(challenges) = &source.challenges
            && let Err(answer) = challenges.at_head(&source.scheme, head)
        {
            guard.report.check = Check::Challenge;
            let step = guard.end_head(source.mode, answer, head, ends);
            return Some((guard, step));
        }
        let step = match check_head(&source, head, now, &mut guard.report) {
            Err(rejection) => {
                let challenges = source.challenges.as_ref().filter(|_| !ends);
                let asks = |rules: &Challenges| rules.ask_refused(&source.media_types, head);
                match challenges.and_then(|challenges| asks(challenges)) {
                    Some(asked) => {
                        guard.state = State::Asked(source, asked, rejection);
                        Step::Hold
                    }
                    None => guard.end_head(source.mode, rejection.into(), head, ends),
                }
            }
            Ok(_) if ends => {
                guard.report.check = Check::Body;
                guard.refuse(source.mode, Rejection::new(Code::BodyEmpty))
            }
            Ok(pending) => {
                guard.state = State::Receiving(Callback {
                    source,
                    pending,
                    since: now,
                });
                Step::Hold
            }
        };
        Some((guard, step))
    }

    /// A request whose head cannot be read: nothing can be done with it but to [fail](Guard::fail).
    #[must_use]
    pub(crate) fn of_no_head(policy: &Arc<Policy>) -> Self {
        Self {
            policy: Arc::clone(policy),
            state: State::Decided,
            claim: None,
            report: Report::default(),
        }
    }

    /// What is known of the request.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// As [`Guard::report`], to add to it.
    pub(crate) fn report_mut(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Whether there is nothing left to decide: the request has been answered or forwarded.
    #[must_use]
    pub(crate) fn is_decided(&self) -> bool {
        matches!(self.state, State::Decided)
    }

    /// Whether the body has to be read: that of a request that is refused already need not be.
    #[must_use]
    pub(crate) fn reads_body(&self) -> bool {
        matches!(self.state, State::Receiving(_) | State::Asked(..))
    }

    /// The claim that this request has to settle.
    #[must_use]
    pub(crate) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// The event that another request has claimed, and how long this one waits for it.
    #[must_use]
    pub(crate) fn waits_for(&self) -> Option<(EventKey, UnixMillis)> {
        match &self.state {
            State::Waiting(verified, until) => Some((verified.authentic.key, *until)),
            _ => None,
        }
    }

    /// The source and the event of a claim that the store has been asked for and has not answered.
    #[must_use]
    pub(crate) fn asks_for(&self) -> Option<(&Arc<Source>, EventKey)> {
        match &self.state {
            State::Claiming(verified, _) => Some((&verified.source, verified.authentic.key)),
            _ => None,
        }
    }

    /// The rewritten path and query, if the original held a token: neither the upstream nor the access
    /// log may see that, whatever happens to the request.
    #[must_use]
    pub fn clean_target(&self, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        match &self.report.source {
            Some(source) => source.clean_target(head),
            None => self.policy.hidden_target(),
        }
    }

    /// Ends a request by its head; at once, or for a short body once that has ended.
    fn end_head(&mut self, mode: Mode, answer: Answer, head: &RequestHead<'_>, ends: bool) -> Step {
        // What is upgraded has no end, whatever it declares.
        let is_short = head.occurrence(b"upgrade") == Occurrence::Missing
            && head
                .declared_length()
                .is_some_and(|length| length <= AWAITED_BODY_BYTES);
        // Elsewhere holding the head means to let it go as far as Envoy's buffer filter.
        let holds = self.policy.hold_headers == HoldHeaders::Filter;
        if ends || !is_short || !holds || mode == Mode::Monitor {
            return self.end(mode, answer);
        }
        self.state = State::Draining(answer);
        Step::Hold
    }

    /// `received` bytes of the body are there, in all, and more will come.
    pub(crate) fn body_grew(&mut self, received: usize) -> Step {
        let source = match &self.state {
            State::Draining(_) => return Step::Hold,
            State::Receiving(callback) => &callback.source,
            State::Asked(..) if received <= MAX_UNVERIFIED_BYTES => return Step::Hold,
            State::Asked(source, _, rejection) => {
                let (mode, rejection) = (source.mode, rejection.clone());
                return self.refuse(mode, rejection);
            }
            _ => return self.fail(),
        };
        self.report.body_bytes = Some(received);
        if received <= source.max_body_bytes {
            return Step::Hold;
        }
        self.report.check = Check::Body;
        let rejection = Rejection::too_large(limit(source));
        self.refuse(source.mode, rejection)
    }

    /// The worker holds as much as it may, and this body grows: the request is refused.
    pub(crate) fn overloaded(&mut self) -> Step {
        let mode = self.report.mode();
        self.refuse(mode, Rejection::new(Code::Overloaded))
    }

    /// The whole body is there; an empty one will do where `Guard::reads_body` says no.
    pub fn body_ended(&mut self, body: &[u8], inputs: &Inputs, scratch: &mut Scratch) -> Step {
        match self.take_state() {
            State::Draining(answer) => self.end(Mode::Enforce, answer),
            State::Asked(source, asked, rejection) => {
                self.report.body_bytes = Some(body.len());
                let answer = challenge_or(rejection, &source, Some(&asked), body, scratch);
                if answer.is_of_challenge() {
                    self.report.check = Check::Challenge;
                }
                self.end(source.mode, answer)
            }
            State::Receiving(Callback {
                source,
                pending,
                since,
            }) => {
                self.report.body_bytes = Some(body.len());
                self.record_held(since, inputs.now);
                let report = &mut self.report;
                match authenticate(
                    &self.policy,
                    &source,
                    &pending,
                    body,
                    inputs,
                    scratch,
                    report,
                ) {
                    Err(answer) => self.end(source.mode, answer),
                    Ok(_) if !source.dedupe.is_on => self.forward(Code::Forwarded),
                    Ok(authentic) => {
                        let verified = Verified {
                            source,
                            authentic,
                            since,
                        };
                        self.ask(verified, None)
                    }
                }
            }
            _ => self.fail(),
        }
    }

    /// The sender has left before its body ended. The verdict that it would have had, if there was
    /// one: it counts, and nobody is answered.
    pub(crate) fn left(&mut self) -> Option<Code> {
        let State::Draining(_) = self.state else {
            return None;
        };
        if let State::Draining(answer) = self.take_state() {
            self.end(Mode::Enforce, answer);
        }
        self.report.verdict
    }

    /// The store has answered to the claim.
    pub fn answered(&mut self, answer: ClaimAnswer, now: UnixMillis) -> Step {
        let State::Claiming(verified, until) = self.take_state() else {
            return self.fail();
        };
        self.record_held(verified.since, now);
        let (mode, dedupe) = (verified.source.mode, &verified.source.dedupe);
        let code = match answer {
            ClaimAnswer::Granted | ClaimAnswer::GrantedLocally => {
                let Verified {
                    source, authentic, ..
                } = verified;
                self.claim = Some(Claim {
                    key: authentic.key,
                    id: authentic.id,
                    owner: authentic.owner,
                    fingerprint: authentic.fingerprint,
                    lease_end: now.plus_seconds(source.dedupe.lease_seconds),
                    is_fallback: answer == ClaimAnswer::GrantedLocally,
                    source,
                });
                return self.forward(Code::Forwarded);
            }
            ClaimAnswer::ClaimedByAnother => {
                if let (Mode::Enforce, InFlight::Wait { seconds }) = (mode, dedupe.in_flight) {
                    // The clock may have stepped back since the wait began.
                    let latest = now.plus_seconds(seconds);
                    let until = until.map_or(latest, |until| until.min(latest));
                    if now < until {
                        self.state = State::Waiting(verified, until);
                        return Step::Wait { until };
                    }
                }
                Code::InFlight
            }
            ClaimAnswer::Delivered(delivered)
                if self.report.is_new_message
                    || verified.authentic.fingerprint.has_body_of(delivered) =>
            {
                Code::Duplicate
            }
            ClaimAnswer::Delivered(delivered) => {
                self.report.body_changed = true;
                match dedupe.on_body_change {
                    OnBodyChange::Acknowledge => Code::Duplicate,
                    OnBodyChange::Reject => Code::BodyChanged,
                    OnBodyChange::Forward => return self.forward(Code::Forwarded),
                    OnBodyChange::Auto => {
                        let own = verified.authentic.fingerprint;
                        let is_new = match verified.source.body_change() {
                            BodyChange::Duplicate => false,
                            BodyChange::NewIfSignedApart => own.is_signed_apart_from(delivered),
                            BodyChange::NewMessage => true,
                        };
                        if is_new {
                            return self.ask_as_new_message(verified);
                        }
                        Code::Duplicate
                    }
                }
            }
            ClaimAnswer::TooMany => Code::TooManyEvents,
            ClaimAnswer::Full => Code::StoreFull,
            ClaimAnswer::Unavailable if self.policy.passes_unclaimed() => {
                return self.forward(Code::Forwarded);
            }
            ClaimAnswer::Unavailable => Code::StoreUnavailable,
        };
        self.decide(mode, code)
    }

    /// Time has passed for a request that waits: it asks for its claim again.
    ///
    /// At the deadline it asks for the last time; [`Guard::answered`] then refuses it.
    pub(crate) fn woken(&mut self) -> Step {
        match self.take_state() {
            State::Waiting(verified, until) => self.ask(verified, Some(until)),
            _ => self.fail(),
        }
    }

    /// Too many wait already: the request is refused instead.
    pub(crate) fn cannot_wait(&mut self) -> Step {
        match self.take_state() {
            State::Waiting(verified, _) => self.decide(verified.source.mode, Code::InFlight),
            _ => self.fail(),
        }
    }

    /// The outcome is known. How to settle the claim; `None` if there is none to settle, or if it is
    /// left to its lease.
    pub(crate) fn settle(&mut self, outcome: Outcome) -> Option<Settlement> {
        let Claim {
            source,
            key,
            id,
            owner,
            fingerprint,
            ..
        } = self.claim.take()?;
        match (outcome, source.dedupe.on_unknown) {
            (Outcome::Accepted, _) => Some(Settlement::Deliver {
                key,
                id,
                owner,
                fingerprint,
                window_seconds: source.dedupe.window_seconds,
            }),
            (Outcome::Unknown, OnUnknown::Hold) => None,
            (Outcome::Refused | Outcome::NotReached | Outcome::Unknown, _) => {
                Some(Settlement::Release { key, id, owner })
            }
        }
    }

    /// What the request needs cannot be read or done, or this was called in the wrong state: it is
    /// refused, whatever the mode, because it was not verified or cannot be marked as such. Its claim,
    /// if it has one, stays to be settled.
    pub(crate) fn fail(&mut self) -> Step {
        self.state = State::Decided;
        self.report.is_forwarded = false;
        let rejection = Rejection::because(Code::InternalError, "the request could not be read");
        self.refuse(Mode::Enforce, rejection)
    }

    fn take_state(&mut self) -> State {
        core::mem::replace(&mut self.state, State::Decided)
    }

    fn record_held(&mut self, since: UnixMillis, now: UnixMillis) {
        self.report.held_millis = Some(now.millis_since(since));
    }

    /// Asks for the event that a new message under a delivered one's key is.
    fn ask_as_new_message(&mut self, verified: Verified) -> Step {
        let Verified {
            source,
            authentic,
            since,
        } = verified;
        let Some(authentic) = authentic.into_new_message() else {
            return self.fail();
        };
        self.report.is_new_message = true;
        self.report.key = Some(authentic.key);
        let verified = Verified {
            source,
            authentic,
            since,
        };
        self.ask(verified, None)
    }

    /// The claim is not granted at once, and `body` is still there: keeps what may be needed of it.
    pub(crate) fn keep_digest(&mut self, body: &[u8]) {
        if let State::Claiming(verified, _) = &mut self.state
            && verified.source.dedupe.on_body_change == OnBodyChange::Auto
            && verified.source.body_change() != BodyChange::Duplicate
        {
            verified.authentic.keep_digest(body);
        }
    }

    fn ask(&mut self, verified: Verified, until: Option<UnixMillis>) -> Step {
        let request = ClaimRequest {
            key: verified.authentic.key,
            id: verified.authentic.id,
            events_per_id: verified.source.dedupe.events_per_id,
            owner: verified.authentic.owner,
            lease_seconds: verified.source.dedupe.lease_seconds,
        };
        self.state = State::Claiming(verified, until);
        Step::Claim(request)
    }

    /// A verdict on a request that is authentic, but is not to be forwarded.
    fn decide(&mut self, mode: Mode, code: Code) -> Step {
        match mode {
            Mode::Monitor => self.forward(code),
            Mode::Enforce if code == Code::Duplicate => self.end(mode, Answer::Duplicate),
            Mode::Enforce => self.refuse(mode, Rejection::new(code)),
        }
    }

    /// Answers a request, or forwards it all the same in monitor mode.
    fn end(&mut self, mode: Mode, answer: Answer) -> Step {
        let code = match answer {
            Answer::Refuse(rejection) => return self.refuse(mode, rejection),
            Answer::Challenge(_) => Code::Challenge,
            Answer::Duplicate => Code::Duplicate,
        };
        self.state = State::Decided;
        match mode {
            Mode::Monitor => self.forward(code),
            Mode::Enforce => {
                self.report.verdict = Some(code);
                Step::Answer(answer)
            }
        }
    }

    fn refuse(&mut self, mode: Mode, rejection: Rejection) -> Step {
        let code = rejection.code();
        self.state = State::Decided;
        self.report.rejection = Some(rejection.clone());
        match mode {
            Mode::Monitor => self.forward(code),
            Mode::Enforce => {
                self.report.verdict = Some(code);
                Step::Answer(Answer::Refuse(rejection))
            }
        }
    }

    fn forward(&mut self, verdict: Code) -> Step {
        self.report.verdict = Some(verdict);
        self.report.is_forwarded = true;
        Step::Forward
    }
}
