//! One configuration of the filter: its policy, its metrics, and a worker for each thread.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use callback_guard_core::log::{is_first, start_line};
use callback_guard_core::metrics;
use callback_guard_core::policy::Policy;
use callback_guard_core::store::redis::{Answer, StoreError};
use callback_guard_core::worker::{CallId, Io, Seed};

use crate::abi::LogLevel;
use crate::caller::Caller;
use crate::calls::Calls;
use crate::clock::{Clock, now};
use crate::envoy;
use crate::metrics::Metrics;
use crate::secrets::Secrets;
use crate::shared::Shared;
use crate::store::ProcessData;
use crate::worker::State;

/// The name that Envoy's configuration has to give the filter.
const FILTER_NAME: &[u8] = b"callback-guard";

/// A configuration that serves.
pub(crate) struct Config {
    pub(crate) shared: Shared,
    /// One for each of Envoy's worker threads, and one for the main thread.
    workers: Box<[Mutex<State>]>,
}

impl Config {
    /// From the name and the configuration that Envoy has.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in one line.
    pub(crate) fn load(
        envoy: envoy::Config,
        threads: usize,
        name: &[u8],
        text: &[u8],
    ) -> Result<Arc<Self>, String> {
        if name != FILTER_NAME {
            return Err("filter_name: expected `callback-guard`".to_owned());
        }
        let (secrets, updates) = Secrets::subscribe(envoy, text)?;
        let first = secrets.latest();
        let policy = &first.policy;
        say_once_that_it_starts(policy, text);
        let calls = Calls::new(envoy, policy)?;
        let workers = (0..=threads)
            .map(|_| Mutex::new(State::new(Arc::clone(&first), seed())))
            .collect();
        let config = Arc::new(Self {
            shared: Shared {
                metrics: Metrics::define(envoy, &metrics::definitions(policy)),
                clock: Clock::default(),
                calls,
                secrets,
            },
            workers,
        });
        config.shared.tell(updates);
        Ok(config)
    }

    /// The worker of a thread.
    pub(crate) fn worker(&self, index: usize) -> Option<MutexGuard<'_, State>> {
        // A panic in the core leaves a worker that is safe to use; that request has been refused.
        let worker = self.workers.get(index)?;
        Some(worker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of threads, the main one included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Calls [`Worker::time`] for the workers that asked for ticks.
    pub(crate) fn time(&self) {
        for index in 0..self.threads() {
            let Some(mut state) = self.worker(index).filter(|state| state.ticks()) else {
                continue;
            };
            let mut data = ProcessData::default();
            state.worker.time(&mut Io::new(&mut data, now()));
            state.carry_out(&self.shared, index, None);
        }
    }

    /// Starts its threads.
    ///
    /// # Errors
    ///
    /// If one cannot be started; then none runs.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let config = Arc::downgrade(self);
        let time = move || match config.upgrade() {
            Some(config) => {
                config.time();
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        };
        let Shared { calls, clock, .. } = &self.shared;
        let started = calls.start(self).and_then(|()| clock.start(time));
        if started.is_err() {
            self.close();
        }
        started
    }

    /// Ends everything that this configuration has started.
    pub(crate) fn close(&self) {
        self.shared.clock.close();
        self.shared.calls.close();
        for index in 0..self.threads() {
            if let Some(mut state) = self.worker(index) {
                state.worker.close();
                state.carry_out(&self.shared, index, None);
            }
        }
    }
}

impl Caller for Config {
    fn ended(&self, worker: usize, id: CallId, answer: Result<Answer<'_>, StoreError>) {
        let Some(mut state) = self.worker(worker) else {
            return;
        };
        let mut data = ProcessData::default();
        state
            .worker
            .call_ended(&mut Io::new(&mut data, now()), id, answer);
        state.carry_out(&self.shared, worker, None);
        drop(state);
        if data.is_changed {
            self.shared.clock.settled();
        }
    }
}

/// Logs what the filter guards and what its configuration hardly means to; once for a configuration.
fn say_once_that_it_starts(policy: &Policy, text: &[u8]) {
    if !is_first(&mut ProcessData::default(), text) {
        return;
    }
    let level = if policy.warnings.is_empty() {
        LogLevel::Info
    } else {
        LogLevel::Warn
    };
    envoy::say(level, || start_line(policy));
}

fn seed() -> Seed {
    let mut salt = [0; 16];
    let (left, right) = salt.split_at_mut(8);
    left.copy_from_slice(&random().to_le_bytes());
    right.copy_from_slice(&random().to_le_bytes());
    Seed {
        owner: random(),
        salt,
    }
}

/// A random number: the system's, by way of the keys of a hash map.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
