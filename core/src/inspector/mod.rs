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
//! | 1 | bit 0: forwarded to the upstream; bit 1: the age is known; bit 2: the body's length is known |
//! | 2 | its outcome: 0 not known yet, 1.. the place in [`Outcome::ALL`] and one |
//! | 3..5 | status of the answer that the sender got from the upstream, or from the proxy in its place |
//! | 5..13 | number of the event in its ring, from 1 |
//! | 13..21 | time of the decision, in milliseconds |
//! | 21..29 | age of the timestamp, in seconds; negative if it lies ahead |
//! | 29..37 | bytes of the body |
//! | then | source, verdict, id, stage, key, detail: each a byte with its length, and UTF-8 |
//!
//! Numbers are little endian. The number of the last event of a ring has a key of its own, with the
//! number of slots that its writer has; it is moved on by compare-and-swap, and who loses `TRIES`
//! times in a row leaves the event out. Nobody ever waits here.
//!
//! What is kept holds no payload, no secret and no signature: the id only once the MAC has verified
//! it, and of the payload short words that the dedupe key is made of, such as `complete`.
//!
//! # Who may look
//!
//! The page holds no data: it asks for the token, and gets the events with it. The events are
//! behind `Authorization: Bearer`, compared in constant time.

use core::fmt::Write as _;
use std::borrow::Cow;

use crate::outcome::Outcome;
use crate::reply::Reply;
use crate::request::{Occurrence, RequestHead};
use crate::scheme::keys::Token;
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
const TEXT_BOUNDS: [usize; 6] = [32, 32, 128, 60, 16, 200];

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

/// Which slot an event is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which of the rings.
    pub verified: bool,
    /// Its number there.
    pub number: u64,
}

/// One decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry<'e> {
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
    /// Whether the request was forwarded: in monitor mode, refused ones are.
    pub sent_on: bool,
    /// The verified message id; empty if there is none.
    pub id: &'e str,
    /// Words of the payload that name its stage.
    pub stage: &'e str,
    /// Prefix of the dedupe key, in hexadecimal digits: the same for duplicates.
    pub key: &'e str,
    /// Age of the timestamp.
    pub age_seconds: Option<i64>,
    /// Bytes of the body, as far as it came.
    pub body_bytes: Option<u64>,
    /// The outcome; `None` if the request was not forwarded, or there is no answer yet.
    pub outcome: Option<&'static str>,
    /// Status of that answer.
    pub upstream_status: Option<u16>,
}

impl<'e> Entry<'e> {
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

