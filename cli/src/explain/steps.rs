//! The steps of a request, as a table: passed, refused or not reached, with the numbers.

use std::borrow::Cow;

use callback_guard_core::json::{self, Kind, Scratch};
use callback_guard_core::policy::{KeyPart, PathRule, Source};
use callback_guard_core::report::Check as Step;
use callback_guard_core::request::{MediaType, Occurrence};
use callback_guard_core::scheme::keys::{KeyIndex, Mismatch, verify};
use callback_guard_core::scheme::token::TokenAt;
use callback_guard_core::scheme::{
    IdAt, MessageInput, Part, Proof, SignaturePlace, SignatureRule, Signed, Timestamp,
    TimestampPlace, Tolerance, Unit,
};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;

use super::case::{Case, Judgement, NamedSecret, rule, signed};
use crate::time;

/// The order of the steps: where the body is signed, its MAC is checked before it is parsed.
fn order(signs_body: bool) -> Vec<Step> {
    let mut steps = Step::ALL.to_vec();
    if signs_body {
        steps.retain(|step| *step != Step::Mac);
        let json = steps.iter().position(|step| *step == Step::Json);
        steps.insert(json.unwrap_or(steps.len()), Step::Mac);
    }
    steps
}

/// The table.
pub(super) fn table(case: &Case<'_>, judgement: &Judgement) -> String {
    let source = judgement.report.source.as_deref();
    // The guard's own word, not a guess from its code.
    let refused = judgement
        .report
        .rejection
        .is_some()
        .then_some(judgement.report.check);
    let is_answered = judgement.report.verdict == Some(Code::Challenge);
    let passes_by = source.is_none() && refused.is_none();
    let mut is_reached = true;
    let mut text = String::new();
    for step in order(source.and_then(rule).is_some_and(SignatureRule::signs_body)) {
        let is_challenge = matches!(step, Step::Challenge | Step::AuthenticChallenge);
        if is_challenge && judgement.report.check != step {
            continue;
        }
        let (mark, note) = if is_challenge && is_answered {
            is_reached = false;
            ("ANSWERED", "by the guard; docs/challenges.md".to_owned())
        } else if !is_reached {
            ("-", "not reached".to_owned())
        } else if Some(step) == refused {
            is_reached = false;
            let reason = judgement.report.rejection.as_ref().map(ToString::to_string);
            let seen = seen(case, judgement, step);
            let seen = if seen.is_empty() {
                seen
            } else {
                format!("; {seen}")
            };
            ("REFUSED", format!("{}{seen}", reason.unwrap_or_default()))
        } else {
            ("ok", seen(case, judgement, step))
        };
        if passes_by {
            is_reached = false;
        }
        text.push_str(&format!("{mark:8} {:21} {note}\n", step.as_str()));
    }
    text
}

/// What there is to see at a step, passed or refused; never a secret and never an expected signature.
fn seen(case: &Case<'_>, judgement: &Judgement, step: Step) -> String {
    let Some(source) = judgement.report.source.as_deref() else {
        return format!(
            "{} on {} matches none of {}",
            quoted(case.head.path()),
            quoted(case.head.host()),
            routes(case)
        );
    };
    let header = |name: &str| case.head.occurrence(name.as_bytes());
    let limit = source.max_body_bytes;
    match step {
        Step::Source => format!("{}, by {}", source.name, route(source)),
        Step::Challenge | Step::AuthenticChallenge => String::new(),
        Step::Method => given(header(":method")),
        Step::MediaType => given(header("content-type")),
        Step::Encoding => match header("content-encoding") {
            Occurrence::Missing => "none".to_owned(),
            other => given(other),
        },
        Step::Length => match header("content-length") {
            Occurrence::Missing => format!("none; at most {limit} bytes"),
            other => format!("{} of at most {limit} bytes", given(other)),
        },
        Step::Credentials => headers(case, source),
        Step::Freshness => match signed(case, source) {
            Some(signed) => match signed.timestamp() {
                Some(timestamp) => age(case, timestamp, source.tolerance),
                None => "no timestamp in the head".to_owned(),
            },
            None => "a token has no timestamp".to_owned(),
        },
        Step::OtherHeaders => {
            let named = source
                .headers
                .iter()
                .map(|wanted| format!("{}: {}", wanted.name, given(header(&wanted.name))));
            let named: Vec<String> = named.collect();
            match named.is_empty() {
                true => "none needed".to_owned(),
                false => named.join(", "),
            }
        }
        Step::Body => format!("{} of at most {limit} bytes", case.body.len()),
        Step::Json => "one object, strictly read".to_owned(),
        Step::Id => id(case, source),
        Step::Mac => mac(case, source),
        Step::Payload => payload(case, source),
        Step::Event => match &judgement.report.key {
            Some(key) => format!(
                "{} x-callback-guard-key {}, made of {}",
                match source.dedupe.is_on {
                    true => "claimed as",
                    false => "not remembered;",
                },
                key.to_hex(),
                key_parts(source)
            ),
            None => String::new(),
        },
    }
}

