//! A request of a worker, with its response.

use super::verdict::{Verdict, unknown};
use crate::event::EventKey;
use crate::guard::Guard;

#[derive(Clone, Debug)]
pub(super) enum Request {
    Guarded(Box<Exchange>),
    /// Answered by the inspector.
    Inspected,
    /// None of ours.
    Passed,
}

/// A request that the guard judges, with its response.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) guard: Guard,
    /// Bytes of its body so far.
    pub(super) received: usize,
    /// As many of them as are held for it.
    pub(super) held: usize,
    pub(super) is_response_held: bool,
}

/// The request if the guard has still to decide it; otherwise the verdict for what has come of it.
pub(super) fn undecided(request: Option<&mut Request>) -> Result<&mut Exchange, Verdict> {
    let exchange = match request {
        Some(Request::Guarded(exchange)) => exchange,
        Some(Request::Inspected) => return Err(Verdict::Hold),
        Some(Request::Passed) => return Err(Verdict::Continue),
        None => return Err(unknown()),
    };
    match (
        exchange.guard.is_decided(),
        exchange.guard.report().is_forwarded,
    ) {
        (false, _) => Ok(exchange),
        (true, true) => Err(Verdict::Continue),
        (true, false) => Err(Verdict::Hold),
    }
}

/// The event that a request waits for, or asks for.
pub(super) fn awaited(guard: &Guard) -> Option<EventKey> {
    let waits = guard.waits_for().map(|(key, _)| key);
    waits.or_else(|| guard.asks_for().map(|(_, key)| key))
}
