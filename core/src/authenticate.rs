//! The checks of a request's head and of its body: the only way to an `Authentic` callback.

use std::borrow::Cow;
use std::cell::OnceCell;

use sha2::{Digest, Sha256};

use crate::challenge::{Asked, MAX_UNVERIFIED_BYTES, Step};
use crate::event::{EventKey, IdKey};
use crate::json::{self, Document, JsonError, Kind, Scratch};
use crate::message_id::MessageId;
use crate::policy::{HeaderRole, KeyPart, Policy, Source};
use crate::reply::Answer;
use crate::report::{Check, Report, Stage};
use crate::request::{MediaType, Occurrence, RequestHead};
use crate::scheme::{
    Credentials, IdAt, MessageInput, Proof, SignatureRule, Signed, Timestamp, TimestampPlace,
};
use crate::store::bucket::{Fingerprint, OwnerToken};
use crate::time::UnixMillis;
use crate::verdict::{Code, Rejection};

/// Inputs to the checks of a body, apart from the body.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// The time.
    pub now: UnixMillis,
    /// A token for the claim that may come of this body; no other claim has it.
    pub owner: OwnerToken,
    /// The store's salt for fingerprints.
    pub salt: [u8; 16],
}

/// A request whose head is in order; nothing of it is verified.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    credentials: Credentials,
    headers: Vec<Option<Box<[u8]>>>,
    media_type: MediaType,
    /// Where the body can make the request a challenge.
    asked: Option<Asked<'static>>,
    /// Path and host, where the dedupe key needs them.
    place: Place,
}

#[derive(Clone, Debug, Default)]
struct Place {
    path: Box<[u8]>,
    host: Box<[u8]>,
}

impl Place {
    /// Of a head; a token in the path is no part of it, or its rotation would change every event.
    fn of(source: &Source, head: &RequestHead<'_>) -> Self {
        let needs = |part| source.dedupe.key.contains(&part);
        let mut place = Self::default();
        if needs(KeyPart::Path) {
            let clean = source.clean_target(head);
            let target = clean.as_deref().unwrap_or(head.target());
            place.path = target
                .split(|byte| *byte == b'?')
                .next()
                .unwrap_or_default()
                .into();
        }
        if needs(KeyPart::Host) {
            place.host = head.host().to_ascii_lowercase().into();
        }
        place
    }
}

/// A request that is authentic and well formed. Only [`authenticate`] makes one, and only out of
/// one can a claim be made.
#[derive(Clone, Debug)]
pub(crate) struct Authentic {
    pub(crate) key: EventKey,
    pub(crate) id: IdKey,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) owner: OwnerToken,
    /// The SHA-256 of the body, if it was needed.
    digest: Option<[u8; 32]>,
}

impl Authentic {
    /// Keeps what is needed of the body in case that this is a new message under an old key.
    pub(crate) fn keep_digest(&mut self, body: &[u8]) {
        if self.digest.is_none() {
            self.digest = Some(Sha256::digest(body).into());
        }
    }

    /// The event of a new message under this one's key. `None` if the body is not known.
    pub(crate) fn into_new_message(self) -> Option<Self> {
        let key = self.key.changed(&self.digest?);
        Some(Self { key, ..self })
    }
}

