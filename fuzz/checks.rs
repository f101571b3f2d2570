//! What must hold for any bytes. The fuzz targets look for bytes for which it does not; the test
//! `corpus` replays what they have found.
//!
//! | check | bytes | must hold |
//! |---|---|---|
//! | [`bucket`] | a bucket of the store, then operations on it | bounds; what was granted, is held; what was delivered, is known |
//! | [`challenge`] | a query and a header | an answer is of harmless characters; nothing is let in |
//! | [`configuration`] | a configuration | a policy within all limits, or an error with a path; no secret in either |
//! | [`head`] | header pairs | the refusal of a slow reference |
//! | [`json`] | a body | `serde_json` and a slow reference agree |
//! | [`redis`] | a reply of a Redis HTTP front | what is taken for an answer is one, to `serde_json`, too |
//! | [`scheme`] | a callback of a scheme, then changes to it | what is accepted says what was signed, whatever the words of the scheme |
//! | [`request`] | requests, in pieces | pieces change nothing; only what is authentic by another HMAC is sent on, and once |

#[path = "../src/header_map.rs"]
#[allow(dead_code)] // what is only written is not read here
mod header_map;
#[path = "schemes.rs"]
mod schemes;
#[path = "tree.rs"]
mod tree;

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_config as config;
use callback_guard_core::event::{EventKey, IdKey};
use callback_guard_core::policy::{Destination, Mode, Policy};
use callback_guard_core::request::RequestHead;
use callback_guard_core::scheme::Proof;
use callback_guard_core::store::ClaimAnswer;
use callback_guard_core::store::bucket::{Bucket, Claimed, Fingerprint, Limits, OwnerToken};
use callback_guard_core::store::redis::{
    Access, Answer, Front, OnError, Protocol, Remote, Replies, StoreError,
};
use callback_guard_core::testkit::{Host, MapShared, NOW, Request, Seen};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::Outcome;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use tree::Tree;

const SECRET: &str = "test-webhook-hmac-key";

/// Bytes, taken from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes up to the separator, which is skipped.
    fn until(&mut self, separator: u8) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == separator);
        let taken = self.take(end.unwrap_or(self.0.len()));
        self.take(1);
        taken
    }
}

fn policy(extra: &str) -> Arc<Policy> {
    Arc::new(callback_guard_config::testkit::policy(&format!(
        r#"{{"sources":[{{"name":"suno","match":{{"path":"/callbacks/suno"}},"preset":"suno",
        "secrets":[{{"value":"another-key"}},{{"value":"{SECRET}"}}],"max_body_bytes":4096{extra}}}]}}"#
    )))
}

/// As [`policy`], where requests of no source pass.
fn passing() -> Policy {
    let text = format!(
        r#"{{"unmatched":"pass","sources":[{{"name":"suno","match":{{"path":"/callbacks/suno"}},
        "preset":"suno","secrets":[{{"value":"{SECRET}"}}]}}]}}"#
    );
    config::parse(text.as_bytes(), &|_| None).unwrap()
}

