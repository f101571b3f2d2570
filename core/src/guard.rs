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

use std::borrow::Cow;
use std::cell::OnceCell;

use sha2::{Digest, Sha256};

use crate::dedupe::{EventKey, Fingerprint, OwnerToken};
use crate::identity::{self, MessageId};
use crate::inspector::Notes;
use crate::json::{self, Document, JsonError, Kind, Scratch};
use crate::mac;
use crate::outcome::Outcome;
use crate::policy::{
    HeaderRole, HoldHeaders, InFlight, KeyPart, Mode, OnBodyChange, OnUnknown, Policy, Source,
    Unmatched,
};
use crate::request::{MediaType, Occurrence, RequestHead};
use crate::scheme::{
    Credentials, IdAt, Material, Part, Proof, SignatureRule, Signed, Timestamp, TimestampPlace,
};
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

/// Facts of the host that go with a body.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The time.
    pub now: UnixMillis,
    /// A token for the claim that may come of this body; no other claim has it.
    pub owner: OwnerToken,
    /// The store's salt for fingerprints.
    pub salt: [u8; 16],
}

/// The longest declared body, in bytes, whose end the answer to a refused head waits for.
///
/// Envoy closes an HTTP/1 connection on which it answers before the request has ended: the sender
/// pays for a new one, and may lose the answer with the old one. A body of this size is in what Envoy
/// reads at once (16 KiB), so that nothing more is held for it; it is never taken into the VM.
///
/// Source: Envoy 1.40 as seen in `tests/envoy/e2e/refuse.rs`.
const AWAITED_BODY_BYTES: u64 = 16 << 10;

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

/// A request whose head is in order; nothing of it is verified.
#[derive(Debug)]
struct Pending {
    credentials: Credentials,
    headers: Vec<Option<Box<[u8]>>>,
    media_type: MediaType,
}

