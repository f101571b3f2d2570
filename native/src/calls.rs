//! Calls to the shared store: by a connection of this module's own ([`crate::connection`]), or by HTTP to a
//! front of it on an Envoy cluster.
//!
//! A filter's own HTTP calls end with its stream, and a settlement has to outlive it. So they are calls of the
//! configuration, which Envoy takes on the main thread alone: they are left in a queue, and Envoy is asked to
//! have it emptied there.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use callback_guard_core::policy::Policy;
use callback_guard_core::store::redis::{self, Access, Answer, Ask, MAX_REPLY_BYTES, StoreError};
use callback_guard_core::worker::CallId;

use crate::caller::Caller;
use crate::connection::Connection;
use crate::envoy::{self, ConfigWaker};

/// The calls of a configuration.
#[derive(Default)]
pub(crate) struct Calls {
    connection: Option<Connection>,
    front: Option<Front>,
}

struct Front {
    envoy: envoy::Config,
    waker: Mutex<Option<ConfigWaker>>,
    front: redis::Front,
    timeout_millis: u64,
    queue: Mutex<VecDeque<Call>>,
    /// By Envoy's number of the call.
    in_flight: Mutex<HashMap<u64, (usize, CallId)>>,
}

struct Call {
    worker: usize,
    id: CallId,
    body: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    /// For a policy, which may have no shared store.
    ///
    /// # Errors
    ///
    /// What is missing for it.
    pub(crate) fn new(envoy: envoy::Config, policy: &Policy) -> Result<Self, String> {
        let mut calls = Self::default();
        let Some(remote) = &policy.remote else {
            return Ok(calls);
        };
        match &remote.access {
            Access::Server(server) => {
                let connection = Connection::new(server, remote.timeout_millis);
                calls.connection =
                    Some(connection.map_err(|problem| format!("store.url_env: {problem}"))?);
            }
            Access::Front(front) => {
                calls.front = Some(Front {
                    envoy,
                    waker: Mutex::new(Some(envoy.waker())),
                    front: front.clone(),
                    timeout_millis: remote.timeout_millis,
                    queue: Mutex::default(),
                    in_flight: Mutex::default(),
                });
            }
        }
        Ok(calls)
    }

    /// Starts what they need.
    pub(crate) fn start<C: Caller + Send + Sync + 'static>(
        &self,
        caller: &Arc<C>,
    ) -> io::Result<()> {
        match &self.connection {
            Some(connection) => connection.start(caller),
            None => Ok(()),
        }
    }

    /// Has a call made for a worker, which learns of its end.
    pub(crate) fn begin(&self, worker: usize, id: CallId, ask: Ask) {
        match (ask, &self.front, &self.connection) {
            (Ask::Eval(eval), _, Some(connection)) => connection.begin(worker, id, eval),
            (Ask::Post(body), Some(front), _) => {
                lock(&front.queue).push_back(Call { worker, id, body });
                if let Some(waker) = &*lock(&front.waker) {
                    waker.wake();
                }
            }
            // The core asks by the way that it was configured with, for which there is one of the two.
            (Ask::Eval(_), _, None) | (Ask::Post(_), None, _) => {}
        }
    }

    /// Makes the calls that are left in the queue. On the main thread.
    pub(crate) fn run(&self, caller: &impl Caller) {
        let Some(front) = &self.front else { return };
        let headers = front.front.headers();
        loop {
            let next = lock(&front.queue).pop_front();
            let Some(call) = next else { return };
            let (body, timeout) = (call.body.as_bytes(), front.timeout_millis);
            match front
                .envoy
                .call(&front.front.cluster, &headers, body, timeout)
            {
                Some(number) => {
                    lock(&front.in_flight).insert(number, (call.worker, call.id));
                }
                None => caller.ended(call.worker, call.id, Err(StoreError::Unreachable)),
            }
        }
    }

    /// A call has ended: with headers and the pieces of a body, or not at all.
    pub(crate) fn done<'b>(
        &self,
        caller: &impl Caller,
        number: u64,
        headers: &[(&[u8], &[u8])],
        pieces: impl Iterator<Item = &'b [u8]>,
    ) {
        let Some(front) = &self.front else { return };
        let known = lock(&front.in_flight).remove(&number);
        let Some((worker, id)) = known else { return };
        // A connection that broke has no headers at all.
        if headers.is_empty() {
            return caller.ended(worker, id, Err(StoreError::Unreachable));
        }
        let status = headers
            .iter()
            .find(|(name, _)| *name == b":status")
            .and_then(|(_, value)| core::str::from_utf8(value).ok()?.parse().ok());
        let Some(status) = status else {
            return caller.ended(worker, id, Err(StoreError::Malformed));
        };
        // One byte more than is allowed shows that there is more.
        let mut body = Vec::new();
        for piece in pieces {
            let room = MAX_REPLY_BYTES.saturating_add(1).saturating_sub(body.len());
            body.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
        let answer = Answer::Http {
            status,
            body: &body,
        };
        caller.ended(worker, id, Ok(answer));
    }

    /// The configuration ends: no more calls.
    pub(crate) fn close(&self) {
        if let Some(connection) = &self.connection {
            connection.close();
        }
        if let Some(front) = &self.front {
            lock(&front.waker).take();
            lock(&front.queue).clear();
        }
    }
}
