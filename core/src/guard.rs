//! The way of a request, from its head to the settling of its claim.
//!
//! [`Guard`] is the state of one request. Whoever drives it — the filter in Envoy, a fake host in
//! the tests — brings the facts (headers, body, the store's answer, the upstream's answer, the
//! time) and does what the [`Decision`] says. The guard calls nobody and reads no clock.
//!
//! | state | fact | decision |
//! |---|---|---|
//! | start | head | [`Hold`](Decision::Hold), [`Answer`](Decision::Answer), [`Forward`](Decision::Forward), [`Pass`](Decision::Pass) |
//! | refused | the end of the body | `Answer` |
//! | held | part of the body | `Hold`, `Answer`, `Forward` |
//! | held | the whole body | [`Claim`](Decision::Claim), `Answer`, `Forward` |
//! | asking | the store's answer | `Forward`, `Answer`, [`Wait`](Decision::Wait) |
//! | waiting | time | `Claim`, `Answer` |
//! | claimed | the outcome | a [`Settlement`], or none |

use crate::authenticate::{Authentic, Facts, Pending, Told, authenticate, check_head, limit};
use crate::event::EventKey;
use crate::inspector::Notes;
use crate::json::Scratch;
use crate::message_id::MessageId;
use crate::outcome::Outcome;
use crate::policy::{
    Destination, HoldHeaders, InFlight, Mode, OnBodyChange, OnUnknown, Policy, Source, Unmatched,
};
use crate::request::RequestHead;
use crate::scheme::Proof;
use crate::store::bucket::{Fingerprint, OwnerToken};
use crate::store::{ClaimAnswer, ClaimRequest, Settlement};
use crate::time::UnixMillis;
use crate::verdict::{Code, Rejection};

/// What to do with a request next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer it here; the upstream must not see it.
    Answer(Answer),
    /// Ask the store for this claim, and bring its answer to [`Guard::on_store`].
    Claim(ClaimRequest),
    /// Remove the guard's own headers from it, put these in, and send it on.
    Forward(Forward),
    /// Hold it: there is more to come.
    Hold,
    /// It is none of ours: remove the guard's own headers from it and send it on.
    Pass,
    /// Hold it, and come back to [`Guard::on_time`] now and then until another request has settled
    /// its claim.
    Wait,
}

/// An answer of the guard itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: the event was delivered before.
    Duplicate,
    /// Refused.
    Refuse(Rejection),
}

/// What the upstream is told of a request that is sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The event, if it is verified; the id is [`Guard::verified_id`].
    pub key: Option<EventKey>,
    /// In monitor mode: the refusal that enforcing would have made, or [`Code::Forwarded`].
    pub monitored: Option<Code>,
}

/// The longest declared body, in bytes, whose end the answer to a refused head waits for.
///
/// Envoy closes an HTTP/1 connection on which it answers before the request has ended: the sender
/// pays for a new one, and may lose the answer with the old one. A body of this size is in what Envoy
/// reads at once (16 KiB), so that nothing more is held for it; it is never taken into the VM.
///
/// Source: Envoy 1.40 as seen in `tests/envoy/e2e/refuse.rs`.
const AWAITED_BODY_BYTES: u64 = 16 << 10;

/// Why a near miss is refused: what an operator reads in the log.
const NEAR_MISS: &str =
    "the path is a near miss of the source's, which an application may take for it";

/// The state of one request.
#[derive(Debug, Default)]
pub struct Guard {
    state: State,
    source: Option<usize>,
    verified_id: Option<MessageId>,
    verdict: Option<Code>,
    rejection: Option<Rejection>,
    body_changed: bool,
    is_sent_on: bool,
    /// For the inspector; none where it is off.
    notes: Option<Box<Notes>>,
    held_since: Option<UnixMillis>,
    held_millis: Option<u64>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    Held(Pending),
    /// Refused by its head; answered when its short body has ended.
    Refused(Rejection),
    Asking(Authentic, Option<UnixMillis>),
    Waiting(Authentic, UnixMillis),
    Claimed(Claim),
    Done,
}

/// A claim that this request has to settle.
#[derive(Clone, Copy, Debug)]
struct Claim {
    key: EventKey,
    fingerprint: Fingerprint,
    owner: OwnerToken,
    terms: Terms,
}

/// What a claim holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The end of its lease, or a little later: counted from the store's answer.
    pub lease_end: UnixMillis,
    /// Whether the process's own store granted it, because the shared one did not answer.
    pub is_fallback: bool,
}