/// The checks of the head, cheap first, so that no body of an unsigned flood is read.
pub(crate) fn check_head(
    source: &Source,
    head: &RequestHead<'_>,
    now: UnixMillis,
    report: &mut Report,
) -> Result<Pending, Rejection> {
    report.check = Check::Method;
    head.check_method()?;
    report.check = Check::MediaType;
    let media_type = head.check_media_type(&source.media_types)?;
    report.check = Check::Encoding;
    head.check_content_encoding()?;
    report.check = Check::Length;
    head.check_declared_length(limit(source))?;
    report.check = Check::Credentials;
    let credentials = source.scheme.read_head(head)?;
    if let Credentials::Signed(signed) = &credentials
        && let Some(timestamp) = signed.timestamp()
    {
        report.check = Check::Freshness;
        report.age_seconds = timestamp.age_seconds(now);
        source.tolerance.check(timestamp, now)?;
    }
    report.check = Check::OtherHeaders;
    let headers = capture_headers(source, head)?;
    Ok(Pending {
        credentials,
        headers,
        media_type,
        asked: source.challenges.as_ref().and_then(|rules| rules.ask(head)),
        place: Place::of(source, head),
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
            // What the request does not have cannot have been signed.
            HeaderRole::Signed => (Some(Code::SignatureMismatch), Code::SignatureAmbiguous),
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
/// A token was checked with the head. A challenge ends here, before anything is claimed. The payload's own
/// rules come last. `report` has the id as soon as the MAC has verified it.
pub(crate) fn authenticate(
    policy: &Policy,
    source: &Source,
    pending: &Pending,
    body: &[u8],
    inputs: &Inputs,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Result<Authentic, Answer> {
    report.check = Check::Body;
    if body.len() > source.max_body_bytes {
        return Err(Rejection::too_large(limit(source)).into());
    }
    if body.is_empty() {
        return Err(Rejection::new(Code::BodyEmpty).into());
    }
    let asked = pending.asked.as_ref();
    let signature = match (&source.scheme.proof, &pending.credentials) {
        (Proof::Signature(rule), Credentials::Signed(signed)) => Some((rule, signed)),
        (Proof::Token(_), Credentials::Token(_) | Credentials::TokenInBody) => None,
        _ => return Err(Rejection::new(Code::InternalError).into()),
    };
    let mut input = MessageInput {
        body,
        is_json: pending.media_type == MediaType::Json,
        headers: &pending.headers,
        id: None,
        timestamp: None,
        values: &[],
    };
    if let Some((rule, signed)) = signature
        && rule.signs_body()
    {
        report.check = Check::Mac;
        // An id in the message is a header here: the configuration sees to that.
        input.id = header_id(source, pending);
        input.timestamp = signed.timestamp().map(Timestamp::as_bytes);
        let checked = rule.verify(&input, signed.signatures(), policy.host_verify);
        if let Err(rejection) = checked {
            let answer = challenge_or(rejection, source, asked, body, scratch);
            if answer.is_of_challenge() {
                report.check = Check::Challenge;
            }
            return Err(answer);
        }
    }
    report.check = Check::Json;
    let document = match pending.media_type {
        MediaType::Json => Some(json::scan(body, &source.selector, scratch).map_err(refuse_json)?),
        MediaType::Other => {
            refuse_hidden_json(body)?;
            None
        }
    };
    let document = document.as_ref();
    report.check = Check::Challenge;
    end_challenge(source, Step::Body, asked, document)?;
    if let (Proof::Token(rule), Credentials::TokenInBody) =
        (&source.scheme.proof, &pending.credentials)
    {
        report.check = Check::Mac;
        rule.check_body(|slot| text_at(document, slot))?;
    }
    if signature.is_none_or(|(rule, _)| rule.signs_body()) {
        report.check = Check::AuthenticChallenge;
        end_challenge(source, Step::Verified, asked, document)?;
    }
    report.check = Check::Id;
    let digest = Digested::of(body);
    let id = match (&source.scheme.id, signature) {
        (IdAt::MessageDigest, Some((rule, _))) => MessageId::digest(&rule.digest(&input)?),
        _ => message_id(source, pending, &digest, document)?,
    };
    if let Some((rule, signed)) = signature
        && !rule.signs_body()
    {
        report.check = Check::Mac;
        input.id = Some(id.as_str().as_bytes());
        verify_values(policy, source, rule, signed, input, document)?;
        report.check = Check::AuthenticChallenge;
        end_challenge(source, Step::Verified, asked, document)?;
    }
    let id = report.id.insert(id);
    if policy
        .inspector
        .as_ref()
        .is_some_and(|inspector| inspector.records)
    {
        report_stage(source, document, &mut report.stage);
    }
    report.check = Check::Payload;
    check_payload(source, document, inputs.now)?;
    report.check = Check::Event;
    let mut key = event_key(source, pending, document, id, &digest)?;
    if !source.dedupe.is_on {
        key = key.once(inputs.owner.as_u64());
    }
    report.key = Some(key);
    let is_shared = policy.remote.is_some();
    let fingerprint = if is_shared {
        Fingerprint::digest(digest.get())
    } else {
        Fingerprint::of(body, inputs.salt)
    };
    Ok(Authentic {
        key,
        id: IdKey::new(&source.name, id.as_str(), &inputs.salt, is_shared),
        fingerprint: match signed_time(source, pending, document) {
            Some(time) => fingerprint.signed_at(&time),
            None => fingerprint,
        },
        owner: inputs.owner,
        digest: digest.digest.into_inner(),
    })
}

/// Ends the request if its body makes it a challenge of `step`.
fn end_challenge(
    source: &Source,
    step: Step,
    asked: Option<&Asked<'_>>,
    document: Option<&Document<'_, '_>>,
) -> Result<(), Answer> {
    match (&source.challenges, asked) {
        (Some(rules), Some(asked)) => rules.at_body(step, &source.scheme, asked, document),
        _ => Ok(()),
    }
}

/// The end of a request that is refused, or the answer if its body is a challenge that requires
/// nothing of what it was refused for; one of more than [`MAX_UNVERIFIED_BYTES`] is none.
pub(crate) fn challenge_or(
    rejection: Rejection,
    source: &Source,
    asked: Option<&Asked<'_>>,
    body: &[u8],
    scratch: &mut Scratch,
) -> Answer {
    if let (Some(rules), Some(asked)) = (&source.challenges, asked)
        && rules.may_be_unverified(asked)
        && body.len() <= MAX_UNVERIFIED_BYTES
        && let Ok(document) = json::scan(body, &source.selector, scratch)
        && let Err(answer) = rules.at_body(Step::Body, &source.scheme, asked, Some(&document))
    {
        return answer;
    }
    Answer::Refuse(rejection)
}

/// The time at which the message was signed, in the sender's own bytes.
fn signed_time<'t>(
    source: &Source,
    pending: &'t Pending,
    document: Option<&Document<'t, '_>>,
) -> Option<Cow<'t, [u8]>> {
    if let Credentials::Signed(signed) = &pending.credentials
        && let Some(timestamp) = signed.timestamp()
    {
        return Some(timestamp.as_bytes().into());
    }
    match source.scheme.timestamp()?.place {
        TimestampPlace::Pointer(slot) => text_at(document, slot),
        _ => None,
    }
}

fn refuse_json(error: JsonError) -> Rejection {
    match error {
        JsonError::AmbiguousKey { offset } => Rejection::json(
            Code::JsonAmbiguousKey,
            offset,
            "a key that is no name of the source's in another case",
        ),
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
/// around the id in the body and the payload's rules: so a body that begins like an object or an array
/// is JSON, also behind what careless readers skip: control characters and a byte order mark.
fn refuse_hidden_json(body: &[u8]) -> Result<(), Rejection> {
    let is_skipped = |byte: &u8| *byte <= b' ' || matches!(byte, 0xef | 0xbb | 0xbf | 0xfe | 0xff);
    let first = body.iter().find(|byte| !is_skipped(byte));
    if matches!(first, Some(b'{' | b'[')) {
        return Err(Rejection::because(
            Code::UnsupportedMediaType,
            "the body is JSON, and its content type is not",
        ));
    }
    Ok(())
}

/// Checks a signature over values from inside the body, which may hold the signature as well.
fn verify_values(
    policy: &Policy,
    source: &Source,
    rule: &SignatureRule,
    signed: &Signed,
    input: MessageInput<'_>,
    document: Option<&Document<'_, '_>>,
) -> Result<(), Rejection> {
    let texts = message_texts(source, rule, document);
    let values: Vec<Option<&[u8]>> = texts.iter().map(Option::as_deref).collect();
    let read;
    let signed = if rule.reads_body() {
        read = rule.read_body(signed, |slot| text_at(document, slot))?;
        &read
    } else {
        signed
    };
    let input = MessageInput {
        timestamp: signed.timestamp().map(Timestamp::as_bytes),
        values: &values,
        ..input
    };
    rule.verify(&input, signed.signatures(), policy.host_verify)
}

/// The value in a slot, if there is one that is not null: a string's text, anything else as it is
/// written.
pub(crate) fn text_at<'d>(
    document: Option<&Document<'d, '_>>,
    slot: usize,
) -> Option<Cow<'d, [u8]>> {
    let value = document?.get(slot)?;
    (value.kind() != Kind::Null).then(|| value.bytes())
}

/// The values at JSON pointers that the message is made of; empty if there are none.
pub(crate) fn message_texts<'d>(
    source: &Source,
    rule: &SignatureRule,
    document: Option<&Document<'d, '_>>,
) -> Vec<Option<Cow<'d, [u8]>>> {
    if !rule.reads_pointers() {
        return Vec::new();
    }
    (0..source.pointers.len())
        .map(|slot| text_at(document, slot))
        .collect()
}