/// Any bytes are a bucket; then come operations on few events, at times that go both ways.
pub(crate) fn bucket(data: &[u8]) {
    let mut bytes = Bytes(data);
    let slots = usize::from(bytes.byte() % 8) + 1;
    let length = usize::from(bytes.byte());
    let foreign = bytes.take(length);
    let mut bucket = Bucket::new(foreign.to_vec());
    // What ends at zero, at the end, is padding.
    let records: Vec<&[u8]> = foreign.chunks_exact(32).collect();
    let is_record = |record: &&[u8]| record[26..] != [0; 6];
    let last = records.iter().rposition(is_record);
    assert_eq!(bucket.len(), last.map_or(0, |last| last + 1));
    let most = bucket.len().max(slots);
    // No bucket of ours has two records of one event; in a foreign one either may be found.
    let mut tags = HashSet::new();
    let is_ours = foreign
        .chunks_exact(32)
        .all(|record| tags.insert(&record[..10]));
    let mut claims = 0;
    let key = |number: u8| {
        let mut key = [number % 5; 32];
        // One that a foreign record may hold.
        if number % 5 == 4 {
            for (to, from) in key.iter_mut().skip(8).zip(foreign) {
                *to = *from;
            }
        }
        EventKey::from_bytes(key)
    };
    while !bytes.0.is_empty() {
        let (what, which, whose, time) = (bytes.byte(), bytes.byte(), bytes.byte(), bytes.byte());
        let (key, owner) = (key(which), OwnerToken::new(u64::from(whose % 4)));
        let id = IdKey {
            local: u64::from(which % 3) << 32,
            ..IdKey::default()
        };
        let limits = Limits { slots, per_id: 2 };
        let now = UnixMillis::new(u64::from(time) * 1000);
        let end = now.plus_seconds(30);
        match what % 3 {
            0 => match bucket.claim(&key, id, owner, end, limits, now) {
                Claimed::Granted => {
                    claims += 1;
                    let again = bucket.claim(&key, id, owner, end, limits, now);
                    assert!(
                        again == Claimed::ByAnother || !is_ours,
                        "what was granted is held"
                    );
                }
                Claimed::ByAnotherFromAhead => {
                    let again = bucket.claim(&key, id, owner, end, limits, now);
                    assert!(
                        again == Claimed::ByAnother || !is_ours,
                        "a lease is cut once"
                    );
                }
                Claimed::ByAnother | Claimed::Delivered(_) | Claimed::Full | Claimed::TooMany => {}
            },
            1 => {
                let window = now.plus_seconds(60);
                let fingerprint = Fingerprint::new(u64::from(whose));
                if bucket.deliver(&key, id, owner, fingerprint, window, slots, now) {
                    claims += 1;
                    let again = bucket.claim(&key, id, owner, end, limits, now);
                    let is_known = again == Claimed::Delivered(fingerprint);
                    assert!(is_known || !is_ours, "what was delivered is known");
                }
            }
            _ => {
                if bucket.release(&key, owner) {
                    let again = bucket.release(&key, owner);
                    assert!(!again || !is_ours, "a claim is released once");
                }
            }
        }
        // A delivery may go one past the slots where only live claims are left.
        assert!(bucket.len() <= most + claims);
        let stored = bucket.clone().into_bytes();
        assert!(stored.len() >= bucket.len() * 32 && stored.len().is_multiple_of(40 * 32));
        let read = Bucket::new(stored);
        assert!(read.len() <= bucket.len());
        assert_eq!(Bucket::new(read.clone().into_bytes()), read);
    }
}

/// A configuration is a policy within all limits or an error that says where; neither shows a secret.
pub(crate) fn configuration(data: &[u8]) {
    const SENTINEL: &str = "c2VudGluZWwtc2VjcmV0";
    let environment = |name: &str| (name != "UNSET").then(|| SENTINEL.as_bytes().to_vec());
    let shows = |text: &str| text.contains(SENTINEL) && !contains(data, SENTINEL.as_bytes());
    match config::parse(data, &environment) {
        Err(error) => {
            let text = error.to_string();
            assert!(
                !text.is_empty() && !text.ends_with('.') && !shows(&text),
                "{text}"
            );
            assert!(!shows(&format!("{error:?}")), "{error:?}");
            let again = config::parse(data, &environment).unwrap_err();
            assert_eq!(again.to_string(), text, "the same text, the same error");
        }
        Ok(policy) => {
            assert!(!shows(&format!("{policy:?}")));
            assert!((1000..=4_000_000).contains(&policy.capacity));
            let mut names = HashSet::new();
            for source in &policy.sources {
                let is_name = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte)
                };
                assert!((1..=32).contains(&source.name.len()) && source.name.bytes().all(is_name));
                assert!(names.insert(source.name.clone()), "names are unique");
                let keys = match &source.scheme.proof {
                    Proof::Signature(rule) => rule.keys.len(),
                    Proof::Token(rule) => rule.tokens.len(),
                };
                assert!((1..=8).contains(&keys));
                assert!((1..=16 << 20).contains(&source.max_body_bytes));
                let (past, future) = (source.tolerance.past, source.tolerance.future);
                assert!((1..=86_400).contains(&past) && (1..=86_400).contains(&future));
                assert!((1..=600).contains(&source.dedupe.lease_seconds));
                if source.scheme.timestamp().is_some() {
                    assert!(source.dedupe.window_seconds > past + future);
                }
                assert!(!source.dedupe.key.is_empty());
            }
            // A policy is used with any request without harm.
            let request = Request::unsigned("{}").without("content-type");
            let _ = Host::new(Arc::new(policy)).head(&request, NOW);
        }
    }
}

