//! The filter: reports Envoy's callbacks to the [`Worker`], and carries out its verdicts and effects.
//! It has no rule of its own.
//!
//! What Envoy demands of it:
//! * With `hold_headers: "filter"`, pausing in the headers callback holds the head; any `Continue`
//!   from a later callback lets it go. So that is returned for [`Verdict::Forward`] and, where nothing
//!   is held, [`Verdict::Continue`] alone.
//! * A paused request is resumed from another callback than its own, never in one that returns
//!   `Continue`: that would send it upstream twice.
//! * `on_configure` fails for what the configuration says, and for nothing else.
//! * Every call-out is made under the root context, which lives as long as the VM: one that is made
//!   for a stream is cut off when that stream ends. The SDK hands the answer to whichever context was
//!   active when the call was made, and drops it where that stream is gone; so the worker makes a call
//!   in a stream's callback only for that stream.

use core::cell::RefCell;
use core::time::Duration;
use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::rc::Rc;
use std::sync::Arc;

use proxy_wasm::hostcalls::dispatch_http_call;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use callback_guard_config as config;
use callback_guard_core::log::{is_first, start_line};
use callback_guard_core::policy::Policy;
use callback_guard_core::request::{RequestHead, is_reserved};
use callback_guard_core::store::redis::{self, Access, Ask, MAX_REPLY_BYTES, StoreError};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::{Code, Rejection};
use callback_guard_core::worker::{
    Answer, CallId, Effect, Io, Outcome, Reply, Response, Seed, StreamId, Verdict, Worker,
};

use crate::header_map;
use crate::host::{self, Shared};
use crate::metrics::Metrics;
use crate::verify;

proxy_wasm::main! {{
    log_to_host();
    proxy_wasm::set_root_context(|id| Box::new(Root { id, plugin: None }));
}}

/// The plugin in one VM, once it is configured. `None` if the host did not hand over the
/// configuration: then each request is refused.
type Shareable = Option<Rc<RefCell<Plugin>>>;

struct Root {
    id: u32,
    plugin: Shareable,
}

/// What all requests of one VM share.
struct Plugin {
    root: u32,
    worker: Worker,
    metrics: Metrics,
    /// Emptied in each callback; kept for its room.
    effects: Vec<Effect>,
    /// The host's numbers of the calls on their way.
    calls: Vec<(u32, CallId)>,
    /// The context that host calls speak of; `None` if it is not known.
    context: Option<u32>,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.worker.close();
        self.carry_out(&mut Running::default());
    }
}

