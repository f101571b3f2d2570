//! Keeps a connection to Redis: connects, and connects again when it is lost.
//!
//! | state | a call |
//! |---|---|
//! | connecting | waits for it, as long as its own time-out |
//! | open | is sent |
//! | down, until the next attempt | fails at once |
//!
//! Attempts follow at growing distances of at most [`LONGEST_REST`], with some chance in them, so that many
//! Envoys do not come back at the same instant.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use callback_guard_core::store::redis::StoreError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::abi::LogLevel;
use crate::dial::{Dial, Failure};
use crate::envoy;

/// The rest after the first attempt that failed.
const FIRST_REST: Duration = Duration::from_millis(50);
/// The longest rest: shorter than most rests of the core's circuit, whose probe finds a connection then.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The way to the connection, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Link(watch::Sender<State>);

#[derive(Clone, Debug)]
enum State {
    Connecting,
    Open(Open),
    Down(StoreError),
}

/// A connection that was open when it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) connection: MultiplexedConnection,
    health: Arc<Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// Replies so far.
    heard: AtomicU64,
    /// Which scripts the server has been told on this connection.
    known: [AtomicBool; 3],
    /// It is lost, or given up.
    is_over: Notify,
}

impl Open {
    /// Replies that have come so far.
    pub(crate) fn heard(&self) -> u64 {
        self.health.heard.load(Ordering::Relaxed)
    }

    /// Of each script, whether the server has been told it on this connection.
    pub(crate) fn known(&self) -> &[AtomicBool; 3] {
        &self.health.known
    }

    /// A reply has come.
    pub(crate) fn hear(&self) {
        self.health.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes another connection for all calls to come. Those on their way may still be answered.
    pub(crate) fn give_up(&self) {
        self.health.is_over.notify_one();
    }
}

impl Default for Link {
    fn default() -> Self {
        Self(watch::Sender::new(State::Connecting))
    }
}

impl Link {
    /// The connection: as soon as there is one, or the error why there will be none so soon.
    pub(crate) async fn open(&self) -> Result<Open, StoreError> {
        let mut states = self.0.subscribe();
        let state = states.wait_for(|state| !matches!(state, State::Connecting));
        match &*state.await.map_err(|_| StoreError::Unreachable)? {
            State::Open(open) => Ok(open.clone()),
            State::Down(error) => Err(*error),
            State::Connecting => Err(StoreError::Unreachable),
        }
    }

    /// Keeps it, for ever. A call takes at most `timeout`.
    pub(crate) async fn keep(&self, dial: &Dial, timeout: Duration) {
        let mut rest = FIRST_REST;
        // What the log has said last.
        let mut told = None;
        loop {
            self.0.send_replace(State::Connecting);
            let failure = match dial.open().await {
                Ok((connection, driver)) => {
                    if told.replace(Ok(())) != Some(Ok(())) {
                        envoy::log(LogLevel::Info, "callback-guard: connected to Redis");
                    }
                    let opened = Instant::now();
                    let health = Arc::<Health>::default();
                    let of_driver = Arc::clone(&health);
                    let driver = tokio::spawn(async move {
                        driver.await;
                        of_driver.is_over.notify_one();
                    });
                    let open = Open { connection, health };
                    self.0.send_replace(State::Open(open.clone()));
                    open.health.is_over.notified().await;
                    self.0.send_replace(State::Connecting);
                    tokio::spawn(async move {
                        sleep(timeout).await;
                        driver.abort();
                    });
                    // Servers end what is idle, too.
                    if open.heard() > 0 || opened.elapsed() >= LONGEST_REST {
                        rest = FIRST_REST;
                        continue;
                    }
                    Failure::new(StoreError::Unreachable, "it ended at once")
                }
                Err(failure) => failure,
            };
            self.0.send_replace(State::Down(failure.error));
            if told.replace(Err(failure.error)) != Some(Err(failure.error)) {
                envoy::log(
                    LogLevel::Warn,
                    &format!("callback-guard: no connection to Redis: {failure}"),
                );
            }
            sleep(with_chance(rest)).await;
            rest = rest.saturating_mul(2).min(LONGEST_REST);
        }
    }
}

/// From a half of it to all of it.
fn with_chance(rest: Duration) -> Duration {
    let half = rest / 2;
    let random = RandomState::new().build_hasher().finish();
    let millis = u64::try_from(half.as_millis()).unwrap_or(0);
    half + Duration::from_millis(random % millis.max(1))
}
