//! All requests of one worker thread, and their claims: events in, verdicts and effects out.
//!
//! A host (the proxy-wasm filter, the native module, the tests) reports each event to a [`Worker`] as it
//! happens, and does two things: it applies the [`Verdict`] to the request whose callback runs, and
//! carries out the [`Effect`]s, in order. An [`Effect::Resume`] or [`Effect::Reply`] for the
//! request whose callback runs is its verdict instead: [`Verdict::Forward`] or [`Verdict::Reply`].
//!
//! | event | method |
//! |---|---|
//! | the head of a request | [`Worker::request_head`] |
//! | a part of its body, the last one, its trailers | [`Worker::request_body`], [`Worker::request_trailers`] |
//! | the head of the response, its body, its trailers | [`Worker::response_head`], [`Worker::response_body`], [`Worker::response_trailers`] |
//! | its end, whatever came before | [`Worker::stream_end`] |
//! | something could not be done | [`Worker::fail`] |
//! | the end of a call to the shared store | [`Worker::call_ended`] |
//! | time has passed | [`Worker::time`] |
//! | there are other secrets | [`Worker::renew`] |
//!
//! An event of an unknown request is refused: a host that loses one does not open a way around.
//!
//! ## One callback, and its retry
//!
//! What a shell does, in the order in which it does it. A real one keeps to the effects, too; here
//! nothing is held back, counted or logged.
//!
//! ```
//! use std::sync::Arc;
//! use callback_guard_core::request::RequestHead;
//! use callback_guard_core::testkit::{MapShared, NOW, Request};
//! use callback_guard_core::worker::{Io, Outcome, Seed, StreamId, Verdict, Worker};
//!
//! let configuration = br#"{ "sources": [{
//!     "name": "suno", "preset": "suno", "match": { "path": "/callbacks/suno" },
//!     "secrets": [{ "value": "0123456789abcdef0123456789abcdef" }] }] }"#;
//! let policy = Arc::new(callback_guard_config::parse(configuration, &|_| None)?);
//! let mut worker = Worker::new(Arc::clone(&policy), Seed { owner: 1, salt: [7; 16] });
//! let mut shared = MapShared::default(); // Envoy's shared data, in the module
//! let mut io = Io::new(&mut shared, NOW);
//!
//! let callback = Request::genuine(&policy, r#"{"code":200,"msg":"ok","data":{"task_id":"t1"}}"#, NOW);
//! let pairs = callback.pairs();
//! let head = RequestHead::new(&pairs);
//! let body = |_: usize| Some(callback.body.as_slice().into());
//!
//! // The head is held, whoever sent it: nothing has reached the application.
//! let (first, retry) = (StreamId(1), StreamId(2));
//! assert_eq!(worker.request_head(&mut io, first, &head, false), Verdict::Hold);
//! // With the last byte of the body it is authentic, well formed and new. It is claimed, and goes on
//! // with headers that only the guard can set.
//! let length = callback.body.len();
//! assert_eq!(worker.request_body(&mut io, first, length, true, &body), Verdict::Forward);
//! let mut added = Vec::new();
//! worker.upstream_headers(first, |name, value| {
//!     added.push((name, value.to_vec()));
//!     Ok::<_, ()>(())
//! }).unwrap();
//! assert!(added.contains(&("x-callback-guard-id", b"t1".to_vec())));
//! // The application's 2xx settles the claim; its end lets go of it.
//! let accepted = || (Outcome::Accepted, 200);
//! worker.response_head(&mut io, first, accepted);
//! worker.stream_end(&mut io, first, accepted);
//!
//! // The sender comes again: it gets its 200, and the application gets nothing.
//! assert_eq!(worker.request_head(&mut io, retry, &head, false), Verdict::Hold);
//! match worker.request_body(&mut io, retry, length, true, &body) {
//!     Verdict::Reply(reply) => assert_eq!(reply.status, 200),
//!     verdict => panic!("{verdict:?}"),
//! }
//! # Ok::<(), callback_guard_config::ConfigError>(())
//! ```