/// Header pairs, one a line with a colon after the name, against a reference for `suno`. The bytes
/// as they are go through the decoder of the border, too.
pub(crate) fn head(data: &[u8]) {
    static POLICY: LazyLock<Arc<Policy>> = LazyLock::new(|| policy(""));
    let mut host = Host::new(Arc::clone(&POLICY));
    if let Some(foreign) = header_map::decode(data) {
        let _ = host.head(&request_of(&foreign), NOW);
    }
    let mut bytes = Bytes(data);
    let mut given: Vec<(&[u8], &[u8])> = Vec::new();
    while !bytes.0.is_empty() {
        let mut line = Bytes(bytes.until(b'\n'));
        // The first colon of a pseudo-header is part of its name.
        let start = usize::from(line.0.first() == Some(&b':'));
        let end = line.0.iter().skip(start).position(|byte| *byte == b':');
        let name = line.take(end.map_or(line.0.len(), |end| end + start));
        line.take(1);
        given.push((name, line.0));
    }
    let head = RequestHead::new(&given);
    let (stream, mut seen) = host.head(&request_of(&given), NOW);
    let answered = seen != Seen::Held;
    if !answered {
        // A refusal may wait for the body; what is in order is refused for that.
        seen = host.body(stream, b"{", NOW);
    }
    let code = seen
        .code()
        .filter(|code| answered || *code != Code::JsonMalformed);
    assert_eq!(code, reference_head(&given), "{seen:?}");
    // Where others pass, nothing does that an application takes for the guarded path.
    static PASSING: LazyLock<Policy> = LazyLock::new(passing);
    if is_taken_for_guarded(head.target()) {
        assert_ne!(PASSING.destination(&head), Destination::Elsewhere);
    }
    // In any case, and with `_` for `-`.
    let is_reserved = |name: &[u8]| {
        let plain = String::from_utf8_lossy(name).to_ascii_lowercase();
        plain.replace('_', "-").starts_with("x-callback-guard")
    };
    assert!(head.reserved_headers().all(is_reserved));
    let reserved = given.iter().filter(|(name, _)| is_reserved(name)).count();
    assert_eq!(head.reserved_headers().count(), reserved);
}

/// Whether the path of a request is the guarded one to an application that ignores much: some of what
/// near misses are, by another hand.
fn is_taken_for_guarded(target: &[u8]) -> bool {
    let mut path = String::from_utf8_lossy(target).to_lowercase();
    path.truncate(path.find(['?', '#']).unwrap_or(path.len()));
    let mut decoded = Vec::new();
    for _ in 0..3 {
        decoded.clear();
        let mut rest = path.as_str();
        while let Some(at) = rest.find('%') {
            let (plain, escape) = rest.split_at(at);
            decoded.extend_from_slice(plain.as_bytes());
            let byte = escape.get(1..3).and_then(|digits| {
                let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                is_hex
                    .then(|| u8::from_str_radix(digits, 16).ok())
                    .flatten()
            });
            decoded.push(byte.unwrap_or(b'%'));
            rest = &escape[if byte.is_some() { 3 } else { 1 }..];
        }
        decoded.extend_from_slice(rest.as_bytes());
        path = String::from_utf8_lossy(&decoded).to_lowercase();
    }
    let path = path.replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment.split(';').next().unwrap_or_default().trim() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    segments == ["callbacks", "suno"]
}

/// Whether the parameters of a content type leave no doubt that the text is UTF-8.
fn is_utf8(parameters: &str) -> bool {
    if !parameters
        .bytes()
        .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
    {
        return false;
    }
    let mentions = parameters.to_ascii_lowercase().matches("charset").count();
    let mut pieces = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for character in parameters.chars() {
        if character == ';' && !quoted {
            pieces.push(String::new());
            continue;
        }
        quoted ^= character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
        pieces.last_mut().unwrap().push(character);
    }
    let is_token = |text: &str| {
        let is = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(is)
    };
    let mut values = Vec::new();
    for piece in &pieces {
        let piece = piece.trim_matches([' ', '\t']);
        if piece.is_empty() {
            continue;
        }
        let (name, value) = piece.split_once('=').unwrap_or_default();
        let inside = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        // Nothing stands behind a closing quote.
        let is_quoted = inside.is_some_and(|inside| {
            let mut escaped = false;
            inside.chars().all(|character| {
                let ends = character == '"' && !escaped;
                escaped = character == '\\' && !escaped;
                !ends
            }) && !escaped
        });
        if quoted || !is_token(name) || !(is_quoted || is_token(value)) {
            return mentions == 0 && !parameters.contains(',');
        }
        if name.eq_ignore_ascii_case("charset") {
            values.push(inside.unwrap_or(value).to_ascii_lowercase());
        }
    }
    let is_right = |value: &String| value == "utf-8" || value == "utf8";
    mentions == values.len() && values.len() <= 1 && values.iter().all(is_right)
}