fn headers(case: &Case<'_>, source: &Source) -> String {
    let rule = match &source.scheme.proof {
        Proof::Signature(rule) => rule,
        // The token is the secret itself: its place is printed, never its value.
        Proof::Token(token) => {
            return match &token.at {
                TokenAt::Header(name) => format!("a token in {name}"),
                TokenAt::PathSegment { .. } => "a token in the last segment of the path".to_owned(),
                TokenAt::Query(name) => format!("a token in the query, {name}"),
                TokenAt::Basic => "user and password in authorization".to_owned(),
                TokenAt::Pointer(slot) => {
                    format!("a token in the body, {}", pointer_at(source, *slot))
                }
            };
        }
    };
    let at = &rule.value;
    let place = match &at.place {
        SignaturePlace::Headers(names) => names.join(" or "),
        SignaturePlace::Query(name) => format!("{name} in the query"),
        SignaturePlace::Pointer(slot) => format!("{} in the body", pointer_at(source, *slot)),
    };
    let signature = format!("{place}: {}", at.encoding.name());
    let header = at.header().unwrap_or_default();
    let mut parts = vec![match rule.read_head(case.head) {
        Ok(signed) => format!("{signature}, {} given", signed.signatures().len()),
        Err(_) => match case.head.occurrence(header.as_bytes()) {
            Occurrence::Once(value) => format!("{signature}, {} bytes given", value.len()),
            other => format!("{signature}, {}", given(other)),
        },
    }];
    if let Some(at) = &rule.timestamp {
        let value = match &at.place {
            TimestampPlace::Header(name) => {
                format!(" {}", given(case.head.occurrence(name.as_bytes())))
            }
            _ => String::new(),
        };
        parts.push(format!(
            "{}:{value} ({})",
            place_name(&at.place, header),
            unit_name(at.unit)
        ));
    }
    parts.join("; ")
}

fn pointer_at(source: &Source, slot: usize) -> &str {
    let pointer = source.pointers.get(slot);
    pointer.map_or("", |pointer| pointer.as_str())
}

/// The age of a timestamp, by the moment of reception and by the clock now.
fn age(case: &Case<'_>, timestamp: &Timestamp, tolerance: Tolerance) -> String {
    let at_reception = distance(timestamp, case.received);
    let accepted = format!(
        "{} s old to {} s ahead accepted",
        tolerance.past, tolerance.future
    );
    let now = distance(timestamp, case.now);
    let verdict = match tolerance.check(timestamp, case.now) {
        Ok(()) => "still fresh",
        Err(_) => "no longer accepted",
    };
    format!(
        "{at_reception} when received, {accepted}; {now} by this machine's clock now, {verdict}"
    )
}

fn distance(timestamp: &Timestamp, now: UnixMillis) -> String {
    let (then, now) = (timestamp.seconds(), now.as_seconds());
    match then.checked_sub(now) {
        Some(0) => "0 s old".to_owned(),
        Some(lead) => format!("{} ahead", time::span(lead)),
        None => format!("{} old", time::span(now.saturating_sub(then))),
    }
}

