//! The inspector: the last decisions of all workers, kept in the proxy's shared data, and the page
//! that shows them.
//!
//! Two rings, each of `events` slots: one for requests whose MAC was verified, one for the rest. So
//! a flood of forged requests cannot push out what was really delivered. A slot is a key of the
//! shared data with one event of at most [`MAX_EVENT_BYTES`] bytes in it:
//!
//! | bytes | content |
//! |---|---|
//! | 0 | 1, the number of this format |
//! | 1 | bit 0: sent on to the upstream; bit 1: the age is known; bit 2: the body's length is known |
//! | 2 | what became of it: 0 not known yet, 1.. the place in [`Outcome::ALL`] and one |
//! | 3..5 | status of the answer that the sender got from the upstream, or from the proxy in its place |
//! | 5..13 | number of the event in its ring, from 1 |
//! | 13..21 | time of the decision, in milliseconds |
//! | 21..29 | age of the timestamp, in seconds; negative if it lies ahead |
//! | 29..37 | bytes of the body |
//! | then | source, verdict, id, stage, key, detail: each a byte with its length, and UTF-8 |
//!
//! Numbers are little endian. The number of the last event of a ring has a key of its own, which is
//! moved on by compare-and-swap; who loses [`TRIES`] times in a row leaves the event out. Nobody
//! ever waits here.
//!
//! What is kept holds no payload, no secret and no signature: the id only once the MAC has verified
//! it, and of the payload short words that the dedupe key is made of, such as `complete`.
//!
//! # Who may look
//!
//! The page holds no data: it asks for the token, and gets the events with it. The events are
//! behind `Authorization: Bearer`, compared in constant time.

use core::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::guard::Guard;
use crate::mac::{self, Signature, SigningSecret};
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::request::{Occurrence, RequestHead};
use crate::store::{ABSENT, SharedData, Swap, Unavailable};
use crate::time::UnixMillis;

/// Most bytes of one event in the shared data.
pub const MAX_EVENT_BYTES: usize = 512;
/// The fewest events of each ring that may be configured.
pub const LEAST_EVENTS: u32 = 10;
/// The most events of each ring that may be configured: 1 MB of shared data for both rings.
pub const MOST_EVENTS: u32 = 1_000;
/// How often a compare-and-swap is tried before the event is left out.
const TRIES: usize = 4;
/// The version that overwrites whatever is there. Source: as [`ABSENT`].
const ANY: u32 = 0;

/// The bounds of the texts, in bytes; see [`MAX_EVENT_BYTES`].
const TEXT_BOUNDS: [usize; 6] = [32, 32, 128, STAGE_BYTES, 16, 200];
/// Most bytes of [`Event::stage`].
const STAGE_BYTES: usize = 60;
/// Most bytes of one word of it.
const WORD_BYTES: usize = 24;

/// The inspector, as configured.
#[derive(Clone, Debug)]
pub struct Inspector {
    /// How many events each ring keeps.
    pub events: u32,
    /// Where it is shown, if this plugin shows it.
    pub place: Option<Place>,
    /// Whether decisions of this plugin are kept: it has sources.
    pub records: bool,
}

/// Where the inspector is shown, and to whom.
#[derive(Clone, Debug)]
pub struct Place {
    path: Box<str>,
    token: Token,
}

impl Place {
    /// The page at `path`, the events at `<path>/events`.
    #[must_use]
    pub fn new(path: &str, token: Token) -> Self {
        Self {
            path: path.into(),
            token,
        }
    }

    /// The paths that it takes.
    #[must_use]
    pub fn paths(&self) -> [String; 2] {
        [self.path.to_string(), format!("{}{EVENTS}", self.path)]
    }
}

/// The end of the path of the events.
const EVENTS: &str = "/events";

/// The token, as the MAC of itself under itself: equal tokens have equal MACs, which are compared
/// in constant time, and it is shown nowhere.
#[derive(Clone, Debug)]
pub struct Token {
    key: SigningSecret,
    expected: Signature,
}

impl Token {
    /// Prepares a token. An empty one is refused.
    #[must_use]
    pub fn new(token: &[u8]) -> Option<Self> {
        let key = SigningSecret::new(token)?;
        let expected = key.sign(&[token]);
        Some(Self { key, expected })
    }

    fn is(&self, given: &[u8]) -> bool {
        let keys = core::slice::from_ref(&self.key);
        mac::verify(keys, &[given], core::iter::once(&self.expected)).is_some()
    }
}

