//! One request, from its head to its end.
//!
//! Every function here is one hook of Envoy. What it does to the request comes last, with the worker's lock
//! released: answering and resuming run further hooks, of this stream, too, before they return.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};

use callback_guard_core::request::{RequestHead, is_reserved};
use callback_guard_core::worker::{Io, Outcome, Reply, StreamId, Verdict};

use crate::abi::{
    Attribute, BodyType, HeaderType, LogLevel, RequestBodyStatus, RequestHeadersStatus,
    RequestTrailersStatus, ResponseBodyStatus, ResponseHeadersStatus, ResponseTrailersStatus,
};
use crate::clock::now;
use crate::config::Config;
use crate::envoy::{self, Filter, Refused};
use crate::store::ProcessData;
use crate::worker::{Mail, State};

/// A request of the thread that it lives on.
pub(crate) struct Stream {
    config: Arc<Config>,
    worker: usize,
    id: StreamId,
    /// Whether the response is held: most are not, and then nobody has to be asked.
    is_response_held: Cell<bool>,
    has_ended: Cell<bool>,
}

/// What is to be done with a request, once the worker's lock is released.
enum Action {
    Continue,
    Hold,
    Reply(Reply),
}

impl Stream {
    /// For a stream that begins.
    pub(crate) fn new(config: &Arc<Config>, filter: &Filter) -> Self {
        // The main thread, if anything ever comes there, is behind all workers.
        let worker = filter
            .worker_index()
            .min(config.threads().saturating_sub(1));
        let id = config
            .worker(worker)
            .map_or(StreamId(0), |mut state| state.next_stream());
        Self {
            config: Arc::clone(config),
            worker,
            id,
            is_response_held: Cell::new(false),
            has_ended: Cell::new(false),
        }
    }

    /// For a stream of which nothing can be known: it is refused.
    pub(crate) fn unknown(config: &Arc<Config>) -> Self {
        Self {
            config: Arc::clone(config),
            worker: usize::MAX,
            id: StreamId(0),
            is_response_held: Cell::new(false),
            has_ended: Cell::new(false),
        }
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        self.config.worker(self.worker)
    }

    /// Does what the worker wants, and returns what is left to be done with this request.
    fn act_on(
        &self,
        state: &mut State,
        filter: &mut Filter,
        verdict: Verdict,
        data: &mut ProcessData,
    ) -> Action {
        let mut verdict =
            match state.carry_out(&self.config.shared, self.worker, Some((self.id, filter))) {
                // Takes the place of the verdict.
                Some(Mail::Resume) => Verdict::Forward,
                Some(Mail::Reply(reply)) => Verdict::Reply(reply),
                Some(Mail::ResumeResponse | Mail::Verdict(_)) | None => verdict,
            };
        if verdict == Verdict::Forward {
            let add = |name: &str, value: &[u8]| {
                filter.set_header(HeaderType::RequestHeader, name, value)
            };
            if state.worker.upstream_headers(self.id, add).is_err() {
                // Without its headers the upstream could not trust the request.
                verdict = state.worker.fail(&mut Io::new(data, now()), self.id);
                state.carry_out(&self.config.shared, self.worker, Some((self.id, filter)));
            }
        }
        match verdict {
            Verdict::Continue | Verdict::Forward => Action::Continue,
            Verdict::Hold => Action::Hold,
            Verdict::Reply(reply) => Action::Reply(reply),
        }
    }

    /// The head of the request has come.
    pub(crate) fn request_headers(
        self: Rc<Self>,
        filter: &mut Filter,
        ends: bool,
    ) -> RequestHeadersStatus {
        let Some(mut state) = self.state() else {
            refuse(filter);
            return RequestHeadersStatus::StopIteration;
        };
        let mut data = ProcessData::default();
        let verdict = self.judge_head(&mut state, filter, ends, &mut data);
        let action = self.act_on(&mut state, filter, verdict, &mut data);
        drop(state);
        match action {
            Action::Continue => RequestHeadersStatus::Continue,
            Action::Hold => RequestHeadersStatus::StopIteration,
            Action::Reply(reply) => {
                send(filter, &reply);
                RequestHeadersStatus::StopIteration
            }
        }
    }

    fn judge_head(
        &self,
        state: &mut State,
        filter: &mut Filter,
        ends: bool,
        data: &mut ProcessData,
    ) -> Verdict {
        let mut io = Io::new(data, now());
        let Ok(headers) = filter.headers(HeaderType::RequestHeader) else {
            return state.worker.fail(&mut io, self.id);
        };
        if !state.probe.passes(filter, &headers) {
            envoy::log(
                LogLevel::Error,
                "callback-guard: this Envoy's attributes are not those of Envoy 1.40: no request is let through",
            );
            return state.worker.fail(&mut io, self.id);
        }
        state.renew(&self.config.shared, filter);
        let head = RequestHead::new(&headers);
        let verdict = state.worker.request_head(&mut io, self.id, &head, ends);
        // Both are read before anything is changed: a change takes the bytes of `headers`.
        let unwanted: Vec<Vec<u8>> = state
            .worker
            .unwanted_headers(self.id, &head)
            .map(<[u8]>::to_vec)
            .collect();
        let target = state.worker.clean_target(self.id, &head);
        let changed = unwanted
            .iter()
            .try_for_each(|name| filter.remove_header(HeaderType::RequestHeader, name))
            .and_then(|()| match target {
                Some(target) => filter.set_header(HeaderType::RequestHeader, ":path", &target),
                None => Ok(()),
            });
        match changed {
            Ok(()) => verdict,
            Err(Refused) => state.worker.fail(&mut io, self.id),
        }
    }