impl Guard {
    /// A request of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of the source that the request belongs to, once its head is known.
    #[must_use]
    pub fn source(&self) -> Option<usize> {
        self.source
    }

    /// The verdict, once there is one.
    #[must_use]
    pub fn verdict(&self) -> Option<Code> {
        self.verdict
    }

    /// The refusal behind the verdict, with its numbers.
    #[must_use]
    pub fn rejection(&self) -> Option<&Rejection> {
        self.rejection.as_ref()
    }

    /// Whether this is a duplicate with another body than the one that was delivered.
    #[must_use]
    pub fn body_changed(&self) -> bool {
        self.body_changed
    }

    /// How long the head has been held for its body, and for the claim of another request, in
    /// milliseconds. Nothing before the body is whole: a refusal by the head takes no time.
    #[must_use]
    pub fn held_millis(&self) -> Option<u64> {
        self.held_millis
    }

    /// The message id, once the MAC has verified it.
    #[must_use]
    pub fn verified_id(&self) -> Option<&MessageId> {
        self.verified_id.as_ref()
    }

    /// What the inspector shows of the request; nothing where it is off.
    #[must_use]
    pub fn notes(&self) -> Option<&Notes> {
        self.notes.as_deref()
    }

    /// As [`Guard::notes`], to add to them.
    pub fn notes_mut(&mut self) -> Option<&mut Notes> {
        self.notes.as_deref_mut()
    }

    /// The request was not for the guard to judge and is answered: what still comes of it is none
    /// of its business.
    pub fn stand_aside(&mut self) {
        self.state = State::Done;
    }