mod calls;
mod exchange;
mod held;
mod request;
mod resources;
mod response;
mod verdict;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::effect::Effects;
use crate::guard::Guard;
use crate::json::Scratch;
use crate::log::Limiter;
use crate::policy::Policy;
use crate::report::Report;
use crate::store::owners::Owners;
use crate::store::stores::Stores;
use exchange::{Exchange, Request};
use held::Held;
use resources::Resources;
use waiting::Waiting;

pub use crate::effect::{CallId, Effect, Io, StreamId};
pub use crate::outcome::Outcome;
pub use crate::reply::{Answer, Reply};
pub use verdict::{Response, Verdict};
pub use waiting::{MOST_ANSWERS, MOST_FOR_ONE_EVENT, MOST_IN_ALL};

/// How often the time is to be reported while requests wait or settlements are to be sent, in
/// milliseconds.
pub const TICK_MILLIS: u32 = 20;

/// Random numbers that a worker begins with.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// No two workers that ever share a store may count from near each other.
    pub owner: u64,
    /// The salt of a store that has none yet.
    pub salt: [u8; 16],
}

/// All requests of one thread.
#[derive(Clone, Debug)]
pub struct Worker {
    requests: BTreeMap<StreamId, Request>,
    resources: Resources,
    ticks: Option<u32>,
}

impl Worker {
    /// For one configuration.
    #[must_use]
    pub fn new(policy: Arc<Policy>, seed: Seed) -> Self {
        Self {
            requests: BTreeMap::new(),
            resources: Resources {
                stores: Stores::new(&policy, seed.salt),
                waiting: Waiting::default(),
                effects: Effects::default(),
                scratch: Scratch::default(),
                owners: Owners::new(seed.owner),
                refusals: Limiter::new(policy.refusals_per_second),
                held: Held::default(),
                policy,
            },
            ticks: None,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.resources.policy
    }

    /// The same configuration with other secrets: they count from the next request on. Those that have begun
    /// end as they began.
    pub fn renew(&mut self, policy: Arc<Policy>) {
        self.resources.policy = policy;
    }

    /// Moves the effects so far behind those in `all`.
    pub fn take_effects(&mut self, all: &mut Vec<Effect>) {
        all.append(&mut self.resources.effects.0);
    }

    /// What is known of a request that is still there.
    #[must_use]
    pub fn report(&self, stream: StreamId) -> Option<&Report> {
        Some(self.exchange(stream)?.guard.report())
    }

    /// The worker ends, with all its requests: what only it counts is taken back.
    pub fn close(&mut self) {
        self.resources.stores.close(&mut self.resources.effects);
        self.resources.held.close(&mut self.resources.effects);
    }

    /// How many requests wait for another to settle.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.resources.waiting.len()
    }

    fn insert(&mut self, stream: StreamId, guard: Guard) {
        let exchange = Exchange {
            guard,
            received: 0,
            held: 0,
            is_response_held: false,
        };
        self.requests
            .insert(stream, Request::Guarded(Box::new(exchange)));
    }

    fn exchange(&self, stream: StreamId) -> Option<&Exchange> {
        match self.requests.get(&stream)? {
            Request::Guarded(exchange) => Some(exchange),
            Request::Inspected | Request::Passed => None,
        }
    }

    fn guard(&mut self, stream: StreamId) -> Option<&mut Guard> {
        match self.requests.get_mut(&stream)? {
            Request::Guarded(exchange) => Some(&mut exchange.guard),
            Request::Inspected | Request::Passed => None,
        }
    }

    /// Asks for the time while there is something to do as it passes.
    fn adjust_ticks(&mut self) {
        let is_needed = self.resources.waiting.len() > 0
            || self.resources.stores.needs_time()
            || self.resources.refusals.has_left_out();
        let ticks = is_needed.then_some(TICK_MILLIS);
        if self.ticks != ticks {
            self.ticks = ticks;
            self.resources.effects.push(Effect::Ticks(ticks));
        }
    }
}
