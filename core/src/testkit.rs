//! A host without a proxy: shared data as Envoy keeps it, requests, and the one driver of a
//! [`Worker`] for tests, fuzz targets and benchmarks.
#![allow(
    clippy::expect_used,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a test fails by a panic"
)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::effect::{CallId, Effect, Io, StreamId};
use crate::metrics::Metric;
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::reply::Reply;
use crate::report::Report;
use crate::request::RequestHead;
use crate::scheme::keys::{Algorithm, SigningKey};
use crate::scheme::{Part, Proof};
use crate::sign::{self, Draft};
use crate::store::redis::{Answer, Ask, StoreError};
use crate::store::{SharedData, Swap, Unavailable};
use crate::time::UnixMillis;
use crate::verdict::Code;
use crate::worker::{Response, Seed, Verdict, Worker};

/// The time of the known answers.
pub const NOW: UnixMillis = UnixMillis::from_seconds(1_769_670_760);

/// The private key of the tests for `algorithm`.
#[track_caller]
#[must_use]
pub fn private_key(algorithm: Algorithm) -> SigningKey {
    let pem = match algorithm {
        Algorithm::Ed25519 => include_str!("../../tests/data/keys/ed25519.pem"),
        Algorithm::EcdsaP256Sha256 => include_str!("../../tests/data/keys/p256.pem"),
        _ => include_str!("../../tests/data/keys/rsa.pem"),
    };
    SigningKey::private(algorithm, pem.as_bytes()).expect("a key")
}

/// What the sender of the first source signs with: its first secret, or the tests' own private key.
#[track_caller]
#[must_use]
pub fn signing_key(policy: &Policy) -> SigningKey {
    let source = policy.sources.first().expect("a source");
    let secret = || source.signing_keys.first().expect("a key").reveal();
    match &source.scheme.proof {
        Proof::Signature(rule) if rule.algorithm.is_asymmetric() => private_key(rule.algorithm),
        Proof::Signature(rule) => SigningKey::secret(rule.algorithm, secret()).expect("a key"),
        Proof::Token(_) => SigningKey::token(secret()),
    }
}

/// Shared data as Envoy keeps it.
///
/// Source: proxy-wasm-cpp-host, `src/shared_data.cc`, and observation: an absent key is inserted
/// whatever the version, and a present one replaced only under its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapShared {
    values: HashMap<String, (Vec<u8>, u32)>,
    next_version: u32,
}

impl Default for MapShared {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            next_version: 1,
        }
    }
}

impl MapShared {
    /// The bytes of all values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.values.values().map(|(value, _)| value.len()).sum()
    }

    /// Keys, values and versions, in the order of the keys.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&str, &[u8], u32)> {
        let mut all: Vec<_> = self
            .values
            .iter()
            .map(|(key, (value, version))| (key.as_str(), value.as_slice(), *version))
            .collect();
        all.sort_unstable();
        all
    }
}

impl SharedData for MapShared {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        Ok(match self.values.get(key) {
            None => (None, None),
            Some((value, version)) => (Some(value.clone()), Some(*version)),
        })
    }

    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        if let Some((_, current)) = self.values.get(key)
            && version != 0
            && *current != version
        {
            return Ok(Swap::Conflict);
        }
        self.values
            .insert(key.to_owned(), (value.to_vec(), self.next_version));
        self.next_version = self.next_version.wrapping_add(1);
        Ok(Swap::Done)
    }
}

/// Marsaglia's xorshift: the same numbers from the same seed, everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(1).max(1);
        usize::try_from(self.next_u64() % end).unwrap_or(0)
    }
}

