//! The filter: carries facts from Envoy to the [`Guard`] and decisions back. It has no rule of its
//! own; the way of a request is told in [`callback_guard_core::guard`].
//!
//! What Envoy demands of it:
//! * With `hold_headers: "filter"`, pausing in the headers callback holds the head; any `Continue`
//!   from a later callback lets it go. So `Continue` is returned for [`Decision::Forward`] alone.
//! * A paused request is resumed from a timer, never in a callback that returns `Continue`: that
//!   would send it upstream twice.
//! * `on_configure` fails for what the configuration says, and for nothing else.

mod host;
mod metrics;
mod remote;
mod verify;

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::rc::Rc;

use proxy_wasm::hostcalls::dispatch_http_call;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use serde::Serialize;

use callback_guard_core::authenticate::Facts;
use callback_guard_core::guard::{Answer, Decision, Forward, Guard};
use callback_guard_core::json::Scratch;
use callback_guard_core::outcome::Outcome;
use callback_guard_core::policy::{HoldHeaders, Mode, Policy};
use callback_guard_core::reply::Reply;
use callback_guard_core::request::RequestHead;
use callback_guard_core::store::bucket::OwnerToken;
use callback_guard_core::store::circuit::Turn;
use callback_guard_core::store::redis::Remote;
use callback_guard_core::store::retries::Errand;
use callback_guard_core::store::{self, Memory, Settlement};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::{Code, Rejection};
use callback_guard_core::{config, inspector, pairs};
use host::Shared;
use metrics::Metrics;
use remote::Line;

proxy_wasm::main! {{
    log_to_host();
    proxy_wasm::set_root_context(|id| Box::new(Root { id, worker: None }));
}}

/// How often waiting requests ask for their claim, in milliseconds. No timer runs while none waits.
const WAIT_TICK_MILLIS: u32 = 20;

/// The plugin in one VM.
struct Root {
    id: u32,
    /// Nothing if the host did not hand over the configuration: then each request is refused.
    worker: Option<Rc<Worker>>,
}

/// What the requests of one VM share.
struct Worker {
    policy: Policy,
    store: Memory,
    metrics: Metrics,
    scratch: RefCell<Scratch>,
    salt: Cell<Option<[u8; 16]>>,
    next_owner: Cell<u64>,
    waiting: RefCell<Vec<Waiting>>,
    is_ticking: Cell<bool>,
    /// The way to a store that many proxies share, if there is one.
    line: Option<Line>,
}

impl Drop for Worker {
    /// An open circuit must not be counted for ever once a new configuration takes its place.
    fn drop(&mut self) {
        if self.line.as_ref().is_some_and(Line::is_open) {
            self.metrics.circuit(Turn::Closed);
        }
    }
}