/// What the inspector shows of a request beside its verdict.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Age of the timestamp, in seconds.
    pub age_seconds: Option<i64>,
    /// Bytes of the body, as far as it came.
    pub body_bytes: Option<usize>,
    /// The event, in hexadecimal digits; once it is verified.
    pub key: String,
    /// Words of the payload that tell the event's stage; once it is verified.
    pub stage: String,
    /// Where the event is kept, once it is.
    pub kept: Option<Kept>,
}

impl Notes {
    /// Adds a value of the dedupe key, if it is a short plain word.
    pub fn add_stage(&mut self, value: &[u8]) {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte);
        let is_word = (1..=WORD_BYTES).contains(&value.len()) && value.iter().all(is_plain);
        if !is_word || self.stage.len().saturating_add(value.len()) >= STAGE_BYTES {
            return;
        }
        if !self.stage.is_empty() {
            self.stage.push(' ');
        }
        self.stage.extend(value.iter().copied().map(char::from));
    }
}

/// Which slot an event is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which of the rings.
    pub verified: bool,
    /// Its number there.
    pub number: u64,
}

/// One decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Event<'e> {
    /// Whether the MAC was verified.
    pub verified: bool,
    /// Its number among those, or among the others.
    pub number: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub time_unix_ms: u64,
    /// The source; empty if none matched.
    pub source: &'e str,
    /// The code.
    pub verdict: &'e str,
    /// The numbers behind a refusal.
    pub detail: &'e str,
    /// Whether the request was sent on: in monitor mode, refused ones are.
    pub sent_on: bool,
    /// The verified message id; empty if there is none.
    pub id: &'e str,
    /// Words of the payload that tell its stage.
    pub stage: &'e str,
    /// Begin of the dedupe key, in hexadecimal digits: the same for duplicates.
    pub key: &'e str,
    /// Age of the timestamp.
    pub age_seconds: Option<i64>,
    /// Bytes of the body, as far as it came.
    pub body_bytes: Option<u64>,
    /// What became of the request; nothing if it was not sent on, or there is no answer yet.
    pub outcome: Option<&'static str>,
    /// Status of that answer.
    pub upstream_status: Option<u16>,
}

impl<'e> Event<'e> {
    fn texts(&self) -> [&'e str; 6] {
        [
            self.source,
            self.verdict,
            self.id,
            self.stage,
            self.key,
            self.detail,
        ]
    }

    /// The bytes of a slot, without an answer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.sent_on, 1)
            | flag(self.age_seconds.is_some(), 2)
            | flag(self.body_bytes.is_some(), 4);
        let mut bytes = Vec::with_capacity(MAX_EVENT_BYTES);
        bytes.extend_from_slice(&[FORMAT, flags, 0, 0, 0]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.time_unix_ms.to_le_bytes());
        bytes.extend_from_slice(&self.age_seconds.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.body_bytes.unwrap_or(0).to_le_bytes());
        for (text, bound) in self.texts().into_iter().zip(TEXT_BOUNDS) {
            let text = text.get(..text.floor_char_boundary(bound)).unwrap_or("");
            bytes.push(u8::try_from(text.len()).unwrap_or(0));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    /// Reads a slot; nothing if it is not of this form.
    #[must_use]
    pub fn decode(verified: bool, bytes: &'e [u8]) -> Option<Self> {
        let ([FORMAT, flags, outcome, low, high], rest) = bytes.split_first_chunk::<5>()? else {
            return None;
        };
        let (number, rest) = rest.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (age, rest) = rest.split_first_chunk()?;
        let (length, mut rest) = rest.split_first_chunk()?;
        let mut texts = [""; 6];
        for text in &mut texts {
            let (length, after) = rest.split_first()?;
            let (bytes, after) = after.split_at_checked(usize::from(*length))?;
            *text = core::str::from_utf8(bytes).ok()?;
            rest = after;
        }
        let [source, verdict, id, stage, key, detail] = texts;
        let outcome = usize::from(*outcome)
            .checked_sub(1)
            .and_then(|place| Outcome::ALL.get(place));
        let status = u16::from_le_bytes([*low, *high]);
        Some(Self {
            verified,
            number: u64::from_le_bytes(*number),
            time_unix_ms: u64::from_le_bytes(*time),
            source,
            verdict,
            detail,
            sent_on: flags & 1 != 0,
            id,
            stage,
            key,
            age_seconds: (flags & 2 != 0).then_some(i64::from_le_bytes(*age)),
            body_bytes: (flags & 4 != 0).then_some(u64::from_le_bytes(*length)),
            outcome: outcome.map(|outcome| outcome.as_str()),
            upstream_status: (status != 0).then_some(status),
        })
    }
}

const FORMAT: u8 = 1;

fn name(verified: bool, slot: u64) -> String {
    let mut name = String::with_capacity(24);
    // Writing to a `String` cannot fail.
    let _ = write!(name, "{}/{slot:x}", ring(verified));
    name
}

fn ring(verified: bool) -> &'static str {
    if verified {
        "inspector/verified"
    } else {
        "inspector/other"
    }
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes
        .and_then(|bytes| bytes.first_chunk().copied())
        .map_or(0, u64::from_le_bytes)
}

