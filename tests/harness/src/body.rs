//! Bodies that come in pieces, with pauses and sudden ends.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;

/// Something to wait at until the test opens it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everybody through, those who wait and those who come.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until the gate is open.
    pub async fn wait(&self) {
        // It fails only if the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// A part of a body, or what happens between two parts.
#[derive(Clone, Debug)]
pub enum Piece {
    /// The message ends here, incomplete: HTTP/1.1 closes the connection, HTTP/2 resets the stream.
    Abort,
    /// Bytes.
    Data(Bytes),
    /// What came before goes out, then nothing for this long.
    Pause(Duration),
    /// What came before goes out, then nothing until the gate is opened.
    Wait(Gate),
}

/// The error of a body that was to break off.
#[derive(Debug)]
pub(crate) struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken off on purpose")
    }
}

impl std::error::Error for BrokenOff {}

/// Plays pieces as an HTTP body.
pub(crate) struct Pieces {
    pieces: VecDeque<Piece>,
    trailers: Option<HeaderMap>,
    /// Bytes to come, if they are to be declared.
    declared: Option<u64>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Pieces {
    pub(crate) fn new(pieces: &[Piece], trailers: Option<HeaderMap>, declare: bool) -> Self {
        Self {
            pieces: pieces.iter().cloned().collect(),
            trailers,
            declared: declare.then(|| length(pieces)),
            waiting: None,
        }
    }
}

/// Bytes in all pieces together; what an abort withholds counts as one at least.
pub(crate) fn length(pieces: &[Piece]) -> u64 {
    let lengths = pieces.iter().map(|piece| match piece {
        Piece::Data(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        Piece::Abort => 1,
        Piece::Pause(_) | Piece::Wait(_) => 0,
    });
    lengths.sum()
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                if waiting.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.waiting = None;
            }
            match self.pieces.pop_front() {
                Some(Piece::Abort) => return Poll::Ready(Some(Err(BrokenOff))),
                Some(Piece::Data(bytes)) => {
                    if let Some(declared) = &mut self.declared {
                        let gone = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                        *declared = declared.saturating_sub(gone);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Piece::Pause(time)) => {
                    self.waiting = Some(Box::pin(tokio::time::sleep(time)));
                }
                Some(Piece::Wait(gate)) => {
                    self.waiting = Some(Box::pin(async move { gate.wait().await }));
                }
                None => {
                    let trailers = self.trailers.take();
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // With an undeclared length the end is a frame of its own, even of an empty body.
        self.declared == Some(0) && self.pieces.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.declared
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