/// A request that is authentic and well formed. Only [`authenticate`] makes one, and only out of
/// one can a claim be made.
#[derive(Debug)]
struct Authentic {
    key: EventKey,
    fingerprint: Fingerprint,
    owner: OwnerToken,
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
        self.source = policy.source_of(head);
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
            Proof::Token(at) => at.clean(head.target()),
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

/// The checks of the head, cheap first, so that no body of an unsigned flood is read.
fn check_head(
    source: &Source,
    head: &RequestHead<'_>,
    now: UnixMillis,
    notes: Option<&mut Notes>,
) -> Result<Pending, Rejection> {
    head.check_method()?;
    let media_type = head.check_media_type(&source.media_types)?;
    head.check_content_encoding()?;
    head.check_declared_length(limit(source))?;
    let credentials = source.scheme.read_head(head, &source.secrets)?;
    if let Credentials::Signed(signed) = &credentials
        && let Some(timestamp) = signed.timestamp()
    {
        if let Some(notes) = notes {
            notes.age_seconds = timestamp.age_seconds(now);
        }
        source.tolerance.check(timestamp, now)?;
    }
    let headers = capture_headers(source, head)?;
    Ok(Pending {
        credentials,
        headers,
        media_type,
    })
}

/// Copies the headers that are needed once the body is there.
fn capture_headers(
    source: &Source,
    head: &RequestHead<'_>,
) -> Result<Vec<Option<Box<[u8]>>>, Rejection> {
    let mut captured = Vec::with_capacity(source.headers.len());
    for header in &source.headers {
        let (missing, several) = match header.role {
            HeaderRole::Signed => (Some(Code::SignatureMissing), Code::SignatureAmbiguous),
            HeaderRole::Id => (Some(Code::IdMissing), Code::IdAmbiguous),
            HeaderRole::Key => (None, Code::IdAmbiguous),
        };
        captured.push(match (head.occurrence(header.name.as_bytes()), missing) {
            (Occurrence::Once(value), _) => Some(value.into()),
            (Occurrence::Missing, None) => None,
            (Occurrence::Missing, Some(code)) => return Err(Rejection::new(code)),
            (Occurrence::Several, _) => return Err(Rejection::new(several)),
        });
    }
    Ok(captured)
}

/// The checks of the body, and the only way to an [`Authentic`].
///
/// Where the scheme signs the body, the MAC comes first, over the received bytes. Where it signs a
/// value from inside the body, that is parsed first, as unauthenticated bytes within fixed bounds.
/// A token was checked with the head. The payload's own rules come last. `told` has the id as soon as
/// the MAC has verified it.
fn authenticate(
    policy: &Policy,
    source: &Source,
    pending: &Pending,
    body: &[u8],
    facts: &Facts,
    scratch: &mut Scratch,
    told: &mut Told<'_>,
) -> Result<Authentic, Rejection> {
    if body.len() > source.max_body_bytes {
        return Err(Rejection::too_large(limit(source)));
    }
    if body.is_empty() {
        return Err(Rejection::new(Code::BodyEmpty));
    }
    let signature = match (&source.scheme.proof, &pending.credentials) {
        (Proof::Signature(rule), Credentials::Signed(signed)) => Some((rule, signed)),
        (Proof::Token(_), Credentials::Token(_)) => None,
        _ => return Err(Rejection::new(Code::InternalError)),
    };
    if let Some((rule, signed)) = signature
        && rule.signs_body()
    {
        // An id in the message is a header here: the configuration sees to that.
        let id = header_id(source, pending);
        check_mac(source, rule, signed, &pending.headers, body, id, &[])?;
    }
    let document = match pending.media_type {
        MediaType::Json => Some(json::scan(body, &source.selector, scratch).map_err(refuse_json)?),
        MediaType::Other => {
            refuse_hidden_json(body)?;
            None
        }
    };
    let document = document.as_ref();
    let digest = Digested::of(body);
    let id = message_id(source, pending, &digest, document)?;
    if let Some((rule, signed)) = signature
        && !rule.signs_body()
    {
        let texts = message_texts(source, rule, document);
        let values: Vec<Option<&[u8]>> = texts.iter().map(Option::as_deref).collect();
        let id = Some(id.as_str().as_bytes());
        check_mac(source, rule, signed, &pending.headers, body, id, &values)?;
    }
    let id = told.verified_id.insert(id);
    if let Some(notes) = &mut told.notes {
        note_stage(source, document, notes);
    }
    check_payload(source, document, facts.now)?;
    let key = event_key(source, pending, document, id)?;
    if let Some(notes) = &mut told.notes {
        notes.key = key.to_hex();
    }
    Ok(Authentic {
        key,
        fingerprint: match policy.remote {
            Some(_) => Fingerprint::digest(digest.get()),
            None => Fingerprint::of(body, facts.salt),
        },
        owner: facts.owner,
    })
}

fn refuse_json(error: JsonError) -> Rejection {
    match error {
        JsonError::DuplicateKey { offset } => Rejection::json(
            Code::JsonDuplicateKey,
            offset,
            "a key that the object does not have",
        ),
        JsonError::Malformed { offset, expected } => {
            Rejection::json(Code::JsonMalformed, offset, expected)
        }
        JsonError::TooDeep { offset } => {
            Rejection::json(Code::JsonTooDeep, offset, "at most 64 levels")
        }
    }
}

/// The content type is not signed. If it could turn JSON into something else, a replay would get
/// around the id in the body and the payload's rules: so a body that begins like an object is JSON.
fn refuse_hidden_json(body: &[u8]) -> Result<(), Rejection> {
    if body.trim_ascii_start().starts_with(b"{") {
        return Err(Rejection::because(
            Code::UnsupportedMediaType,
            "the body is JSON, and its content type is not",
        ));
    }
    Ok(())
}

fn check_mac(
    source: &Source,
    rule: &SignatureRule,
    signed: &Signed,
    headers: &[Option<Box<[u8]>>],
    body: &[u8],
    id: Option<&[u8]>,
    values: &[Option<&[u8]>],
) -> Result<(), Rejection> {
    let material = Material {
        body: Some(body),
        headers,
        id,
        timestamp: signed.timestamp().map(Timestamp::as_bytes),
        values,
    };
    let (parts, length) = rule.message(&material)?;
    let parts = parts.get(..length).unwrap_or_default();
    match mac::verify(&source.secrets, parts, signed.signatures()) {
        Some(_) => Ok(()),
        None => Err(Rejection::new(Code::SignatureMismatch)),
    }
}

/// The values at JSON pointers that the message is made of; nothing where it is made of none.
fn message_texts<'d>(
    source: &Source,
    rule: &SignatureRule,
    document: Option<&Document<'d, '_>>,
) -> Vec<Option<Cow<'d, [u8]>>> {
    if !rule
        .message
        .iter()
        .any(|piece| matches!(piece.part, Part::Pointer(_)))
    {
        return Vec::new();
    }
    (0..source.pointers.len())
        .map(|slot| {
            document
                .and_then(|document| document.get(slot))
                .map(|value| value.bytes())
        })
        .collect()
}

/// The id where it is a header, for a message that holds the body.
fn header_id<'p>(source: &Source, pending: &'p Pending) -> Option<&'p [u8]> {
    match source.scheme.id {
        IdAt::Header(index) => pending.headers.get(index).and_then(Option::as_deref),
        IdAt::BodyDigest | IdAt::Pointers { .. } => None,
    }
}

/// The SHA-256 of a body, taken once, when it is first asked for.
struct Digested<'b> {
    body: &'b [u8],
    digest: OnceCell<[u8; 32]>,
}

impl<'b> Digested<'b> {
    fn of(body: &'b [u8]) -> Self {
        let digest = OnceCell::new();
        Self { body, digest }
    }