/// A request that waits for another to settle.
struct Waiting {
    context: u32,
    guard: Rc<RefCell<Guard>>,
    /// When it asks the next time, and how long the pause before that is.
    next: UnixMillis,
    pause_millis: u64,
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, _: usize, _: usize) {
        if let Some(worker) = &self.worker {
            worker.on_call_response(token, headers);
        }
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
                self.worker = Some(Rc::new(Worker::new(policy, self.id)));
                true
            }
            Err(error) => {
                log::error!("callback-guard: configuration refused: {error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(worker) = &self.worker {
            worker.on_tick();
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            context: context_id,
            worker: self.worker.clone(),
            guard: Rc::new(RefCell::new(Guard::new())),
            received: 0,
            is_held: Rc::default(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// What becomes of a request for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Answered,
    Held,
    SentOn,
}

impl Flow {
    fn action(self) -> Action {
        match self {
            Flow::SentOn => Action::Continue,
            Flow::Answered | Flow::Held => Action::Pause,
        }
    }
}

impl Worker {
    fn new(policy: Policy, root: u32) -> Self {
        Self {
            line: policy.remote.is_some().then(|| Line::new(root)),
            store: Memory::new(policy.capacity),
            metrics: Metrics::define(&policy),
            policy,
            scratch: RefCell::default(),
            salt: Cell::new(None),
            next_owner: Cell::new(random()),
            waiting: RefCell::default(),
            is_ticking: Cell::new(false),
        }
    }

    /// Does what the guard decides, until the request is answered, sent on or held.
    fn carry_out(
        &self,
        context: u32,
        shared_guard: &Rc<RefCell<Guard>>,
        guard: &mut Guard,
        mut decision: Decision,
        moment: &Moment,
    ) -> Flow {
        loop {
            decision = match decision {
                Decision::Claim(request) => {
                    let now = moment.now();
                    match self.ask(context, shared_guard, guard, &request, now) {
                        Some(answer) => guard.on_store(&self.policy, answer, now),
                        None => return Flow::Held,
                    }
                }
                Decision::Answer(answer) => {
                    self.report(guard);
                    reply(&Reply::new(&answer, self.policy.expose_reason));
                    return Flow::Answered;
                }
                Decision::Forward(forward) => {
                    if !self.stamp(guard, &forward) {
                        // Without its headers the upstream could not trust the request.
                        decision = guard.fault();
                        continue;
                    }
                    self.report(guard);
                    return Flow::SentOn;
                }
                Decision::Pass => return Flow::SentOn,
                Decision::Hold => return Flow::Held,
                Decision::Wait => {
                    self.wait(context, shared_guard, guard);
                    return Flow::Held;
                }
            };
        }
    }

    /// Puts the guard's headers into the request. False if the host refuses one.
    fn stamp(&self, guard: &Guard, forward: &Forward) -> bool {
        if self.policy.hold_headers == HoldHeaders::BufferAfter {
            return true;
        }
        let Some(source) = guard.policy_of(&self.policy) else {
            return false;
        };
        let add = |name, value: &str| host::add_request_header(name, value.as_bytes()).is_ok();
        add("x-callback-guard-source", &source.name)
            && guard
                .verified_id()
                .is_none_or(|id| add("x-callback-guard-id", id.as_str()))
            && forward.key.is_none_or(|key| {
                host::add_request_header("x-callback-guard-key", &key.hex()).is_ok()
            })
            && forward
                .monitored
                .is_none_or(|verdict| add("x-callback-guard-verdict", verdict.as_str()))
    }

    /// Tells a verdict to the metrics, the access log and, if it is a refusal, the log.
    fn report(&self, guard: &mut Guard) {
        let Some(verdict) = guard.verdict() else {
            return;
        };
        self.metrics.verdict(guard.source(), verdict);
        if guard.body_changed() {
            self.metrics.body_change(guard.source());
        }
        if let Some(millis) = guard.held_millis() {
            self.metrics.decision(guard.source(), millis);
        }
        // An access log without the verdict is no reason to refuse.
        let _ = host::set_filter_state("callback_guard.verdict", verdict.as_str());
        if let Some(rejection) = guard.rejection() {
            log_refusal(
                guard,
                guard.policy_of(&self.policy).map(|source| &*source.name),
                rejection,
            );
        }
        if let Some(inspector) = &self.policy.inspector {
            inspector.keep(&mut Shared, guard, &self.policy, now());
        }
    }

    /// Lets the inspector answer, if the request is for it.
    fn inspect(&self, head: &RequestHead<'_>) -> Option<inspector::Reply> {
        self.policy
            .inspector
            .as_ref()?
            .answer(&mut Shared, head, now())
    }

    /// Tells the inspector, if it is on, what became of a request that was sent on; once.
    fn note_answer(&self, guard: &mut Guard) {
        if let Some(inspector) = &self.policy.inspector
            && guard.is_sent_on()
            && let Some(notes) = guard.notes_mut()
            && let Some(kept) = notes.kept.take()
        {
            let (outcome, status) = outcome();
            inspector.answered(&mut Shared, kept, outcome, status);
        }
    }

    fn wait(&self, context: u32, shared_guard: &Rc<RefCell<Guard>>, guard: &Guard) {
        let Ok(mut waiting) = self.waiting.try_borrow_mut() else {
            return;
        };
        if waiting.iter().any(|known| known.context == context) {
            return;
        }
        self.metrics.wait(guard.source());
        waiting.push(Waiting {
            context,
            guard: Rc::clone(shared_guard),
            next: UnixMillis::new(0),
            pause_millis: 0,
        });
        drop(waiting);
        self.adjust_tick();
    }

    fn stop_waiting(&self, context: u32) {
        let Ok(mut waiting) = self.waiting.try_borrow_mut() else {
            return;
        };
        if waiting.is_empty() {
            return;
        }
        waiting.retain(|known| known.context != context);
        drop(waiting);
        self.adjust_tick();
    }

    /// Lets the timer run while there is something to do at its ticks.
    fn adjust_tick(&self) {
        let waits = self.waiting.try_borrow().is_ok_and(|one| !one.is_empty());
        let is_needed = waits || self.line.as_ref().is_some_and(Line::has_errands);
        if self.is_ticking.replace(is_needed) != is_needed {
            let period = if is_needed { WAIT_TICK_MILLIS } else { 0 };
            let _ = host::set_tick_period(period);
        }
    }

    fn on_tick(&self) {
        let now = now();
        self.run_errands(now);
        let due = match self.waiting.try_borrow() {
            Ok(waiting) => waiting
                .iter()
                .filter(|one| Self::is_due(one, now))
                .map(|one| (one.context, Rc::clone(&one.guard)))
                .collect(),
            Err(_) => Vec::new(),
        };
        for (context, shared_guard) in due {
            // First the stream: a claim for one that is gone would have to run out.
            if host::set_effective_context(context).is_err() {
                self.stop_waiting(context);
                continue;
            }
            let Ok(mut guard) = shared_guard.try_borrow_mut() else {
                continue;
            };
            let decision = guard.on_time(&self.policy);
            match self.carry_out(
                context,
                &shared_guard,
                &mut guard,
                decision,
                &Moment::at(now),
            ) {
                Flow::Held => {}
                Flow::Answered => self.stop_waiting(context),
                Flow::SentOn => {
                    self.stop_waiting(context);
                    // If the stream is gone after all, its end settles the claim.
                    let _ = host::resume_request();
                }
            }
        }
        self.adjust_tick();
    }

    /// Settles the claim of a request, if it has one. True if its response has to be held until
    /// the store has answered.
    fn settle(&self, guard: &mut Guard, outcome: Outcome, stream: Option<&Stream>) -> bool {
        let Some(terms) = guard.terms() else {
            return false;
        };
        self.metrics.outcome(guard.source(), outcome);
        let Some(settlement) = guard.on_outcome(&self.policy, outcome) else {
            return false;
        };
        let now = now();
        match self.store.settle(&mut Shared, &settlement, now) {
            Ok((is_settled, change)) => {
                self.metrics.change(change);
                match settlement {
                    Settlement::Release { .. } if is_settled => {
                        self.metrics.release(guard.source());
                    }
                    Settlement::Deliver { .. } if !is_settled => {
                        self.metrics.settle_failure(guard.source());
                    }
                    Settlement::Release { .. } | Settlement::Deliver { .. } => {}
                }
            }
            Err(store::Unavailable) => self.metrics.settle_failure(guard.source()),
        }
        let (Some(_), Some(source)) = (&self.line, guard.source()) else {
            return false;
        };
        // A request that has paid for a silent store once does not pay again.
        let stream = stream
            .filter(|_| remote::is_response(outcome) && !terms.is_fallback)
            .map(|stream| (stream.context, &stream.is_held));
        let errand = Errand::new(source, settlement, terms.lease_end, now);
        self.settle_there(stream, errand, now)
    }

    fn facts(&self, moment: &Moment) -> Option<Facts> {
        let salt = match self.salt.get() {
            Some(salt) => salt,
            None => {
                let mut fresh = [0; 16];
                let (left, right) = fresh.split_at_mut(8);
                left.copy_from_slice(&random().to_le_bytes());
                right.copy_from_slice(&random().to_le_bytes());
                let salt = store::salt(&mut Shared, fresh).ok()?;
                self.salt.set(Some(salt));
                salt
            }
        };
        let owner = self.next_owner.get();
        self.next_owner.set(owner.wrapping_add(1));
        Some(Facts {
            now: moment.now(),
            owner: OwnerToken::new(owner),
            salt,
        })
    }
}

/// The time of one callback: asked for once, and only if it is needed.
#[derive(Default)]
struct Moment(Cell<Option<UnixMillis>>);

impl Moment {
    fn at(now: UnixMillis) -> Self {
        Self(Cell::new(Some(now)))
    }

    fn now(&self) -> UnixMillis {
        let now = self.0.get().unwrap_or_else(now);
        self.0.set(Some(now));
        now
    }
}

/// One request.
struct Stream {
    context: u32,
    worker: Option<Rc<Worker>>,
    guard: Rc<RefCell<Guard>>,
    received: usize,
    /// Whether the response is held until the store has answered.
    is_held: Rc<Cell<bool>>,
}

impl Stream {
    /// Lets `ask` get a decision from the guard, and carries it out.
    fn drive(&self, ask: impl FnOnce(&Worker, &mut Guard, &Moment) -> Decision) -> Flow {
        let (Some(worker), Ok(mut guard)) = (&self.worker, self.guard.try_borrow_mut()) else {
            let rejection = Rejection::because(Code::InternalError, "the guard is not configured");
            reply(&Reply::new(&Answer::Refuse(rejection), false));
            return Flow::Answered;
        };
        let moment = Moment::default();
        let decision = ask(worker, &mut guard, &moment);
        worker.carry_out(self.context, &self.guard, &mut guard, decision, &moment)
    }

    fn on_whole_body(&self) -> Flow {
        self.drive(|worker, guard, moment| {
            if let Some(decision) = guard.on_end() {
                return decision;
            }
            let (Ok(body), Some(facts)) = (host::request_body(self.received), worker.facts(moment))
            else {
                return guard.fault();
            };
            let Ok(mut scratch) = worker.scratch.try_borrow_mut() else {
                return guard.fault();
            };
            if body.len() != self.received {
                return guard.fault();
            }
            worker.metrics.body(guard.source(), body.len());
            guard.on_body(&worker.policy, &body, &facts, &mut scratch)
        })
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, _: usize, _: usize) {
        if let Some(worker) = &self.worker {
            worker.on_call_response(token, headers);
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, ends: bool) -> Action {
        let mut is_inspected = false;
        let flow = self.drive(|worker, guard, moment| {
            let Ok(bytes) = host::request_header_pairs() else {
                return guard.fault();
            };
            let Some(pairs) = pairs::decode(&bytes) else {
                return guard.fault();
            };
            let head = RequestHead::new(&pairs);
            if let Some(answer) = worker.inspect(&head) {
                guard.stand_aside();
                send(
                    answer.status,
                    &answer.headers,
                    inspector::DETAILS,
                    &answer.body,
                );
                is_inspected = true;
                return Decision::Hold;
            }
            for name in head.own_headers() {
                if host::remove_request_header(name).is_err() {
                    return guard.fault();
                }
            }
            let decision = guard.on_head(&worker.policy, &head, moment.now(), ends);
            if let Some(target) = guard.clean_target(&worker.policy, &head)
                && host::set_request_target(&target).is_err()
            {
                return guard.fault();
            }
            decision
        });
        if is_inspected {
            return Action::Pause;
        }
        let holder = self
            .worker
            .as_ref()
            .map(|worker| worker.policy.hold_headers);
        match (flow, holder) {
            (Flow::Held, Some(HoldHeaders::BufferAfter)) => Action::Continue,
            _ => flow.action(),
        }
    }

    fn on_http_request_body(&mut self, size: usize, ends: bool) -> Action {
        // All of the body so far, because every answer before was to pause.
        self.received = size;
        if self.is_decided() {
            return self.decided_action();
        }
        let flow = if ends {
            self.on_whole_body()
        } else {
            self.drive(|worker, guard, _| guard.on_partial_body(&worker.policy, size))
        };
        flow.action()
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        // Where trailers come, no part of the body is marked as the last.
        if self.is_decided() {
            return self.decided_action();
        }
        self.on_whole_body().action()
    }

    fn on_http_response_headers(&mut self, _count: usize, _ends: bool) -> Action {
        let (Some(worker), Ok(mut guard)) = (&self.worker, self.guard.try_borrow_mut()) else {
            return Action::Continue;
        };
        worker.note_answer(&mut guard);
        let acknowledge_as = guard
            .policy_of(&worker.policy)
            .filter(|source| source.mode == Mode::Enforce)
            .and_then(|source| source.acknowledge_as);
        if !guard.has_claim() && (acknowledge_as.is_none() || !guard.is_sent_on()) {
            return Action::Continue;
        }
        let (outcome, status) = outcome();
        let is_held = worker.settle(&mut guard, outcome, Some(self));
        if let (Outcome::Accepted, Some(wanted)) = (outcome, acknowledge_as)
            && u64::from(wanted) != status
        {
            // The sender gets the upstream's own status if the host refuses.
            let _ = host::set_response_status(&wanted.to_string());
        }
        // The body and the trailers have to be held too, or the headers go with them.
        if is_held {
            Action::Pause
        } else {
            Action::Continue
        }
    }

    fn on_http_response_body(&mut self, size: usize, _ends: bool) -> Action {
        if !self.is_held.get() {
            return Action::Continue;
        }
        if size > remote::MAX_HELD_RESPONSE_BYTES {
            self.is_held.set(false);
            if let Some(worker) = &self.worker {
                worker.metrics.early_response();
            }
            return Action::Continue;
        }
        Action::Pause
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        if self.is_held.get() {
            Action::Pause
        } else {
            Action::Continue
        }
    }

    fn on_log(&mut self) {
        let (Some(worker), Ok(mut guard)) = (&self.worker, self.guard.try_borrow_mut()) else {
            return;
        };
        worker.stop_waiting(self.context);
        if guard.on_end().is_some() {
            // The sender has left before its body ended: nobody is answered, and it counts.
            worker.report(&mut guard);
        }
        worker.abandon(self.context, &guard, &self.is_held);
        worker.note_answer(&mut guard);
        if guard.has_claim() {
            worker.settle(&mut guard, outcome().0, None);
        }
    }
}

impl Stream {
    /// Whether the request has been sent on or answered: what still comes of it follows.
    fn is_decided(&self) -> bool {
        self.guard
            .try_borrow()
            .is_ok_and(|guard| guard.is_decided())
    }

    fn decided_action(&self) -> Action {
        let is_answered = self
            .guard
            .try_borrow()
            .is_ok_and(|guard| !guard.is_sent_on());
        if is_answered {
            Action::Pause
        } else {
            Action::Continue
        }
    }
}

/// What became of the request, by what Envoy says of its response, and that response's status.
fn outcome() -> (Outcome, u64) {
    let details = host::property("response\0code_details").unwrap_or_default();
    let status = host::number_property("response\0code").unwrap_or(0);
    let attempts = || host::number_property("upstream\0request_attempt_count").unwrap_or(1);
    (Outcome::new(&details, status, attempts), status)
}

/// Calls the front of a shared store. Nothing if the proxy does not take the call.
///
/// By way of the SDK, for it panics on an answer to a call that it has not made itself. It panics on
/// a status other than the three that Envoy gives here, too: done, bad argument, internal failure.
fn dispatch(remote: &Remote, body: &str) -> Option<u32> {
    let timeout = Duration::from_millis(remote.timeout_millis);
    let headers = remote.headers();
    let body = Some(body.as_bytes());
    dispatch_http_call(&remote.cluster, headers, body, Vec::new(), timeout).ok()
}

fn reply(reply: &Reply) {
    send(
        reply.status,
        &reply.headers,
        &reply.details,
        reply.body.as_bytes(),
    );
}

fn send(status: u16, headers: &[(&str, &str)], details: &str, body: &[u8]) {
    let headers = pairs::encode(headers);
    if host::send_reply(status, details, &headers, body).is_err() {
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

/// One refusal, as a line of JSON.
#[derive(Serialize)]
struct LogLine<'l> {
    event: &'static str,
    source: Option<&'l str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'l str>,
    detail: String,
}

fn log_refusal(guard: &Guard, source: Option<&str>, rejection: &Rejection) {
    // The level may have been changed at run time.
    if host::log_level() < log::LevelFilter::Info {
        return;
    }
    let line = LogLine {
        event: "refused",
        source,
        code: rejection.code().as_str(),
        id: guard.verified_id().map(|id| id.as_str()),
        detail: rejection.to_string(),
    };
    if let Ok(line) = serde_json::to_string(&line) {
        host::log(log::Level::Info, &line);
    }
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
        host::log(log::Level::Error, &info.to_string())
    }));
}