/// A challenge of one of the presets that answer without a proof: whatever is asked, nothing is let in or
/// remembered, and what comes back is the alphabet of a challenge inside the preset's own words.
pub(crate) fn challenge(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (preset, before, after) = [
        ("dropbox", "", ""),
        ("okta", "{\"verification\":\"", "\"}"),
        ("x", "{\"response_token\":\"sha256=", "\"}"),
    ][usize::from(bytes.byte() % 3)];
    let policy = callback_guard_config::testkit::policy(&format!(
        r#"{{"sources":[{{"name":"asks","match":{{"path":"/a"}},"preset":"{preset}",
        "secrets":[{{"value":"{SECRET}"}}]}}]}}"#
    ));
    let target = [b"/a?", bytes.until(b'\n')].concat();
    let request = Request {
        headers: vec![
            (b":method".to_vec(), b"GET".to_vec()),
            (b":path".to_vec(), target),
            (b"x-okta-verification-challenge".to_vec(), bytes.0.to_vec()),
        ],
        body: Vec::new(),
    };
    let mut host = Host::new(Arc::new(policy));
    let (stream, seen) = host.send(&request, NOW);
    let Seen::Answered(reply) = seen else {
        panic!("a request without a body is answered: {seen:?}");
    };
    assert!(!host.report(stream).is_forwarded && host.shared == MapShared::default());
    if host.report(stream).verdict != Some(Code::Challenge) {
        assert!(matches!(reply.status, 400 | 404 | 405), "{reply:?}");
        return;
    }
    let body = std::str::from_utf8(&reply.body).unwrap();
    let value = body
        .strip_prefix(before)
        .and_then(|body| body.strip_suffix(after));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte);
    let is_text = |byte: u8| is_plain(byte) || (preset == "dropbox" && b": ".contains(&byte));
    let value = value.unwrap();
    assert!(
        (1..=512).contains(&value.len()) && value.bytes().all(is_text),
        "{value:?}"
    );
}

/// The steps of the contract, one after the other.
fn reference_head(given: &[(&[u8], &[u8])]) -> Option<Code> {
    let all = |name: &str| -> Vec<&[u8]> {
        let is = |(given, _): &&(&[u8], &[u8])| *given == name.as_bytes();
        given.iter().filter(is).map(|(_, value)| *value).collect()
    };
    // Envoy has each pseudo-header once; of several the last counts, which the proxy excludes.
    let last = |name: &str| all(name).last().copied().unwrap_or_default();
    let path = last(":path");
    let path = &path[..path
        .iter()
        .position(|byte| *byte == b'?')
        .unwrap_or(path.len())];
    if path != b"/callbacks/suno" {
        return Some(Code::NoSource);
    }
    if last(":method") != b"POST" {
        return Some(Code::MethodNotAllowed);
    }
    let &[media_type] = all("content-type").as_slice() else {
        return Some(Code::UnsupportedMediaType);
    };
    let essence = String::from_utf8_lossy(media_type).to_ascii_lowercase();
    let essence = essence.split(';').next().unwrap_or_default().trim_ascii();
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let is_json = essence == "application/json"
        || essence
            .strip_suffix("+json")
            .and_then(|base| base.split_once('/'))
            .is_some_and(|(kind, base)| {
                let is_form = kind == "multipart" || base.starts_with("x-www-form-urlencoded");
                // Envoy would answer it with 200 whatever happens.
                let is_grpc =
                    kind == "application" && (base == "grpc" || base.starts_with("grpc+"));
                token(kind) && token(base) && !is_form && !is_grpc
            });
    let full = String::from_utf8_lossy(media_type);
    let parameters = full.split_once(';').map_or("", |(_, rest)| rest);
    if !is_json || !is_utf8(parameters) {
        return Some(Code::UnsupportedMediaType);
    }
    let is_identity = |value: &&[u8]| value.trim_ascii().eq_ignore_ascii_case(b"identity");
    if !all("content-encoding").iter().all(is_identity) {
        return Some(Code::UnsupportedContentEncoding);
    }
    if let Some(length) = all("content-length").last() {
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|text| text.parse().ok());
        if length.is_none_or(|length: u64| length > 4096) {
            return Some(Code::BodyTooLarge);
        }
    }
    let (signatures, stamps) = (all("x-webhook-signature"), all("x-webhook-timestamp"));
    match (signatures.as_slice(), stamps.as_slice()) {
        ([], _) => Some(Code::SignatureMissing),
        (_, []) => Some(Code::TimestampMissing),
        ([_, _, ..], _) => Some(Code::SignatureAmbiguous),
        (_, [_, _, ..]) => Some(Code::TimestampAmbiguous),
        ([signature], [stamp]) => {
            let decoded = STANDARD.decode(signature);
            if !decoded.is_ok_and(|decoded| decoded.len() == 32) {
                return Some(Code::SignatureMalformed);
            }
            if stamp.len() != 10 || !stamp.iter().all(u8::is_ascii_digit) {
                return Some(Code::TimestampMalformed);
            }
            let stamp: i64 = std::str::from_utf8(stamp).unwrap().parse().unwrap();
            match 1_769_670_760 - stamp {
                age if age > 300 => Some(Code::TimestampTooOld),
                age if age < -60 => Some(Code::TimestampInFuture),
                _ => None,
            }
        }
    }
}