fn id(case: &Case<'_>, source: &Source) -> String {
    match &source.scheme.id {
        IdAt::BodyDigest => "the SHA-256 of the body".to_owned(),
        IdAt::MessageDigest => "the SHA-256 of the signed message".to_owned(),
        IdAt::Header(index) => match source.headers.get(*index) {
            Some(header) => format!(
                "{} in {}",
                given(case.head.occurrence(header.name.as_bytes())),
                header.name
            ),
            None => String::new(),
        },
        IdAt::Pointers {
            slots,
            or_body_digest,
        } => {
            let mut scratch = Scratch::default();
            let Ok(document) = json::scan(case.body, &source.selector, &mut scratch) else {
                return String::new();
            };
            let found: Vec<String> = slots
                .clone()
                .filter_map(|slot| {
                    let pointer = source.pointers.get(slot)?.as_str();
                    let value = document.get(slot)?;
                    Some(match value.text() {
                        Some(text) => format!("{} at {pointer}", quoted(text.as_bytes())),
                        None if value.kind() == Kind::Null => format!("null at {pointer}"),
                        None => format!("no string at {pointer}"),
                    })
                })
                .collect();
            if found.is_empty() && *or_body_digest {
                return "the SHA-256 of the body, as the body has none".to_owned();
            }
            if found.is_empty() {
                let pointers = source.pointers.get(slots.clone()).unwrap_or_default();
                let pointers: Vec<&str> = pointers.iter().map(json::Pointer::as_str).collect();
                return format!("nothing at {}", pointers.join(", "));
            }
            found.join(", ")
        }
    }
}

/// The signed message as text, and the secret that it matches under.
fn mac(case: &Case<'_>, source: &Source) -> String {
    let facts = SignedFacts::of(case, source);
    let (Some(rule), Some(signed)) = (rule(source), signed(case, source)) else {
        return "a token is checked with the head".to_owned();
    };
    let Some(parts) = facts.parts(rule, facts.timestamp(&signed)) else {
        return String::new();
    };
    let message = describe(rule, &parts);
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let index = verify(
        &rule.keys,
        &slices,
        signed.signatures(),
        case.policy.host_verify,
    );
    let known = judgement_secrets(case, source);
    let all = rule.keys.len();
    match index {
        Ok(KeyIndex(index)) => {
            let name = known.get(index).map_or("?", |secret| secret.name.as_str());
            format!(
                "matches under secret {} of {all}, {name}; signed message: {message}",
                index.saturating_add(1)
            )
        }
        Err(Mismatch::NoKey) => format!(
            "Envoy delivers the secret (`sds`), and it is not here: explain without --config, with --preset and \
             --secret-env; signed message: {message}"
        ),
        Err(_) => {
            let names: Vec<&str> = known.iter().map(|secret| secret.name.as_str()).collect();
            format!(
                "matches under none of {all} ({}); signed message: {message}",
                names.join(", ")
            )
        }
    }
}