    fn get(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| Sha256::digest(self.body).into())
    }
}

fn message_id(
    source: &Source,
    pending: &Pending,
    digest: &Digested<'_>,
    document: Option<&Document<'_, '_>>,
) -> Result<MessageId, Rejection> {
    let rule = identity::Rule {
        in_message: source.scheme.signs_id(),
    };
    let missing = |or_body_digest: bool| {
        if or_body_digest {
            return Ok(MessageId::digest(digest.get()));
        }
        Err(Rejection::new(Code::IdMissing))
    };
    match &source.scheme.id {
        IdAt::BodyDigest => missing(true),
        IdAt::Header(index) => {
            let value = pending.headers.get(*index).and_then(Option::as_deref);
            let value = value.ok_or(Rejection::new(Code::IdMissing))?;
            MessageId::parse_bytes(value, rule)
        }
        IdAt::Pointers {
            slots,
            or_body_digest,
        } => {
            let Some(document) = document else {
                return missing(*or_body_digest);
            };
            let mut first: Option<Cow<'_, str>> = None;
            let mut is_ambiguous = false;
            for value in slots.clone().filter_map(|slot| document.get(slot)) {
                if value.kind() == Kind::Null {
                    continue;
                }
                let not_text = Rejection::because(Code::IdMalformed, "it is not a string");
                let text = value.text().ok_or(not_text)?;
                if text.is_empty() {
                    return Err(Rejection::because(Code::IdMalformed, "it is empty"));
                }
                match &first {
                    None => first = Some(text),
                    Some(first) => is_ambiguous |= *first != text,
                }
            }
            let Some(first) = first else {
                return missing(*or_body_digest);
            };
            if is_ambiguous {
                return Err(Rejection::new(Code::IdAmbiguous));
            }
            MessageId::parse(&first, rule)
        }
    }
}

fn check_payload(
    source: &Source,
    document: Option<&Document<'_, '_>>,
    now: UnixMillis,
) -> Result<(), Rejection> {
    let place = source.scheme.timestamp();
    if let Some((TimestampPlace::Pointer(slot), unit)) = place.map(|at| (&at.place, at.unit)) {
        let value = document
            .and_then(|document| document.get(*slot))
            .ok_or(Rejection::new(Code::TimestampMissing))?;
        let timestamp = Timestamp::parse(&value.bytes(), unit)?;
        source.tolerance.check(&timestamp, now)?;
    }
    let Some(document) = document else {
        return Ok(());
    };
    for requirement in &source.required {
        requirement.check(document)?;
    }
    match &source.urls {
        Some(urls) => urls.check(document),
        None => Ok(()),
    }
}

/// The dedupe key: a part that is missing is empty, but not all may be.
fn event_key(
    source: &Source,
    pending: &Pending,
    document: Option<&Document<'_, '_>>,
    id: &MessageId,
) -> Result<EventKey, Rejection> {
    let mut builder = source.dedupe.key_of_source.clone();
    let mut is_empty = true;
    for part in &source.dedupe.key {
        let present = match part {
            KeyPart::Id => {
                builder.present(b'i', id.as_str().as_bytes());
                true
            }
            KeyPart::Header(index) => {
                match pending.headers.get(*index).and_then(Option::as_deref) {
                    Some(value) => {
                        builder.present(b'h', value);
                        true
                    }
                    None => false,
                }
            }
            KeyPart::Pointer(slot) => match document.and_then(|document| document.get(*slot)) {
                Some(value) if value.kind() != Kind::Null => {
                    let kind = if value.kind() == Kind::String {
                        b't'
                    } else {
                        b'v'
                    };
                    builder.present(kind, &value.bytes());
                    true
                }
                _ => false,
            },
        };
        if !present {
            builder.absent();
        }
        is_empty &= !present;
    }
    if is_empty {
        return Err(Rejection::because(
            Code::IdMissing,
            "every part of the dedupe key is missing",
        ));
    }
    Ok(builder.finish())
}

/// What is told of a request as soon as it is known, whatever is decided later.
struct Told<'t> {
    /// The message id, once the MAC has verified it.
    verified_id: &'t mut Option<MessageId>,
    /// For the inspector, if it is on.
    notes: Option<&'t mut Notes>,
}

/// For the inspector: what of the payload tells one event of an id from the next.
fn note_stage(source: &Source, document: Option<&Document<'_, '_>>, notes: &mut Notes) {
    for part in &source.dedupe.key {
        if let KeyPart::Pointer(slot) = part
            && let Some(value) = document.and_then(|document| document.get(*slot))
            && matches!(value.kind(), Kind::String | Kind::Number { .. })
        {
            notes.add_stage(&value.bytes());
        }
    }
}

fn limit(source: &Source) -> u64 {
    u64::try_from(source.max_body_bytes).unwrap_or(u64::MAX)
}