/// The scanner against `serde_json` for the grammar and a slow reference for the rest.
pub(crate) fn json(data: &[u8]) {
    tree::check(data);
}

/// A request with these headers, and some body.
fn request_of(pairs: &[(&[u8], &[u8])]) -> Request {
    let owned = |(name, value): &(&[u8], &[u8])| (name.to_vec(), value.to_vec());
    Request {
        headers: pairs.iter().map(owned).collect(),
        body: b"{".to_vec(),
    }
}

static POLICIES: LazyLock<[Arc<Policy>; 4]> = LazyLock::new(|| {
    [
        policy(""),
        policy(r#","dedupe":{"on_body_change":"reject","in_flight":"reject"}"#),
        policy(r#","mode":"monitor""#),
        policy(r#","payload":{"allowed_url_hosts":["*.example.com"]}"#),
    ]
});

/// Requests through a worker and its store. A byte of options, the bytes that say where the body is
/// cut, then the body; a newline of 0xff parts the requests.
pub(crate) fn request(data: &[u8]) {
    let mut bytes = Bytes(data);
    let policy = &POLICIES[usize::from(bytes.byte()) % POLICIES.len()];
    let is_monitor = policy.sources[0].mode == Mode::Monitor;
    let mut host = Host::new(Arc::clone(policy));
    let mut delivered = HashSet::new();
    while !bytes.0.is_empty() {
        let (options, cuts) = (bytes.byte(), bytes.byte());
        let body = bytes.until(0xff);
        let id = reference_id(body);
        let stamp = "1769670760";
        // Some are genuine, some signed for something else.
        let signed = if options & 1 == 0 {
            id.as_deref().unwrap_or("x")
        } else {
            "y"
        };
        let mac = hmac(SECRET, &[signed.as_bytes(), b".", stamp.as_bytes()]);
        let mut request = Request::unsigned("")
            .and("x-webhook-timestamp", stamp)
            .and("x-webhook-signature", &STANDARD.encode(mac));
        request.body = body.to_vec();
        // Whole, in a copy of the world; then in pieces.
        let mut other = host.clone();
        let (stream, mut whole) = other.head(&request, NOW);
        if whole == Seen::Held {
            whole = other.body(stream, body, NOW);
        }
        let (stream, mut seen) = host.head(&request, NOW);
        let mut received = 0;
        while seen == Seen::Held && received < body.len() {
            received = (received + 1 + usize::from(cuts)).min(body.len());
            seen = host.part(stream, received, NOW);
        }
        if seen == Seen::Held {
            seen = host.body(stream, body, NOW);
        }
        assert_eq!(seen, whole, "pieces change nothing");
        let report = host.report(stream);
        let Some(key) = report.key else {
            assert!(matches!(seen, Seen::Answered(_)) || is_monitor, "{seen:?}");
            continue;
        };
        // Only what is authentic gets here.
        let id = id.as_deref().expect("an id");
        assert_eq!(
            report
                .id
                .as_ref()
                .map(callback_guard_core::event::MessageId::as_str),
            Some(id)
        );
        assert_eq!(signed, id);
        assert!((1..=256).contains(&id.len()));
        let is_plain = |character: char| !character.is_control() && character != ' ';
        assert!(id.chars().all(is_plain), "{id:?}");
        match &seen {
            Seen::Forwarded(_) if is_monitor => {
                assert!(seen.header("x-callback-guard-verdict").is_some());
            }
            Seen::Forwarded(_) => {
                assert_eq!(seen.header("x-callback-guard-key"), Some(&*key.to_hex()));
                assert!(!delivered.contains(&key), "delivered twice");
            }
            Seen::Answered(_) => match seen.code() {
                Some(Code::Duplicate) => assert!(delivered.contains(&key)),
                Some(Code::InFlight | Code::BodyChanged | Code::TooManyEvents) => {}
                code => panic!("{code:?}"),
            },
            Seen::Held => {}
        }
        let outcome = match options >> 1 & 3 {
            0 => Outcome::Accepted,
            1 => Outcome::Refused,
            2 => Outcome::Unknown,
            _ => continue,
        };
        let is_first = report.verdict == Some(Code::Forwarded);
        host.settle(stream, outcome, NOW);
        if is_first && outcome == Outcome::Accepted {
            delivered.insert(key);
        }
        host.end(stream, Outcome::Accepted, NOW);
    }
}

/// Each word of the language of signatures, each algorithm, each place of a signature or a token.
pub(crate) fn scheme(data: &[u8]) {
    schemes::check(data);
}

/// A protocol, a status, then the body of a reply, to a claim and to a settlement.
pub(crate) fn redis(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (protocol, claim, eval) = match bytes.byte() % 2 {
        0 => (Protocol::Webdis, "EVAL", "EVAL"),
        _ => (Protocol::Upstash, "result", "result"),
    };
    let status = [200, 400, 401, 403, 500, 503, 504, 204][usize::from(bytes.byte() % 8)];
    let body = bytes.0;
    let remote = Remote {
        access: Access::Front(Front {
            protocol,
            cluster: "redis_http".into(),
            authority: "redis".into(),
            authorization: None,
            replies: Replies::of(protocol),
        }),
        key_prefix: "callback-guard:".into(),
        timeout_millis: 250,
        on_error: OnError::Memory,
    };
    let answer = Answer::Http { status, body };
    let tree: Option<Tree> = serde_json::from_slice(body).ok();
    let at = |name: &str| tree.as_ref().and_then(|tree| tree.at(&format!("/{name}")));
    let owner = OwnerToken::new(7);
    match remote.read_claim(answer, owner) {
        Ok(answer) => {
            assert_eq!(status, 200);
            match (at(claim), answer) {
                (Some(Tree::Null), answer) => assert_eq!(answer, ClaimAnswer::Granted),
                (
                    Some(Tree::String(text)),
                    ClaimAnswer::Granted | ClaimAnswer::ClaimedByAnother,
                ) => {
                    assert!(text.starts_with("c:"), "{text}");
                }
                (Some(Tree::String(text)), ClaimAnswer::TooMany) => assert_eq!(text, "full"),
                (Some(Tree::String(text)), ClaimAnswer::Delivered(_)) => {
                    assert!(text.starts_with("d:"), "{text}");
                }
                (_, answer) => panic!("{answer:?}"),
            }
        }
        Err(error) => assert_ne!(error, StoreError::CircuitOpen),
    }
    if remote.read_settle(answer).is_ok() {
        assert_eq!(status, 200);
        assert!(matches!(at(eval), Some(Tree::Number(_))));
    }
}

/// The id by the rules of the contract, on what `serde_json` makes of the body.
fn reference_id(body: &[u8]) -> Option<String> {
    let tree: Tree = serde_json::from_slice(body).ok()?;
    let places = ["/data/task_id", "/data/taskId", "/taskId"];
    let mut ids = places.iter().filter_map(|place| match tree.at(place) {
        Some(Tree::String(text)) => Some(text.clone()),
        _ => None,
    });
    let first = ids.next()?;
    ids.all(|other| other == first).then_some(first)
}

fn hmac(key: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