impl Inspector {
    /// Keeps the decision on `guard`, made at `now`.
    pub fn keep(
        &self,
        shared: &mut impl SharedData,
        guard: &mut Guard,
        policy: &Policy,
        now: UnixMillis,
    ) {
        let (Some(verdict), Some(notes)) = (guard.verdict(), guard.notes()) else {
            return;
        };
        let detail = guard.rejection().map(ToString::to_string);
        let detail = detail
            .as_deref()
            .and_then(|text| text.split_once(": "))
            .map_or("", |(_, detail)| detail);
        let event = Event {
            verified: guard.verified_id().is_some(),
            time_unix_ms: now.as_millis(),
            source: guard.policy_of(policy).map_or("", |source| &source.name),
            verdict: verdict.as_str(),
            detail,
            sent_on: guard.is_sent_on(),
            id: guard.verified_id().map_or("", |id| id.as_str()),
            stage: &notes.stage,
            key: &notes.key,
            age_seconds: notes.age_seconds,
            body_bytes: notes.body_bytes.and_then(|bytes| bytes.try_into().ok()),
            ..Event::default()
        };
        let kept = self.write(shared, &event);
        if let Some(notes) = guard.notes_mut() {
            notes.kept = kept;
        }
    }

    /// Writes an event under the next number of its ring; nothing if others were faster each time,
    /// or the host refuses.
    pub fn write(&self, shared: &mut impl SharedData, event: &Event<'_>) -> Option<Kept> {
        let verified = event.verified;
        for _ in 0..TRIES {
            let (last, version) = shared.get(ring(verified)).ok()?;
            let number = number(last.as_deref()).wrapping_add(1);
            let version = version.unwrap_or(ABSENT);
            match shared.set(ring(verified), &number.to_le_bytes(), version) {
                Ok(Swap::Done) => {
                    let bytes = Event { number, ..*event }.encode();
                    let name = name(verified, self.slot(number));
                    shared.set(&name, &bytes, ANY).ok()?;
                    return Some(Kept { verified, number });
                }
                Ok(Swap::Conflict) => {}
                Err(Unavailable) => return None,
            }
        }
        None
    }

    /// Notes what became of a request that was sent on, unless its slot has gone to another event.
    pub fn answered(
        &self,
        shared: &mut impl SharedData,
        kept: Kept,
        outcome: Outcome,
        status: u64,
    ) {
        let name = name(kept.verified, self.slot(kept.number));
        for _ in 0..TRIES {
            let Ok((Some(mut bytes), Some(version))) = shared.get(&name) else {
                return;
            };
            if number(bytes.get(5..)) != kept.number {
                return;
            }
            let place = Outcome::ALL.iter().position(|known| *known == outcome);
            let place = place.and_then(|place| u8::try_from(place).ok());
            let status = u16::try_from(status).unwrap_or(0).to_le_bytes();
            if let Some([_, _, answer, low, high]) = bytes.first_chunk_mut() {
                *answer = place.map_or(0, |place| place.saturating_add(1));
                [*low, *high] = status;
            }
            match shared.set(&name, &bytes, version) {
                Ok(Swap::Conflict) => {}
                Ok(Swap::Done) | Err(Unavailable) => return,
            }
        }
    }

    fn slot(&self, number: u64) -> u64 {
        number.checked_rem(u64::from(self.events)).unwrap_or(0)
    }