/// The id where it is a header, for a message that holds the body.
fn header_id<'p>(source: &Source, pending: &'p Pending) -> Option<&'p [u8]> {
    match source.scheme.id {
        IdAt::Header(index) => pending.headers.get(index).and_then(Option::as_deref),
        IdAt::BodyDigest | IdAt::MessageDigest | IdAt::Pointers { .. } => None,
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
    let missing = |or_body_digest: bool| {
        if or_body_digest {
            return Ok(MessageId::digest(digest.get()));
        }
        Err(Rejection::new(Code::IdMissing))
    };
    match &source.scheme.id {
        IdAt::BodyDigest | IdAt::MessageDigest => missing(true),
        IdAt::Header(index) => {
            let value = pending.headers.get(*index).and_then(Option::as_deref);
            let value = value.ok_or(Rejection::new(Code::IdMissing))?;
            MessageId::parse_bytes(value)
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
            MessageId::parse(&first)
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
    for alone in &source.alone {
        alone.check(document)?;
    }
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
    digest: &Digested<'_>,
) -> Result<EventKey, Rejection> {
    let mut builder = source.dedupe.key_of_source.clone();
    let mut is_empty = true;
    for part in &source.dedupe.key {
        let present = match part {
            KeyPart::Id => {
                builder.present(b'i', id.as_str().as_bytes());
                true
            }
            KeyPart::Body => {
                builder.present(b'b', digest.get());
                true
            }
            KeyPart::Host => {
                builder.present(b'o', &pending.place.host);
                true
            }
            KeyPart::Path => {
                builder.present(b'p', &pending.place.path);
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

/// For the inspector: what of the payload tells one event of an id from the next.
fn report_stage(source: &Source, document: Option<&Document<'_, '_>>, stage: &mut Stage) {
    for part in &source.dedupe.key {
        if let KeyPart::Pointer(slot) = part
            && let Some(value) = document.and_then(|document| document.get(*slot))
            && matches!(value.kind(), Kind::String | Kind::Number { .. })
        {
            stage.add(&value.bytes());
        }
    }
}

pub(crate) fn limit(source: &Source) -> u64 {
    u64::try_from(source.max_body_bytes).unwrap_or(u64::MAX)
}
