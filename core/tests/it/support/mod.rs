//! A fake host: shared data with Envoy's semantics, and a driver that does with a guard what the
//! filter does with it.

use std::collections::HashMap;

use callback_guard_core::authenticate::Facts;
use callback_guard_core::config;
use callback_guard_core::guard::{Answer, Decision, Forward, Guard};
use callback_guard_core::json::Scratch;
use callback_guard_core::outcome::Outcome;
use callback_guard_core::policy::Policy;
use callback_guard_core::request::RequestHead;
use callback_guard_core::sign;
use callback_guard_core::store::bucket::OwnerToken;
use callback_guard_core::store::{Memory, SharedData, Swap, Unavailable};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use serde_json::{Value, json};

/// The time of the known answers.
pub const NOW: UnixMillis = UnixMillis::from_seconds(1_769_670_760);

/// The secret of the known answers.
pub const SECRET: &str = "test-webhook-hmac-key";

/// A configuration with one source, `suno`, and `change` applied to it.
pub fn configuration(change: impl FnOnce(&mut Value)) -> Value {
    let mut configuration = json!({
        "sources": [{
            "name": "suno",
            "match": { "path": "/callbacks/suno" },
            "preset": "suno",
            "secrets": [{ "value": SECRET }],
        }],
    });
    change(&mut configuration);
    configuration
}

/// The policy of a configuration.
#[track_caller]
pub fn policy(configuration: &Value) -> Policy {
    config::parse(configuration.to_string().as_bytes(), &|_| None)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Shared data as Envoy keeps it.
///
/// Source: proxy-wasm-cpp-host, `src/shared_data.cc`, and observation: an absent key is inserted
/// whatever the version, and a present one replaced only under its own.
#[derive(Clone, Debug)]
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
    pub fn size(&self) -> usize {
        self.values.values().map(|(value, _)| value.len()).sum()
    }

    /// Keys, values and versions, in the order of the keys.
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
        self.next_version += 1;
        Ok(Swap::Done)
    }
}

/// A request to be.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A genuine callback of the first source of `policy`.
    #[track_caller]
    pub fn genuine(policy: &Policy, body: &str, now: UnixMillis) -> Self {
        let source = policy.sources.first().unwrap();
        let mut request = Self::unsigned(body);
        let headers = sign::sign(
            source,
            source.signing_keys.first().unwrap(),
            body.as_bytes(),
            "msg_1",
            now,
        )
        .unwrap();
        for (name, value) in headers {
            request
                .headers
                .push((name.into_bytes(), value.into_bytes()));
        }
        request
    }

    /// At `path`, with the token of the first source of `policy` in it, if one belongs there.
    #[track_caller]
    pub fn at(self, policy: &Policy, path: &str) -> Self {
        let source = policy.sources.first().unwrap();
        let target = sign::target(source, source.signing_keys.first().unwrap(), path);
        self.with(":path", &target)
    }

    /// A callback without signature and timestamp.
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
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.and(name, value)
    }

    /// With one header more.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Without the header `name`.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name.as_bytes());
        self
    }

    /// Names and values, as the guard takes them.
    pub fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .collect()
    }

    /// With another body.
    pub fn body(mut self, body: &str) -> Self {
        self.body = body.into();
        self
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Answered(Answer),
    Forwarded(Forward),
    Passed,
    Waits,
}

impl Seen {
    /// The word for it, as the metrics have it.
    pub fn code(&self) -> Option<Code> {
        match self {
            Seen::Answered(Answer::Duplicate) => Some(Code::Duplicate),
            Seen::Answered(Answer::Refuse(rejection)) => Some(rejection.code()),
            Seen::Forwarded(_) => Some(Code::Forwarded),
            Seen::Passed | Seen::Waits => None,
        }
    }
}

/// One proxy: a policy and a store.
pub struct Host {
    pub policy: Policy,
    pub shared: MapShared,
    scratch: Scratch,
    next_owner: u64,
}

impl Host {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            shared: MapShared::default(),
            scratch: Scratch::default(),
            next_owner: 1,
        }
    }

    /// Sends a request in, up to its decision.
    pub fn send(&mut self, request: &Request, now: UnixMillis) -> (Guard, Seen) {
        let pairs = request.pairs();
        let head = RequestHead::new(&pairs);
        let mut guard = Guard::new();
        let mut decision = guard.on_head(&self.policy, &head, now, request.body.is_empty());
        if decision == Decision::Hold {
            for received in 1..request.body.len().min(3) {
                decision = guard.on_partial_body(&self.policy, received);
                assert_eq!(decision, Decision::Hold);
            }
            decision = self.body(&mut guard, &request.body, now);
        }
        let seen = self.finish(&mut guard, decision, now);
        (guard, seen)
    }

    /// The whole body has come.
    pub fn body(&mut self, guard: &mut Guard, body: &[u8], now: UnixMillis) -> Decision {
        self.next_owner += 1;
        let facts = Facts {
            now,
            owner: OwnerToken::new(self.next_owner),
            salt: [7; 16],
        };
        guard.on_body(&self.policy, body, &facts, &mut self.scratch)
    }

    /// A waiting request asks again.
    pub fn ask_again(&mut self, guard: &mut Guard, now: UnixMillis) -> Seen {
        let decision = guard.on_time(&self.policy);
        self.finish(guard, decision, now)
    }

    fn finish(&mut self, guard: &mut Guard, mut decision: Decision, now: UnixMillis) -> Seen {
        loop {
            decision = match decision {
                Decision::Answer(answer) => return Seen::Answered(answer),
                Decision::Claim(request) => {
                    let store = Memory::new(self.policy.capacity);
                    let (answer, _) = store.claim(&mut self.shared, &request, now);
                    guard.on_store(&self.policy, answer, now)
                }
                Decision::Forward(forward) => return Seen::Forwarded(forward),
                Decision::Hold => panic!("the whole request is there"),
                Decision::Pass => return Seen::Passed,
                Decision::Wait => return Seen::Waits,
            };
        }
    }

    /// The outcome of a forwarded request is known.
    pub fn settle(&mut self, guard: &mut Guard, outcome: Outcome, now: UnixMillis) {
        if let Some(settlement) = guard.on_outcome(&self.policy, outcome) {
            let store = Memory::new(self.policy.capacity);
            store.settle(&mut self.shared, &settlement, now).unwrap();
        }
    }
}