/// A request to be.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names in lower case, pseudo-headers included, and values.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A genuine callback of the first source of `policy`, to its own path.
    #[track_caller]
    #[must_use]
    pub fn genuine(policy: &Policy, body: &str, now: UnixMillis) -> Self {
        let source = policy.sources.first().expect("a source");
        Self::genuine_at(policy, source.route.path.text(), body, now)
    }

    /// As [`Request::genuine`], to another path and query.
    #[track_caller]
    #[must_use]
    pub fn genuine_at(policy: &Policy, target: &str, body: &str, now: UnixMillis) -> Self {
        let source = policy.sources.first().expect("a source");
        let is_form = match &source.scheme.proof {
            Proof::Signature(rule) => rule.holds(&Part::FormSorted),
            Proof::Token(_) => false,
        };
        let draft = Draft {
            target,
            is_json: !is_form,
            body: body.as_bytes(),
            id: "msg_1",
        };
        let made = sign::callback(source, &signing_key(policy), &draft, now);
        let made = made.expect("it can be signed");
        let mut request = Self::unsigned("").with(":path", &made.target);
        request.body = made.body;
        if is_form {
            request = request.with("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in made.headers {
            request = request.and(&name, &value);
        }
        request
    }

    /// At `path`, with the token of the first source of `policy` in it, if one belongs there.
    #[track_caller]
    #[must_use]
    pub fn at(self, policy: &Policy, path: &str) -> Self {
        let source = policy.sources.first().expect("a source");
        let target = sign::target(source, &signing_key(policy), path);
        self.with(":path", &target)
    }

    /// A callback without signature and timestamp.
    #[must_use]
    pub fn unsigned(body: &str) -> Self {
        let headers: &[(&str, &str)] = &[
            (":method", "POST"),
            (":path", "/callbacks/suno"),
            (":authority", "app.example"),
            ("content-type", "application/json"),
        ];
        let bytes = |text: &str| text.as_bytes().to_vec();
        Self {
            headers: headers
                .iter()
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
            body: body.into(),
        }
    }

    /// With the header `name` set to `value`, once.
    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Self {
        self.without(name).and(name, value)
    }

    /// With one header more.
    #[must_use]
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Without the header `name`.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name.as_bytes());
        self
    }

    /// Names and values, as the guard takes them.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .collect()
    }

    /// With another body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        self.body = body.into();
        self
    }
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Answered by the guard.
    Answered(Reply),
    /// Forwarded, with these headers added.
    Forwarded(Vec<(&'static str, String)>),
    /// Held.
    Held,
}

impl Seen {
    /// The code of the reply, or [`Code::Forwarded`]; `None` if it is held, or says no code.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Answered(reply) => {
                let word = reply.details.strip_prefix("callback_guard:")?;
                Code::ALL.iter().copied().find(|code| code.as_str() == word)
            }
            Self::Forwarded(_) => Some(Code::Forwarded),
            Self::Held => None,
        }
    }

    /// The value of an added header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let Self::Forwarded(headers) = self else {
            return None;
        };
        headers
            .iter()
            .find(|(given, _)| *given == name)
            .map(|(_, value)| value.as_str())
    }
}

/// One worker of a proxy, and shared data that may be that of others, too.
#[derive(Clone, Debug)]
pub struct Host {
    /// The configuration.
    pub policy: Arc<Policy>,
    /// The worker.
    pub worker: Worker,
    /// The proxy's shared data.
    pub shared: MapShared,
    /// Calls to the shared store that were asked for and have not ended.
    pub calls: Vec<(CallId, Ask)>,
    /// What was added to each counter and gauge.
    pub counts: HashMap<usize, i64>,
    /// Every value that went into a histogram.
    pub records: Vec<(Metric, u64)>,
    /// Every line of the log.
    pub log: Vec<String>,
    /// How often the worker wants to know the time.
    pub ticks: Option<u32>,
    seen: HashMap<StreamId, Seen>,
    resumed_responses: Vec<StreamId>,
    next: u32,
    effects: Vec<Effect>,
}

impl Host {
    /// A host with nothing in it yet.
    #[must_use]
    pub fn new(policy: impl Into<Arc<Policy>>) -> Self {
        Self::beside(policy, 1)
    }

    /// One of several that share a store; each has its own `number`.
    #[must_use]
    pub fn beside(policy: impl Into<Arc<Policy>>, number: u64) -> Self {
        let policy = policy.into();
        let seed = Seed {
            owner: number << 32,
            salt: [7; 16],
        };
        Self {
            worker: Worker::new(Arc::clone(&policy), seed),
            policy,
            shared: MapShared::default(),
            calls: Vec::new(),
            counts: HashMap::new(),
            records: Vec::new(),
            log: Vec::new(),
            ticks: None,
            seen: HashMap::new(),
            resumed_responses: Vec::new(),
            next: 1,
            effects: Vec::new(),
        }
    }

    /// The same configuration with other secrets.
    pub fn renew(&mut self, policy: impl Into<Arc<Policy>>) {
        self.policy = policy.into();
        self.worker.renew(Arc::clone(&self.policy));
    }

    /// What is known of a request.
    #[track_caller]
    #[must_use]
    pub fn report(&self, stream: StreamId) -> &Report {
        self.worker.report(stream).expect("a request of the guard")
    }

    /// The outcome of a request so far.
    #[must_use]
    pub fn seen(&self, stream: StreamId) -> Seen {
        self.seen.get(&stream).cloned().unwrap_or(Seen::Held)
    }

    /// What was added to a counter or a gauge.
    #[must_use]
    pub fn count(&self, metric: Metric) -> i64 {
        self.counts.get(&metric.index()).copied().unwrap_or(0)
    }

    /// Whether a response that was held has been let go.
    #[must_use]
    pub fn has_resumed_response(&self, stream: StreamId) -> bool {
        self.resumed_responses.contains(&stream)
    }

