//! A captured request, and what the guard says of it.

use std::sync::Arc;

use callback_guard_core::policy::{Policy, Source};
use callback_guard_core::report::Report;
use callback_guard_core::request::RequestHead;
use callback_guard_core::scheme::{Proof, SignatureRule, Signed};
use callback_guard_core::store::{SharedData, Swap, Unavailable};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::worker::{Io, Seed, StreamId, Verdict, Worker};

/// A secret and what it is called.
pub(crate) struct NamedSecret {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

impl NamedSecret {
    pub(crate) fn new(name: &str, text: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            text,
        }
    }
}

/// Everything that the explanation is made of.
pub(crate) struct Case<'c> {
    pub(crate) policy: &'c Arc<Policy>,
    pub(crate) head: &'c RequestHead<'c>,
    pub(crate) body: &'c [u8],
    /// When the request is taken to have been received.
    pub(crate) received: UnixMillis,
    /// The clock of this machine.
    pub(crate) now: UnixMillis,
    /// The secrets of each source that are set, in their order.
    pub(crate) secrets: &'c [Vec<NamedSecret>],
    /// Secrets that are not configured, to be tried.
    pub(crate) others: &'c [NamedSecret],
}

/// What the guard itself says.
pub(crate) struct Judgement {
    pub(crate) report: Report,
    /// Whether it was said of the head alone.
    pub(crate) at_head: bool,
    /// Whether the inspector answers it.
    pub(crate) is_inspectors: bool,
}

/// A store that knows no event, so that what is authentic is claimed.
struct Empty;

impl SharedData for Empty {
    fn get(&mut self, _: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        Ok((None, None))
    }

    fn set(&mut self, _: &str, _: &[u8], _: u32) -> Result<Swap, Unavailable> {
        Ok(Swap::Done)
    }
}

/// Drives the filter's own worker with the request, up to its claim.
pub(crate) fn judge(case: &Case<'_>) -> Judgement {
    const STREAM: StreamId = StreamId(1);
    let seed = Seed {
        owner: 1,
        salt: [0; 16],
    };
    let mut worker = Worker::new(Arc::clone(case.policy), seed);
    let mut store = Empty;
    let mut io = Io::new(&mut store, case.received);
    let length = case.body.len();
    let verdict = worker.request_head(&mut io, STREAM, case.head, length == 0);
    // With the buffer filter behind the guard the head goes on, and the buffer filter holds it.
    let waits = matches!(verdict, Verdict::Hold | Verdict::Continue);
    let at_head = !waits || worker.report(STREAM).is_none();
    if !at_head {
        let body = |_| Some(case.body.into());
        worker.request_body(&mut io, STREAM, length, true, &body);
    }
    Judgement {
        at_head,
        report: worker.report(STREAM).cloned().unwrap_or_default(),
        is_inspectors: matches!(verdict, Verdict::Reply(_)) && worker.report(STREAM).is_none(),
    }
}

/// What is signed, where the sender signs; `None` where it sends a token.
pub(crate) fn rule(source: &Source) -> Option<&SignatureRule> {
    match &source.scheme.proof {
        Proof::Signature(rule) => Some(rule),
        Proof::Token(_) => None,
    }
}

/// Signatures and timestamp of the captured head, if they can be read.
pub(crate) fn signed(case: &Case<'_>, source: &Source) -> Option<Signed> {
    rule(source)?.read_head(case.head).ok()
}
