//! Envoy, the guard and a recording upstream, in the words of the tests in `tests/envoy`, `tests/long`
//! and `tests/services`.

#![allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by a panic"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callback_guard_core::scheme::Encoding;
use callback_guard_core::scheme::keys::{Algorithm, SigningKey};
use callback_guard_harness::client::InFlight;
use callback_guard_harness::{
    Filter, Request, Response, Setup, Stack, Update, places, render, upstream, wait,
};
use serde_json::{Value, json};

pub use callback_guard_harness::SECRET;

#[cfg(feature = "elf")]
pub mod elf;
pub mod http2;
pub mod rotation;
pub mod spellings;

/// Envoy with the guard, and the upstream behind it.
pub struct Guarded(Stack);

impl std::ops::Deref for Guarded {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.0
    }
}

impl Guarded {
    /// As `envoy.yaml` has it.
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// As `envoy.yaml` has it, with another configuration of the guard.
    #[track_caller]
    pub fn with(change: impl FnOnce(&mut Value)) -> Self {
        Self::builder().configuration(change).start()
    }

    /// What a test has started in its own way.
    pub fn of(stack: Stack) -> Self {
        Self(stack)
    }

    pub fn builder() -> Builder {
        Builder(Setup::new())
    }

    /// Another Envoy, before the same upstream.
    #[track_caller]
    pub fn restart_stack(&mut self) {
        self.0.restart().unwrap();
    }

    #[track_caller]
    pub fn send(&self, request: &Request) -> Response {
        self.0.send(request).unwrap()
    }

    #[track_caller]
    pub fn begin(&self, request: &Request) -> InFlight {
        self.0.begin(request).unwrap()
    }

    /// Sends the first request of all, and goes on once the upstream has all of it.
    #[track_caller]
    pub fn begin_delivery(&self, request: &Request) -> InFlight {
        let first = self.begin(request);
        self.upstream.wait_for_requests(1).unwrap();
        first
    }

    /// Sends the first request that has to wait for another, and goes on once it does.
    #[track_caller]
    pub fn begin_waiting(&self, request: &Request) -> InFlight {
        let second = self.begin(request);
        self.wait_for_stat("wasmcustom.callback_guard.waits_total.source.suno", 1);
        second
    }

    /// A counter or gauge.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        self.envoy.stat(name).unwrap()
    }

    /// How many requests of a source have got a verdict.
    #[track_caller]
    pub fn requests(&self, source: &str, verdict: &str) -> u64 {
        self.stat(&format!(
            "wasmcustom.callback_guard.requests_total.source.{source}.verdict.{verdict}"
        ))
    }

    #[track_caller]
    pub fn wait_for_stat(&self, name: &str, expected: u64) {
        wait::wait_for(&format!("{name} = {expected}"), || {
            (self.stat(name) == expected).then_some(())
        })
        .unwrap();
    }

    /// The lines of the access log, once there are so many.
    #[track_caller]
    pub fn wait_for_access_log(&self, lines: usize) -> Vec<Value> {
        wait::wait_for(&format!("{lines} lines in the access log"), || {
            self.envoy
                .access_log()
                .ok()
                .filter(|log| log.len() >= lines)
        })
        .unwrap()
    }

    /// No VM has died, and none was started anew.
    #[track_caller]
    pub fn assert_alive(&self) {
        let log = self.envoy.log();
        for sign in [
            "panicked",
            "Proxy-Wasm plugin in-VM backtrace",
            "Function: proxy_on",
        ] {
            assert!(!log.contains(sign), "{sign}\n{log}");
        }
        for (name, value) in self.envoy.stats().unwrap() {
            let is_reload = name.starts_with("wasm.") && name.contains("vm_reload");
            assert!(!is_reload || value == 0, "{name}: {value}");
        }
    }

    #[track_caller]
    pub fn reload(&self, change: impl FnOnce(&mut Value)) {
        assert_eq!(
            self.update(|render| render.guard(change)).unwrap(),
            Update::Accepted
        );
    }

    #[track_caller]
    pub fn reload_refused(&self, change: impl FnOnce(&mut Value)) {
        let update = self.update(|render| render.guard(change)).unwrap();
        assert!(matches!(update, Update::Rejected(_)), "{update:?}");
    }
}