    /// Sends in the head of a request.
    pub fn head(&mut self, request: &Request, now: UnixMillis) -> (StreamId, Seen) {
        let stream = StreamId(self.next);
        self.next = self.next.wrapping_add(1);
        let pairs = request.pairs();
        let head = RequestHead::new(&pairs);
        let ends = request.body.is_empty();
        let verdict = self.tell(now, |worker, io| {
            worker.request_head(io, stream, &head, ends)
        });
        (stream, self.finish(stream, verdict, now))
    }

    /// A part of the body is there: `received` bytes in all.
    pub fn part(&mut self, stream: StreamId, received: usize, now: UnixMillis) -> Seen {
        let verdict = self.tell(now, |worker, io| {
            worker.request_body(io, stream, received, false, &|_| None)
        });
        self.finish(stream, verdict, now)
    }

    /// The whole body is there.
    pub fn body(&mut self, stream: StreamId, body: &[u8], now: UnixMillis) -> Seen {
        let verdict = self.tell(now, |worker, io| {
            worker.request_body(io, stream, body.len(), true, &|_| Some(body.into()))
        });
        self.finish(stream, verdict, now)
    }

    /// Sends in a whole request, its body in a few pieces.
    pub fn send(&mut self, request: &Request, now: UnixMillis) -> (StreamId, Seen) {
        let (stream, mut seen) = self.head(request, now);
        if seen == Seen::Held {
            for received in 1..request.body.len().min(3) {
                seen = self.part(stream, received, now);
            }
            if seen == Seen::Held {
                seen = self.body(stream, &request.body, now);
            }
        }
        (stream, seen)
    }

    /// The response to a request has come; it stays known.
    pub fn settle(&mut self, stream: StreamId, outcome: Outcome, now: UnixMillis) -> Response {
        let status = match outcome {
            Outcome::Accepted => 200,
            Outcome::Refused => 500,
            Outcome::NotReached | Outcome::Unknown => 503,
        };
        let response = self.tell(now, |worker, io| {
            worker.response_head(io, stream, || (outcome, status))
        });
        self.perform(now);
        response
    }

    /// A request ends.
    pub fn end(&mut self, stream: StreamId, outcome: Outcome, now: UnixMillis) {
        self.tell(now, |worker, io| {
            worker.stream_end(io, stream, || (outcome, 0));
        });
        self.perform(now);
    }

    /// Time has passed.
    pub fn time(&mut self, now: UnixMillis) {
        self.tell(now, Worker::time);
        self.perform(now);
    }

    /// A call to the shared store ends.
    pub fn call_ended(
        &mut self,
        call: CallId,
        answer: Result<Answer<'_>, StoreError>,
        now: UnixMillis,
    ) {
        self.calls.retain(|(known, _)| *known != call);
        self.tell(now, |worker, io| worker.call_ended(io, call, answer));
        self.perform(now);
    }

    fn tell<T>(
        &mut self,
        now: UnixMillis,
        event: impl FnOnce(&mut Worker, &mut Io<'_, MapShared>) -> T,
    ) -> T {
        event(&mut self.worker, &mut Io::new(&mut self.shared, now))
    }

    fn finish(&mut self, stream: StreamId, verdict: Verdict, now: UnixMillis) -> Seen {
        match verdict {
            Verdict::Continue if self.worker.report(stream).is_none() => self.forward(stream),
            Verdict::Forward => self.forward(stream),
            Verdict::Continue | Verdict::Hold => {}
            Verdict::Reply(reply) => {
                self.seen.insert(stream, Seen::Answered(reply));
            }
        }
        self.perform(now);
        self.seen(stream)
    }

    fn forward(&mut self, stream: StreamId) {
        let mut headers = Vec::new();
        let added = self.worker.upstream_headers(stream, |name, value| {
            let value = core::str::from_utf8(value).map_err(drop)?;
            headers.push((name, value.to_owned()));
            Ok::<(), ()>(())
        });
        assert_eq!(added, Ok(()), "every header is text");
        let before = self.seen.insert(stream, Seen::Forwarded(headers));
        assert_eq!(before, None, "a request goes on once");
    }

    fn perform(&mut self, _now: UnixMillis) {
        let mut effects = core::mem::take(&mut self.effects);
        self.worker.take_effects(&mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Add(metric, by) => {
                    *self.counts.entry(metric.index()).or_default() += by;
                }
                Effect::Call { call, ask } => self.calls.push((call, ask)),
                Effect::Log(line) => self.log.push(line.to_json()),
                Effect::Record(metric, value) => self.records.push((metric, value)),
                Effect::Reply(stream, reply) => {
                    let before = self.seen.insert(stream, Seen::Answered(*reply));
                    assert_eq!(before, None, "a request goes on once");
                }
                Effect::Resume(stream) => self.forward(stream),
                Effect::ResumeResponse(stream) => self.resumed_responses.push(stream),
                Effect::Ticks(millis) => self.ticks = millis,
                Effect::Verdict(_, _) => {}
            }
        }
        self.effects = effects;
    }
}