    /// Whether there is nothing left to decide: the request has been answered or sent on.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        matches!(self.state, State::Claimed(_) | State::Done)
    }

    /// Whether the request has been sent on.
    #[must_use]
    pub fn is_sent_on(&self) -> bool {
        self.is_sent_on
    }

    /// Whether the outcome of this request is waited for: it holds a claim.
    #[must_use]
    pub fn has_claim(&self) -> bool {
        matches!(self.state, State::Claimed(_))
    }

    /// What the claim of this request holds for, if it holds one.
    #[must_use]
    pub fn terms(&self) -> Option<Terms> {
        match &self.state {
            State::Claimed(claim) => Some(claim.terms),
            _ => None,
        }
    }

    /// How long this request waits for another to settle, if it does.
    #[must_use]
    pub fn waits_until(&self) -> Option<UnixMillis> {
        match &self.state {
            State::Waiting(_, deadline) => Some(*deadline),
            _ => None,
        }
    }

    /// Whether the store has been asked and has not answered.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking(..))
    }

    /// The head is there. `ends` if no body will follow.
    pub fn on_head(
        &mut self,
        policy: &Policy,
        head: &RequestHead<'_>,
        now: UnixMillis,
        ends: bool,
    ) -> Decision {
        let destination = policy.destination(head);
        self.source = match destination {
            Destination::Source(index) | Destination::NearMiss(index) => Some(index),
            Destination::Elsewhere => None,
        };
        let inspector = policy.inspector.as_ref();
        if inspector.is_some_and(|inspector| inspector.records) {
            self.notes = Some(Box::default());
        }
        let Some(source) = self.source.and_then(|index| policy.sources.get(index)) else {
            self.state = State::Done;
            return match policy.unmatched {
                Unmatched::Pass => {
                    self.is_sent_on = true;
                    Decision::Pass
                }
                Unmatched::Reject => {
                    let rejection = Rejection::new(Code::NoSource);
                    self.refuse_head(policy, Mode::Enforce, rejection, head, ends)
                }
            };
        };
        if let Destination::NearMiss(_) = destination {
            let rejection = Rejection::because(Code::NoSource, NEAR_MISS);
            return self.refuse_head(policy, source.mode, rejection, head, ends);
        }
        match check_head(source, head, now, self.notes.as_deref_mut()) {
            Err(rejection) => self.refuse_head(policy, source.mode, rejection, head, ends),
            Ok(_) if ends => self.refuse(source.mode, Rejection::new(Code::BodyEmpty)),
            Ok(pending) => {
                self.state = State::Held(pending);
                self.held_since = Some(now);
                Decision::Hold
            }
        }
    }

    /// Path and query that may go on from here, if they are not those that came: they held a token,
    /// which neither the upstream nor the access log may see, whatever becomes of the request.
    #[must_use]
    pub fn clean_target(&self, policy: &Policy, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        match &self.policy_of(policy)?.scheme.proof {
            Proof::Token(rule) => rule.at.clean(head.target()),
            Proof::Signature(_) => None,
        }
    }

    /// Refuses a request by its head; at once, or when its body has ended where that is near.
    fn refuse_head(
        &mut self,
        policy: &Policy,
        mode: Mode,
        rejection: Rejection,
        head: &RequestHead<'_>,
        ends: bool,
    ) -> Decision {
        let is_near = head
            .declared_length()
            .is_some_and(|length| length <= AWAITED_BODY_BYTES);
        // Elsewhere holding the head means to let it go as far as Envoy's buffer filter.
        let holds = policy.hold_headers == HoldHeaders::Filter;
        if ends || !is_near || !holds || mode == Mode::Monitor {
            return self.refuse(mode, rejection);
        }
        self.state = State::Refused(rejection);
        Decision::Hold
    }

    /// The body has ended, or the sender has left before. The answer, if the head was refused and it
    /// has waited for this; then the body need not be read.
    pub fn on_end(&mut self) -> Option<Decision> {
        let State::Refused(rejection) = &self.state else {
            return None;
        };
        let rejection = rejection.clone();
        Some(self.refuse(Mode::Enforce, rejection))
    }

    /// `received` bytes of the body are there, in all, and more will come.
    pub fn on_partial_body(&mut self, policy: &Policy, received: usize) -> Decision {
        if let State::Refused(_) = self.state {
            return Decision::Hold;
        }
        if let Some(notes) = &mut self.notes {
            notes.body_bytes = Some(received);
        }
        match (&self.state, self.source(), self.policy_of(policy)) {
            (State::Held(_), Some(_), Some(source)) if received > source.max_body_bytes => {
                self.refuse(source.mode, Rejection::too_large(limit(source)))
            }
            (State::Held(_), Some(_), Some(_)) => Decision::Hold,
            _ => self.fault(),
        }
    }

    /// The whole body is there.
    pub fn on_body(
        &mut self,
        policy: &Policy,
        body: &[u8],
        facts: &Facts,
        scratch: &mut Scratch,
    ) -> Decision {
        if let Some(decision) = self.on_end() {
            return decision;
        }
        let state = core::mem::take(&mut self.state);
        let (State::Held(pending), Some(source)) = (state, self.policy_of(policy)) else {
            return self.fault();
        };
        if let Some(notes) = &mut self.notes {
            notes.body_bytes = Some(body.len());
        }
        self.held_until(facts.now);
        let mut told = Told {
            verified_id: &mut self.verified_id,
            notes: self.notes.as_deref_mut(),
        };
        match authenticate(policy, source, &pending, body, facts, scratch, &mut told) {
            Ok(authentic) => self.claim(source, authentic, None),
            Err(rejection) => self.refuse(source.mode, rejection),
        }
    }

    /// The store has answered to the claim.
    pub fn on_store(&mut self, policy: &Policy, answer: ClaimAnswer, now: UnixMillis) -> Decision {
        let state = core::mem::take(&mut self.state);
        let (State::Asking(authentic, deadline), Some(source)) = (state, self.policy_of(policy))
        else {
            return self.fault();
        };
        self.held_until(now);
        let Authentic {
            key,
            fingerprint,
            owner,
        } = authentic;
        let code = match answer {
            ClaimAnswer::Granted | ClaimAnswer::GrantedHere => {
                self.state = State::Claimed(Claim {
                    key,
                    fingerprint,
                    owner,
                    terms: Terms {
                        lease_end: now.plus_seconds(source.dedupe.lease_seconds),
                        is_fallback: answer == ClaimAnswer::GrantedHere,
                    },
                });
                return self.forward(source.mode, Code::Forwarded, Some(key));
            }
            ClaimAnswer::ClaimedByAnother => {
                if let (Mode::Enforce, InFlight::Wait { seconds }) =
                    (source.mode, source.dedupe.in_flight)
                {
                    // The clock may have stepped back since the wait began.
                    let latest = now.plus_seconds(seconds);
                    let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
                    if now < deadline {
                        self.state = State::Waiting(authentic, deadline);
                        return Decision::Wait;
                    }
                }
                Code::InFlight
            }
            ClaimAnswer::Delivered(delivered) if delivered == fingerprint => Code::Duplicate,
            ClaimAnswer::Delivered(_) => {
                self.body_changed = true;
                match source.dedupe.on_body_change {
                    OnBodyChange::Acknowledge => Code::Duplicate,
                    OnBodyChange::Reject => Code::BodyChanged,
                    OnBodyChange::Forward => {
                        self.state = State::Done;
                        return self.forward(source.mode, Code::Forwarded, Some(key));
                    }
                }
            }
            ClaimAnswer::Full => Code::StoreFull,
            ClaimAnswer::Unavailable if policy.passes_unclaimed() => {
                self.state = State::Done;
                return self.forward(source.mode, Code::Forwarded, Some(key));
            }
            ClaimAnswer::Unavailable => Code::StoreUnavailable,
        };
        self.state = State::Done;
        match source.mode {
            Mode::Monitor => self.forward(source.mode, code, Some(key)),
            Mode::Enforce if code == Code::Duplicate => {
                self.verdict = Some(code);
                Decision::Answer(Answer::Duplicate)
            }
            Mode::Enforce => self.refuse(source.mode, Rejection::new(code)),
        }
    }

    /// Time has passed for a request that waits: it asks for its claim again.
    ///
    /// At the deadline it asks for the last time; [`Guard::on_store`] then refuses it.
    pub fn on_time(&mut self, policy: &Policy) -> Decision {
        let state = core::mem::take(&mut self.state);
        match (state, self.policy_of(policy)) {
            (State::Waiting(authentic, deadline), Some(source)) => {
                self.claim(source, authentic, Some(deadline))
            }
            _ => self.fault(),
        }
    }

    /// The outcome is known. Returns how to settle the claim; nothing if there is none to settle,
    /// or if it is to be left to its lease.
    pub fn on_outcome(&mut self, policy: &Policy, outcome: Outcome) -> Option<Settlement> {
        let State::Claimed(Claim {
            key,
            fingerprint,
            owner,
            ..
        }) = self.state
        else {
            return None;
        };
        self.state = State::Done;
        let dedupe = &self.policy_of(policy)?.dedupe;
        match (outcome, dedupe.on_unknown) {
            (Outcome::Accepted, _) => {
                let window_seconds = dedupe.window_seconds;
                Some(Settlement::Deliver {
                    key,
                    owner,
                    fingerprint,
                    window_seconds,
                })
            }
            (Outcome::Unknown, OnUnknown::Hold) => None,
            (Outcome::Refused | Outcome::NotReached | Outcome::Unknown, _) => {
                Some(Settlement::Release { key, owner })
            }
        }
    }

    /// The source of this request in `policy`.
    #[must_use]
    pub fn policy_of<'p>(&self, policy: &'p Policy) -> Option<&'p Source> {
        policy.sources.get(self.source?)
    }

    /// The guard could not read what it needs, or was driven out of turn: the request is refused,
    /// whatever the mode, for nothing is known of it.
    pub fn fault(&mut self) -> Decision {
        self.is_sent_on = false;
        self.refuse(
            Mode::Enforce,
            Rejection::because(Code::InternalError, "the request could not be read"),
        )
    }

    fn held_until(&mut self, now: UnixMillis) {
        self.held_millis = self.held_since.map(|since| now.millis_since(since));
    }

    fn claim(
        &mut self,
        source: &Source,
        authentic: Authentic,
        deadline: Option<UnixMillis>,
    ) -> Decision {
        let request = ClaimRequest {
            key: authentic.key,
            owner: authentic.owner,
            lease_seconds: source.dedupe.lease_seconds,
        };
        self.state = State::Asking(authentic, deadline);
        Decision::Claim(request)
    }

    fn refuse(&mut self, mode: Mode, rejection: Rejection) -> Decision {
        let code = rejection.code();
        self.state = State::Done;
        self.rejection = Some(rejection.clone());
        match mode {
            Mode::Monitor => self.forward(mode, code, None),
            Mode::Enforce => {
                self.verdict = Some(code);
                Decision::Answer(Answer::Refuse(rejection))
            }
        }
    }

    fn forward(&mut self, mode: Mode, verdict: Code, key: Option<EventKey>) -> Decision {
        self.verdict = Some(verdict);
        self.is_sent_on = true;
        Decision::Forward(Forward {
            key,
            monitored: (mode == Mode::Monitor).then_some(verdict),
        })
    }
}