/// The named secrets of `source`.
pub(super) fn judgement_secrets<'c>(case: &'c Case<'_>, source: &Source) -> &'c [NamedSecret] {
    let index = case
        .policy
        .sources
        .iter()
        .position(|one| one.index == source.index);
    index
        .and_then(|index| case.secrets.get(index))
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The parts of the message, apart from the timestamp.
pub(super) struct SignedFacts {
    pub(super) headers: Vec<Option<Box<[u8]>>>,
    pub(super) values: Vec<Option<Vec<u8>>>,
    pub(super) id: Option<Vec<u8>>,
    pub(super) body: Vec<u8>,
    pub(super) is_json: bool,
}

impl SignedFacts {
    pub(super) fn of(case: &Case<'_>, source: &Source) -> Self {
        let headers: Vec<Option<Box<[u8]>>> = source
            .headers
            .iter()
            .map(
                |header| match case.head.occurrence(header.name.as_bytes()) {
                    Occurrence::Once(value) => Some(value.into()),
                    _ => None,
                },
            )
            .collect();
        let mut scratch = Scratch::default();
        let document = json::scan(case.body, &source.selector, &mut scratch).ok();
        let values: Vec<Option<Vec<u8>>> = (0..source.pointers.len())
            .map(|slot| {
                let value = document.as_ref()?.get(slot)?;
                (value.kind() != Kind::Null).then(|| value.bytes().into_owned())
            })
            .collect();
        let id = match &source.scheme.id {
            IdAt::BodyDigest | IdAt::MessageDigest => None,
            IdAt::Header(index) => headers.get(*index).cloned().flatten().map(Vec::from),
            IdAt::Pointers { slots, .. } => {
                let values = values.get(slots.clone()).unwrap_or_default();
                values.iter().flatten().next().cloned()
            }
        };
        Self {
            headers,
            values,
            id,
            body: case.body.to_vec(),
            is_json: matches!(
                case.head.check_media_type(&source.media_types),
                Ok(MediaType::Json)
            ),
        }
    }

    pub(super) fn timestamp(&self, signed: &Signed) -> Option<Vec<u8>> {
        signed
            .timestamp()
            .map(|timestamp| timestamp.as_bytes().to_vec())
    }

    /// The parts of the message, put together by the scheme itself.
    pub(super) fn parts(
        &self,
        rule: &SignatureRule,
        timestamp: Option<Vec<u8>>,
    ) -> Option<Vec<Vec<u8>>> {
        let values: Vec<Option<&[u8]>> = self.values.iter().map(Option::as_deref).collect();
        let input = MessageInput {
            body: &self.body,
            is_json: self.is_json,
            headers: &self.headers,
            id: self.id.as_deref(),
            timestamp: timestamp.as_deref(),
            values: &values,
        };
        rule.with_message(&input, |parts| {
            parts.iter().map(|part| part.to_vec()).collect()
        })
        .ok()
    }
}

/// A message as text; a long body only by its length.
fn describe(rule: &SignatureRule, parts: &[Vec<u8>]) -> String {
    let pieces = rule.message.iter().zip(parts);
    let texts = pieces.map(|(piece, bytes)| match piece.part {
        Part::Body if bytes.len() > 80 => {
            Cow::Owned(format!("<the {} bytes of the body>", bytes.len()))
        }
        _ => String::from_utf8_lossy(bytes),
    });
    let text: String = texts.collect();
    quoted(text.as_bytes())
}

fn payload(case: &Case<'_>, source: &Source) -> String {
    let mut rules = Vec::new();
    if !source.required.is_empty() {
        let fields: Vec<&str> = source
            .required
            .iter()
            .map(|field| &*field.pointer)
            .collect();
        rules.push(format!("fields {}", fields.join(", ")));
    }
    if let Some(urls) = &source.urls {
        let mut scratch = Scratch::default();
        let count = json::scan(case.body, &source.selector, &mut scratch)
            .map_or(0, |document| document.urls().count());
        rules.push(format!("{count} URLs against {} hosts", urls.hosts.len()));
    }
    if let Some(TimestampPlace::Pointer(slot)) = source.scheme.timestamp().map(|at| &at.place) {
        let pointer = source
            .pointers
            .get(*slot)
            .map_or("", |pointer| pointer.as_str());
        rules.push(format!("timestamp at {pointer}"));
    }
    match rules.is_empty() {
        true => "none".to_owned(),
        false => rules.join("; "),
    }
}

fn key_parts(source: &Source) -> String {
    let mut parts = vec![format!("source {}", source.name)];
    for part in &source.dedupe.key {
        parts.push(match part {
            KeyPart::Body => "the body".to_owned(),
            KeyPart::Host => "the host".to_owned(),
            KeyPart::Path => "the path".to_owned(),
            KeyPart::Id => "message id".to_owned(),
            KeyPart::Header(index) => source
                .headers
                .get(*index)
                .map_or(String::new(), |header| header.name.to_string()),
            KeyPart::Pointer(slot) => source
                .pointers
                .get(*slot)
                .map_or(String::new(), |pointer| pointer.as_str().to_owned()),
        });
    }
    parts.join(", ")
}

fn route(source: &Source) -> String {
    let path = match &source.route.path {
        PathRule::Exact(path) => format!("path {path}"),
        PathRule::Prefix(path) => format!("path prefix {path}"),
    };
    match &source.route.host {
        Some(host) => format!("{path} on {host}"),
        None => path,
    }
}

fn routes(case: &Case<'_>) -> String {
    let routes: Vec<String> = case
        .policy
        .sources
        .iter()
        .map(|source| route(source))
        .collect();
    routes.join("; ")
}

fn given(value: Occurrence<'_>) -> String {
    match value {
        Occurrence::Missing => "missing".to_owned(),
        Occurrence::Once(value) => String::from_utf8_lossy(value).escape_debug().to_string(),
        Occurrence::Several => "there more than once".to_owned(),
    }
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", String::from_utf8_lossy(bytes).escape_debug())
}

/// What a timestamp looks like in this scheme.
fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "seconds, 10 digits",
        Unit::Milliseconds => "milliseconds, 13 digits",
        Unit::Rfc3339 => "RFC 3339",
    }
}

/// Where a timestamp is, for people.
fn place_name(place: &TimestampPlace, header: &str) -> String {
    match place {
        TimestampPlace::Header(name) => name.to_string(),
        TimestampPlace::Field(key) => format!("{key} in {header}"),
        TimestampPlace::Pointer(_) => "in the body".to_owned(),
    }
}