/// What is to be different from `envoy.yaml`.
pub struct Builder(Setup<'static>);

impl Builder {
    pub fn map(self, change: impl FnOnce(Setup<'static>) -> Setup<'static>) -> Self {
        Self(change(self.0))
    }

    pub fn configuration(self, change: impl FnOnce(&mut Value)) -> Self {
        self.map(|setup| setup.guard(change))
    }

    fn dedupe(self, field: &str, value: &str) -> Self {
        self.configuration(|configuration| {
            configuration["sources"][0]["dedupe"][field] = json!(value);
        })
    }

    pub fn on_unknown(self, value: &str) -> Self {
        self.dedupe("on_unknown", value)
    }

    pub fn in_flight(self, value: &str) -> Self {
        self.dedupe("in_flight", value)
    }

    pub fn workers(self, workers: u32) -> Self {
        self.map(|setup| setup.workers(workers))
    }

    pub fn route_timeout(self, timeout: Duration) -> Self {
        self.render(|render| render.route_timeout(timeout))
    }

    pub fn http1_trailers(self) -> Self {
        self.render(render::Render::http1_trailers)
    }

    pub fn buffer_limit(self, bytes: u32) -> Self {
        self.render(|render| {
            render.listener(|listener| {
                listener["per_connection_buffer_limit_bytes"] = json!(bytes);
            })
        })
    }

    /// As on Istio and Envoy Gateway: no flag, and Envoy's buffer filter behind the guard.
    pub fn buffer_after(self) -> Self {
        self.configuration(|configuration| configuration["hold_headers"] = json!("buffer_after"))
            .render(|render| {
                render
                    .headers_stop_iteration(false)
                    .after_guard(render::buffer_filter(1 << 20))
            })
    }

    /// Nobody listens where the upstream should.
    pub fn dead_upstream(self) -> Self {
        self.application_at(upstream::unused_address().unwrap())
    }

    /// Another application than the recording one.
    pub fn application_at(self, address: SocketAddr) -> Self {
        let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
        let endpoint = json!({ "endpoint": { "address": { "socket_address": socket } } });
        let cluster = json!({
            "name": "another",
            "load_assignment": {
                "cluster_name": "another",
                "endpoints": [{ "lb_endpoints": [endpoint] }],
            },
        });
        self.render(|render| {
            render.add_cluster(cluster).connection_manager(|manager| {
                let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0];
                route["route"]["cluster"] = json!("another");
            })
        })
    }

    /// The Envoy configuration, changed.
    pub fn render(self, edit: impl FnOnce(render::Render) -> render::Render) -> Self {
        self.map(|setup| setup.render(edit))
    }

    pub fn lds(self) -> Self {
        self.map(Setup::dynamic_listener)
    }

    #[track_caller]
    pub fn start(self) -> Guarded {
        Guarded(self.0.start().unwrap())
    }

    /// What Envoy says of it without starting.
    #[track_caller]
    pub fn validate(self) -> Validated {
        let output = self.0.validate().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let log = text(&output.stdout) + &text(&output.stderr);
        Validated {
            is_valid: output.status.success(),
            log,
        }
    }
}

pub struct Validated {
    pub is_valid: bool,
    pub log: String,
}

/// Whether the guard runs in VMs: not as Envoy's dynamic module.
pub fn has_vms() -> bool {
    Filter::chosen().unwrap() == Filter::Wasm
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Marsaglia's xorshift: the same numbers from the same seed, everywhere.
pub fn random(state: u64) -> u64 {
    let mut state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..3 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    state
}

/// An id that no other event has, and a body that has it.
pub fn event(name: &str) -> (String, String) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let body = body_of(&id);
    (id, body)
}

/// The body of the event with this id.
pub fn body_of(id: &str) -> String {
    format!(r#"{{"code":200,"msg":"success","data":{{"task_id":"{id}"}}}}"#)
}

/// A genuine callback with this body.
pub fn signed(body: &str) -> Request {
    sign_at(body, now())
}

/// A genuine callback with this body, signed at another time.
pub fn sign_at(body: &str, seconds: u64) -> Request {
    sign_under(SECRET, body, seconds)
}

/// A callback of the event with this id, signed now under `secret`.
pub fn signed_under(secret: &str, id: &str) -> Request {
    sign_under(secret, &body_of(id), now())
}

/// A callback with this body, signed under `secret` at `seconds` since the epoch.
pub fn sign_under(secret: &str, body: &str, seconds: u64) -> Request {
    let json: Value = serde_json::from_str(body.trim_end()).unwrap();
    let places = ["/data/task_id", "/data/taskId", "/taskId"];
    let id = places
        .iter()
        .find_map(|place| json.pointer(place)?.as_str())
        .unwrap();
    let key = SigningKey::secret(Algorithm::HmacSha256, secret.as_bytes()).unwrap();
    let timestamp = seconds.to_string();
    let parts: [&[u8]; 3] = [id.as_bytes(), b".", timestamp.as_bytes()];
    let mac = key.sign(&parts).unwrap();
    Request::post("/callbacks/suno")
        .header("x-webhook-timestamp", timestamp)
        .header("x-webhook-signature", Encoding::Base64.encode(&mac))
        .json(body.to_owned())
}

/// A sample body of the sender.
pub fn sample(name: &str) -> String {
    let path = places::repository().join("tests/data/samples").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Small changes to a request.
pub trait Change {
    fn without(self, name: &str) -> Self;
    fn replace(self, name: &str, value: impl AsRef<[u8]>) -> Self;
    fn path(self, path: &str) -> Self;
    fn method(self, method: &str) -> Self;
}

impl Change for Request {
    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self
    }

    fn replace(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).header(name, value)
    }

    fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    fn method(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self
    }
}