    /// The last events, as JSON, the newest first.
    ///
    /// Reads every slot that any configuration may have written, so that it does not matter which
    /// number of events the plugin has that writes.
    fn listing(&self, shared: &mut impl SharedData, now: UnixMillis) -> String {
        let mut slots = Vec::new();
        let mut recorded = [0; 2];
        for (verified, recorded) in [true, false].into_iter().zip(&mut recorded) {
            if let Ok((last, _)) = shared.get(ring(verified)) {
                *recorded = number(last.as_deref());
            }
            if *recorded == 0 {
                continue;
            }
            for slot in 0..u64::from(MOST_EVENTS) {
                if let Ok((Some(bytes), _)) = shared.get(&name(verified, slot)) {
                    slots.push((verified, bytes));
                }
            }
        }
        let mut events: Vec<Event<'_>> = slots
            .iter()
            .filter_map(|(verified, bytes)| Event::decode(*verified, bytes))
            .collect();
        events.sort_unstable_by_key(|event| core::cmp::Reverse((event.time_unix_ms, event.number)));
        let mut left = [self.events; 2];
        events.retain(|event| {
            let [verified, other] = &mut left;
            let left = if event.verified { verified } else { other };
            let is_kept = *left > 0;
            *left = left.saturating_sub(1);
            is_kept
        });
        let [verified, other] = recorded;
        let listing = Listing {
            now_unix_ms: now.as_millis(),
            kept: self.events,
            recorded_verified: verified,
            recorded_other: other,
            events,
        };
        // Texts and numbers: this cannot fail.
        serde_json::to_string(&listing).unwrap_or_default()
    }

    /// The answer to a request to the inspector; nothing if it is not one.
    pub fn answer(
        &self,
        shared: &mut impl SharedData,
        head: &RequestHead<'_>,
        now: UnixMillis,
    ) -> Option<Reply> {
        let place = self.place.as_ref()?;
        let rest = head.path().strip_prefix(place.path.as_bytes())?;
        let is_page = rest.is_empty();
        if !is_page && rest != EVENTS.as_bytes() {
            return None;
        }
        if head.method() != b"GET" {
            return Some(Reply::problem(405, "Method Not Allowed", ("allow", "GET")));
        }
        if is_page {
            return Some(page());
        }
        let token = match head.occurrence(b"authorization") {
            Occurrence::Once(value) => bearer(value),
            Occurrence::Missing | Occurrence::Several => None,
        };
        if !token.is_some_and(|token| place.token.is(token)) {
            let challenge = ("www-authenticate", "Bearer realm=\"callback-guard\"");
            return Some(Reply::problem(401, "Unauthorized", challenge));
        }
        let body = self.listing(shared, now);
        Some(Reply::new(200, ("content-type", "application/json"), body))
    }
}

/// The token of an `Authorization` header. Source: RFC 6750, 2.1; RFC 9110, 11.1 (any case).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[derive(Serialize)]
struct Listing<'l> {
    now_unix_ms: u64,
    kept: u32,
    recorded_verified: u64,
    recorded_other: u64,
    events: Vec<Event<'l>>,
}

/// What the inspector answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// For `%RESPONSE_CODE_DETAILS%`.
pub const DETAILS: &str = "callback_guard:inspector";

impl Reply {
    fn new(status: u16, header: (&'static str, &str), body: String) -> Self {
        let headers = [
            header,
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ];
        Self {
            status,
            headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
            body,
        }
    }

    fn problem(status: u16, title: &str, header: (&'static str, &str)) -> Self {
        let body =
            format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status}}}");
        let mut reply = Self::new(status, header, body);
        let kind = "application/problem+json".to_owned();
        reply.headers.push(("content-type", kind));
        reply
    }
}

const PAGE: &str = include_str!("inspector/page.html");

/// The page. Its policy allows its own style and script, by their hashes, and nothing else.
///
/// Source: CSP Level 3; Trusted Types.
fn page() -> Reply {
    use base64::Engine as _;
    let hash = |begin: &str, end: &str| {
        let inside = PAGE
            .split_once(begin)
            .and_then(|(_, rest)| rest.split_once(end))
            .map_or("", |(inside, _)| inside);
        base64::engine::general_purpose::STANDARD.encode(Sha256::digest(inside))
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash("<script>", "</script>"),
        hash("<style>", "</style>"),
    );
    let kind = ("content-type", "text/html; charset=utf-8");
    let mut reply = Reply::new(200, kind, PAGE.to_owned());
    reply.headers.push(("content-security-policy", policy));
    reply
}