    /// A part of the request's body has come.
    pub(crate) fn request_body(
        self: Rc<Self>,
        filter: &mut Filter,
        ends: bool,
    ) -> RequestBodyStatus {
        let Some(mut state) = self.state() else {
            refuse(filter);
            return RequestBodyStatus::StopIterationNoBuffer;
        };
        let mut data = ProcessData::default();
        let verdict = {
            let body = Body::of(filter);
            let mut io = Io::new(&mut data, now());
            let read = |size| body.read(size);
            state
                .worker
                .request_body(&mut io, self.id, body.size, ends, &read)
        };
        let action = self.act_on(&mut state, filter, verdict, &mut data);
        if ends && matches!(action, Action::Hold) {
            state.hold(self.id, filter);
        }
        drop(state);
        match action {
            Action::Continue => RequestBodyStatus::Continue,
            Action::Hold => RequestBodyStatus::StopIterationAndBuffer,
            Action::Reply(reply) => {
                send(filter, &reply);
                RequestBodyStatus::StopIterationNoBuffer
            }
        }
    }

    /// The trailers of the request have come, and with them the end of its body.
    pub(crate) fn request_trailers(self: Rc<Self>, filter: &mut Filter) -> RequestTrailersStatus {
        let Some(mut state) = self.state() else {
            refuse(filter);
            return RequestTrailersStatus::StopIteration;
        };
        let mut data = ProcessData::default();
        let removed = remove_reserved_trailers(filter);
        let verdict = {
            let body = Body::of(filter);
            let mut io = Io::new(&mut data, now());
            match removed {
                Ok(()) => {
                    let read = |size| body.read(size);
                    state.worker.request_trailers(&mut io, self.id, &read)
                }
                Err(Refused) => state.worker.fail(&mut io, self.id),
            }
        };
        let action = self.act_on(&mut state, filter, verdict, &mut data);
        if matches!(action, Action::Hold) {
            state.hold(self.id, filter);
        }
        drop(state);
        match action {
            Action::Continue => RequestTrailersStatus::Continue,
            Action::Hold => RequestTrailersStatus::StopIteration,
            Action::Reply(reply) => {
                send(filter, &reply);
                RequestTrailersStatus::StopIteration
            }
        }
    }

    /// The head of the response has come.
    pub(crate) fn response_headers(self: Rc<Self>, filter: &mut Filter) -> ResponseHeadersStatus {
        let Some(mut state) = self.state() else {
            return ResponseHeadersStatus::Continue;
        };
        let mut data = ProcessData::default();
        let mut io = Io::new(&mut data, now());
        let mut response = state
            .worker
            .response_head(&mut io, self.id, || outcome(filter));
        let mail = state.carry_out(&self.config.shared, self.worker, Some((self.id, filter)));
        if matches!(mail, Some(Mail::ResumeResponse)) {
            response.is_held = false;
        }
        if response.is_held {
            state.hold(self.id, filter);
        }
        drop(state);
        if data.is_changed {
            self.config.shared.clock.settled();
        }
        self.is_response_held.set(response.is_held);
        if let Some(status) = response.status {
            // The sender gets the upstream's own status if Envoy refuses.
            let status = status.to_string();
            let _ = filter.set_header(HeaderType::ResponseHeader, ":status", status.as_bytes());
        }
        if response.is_held {
            ResponseHeadersStatus::StopIteration
        } else {
            ResponseHeadersStatus::Continue
        }
    }

    /// A part of the response's body has come.
    pub(crate) fn response_body(self: Rc<Self>, filter: &mut Filter) -> ResponseBodyStatus {
        if !self.is_response_held.get() {
            return ResponseBodyStatus::Continue;
        }
        let held = filter
            .body_size(BodyType::BufferedResponseBody)
            .saturating_add(filter.body_size(BodyType::ReceivedResponseBody));
        let is_held = self.state().is_some_and(|mut state| {
            let is_held = state.worker.response_body(self.id, held);
            state.carry_out(&self.config.shared, self.worker, Some((self.id, filter)));
            is_held
        });
        self.is_response_held.set(is_held);
        if is_held {
            ResponseBodyStatus::StopIterationAndBuffer
        } else {
            ResponseBodyStatus::Continue
        }
    }

    /// The trailers of the response have come.
    pub(crate) fn response_trailers(self: Rc<Self>) -> ResponseTrailersStatus {
        let is_held = self.is_response_held.get()
            && self
                .state()
                .is_some_and(|state| state.worker.response_trailers(self.id));
        if is_held {
            ResponseTrailersStatus::StopIteration
        } else {
            ResponseTrailersStatus::Continue
        }
    }