/// The request whose callback runs, and what is to become of it.
#[derive(Default)]
struct Running {
    stream: Option<StreamId>,
    verdict: Option<Verdict>,
    response: Response,
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, _: usize, _: usize) {
        call_answered(&self.plugin, token, headers);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        log::set_max_level(host::log_level());
        let Ok(text) = host::plugin_configuration() else {
            // Refusing it here would make Envoy pass requests around the filter on this worker.
            log::error!("callback-guard: the host does not hand over the configuration");
            return true;
        };
        let environment =
            |name: &str| std::env::var_os(name).map(|value| value.as_encoded_bytes().to_vec());
        match config::parse(&text, &environment) {
            Ok(mut policy) => {
                verify::connect(&mut policy);
                say_once_that_it_starts(&policy, &text);
                let mut salt = [0; 16];
                let (left, right) = salt.split_at_mut(8);
                left.copy_from_slice(&random().to_le_bytes());
                right.copy_from_slice(&random().to_le_bytes());
                let seed = Seed {
                    owner: random(),
                    salt,
                };
                self.plugin = Some(Rc::new(RefCell::new(Plugin {
                    root: self.id,
                    metrics: Metrics::define(&policy),
                    worker: Worker::new(Arc::new(policy), seed),
                    effects: Vec::new(),
                    calls: Vec::new(),
                    context: None,
                })));
                true
            }
            Err(error) => {
                log::error!("callback-guard: configuration refused: {error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(plugin) = &self.plugin
            && let Ok(mut plugin) = plugin.try_borrow_mut()
        {
            plugin.context = Some(self.id);
            plugin.tell(Worker::time);
            plugin.carry_out(&mut Running::default());
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            id: StreamId(context_id),
            plugin: self.plugin.clone(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Plugin {
    /// Reports an event to the worker.
    fn tell<T>(&mut self, event: impl FnOnce(&mut Worker, &mut Io<'_, Shared>) -> T) -> T {
        event(&mut self.worker, &mut Io::with_clock(&mut Shared, now))
    }

    /// Carries out the worker's effects, and those that they lead to.
    fn carry_out(&mut self, running: &mut Running) {
        let mut effects = core::mem::take(&mut self.effects);
        loop {
            self.worker.take_effects(&mut effects);
            if effects.is_empty() {
                break;
            }
            for effect in effects.drain(..) {
                match effect {
                    Effect::Add(metric, by) => self.metrics.add(metric, by),
                    Effect::Record(metric, value) => self.metrics.record(metric, value),
                    effect => self.perform(effect, running),
                }
            }
        }
        self.effects = effects;
    }

    /// Carries out one. Out of line: most of what is rare is here.
    #[inline(never)]
    fn perform(&mut self, effect: Effect, running: &mut Running) {
        match effect {
            Effect::Add(metric, by) => self.metrics.add(metric, by),
            Effect::Call { call, ask } => {
                let token = self.enter(self.root).then(|| self.dispatch(&ask)).flatten();
                match token {
                    Some(token) => self.calls.push((token, call)),
                    None => {
                        let failure = Err(StoreError::Unreachable);
                        self.tell(|worker, io| worker.call_ended(io, call, failure));
                    }
                }
            }
            Effect::Log(line) => {
                // The level may have been changed at run time.
                if host::log_level() >= log::LevelFilter::Info {
                    host::log(log::Level::Info, &line.to_json());
                }
            }
            Effect::Record(metric, value) => self.metrics.record(metric, value),
            Effect::Reply(stream, reply) if running.stream == Some(stream) => {
                running.verdict = Some(Verdict::Reply(*reply));
            }
            Effect::Reply(stream, reply) => {
                if self.enter(stream.0) {
                    send(&reply);
                }
            }
            Effect::Resume(stream) if running.stream == Some(stream) => {
                running.verdict = Some(Verdict::Forward);
            }
            Effect::Resume(stream) => self.resume(stream),
            Effect::ResumeResponse(stream) if running.stream == Some(stream) => {
                running.response.is_held = false;
            }
            Effect::ResumeResponse(stream) => {
                if self.enter(stream.0) {
                    // If the stream is gone after all, nobody waits for it.
                    let _ = host::resume_response();
                }
            }
            Effect::Ticks(millis) => {
                let _ = host::set_tick_period(millis.unwrap_or(0));
            }
            Effect::Verdict(stream, verdict) => {
                if self.enter(stream.0) {
                    // An access log without the verdict is no reason to refuse.
                    let _ = host::set_filter_state("callback_guard.verdict", verdict.as_str());
                }
            }
        }
    }

    /// Lets a request go whose callback does not run.
    fn resume(&mut self, stream: StreamId) {
        if !self.enter(stream.0) {
            // It is gone without a word, and has not been forwarded.
            let gone = || (Outcome::NotReached, 0);
            return self.tell(|worker, io| worker.stream_end(io, stream, gone));
        }
        match self.add_upstream_headers(stream) {
            None => {
                // If the stream is gone after all, its end settles the claim.
                let _ = host::resume_request();
            }
            Some(Verdict::Reply(reply)) => send(&reply),
            Some(Verdict::Continue | Verdict::Forward | Verdict::Hold) => {}
        }
    }

    /// Puts the guard's headers into a request. The verdict in its place if the host refuses one:
    /// without them the upstream could not trust the request.
    fn add_upstream_headers(&mut self, stream: StreamId) -> Option<Verdict> {
        let added = self
            .worker
            .upstream_headers(stream, host::add_request_header);
        added
            .is_err()
            .then(|| self.tell(|worker, io| worker.fail(io, stream)))
    }

    /// Makes host calls speak of `context`. False if that is gone.
    fn enter(&mut self, context: u32) -> bool {
        if self.context != Some(context) {
            self.context = host::set_effective_context(context).ok().map(|()| context);
        }
        self.context == Some(context)
    }

    /// Calls the front of the shared store. `None` if the proxy does not take the call.
    ///
    /// By way of the SDK, for it panics on an answer to a call that it has not made itself. It panics
    /// on a status other than the three that Envoy gives here, too: done, bad argument, internal
    /// failure.
    fn dispatch(&self, ask: &Ask) -> Option<u32> {
        let remote = self.worker.policy().remote.as_ref()?;
        // A configuration with another way is refused where there is none but this.
        let (Ask::Post(body), Access::Front(front)) = (ask, &remote.access) else {
            return None;
        };
        let timeout = Duration::from_millis(remote.timeout_millis);
        let body = Some(body.as_bytes());
        dispatch_http_call(&front.cluster, front.headers(), body, Vec::new(), timeout).ok()
    }

    /// The status and the body of the reply to a call-out.
    fn read_reply(&mut self, header_count: usize) -> Result<(u16, Vec<u8>), StoreError> {
        // A connection that broke has no headers at all.
        if header_count == 0 || !self.enter(self.root) {
            return Err(StoreError::Unreachable);
        }
        let bytes = host::call_header_pairs().map_err(|_| StoreError::Unreachable)?;
        let pairs = header_map::decode(&bytes).ok_or(StoreError::Malformed)?;
        let status = pairs
            .iter()
            .find(|(name, _)| *name == b":status")
            .and_then(|(_, value)| core::str::from_utf8(value).ok()?.parse().ok())
            .ok_or(StoreError::Malformed)?;
        // One byte more than is allowed shows that there is more.
        let body = host::call_body(MAX_REPLY_BYTES.saturating_add(1))
            .map_err(|_| StoreError::Unreachable)?;
        Ok((status, body))
    }
}

/// Logs what the filter guards and what its configuration hardly means to, unless another VM of this
/// process has done so for the same configuration.
///
/// Whatever the host says to it, the plugin is configured all the same.
#[cold]
fn say_once_that_it_starts(policy: &Policy, text: &[u8]) {
    if !is_first(&mut Shared, text) {
        return;
    }
    let level = if policy.warnings.is_empty() {
        log::Level::Info
    } else {
        log::Level::Warn
    };
    if host::log_level() >= level {
        host::log(level, &start_line(policy));
    }
}

/// The answer to a call-out has come, or it has failed.
fn call_answered(plugin: &Shareable, token: u32, header_count: usize) {
    let Some(Ok(mut plugin)) = plugin.as_ref().map(|plugin| plugin.try_borrow_mut()) else {
        return;
    };
    plugin.context = None;
    let Some(at) = plugin.calls.iter().position(|(known, _)| *known == token) else {
        return;
    };
    let (_, call) = plugin.calls.swap_remove(at);
    let reply = plugin.read_reply(header_count);
    let reply = match &reply {
        Ok((status, body)) => Ok(redis::Answer::Http {
            status: *status,
            body,
        }),
        Err(error) => Err(*error),
    };
    plugin.tell(|worker, io| worker.call_ended(io, call, reply));
    plugin.carry_out(&mut Running::default());
}

/// One request.
struct Stream {
    id: StreamId,
    plugin: Shareable,
}

impl Stream {
    /// Reports an event of this request to the worker, and carries out its verdict and effects.
    fn drive(&self, event: impl FnOnce(&mut Worker, &mut Io<'_, Shared>) -> Verdict) -> Action {
        let Some(Ok(mut plugin)) = self.plugin.as_ref().map(|plugin| plugin.try_borrow_mut())
        else {
            let rejection = Rejection::new(Code::InternalError);
            send(&Reply::new(&Answer::Refuse(rejection), false));
            return Action::Pause;
        };
        plugin.context = Some(self.id.0);
        let verdict = plugin.tell(event);
        let mut running = Running {
            stream: Some(self.id),
            verdict: Some(verdict),
            ..Running::default()
        };
        plugin.carry_out(&mut running);
        plugin.enter(self.id.0);
        if running.verdict == Some(Verdict::Forward)
            && let Some(verdict) = plugin.add_upstream_headers(self.id)
        {
            running.verdict = Some(verdict);
            plugin.carry_out(&mut running);
            plugin.enter(self.id.0);
        }
        match running.verdict {
            Some(Verdict::Continue | Verdict::Forward) => Action::Continue,
            Some(Verdict::Reply(reply)) => {
                send(&reply);
                Action::Pause
            }
            Some(Verdict::Hold) | None => Action::Pause,
        }
    }

    fn plugin(&self) -> Option<core::cell::RefMut<'_, Plugin>> {
        let mut plugin = self.plugin.as_ref()?.try_borrow_mut().ok()?;
        plugin.context = Some(self.id.0);
        Some(plugin)
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, _: usize, _: usize) {
        call_answered(&self.plugin, token, headers);
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, ends: bool) -> Action {
        self.drive(|worker, io| {
            let Ok(bytes) = host::request_header_pairs() else {
                return worker.fail(io, self.id);
            };
            let Some(pairs) = header_map::decode(&bytes) else {
                return worker.fail(io, self.id);
            };
            let head = RequestHead::new(&pairs);
            let verdict = worker.request_head(io, self.id, &head, ends);
            let is_refused = worker
                .unwanted_headers(self.id, &head)
                .any(|name| host::remove_request_header(name).is_err());
            if is_refused {
                return worker.fail(io, self.id);
            }
            if let Some(target) = worker.clean_target(self.id, &head)
                && host::set_request_target(&target).is_err()
            {
                return worker.fail(io, self.id);
            }
            verdict
        })
    }

    fn on_http_request_body(&mut self, size: usize, ends: bool) -> Action {
        // All of the body so far, because every answer before was to pause.
        self.drive(|worker, io| worker.request_body(io, self.id, size, ends, &read_body))
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        // Where trailers come, no part of the body is marked as the last.
        self.drive(|worker, io| {
            if remove_reserved_trailers().is_none() {
                return worker.fail(io, self.id);
            }
            worker.request_trailers(io, self.id, &read_body)
        })
    }

    fn on_http_response_headers(&mut self, _count: usize, _ends: bool) -> Action {
        let Some(mut plugin) = self.plugin() else {
            return Action::Continue;
        };
        let response = plugin.tell(|worker, io| worker.response_head(io, self.id, outcome));
        let mut running = Running {
            stream: Some(self.id),
            verdict: None,
            response,
        };
        plugin.carry_out(&mut running);
        if let Some(status) = running.response.status
            && plugin.enter(self.id.0)
        {
            // The sender gets the upstream's own status if the host refuses.
            let _ = host::set_response_status(&status.to_string());
        }
        // The body and the trailers have to be held too, or the headers go with them.
        held(running.response.is_held)
    }

    fn on_http_response_body(&mut self, size: usize, _ends: bool) -> Action {
        let Some(mut plugin) = self.plugin() else {
            return Action::Continue;
        };
        let is_held = plugin.worker.response_body(self.id, size);
        plugin.carry_out(&mut Running::default());
        held(is_held)
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        let plugin = self.plugin();
        held(plugin.is_some_and(|plugin| plugin.worker.response_trailers(self.id)))
    }

    fn on_log(&mut self) {
        if let Some(mut plugin) = self.plugin() {
            plugin.tell(|worker, io| worker.stream_end(io, self.id, outcome));
            plugin.carry_out(&mut Running::default());
        }
    }
}

fn held(is_held: bool) -> Action {
    if is_held {
        Action::Pause
    } else {
        Action::Continue
    }
}

/// The first `size` bytes of the request's body.
fn read_body(size: usize) -> Option<Cow<'static, [u8]>> {
    host::request_body(size).ok().map(Cow::Owned)
}

/// Removes what only the guard may say from the trailers. `None` if the host refuses.
fn remove_reserved_trailers() -> Option<()> {
    let bytes = host::request_trailer_pairs().ok()?;
    for (name, _) in header_map::decode(&bytes)? {
        if is_reserved(name) {
            host::remove_request_trailer(name).ok()?;
        }
    }
    Some(())
}

/// The outcome of the request, by Envoy's attributes of its response, and that response's status.
fn outcome() -> (Outcome, u64) {
    let details = host::property("response\0code_details").unwrap_or_default();
    let status = host::number_property("response\0code").unwrap_or(0);
    let attempts = || host::number_property("upstream\0request_attempt_count").unwrap_or(1);
    (Outcome::new(&details, status, attempts), status)
}

fn send(reply: &Reply) {
    let headers: Vec<(&str, &str)> = reply
        .headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let headers = header_map::encode(&headers);
    if host::send_reply(reply.status, &reply.details, &headers, &reply.body).is_err() {
        // The request stays paused and ends with the proxy's own timeout: it is not forwarded.
        log::error!("callback-guard: the host does not take a reply");
    }
}

fn now() -> UnixMillis {
    // Without a clock everything is stale: refused, not let through.
    UnixMillis::from_nanos(host::now_nanos().unwrap_or(0))
}

/// A random number: the host's, by way of the keys of a hash map.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

struct HostLog;

impl log::Log for HostLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        host::log(record.level(), &record.args().to_string());
    }

    fn flush(&self) {}
}

fn log_to_host() {
    // Fails only if there is a logger already.
    let _ = log::set_logger(&HostLog);
    log::set_max_level(log::LevelFilter::Info);
    std::panic::set_hook(Box::new(|info| {
        host::log(log::Level::Error, &info.to_string());
    }));
}