    /// Reads a slot; `None` if it is not of this form.
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

fn slot_name(verified: bool, number: u64, slots: u32) -> String {
    let slot = number.checked_rem(u64::from(slots)).unwrap_or(0);
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
    /// Writes an entry under the next number of its ring; `None` if others were faster each time,
    /// or the host refuses.
    #[cold]
    #[inline(never)]
    pub fn write(&self, shared: &mut impl SharedData, event: &Entry<'_>) -> Option<Slot> {
        let verified = event.verified;
        for _ in 0..TRIES {
            let (last, version) = shared.get(ring(verified)).ok()?;
            let number = number(last.as_deref()).wrapping_add(1);
            let version = version.unwrap_or(ABSENT);
            let mut last = [0; 12];
            let (left, right) = last.split_at_mut(8);
            left.copy_from_slice(&number.to_le_bytes());
            right.copy_from_slice(&self.events.to_le_bytes());
            match shared.set(ring(verified), &last, version) {
                Ok(Swap::Done) => {
                    let bytes = Entry { number, ..*event }.encode();
                    let name = slot_name(verified, number, self.events);
                    shared.set(&name, &bytes, ANY).ok()?;
                    return Some(Slot { verified, number });
                }
                Ok(Swap::Conflict) => {}
                Err(Unavailable) => return None,
            }
        }
        None
    }

    /// Records the outcome of a forwarded request, unless its slot has gone to another event.
    #[cold]
    #[inline(never)]
    pub fn answered(
        &self,
        shared: &mut impl SharedData,
        slot: Slot,
        outcome: Outcome,
        status: u64,
    ) {
        let name = slot_name(slot.verified, slot.number, self.events);
        for _ in 0..TRIES {
            let Ok((Some(mut bytes), Some(version))) = shared.get(&name) else {
                return;
            };
            if number(bytes.get(5..)) != slot.number {
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

    /// The last events of one ring, the newest first, as bytes; and the number of the last.
    ///
    /// The slots are those of the plugin that wrote last: it need not be this one.
    fn read(&self, shared: &mut impl SharedData, verified: bool) -> (Vec<Vec<u8>>, u64) {
        let mut slots = Vec::new();
        let head = shared.get(ring(verified)).ok().and_then(|(head, _)| head);
        let last = number(head.as_deref());
        let written = head
            .as_deref()
            .and_then(|head| head.get(8..)?.first_chunk());
        let written = written.map_or(0, |events| u32::from_le_bytes(*events));
        let mut next = last;
        for _ in 0..self.events.min(written) {
            let name = slot_name(verified, next, written);
            if let Ok((Some(bytes), _)) = shared.get(&name)
                && number(bytes.get(5..)) == next
            {
                slots.push(bytes);
            }
            next = next.saturating_sub(1);
        }
        (slots, last)
    }

    /// The last events of both rings, as JSON, the newest first.
    fn listing(&self, shared: &mut impl SharedData, now: UnixMillis) -> String {
        let (verified, last_verified) = self.read(shared, true);
        let (other, last_other) = self.read(shared, false);
        let mut verified = verified
            .iter()
            .filter_map(|bytes| Entry::decode(true, bytes))
            .peekable();
        let mut other = other
            .iter()
            .filter_map(|bytes| Entry::decode(false, bytes))
            .peekable();
        let mut json = Json::default();
        json.text("version", env!("CARGO_PKG_VERSION"));
        json.number("now_unix_ms", Some(now.as_millis()));
        json.number("kept", Some(self.events.into()));
        json.number("recorded_verified", Some(last_verified));
        json.number("recorded_other", Some(last_other));
        json.name("events");
        json.text.push('[');
        loop {
            let takes_verified = match (verified.peek(), other.peek()) {
                (Some(left), Some(right)) => left.time_unix_ms >= right.time_unix_ms,
                (left, _) => left.is_some(),
            };
            let event = if takes_verified {
                verified.next()
            } else {
                other.next()
            };
            let Some(event) = event else { break };
            json.event(&event);
        }
        json.text.push_str("]}");
        json.text
    }

    /// The answer to a request to the inspector; `None` if it is not one.
    #[cold]
    #[inline(never)]
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
            return Some(reply(405, METHOD_NOT_ALLOWED.as_bytes().into()));
        }
        if is_page {
            return Some(page());
        }
        let token = match head.occurrence(b"authorization") {
            Occurrence::Once(value) => bearer(value),
            Occurrence::Missing | Occurrence::Several => None,
        };
        if !token.is_some_and(|token| place.token.matches(token)) {
            return Some(reply(401, UNAUTHORIZED.as_bytes().into()));
        }
        let listing = self.listing(shared, now);
        Some(reply(200, listing.into_bytes().into()))
    }
}

/// The token of an `Authorization` header. Source: RFC 6750, 2.1; RFC 9110, 11.1 (any case).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// JSON text under construction; whoever opens an object or array closes it.
#[derive(Default)]
struct Json {
    text: String,
}

impl Json {
    /// Begins a member; the first one its object, too.
    fn name(&mut self, name: &str) {
        let is_first = self.text.is_empty() || self.text.ends_with(['[', '}']);
        if self.text.ends_with('}') {
            self.text.push(',');
        }
        self.text.push(if is_first { '{' } else { ',' });
        self.string(name);
        self.text.push(':');
    }

    #[inline(never)]
    fn raw(&mut self, name: &str, value: &str) {
        self.name(name);
        self.text.push_str(value);
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.raw(name, if value { "true" } else { "false" });
    }

    #[inline(never)]
    fn number(&mut self, name: &str, value: Option<u64>) {
        self.name(name);
        // Writing to a `String` cannot fail.
        let _ = match value {
            Some(value) => write!(self.text, "{value}"),
            None => self.text.write_str("null"),
        };
    }

    /// A member with a text; null if it is empty.
    #[inline(never)]
    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        if value.is_empty() {
            self.text.push_str("null");
        } else {
            self.string(value);
        }
    }

    /// A string. Source: RFC 8259, 7; the rest above ASCII stays as it is.
    #[inline(never)]
    fn string(&mut self, value: &str) {
        self.text.push('"');
        for char in value.chars() {
            let is_plain = char >= ' ' && !matches!(char, '"' | '\\' | '<' | '\u{7f}');
            if is_plain {
                self.text.push(char);
            } else {
                let _ = write!(self.text, "\\u{:04x}", u32::from(char));
            }
        }
        self.text.push('"');
    }

    fn event(&mut self, event: &Entry<'_>) {
        self.flag("verified", event.verified);
        self.number("number", Some(event.number));
        self.number("time_unix_ms", Some(event.time_unix_ms));
        self.text("source", event.source);
        self.text("verdict", event.verdict);
        self.text("detail", event.detail);
        self.flag("sent_on", event.sent_on);
        self.text("id", event.id);
        self.text("stage", event.stage);
        self.text("key", event.key);
        match event.age_seconds {
            Some(age) if age < 0 => {
                self.raw("age_seconds", "-");
                let _ = write!(self.text, "{}", age.unsigned_abs());
            }
            age => self.number("age_seconds", age.map(i64::unsigned_abs)),
        }
        self.number("body_bytes", event.body_bytes);
        self.text("outcome", event.outcome.unwrap_or(""));
        self.number("upstream_status", event.upstream_status.map(u64::from));
        self.text.push('}');
    }
}

/// The page: gzip of `page.html`, without data. A test checks that they match.
const PACKED_PAGE: &[u8] = include_bytes!("page.html.gz");

/// The page's own style and script, by their hashes, and nothing else. A test says what they are.
///
/// Source: CSP Level 3; Trusted Types.
const PAGE_POLICY: &str = "default-src 'none'; \
    script-src 'sha256-xnmh7zEYOHXnV/2640jhhR7YgvU9wBv2cGVvtIjskB0='; \
    style-src 'sha256-i5DA4SrSS9hpk2VKEOvH/UNmA4K9zt2tqywZ0jd8OrQ='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const METHOD_NOT_ALLOWED: &str =
    r#"{"type":"about:blank","title":"Method Not Allowed","status":405}"#;
const UNAUTHORIZED: &str = r#"{"type":"about:blank","title":"Unauthorized","status":401}"#;

/// For `%RESPONSE_CODE_DETAILS%`.
pub(crate) const DETAILS: &str = "callback_guard:inspector";

/// What every answer carries: it is for one reader, now, and for no other page.
const HEADERS: [(&str, &str); 6] = [
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

fn reply(status: u16, body: Cow<'static, [u8]>) -> Reply {
    let more: &[(&str, &str)] = match status {
        401 => &[
            PROBLEM,
            ("www-authenticate", "Bearer realm=\"callback-guard\""),
        ],
        405 => &[PROBLEM, ("allow", "GET")],
        _ => &[("content-type", "application/json")],
    };
    with_headers(status, more, body)
}

fn page() -> Reply {
    let more = [
        ("content-encoding", "gzip"),
        ("content-security-policy", PAGE_POLICY),
        ("content-type", "text/html; charset=utf-8"),
    ];
    with_headers(200, &more, PACKED_PAGE.into())
}

fn with_headers(
    status: u16,
    more: &[(&'static str, &'static str)],
    body: Cow<'static, [u8]>,
) -> Reply {
    Reply {
        status,
        headers: HEADERS
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        body,
        details: DETAILS.into(),
    }
}

const PROBLEM: (&str, &str) = ("content-type", "application/problem+json");