    /// Others have left something to be done.
    pub(crate) fn scheduled(self: Rc<Self>, filter: &mut Filter) {
        let mail = match self.state() {
            Some(mut state) => state.take_mail(self.id),
            None => return,
        };
        for mail in mail {
            match mail {
                Mail::Verdict(code) => filter.set_state(crate::worker::VERDICT, code.as_str()),
                Mail::Reply(reply) => send(filter, &reply),
                Mail::ResumeResponse => {
                    if self.is_response_held.replace(false) {
                        filter.continue_response();
                    }
                }
                Mail::Resume => {
                    let Some(mut state) = self.state() else {
                        return;
                    };
                    let mut data = ProcessData::default();
                    let action = self.act_on(&mut state, filter, Verdict::Forward, &mut data);
                    drop(state);
                    match action {
                        Action::Continue => filter.continue_request(),
                        Action::Hold => {}
                        Action::Reply(reply) => send(filter, &reply),
                    }
                }
            }
        }
    }

    /// The stream has ended, whatever came before.
    pub(crate) fn complete(self: Rc<Self>, filter: &mut Filter) {
        self.end(Some(filter));
    }

    /// The stream is gone. Where Envoy has not said before that it has ended, nothing is known of its
    /// outcome.
    pub(crate) fn destroy(self: Rc<Self>) {
        self.end(None);
    }

    fn end(&self, filter: Option<&mut Filter>) {
        if self.has_ended.replace(true) {
            return;
        }
        let Some(mut state) = self.state() else {
            return;
        };
        let mut data = ProcessData::default();
        let mut io = Io::new(&mut data, now());
        state.worker.stream_end(&mut io, self.id, || {
            let known = filter.as_deref().map(outcome);
            known.unwrap_or((Outcome::Unknown, 0))
        });
        state.forget(self.id);
        let here = filter.map(|filter| (self.id, filter));
        state.carry_out(&self.config.shared, self.worker, here);
        drop(state);
        if data.is_changed {
            self.config.shared.clock.settled();
        }
    }

    /// This module has failed on this request: it is refused, and counted.
    pub(crate) fn failed(&self, filter: &mut Filter) {
        self.config.shared.count_failure();
        refuse(filter);
    }
}

/// A request's body, as far as it is there.
struct Body<'f> {
    filter: &'f Filter,
    /// Whether what is received is a part beyond what is buffered.
    is_received_apart: bool,
    /// Bytes in all.
    size: usize,
}

impl<'f> Body<'f> {
    fn of(filter: &'f Filter) -> Self {
        let buffered = filter.body_size(BodyType::BufferedRequestBody);
        let received = filter.body_size(BodyType::ReceivedRequestBody);
        let is_received_apart = received > 0 && !(buffered > 0 && filter.receives_buffered());
        Self {
            filter,
            is_received_apart,
            size: buffered.saturating_add(if is_received_apart { received } else { 0 }),
        }
    }

    /// All of it, in one piece: Envoy's own where there is but one, else put together.
    fn read(&self, size: usize) -> Option<Cow<'f, [u8]>> {
        let mut pieces = self.filter.body(BodyType::BufferedRequestBody)?;
        if self.is_received_apart {
            pieces.extend(self.filter.body(BodyType::ReceivedRequestBody)?);
        }
        if let [piece] = pieces[..] {
            return Some(Cow::Borrowed(piece));
        }
        let mut whole = Vec::with_capacity(size);
        for piece in pieces {
            whole.extend_from_slice(piece);
        }
        Some(Cow::Owned(whole))
    }
}

fn remove_reserved_trailers(filter: &mut Filter) -> Result<(), Refused> {
    let trailers = filter.headers(HeaderType::RequestTrailer)?;
    let reserved: Vec<Vec<u8>> = trailers
        .iter()
        .filter(|(name, _)| is_reserved(name))
        .map(|(name, _)| name.to_vec())
        .collect();
    reserved
        .iter()
        .try_for_each(|name| filter.remove_header(HeaderType::RequestTrailer, name))
}

/// The outcome of the request, by Envoy's attributes of its response, and that response's status.
fn outcome(filter: &Filter) -> (Outcome, u64) {
    let details = filter
        .text(Attribute::ResponseCodeDetails)
        .unwrap_or_default();
    let status = filter.number(Attribute::ResponseCode).unwrap_or(0);
    let attempts = || {
        filter
            .number(Attribute::UpstreamRequestAttemptCount)
            .unwrap_or(1)
    };
    (Outcome::new(details, status, attempts), status)
}

fn send(filter: &mut Filter, reply: &Reply) {
    let headers: Vec<(&str, &str)> = reply
        .headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    filter.reply(reply.status, &headers, &reply.body, &reply.details);
}

/// Refuses a request of which nothing is known.
pub(crate) fn refuse(filter: &mut Filter) {
    filter.reply(
        500,
        &[("content-type", "application/problem+json")],
        br#"{"type":"about:blank","title":"Internal Server Error","status":500}"#,
        "callback_guard:internal_error",
    );
}
