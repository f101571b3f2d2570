//! What the host is to do in the callback that runs.

use crate::reply::{Answer, Reply};
use crate::verdict::{Code, Rejection};

/// What to do with the request whose callback runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it go on as it is.
    Continue,
    /// Put [`Worker::upstream_headers`](super::Worker::upstream_headers) into it, and let it go.
    Forward,
    /// Hold it.
    Hold,
    /// Answer it.
    Reply(Reply),
}

/// What to do with the response whose callback runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Whether it is held, body and trailers included, until [`Effect::ResumeResponse`](super::Effect::ResumeResponse).
    pub is_held: bool,
    /// The status that takes the place of its own.
    pub status: Option<u16>,
}

/// The answer to a request of which nothing is known.
pub(super) fn unknown() -> Verdict {
    let rejection = Rejection::new(Code::InternalError);
    Verdict::Reply(Reply::new(&Answer::Refuse(rejection), false))
}
