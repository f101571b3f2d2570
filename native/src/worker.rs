//! A worker of the core with its streams, and the effects that it wants done.

use std::collections::HashMap;
use std::sync::Arc;

use callback_guard_core::metrics::Metric;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::{Effect, Reply, Seed, StreamId, Worker};

use crate::envoy::{Filter, Waker};
use crate::secrets::Snapshot;
use crate::shared::Shared;

/// One worker, behind its lock.
pub(crate) struct State {
    pub(crate) worker: Worker,
    /// Requests or responses that are held, and may be let go by others than their own hooks.
    held: HashMap<StreamId, Held>,
    pub(crate) probe: crate::probe::Probe,
    /// The secrets that the worker has.
    secrets: Arc<Snapshot>,
    next_stream: u32,
    ticks: bool,
    effects: Vec<Effect>,
    /// Values for histograms, which Envoy takes on its own threads alone.
    late: Vec<(Metric, u64)>,
}

/// A stream that others than its own hooks may let go.
struct Held {
    waker: Waker,
    mail: Vec<Mail>,
}

/// What is to be done with a stream on its own thread.
pub(crate) enum Mail {
    Reply(Reply),
    Resume,
    ResumeResponse,
    Verdict(Code),
}

impl State {
    pub(crate) fn new(secrets: Arc<Snapshot>, seed: Seed) -> Self {
        Self {
            worker: Worker::new(Arc::clone(&secrets.policy), seed),
            secrets,
            held: HashMap::new(),
            probe: crate::probe::Probe::default(),
            next_stream: 0,
            ticks: false,
            effects: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Has the worker use the secrets that its thread has now. Before it is given the head of a request.
    pub(crate) fn renew(&mut self, shared: &Shared, filter: &Filter) {
        if let Some((secrets, updates)) = shared.secrets.changed(&self.secrets, filter) {
            self.worker.renew(Arc::clone(&secrets.policy));
            self.secrets = secrets;
            shared.tell(updates);
        }
        shared.secrets.tell_missing(&self.secrets);
    }

    /// A name for a new stream.
    pub(crate) fn next_stream(&mut self) -> StreamId {
        self.next_stream = self.next_stream.wrapping_add(1);
        StreamId(self.next_stream)
    }

    /// Whether the worker wants to hear of the time.
    pub(crate) fn ticks(&self) -> bool {
        self.ticks
    }

    /// Lets others than its own hooks reach a stream.
    pub(crate) fn hold(&mut self, stream: StreamId, filter: &Filter) {
        self.held.entry(stream).or_insert_with(|| Held {
            waker: filter.waker(),
            mail: Vec::new(),
        });
    }

    /// Takes what others have left for a stream.
    pub(crate) fn take_mail(&mut self, stream: StreamId) -> Vec<Mail> {
        let held = self.held.get_mut(&stream);
        held.map_or_else(Vec::new, |held| core::mem::take(&mut held.mail))
    }

    /// A stream is gone.
    pub(crate) fn forget(&mut self, stream: StreamId) {
        if !self.held.is_empty() {
            self.held.remove(&stream);
        }
    }

    fn post(&mut self, stream: StreamId, mail: Mail) {
        // Who is not there has ended, and the worker has been told so.
        if let Some(held) = self.held.get_mut(&stream) {
            held.mail.push(mail);
            held.waker.wake();
        }
    }

    /// Does what the worker wants done. What is for the stream whose hook runs comes back; without one, this
    /// is not a thread of Envoy's workers.
    pub(crate) fn carry_out(
        &mut self,
        shared: &Shared,
        index: usize,
        mut here: Option<(StreamId, &mut Filter)>,
    ) -> Option<Mail> {
        let mut for_here = None;
        let mut effects = core::mem::take(&mut self.effects);
        self.worker.take_effects(&mut effects);
        for effect in effects.drain(..) {
            let (stream, mail) = match effect {
                Effect::Add(metric, by) => {
                    shared.metrics.add(metric, by);
                    continue;
                }
                Effect::Record(metric, value) => {
                    self.late.push((metric, value));
                    continue;
                }
                Effect::Log(line) => {
                    shared.log(&line);
                    continue;
                }
                Effect::Call { call, ask } => {
                    shared.calls.begin(index, call, ask);
                    continue;
                }
                Effect::Ticks(period) => {
                    self.ticks = period.is_some();
                    shared.clock.adjust(self.ticks);
                    continue;
                }
                Effect::Reply(stream, reply) => (stream, Mail::Reply(*reply)),
                Effect::Resume(stream) => (stream, Mail::Resume),
                Effect::ResumeResponse(stream) => (stream, Mail::ResumeResponse),
                Effect::Verdict(stream, code) => (stream, Mail::Verdict(code)),
            };
            match (&mut here, mail) {
                (Some((own, filter)), Mail::Verdict(code)) if *own == stream => {
                    filter.set_state(VERDICT, code.as_str());
                }
                (Some((own, _)), mail) if *own == stream => for_here = Some(mail),
                (_, mail) => self.post(stream, mail),
            }
        }
        self.effects = effects;
        if here.is_some() {
            for (metric, value) in self.late.drain(..) {
                shared.metrics.record(metric, value);
            }
        }
        for_here
    }
}

/// The key of the filter state under which the access log finds the verdict: the WebAssembly host's name
/// for it, so that one access log is right for both builds.
pub(crate) const VERDICT: &str = "wasm.callback_guard.verdict";
