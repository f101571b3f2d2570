//! What does not change in a world: the configuration, the proxies, the events.

use std::rc::Rc;
use std::sync::Arc;

use callback_guard_core::policy::Policy;
use callback_guard_core::store::redis::OnError;
use callback_guard_core::testkit::{self, NOW};
use serde_json::json;

/// Long enough for everything else to end before it.
pub(crate) const LEASE_MILLIS: u64 = 600_000;
const WAIT_MILLIS: u64 = 1_000;
/// The default.
pub(super) const TIMEOUT_MILLIS: u64 = 250;
pub(crate) const WINDOW_MILLIS: u64 = 86_400_000;

/// What does not change in a world.
pub(crate) struct Setup {
    pub(crate) label: String,
    pub(crate) policy: Arc<Policy>,
    pub(crate) proxies: usize,
    /// Of each proxy.
    pub(crate) workers: usize,
    /// Whether other workers may come between two steps of a callback.
    pub(crate) is_stepped: bool,
    pub(crate) events: Vec<Event>,
    pub(crate) holds_unknown: bool,
    pub(super) forged: testkit::Request,
}

pub(crate) struct Event {
    pub(crate) body: String,
    pub(super) request: testkit::Request,
    pub(crate) key: String,
    /// As records have it.
    pub(super) tag: [u8; 10],
    pub(crate) redis_key: String,
}

/// The choices of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) on_error: Option<&'static str>,
    pub(crate) on_unknown: &'static str,
    pub(crate) in_flight: &'static str,
}

impl Setup {
    pub(crate) fn new(
        choice: Choice,
        proxies: usize,
        workers: usize,
        events: usize,
        is_stepped: bool,
    ) -> Rc<Self> {
        let mut configuration = json!({
            "sources": [{
                "name": "suno",
                "match": { "path": "/callbacks/suno" },
                "preset": "suno",
                "secrets": [{ "value": "test-webhook-hmac-key" }],
                "dedupe": {
                    "window_seconds": WINDOW_MILLIS / 1000,
                    "lease_seconds": LEASE_MILLIS / 1000,
                    "wait_seconds": WAIT_MILLIS / 1000,
                    "on_unknown": choice.on_unknown,
                    "in_flight": choice.in_flight,
                },
            }],
        });
        if let Some(on_error) = choice.on_error {
            configuration["store"] = json!({
                "kind": "redis", "protocol": "webdis", "cluster": "redis_http",
                "authority": "redis.internal", "on_error": on_error,
            });
        }
        let policy = Arc::new(callback_guard_config::testkit::policy(
            &configuration.to_string(),
        ));
        let event = |number: usize| {
            let body =
                format!(r#"{{"code":200,"msg":"ok","data":{{"task_id":"event-{number}"}}}}"#);
            let request = testkit::Request::genuine(&policy, &body, NOW);
            let mut host = testkit::Host::new(Arc::clone(&policy));
            let (stream, _) = host.send(&request, NOW);
            let key = host.report(stream).key.unwrap().to_hex();
            Event {
                body,
                request,
                redis_key: format!("callback-guard:suno:{key}"),
                tag: hex::decode(&key[16..36]).unwrap().try_into().unwrap(),
                key,
            }
        };
        let events: Vec<Event> = (0..events).map(event).collect();
        // The signature of another event.
        let forged =
            testkit::Request::genuine(&policy, r#"{"taskId":"another","code":1,"msg":""}"#, NOW);
        Rc::new(Self {
            label: format!("{choice:?}, {proxies} proxies of {workers} workers"),
            policy,
            proxies,
            workers,
            is_stepped,
            events,
            holds_unknown: choice.on_unknown == "hold",
            forged,
        })
    }

    pub(crate) fn is_fleet(&self) -> bool {
        self.policy.remote.is_some()
    }

    pub(crate) fn on_error(&self) -> Option<OnError> {
        self.policy.remote.as_ref().map(|remote| remote.on_error)
    }
}
