//! One configuration of the filter: its policy, its metrics, and a worker for each thread.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use callback_guard_core::effect::Io;
use callback_guard_core::log::{is_first, start_line};
use callback_guard_core::metrics::{self, Kind, Metric, SourceMetric};
use callback_guard_core::policy::Policy;
use callback_guard_core::report::LogLine;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::Seed;

use crate::abi::LogLevel;
use crate::calls::Calls;
use crate::clock::Clock;
use crate::envoy;
use crate::secrets::{Secrets, Update};
use crate::store::ProcessData;
use crate::worker::State;

/// The name that Envoy's configuration has to give the filter.
const FILTER_NAME: &[u8] = b"callback-guard";

/// A configuration that serves.
pub(crate) struct Config {
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) calls: Calls,
    pub(crate) secrets: Secrets,
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
            metrics: Metrics::define(envoy, &metrics::definitions(policy)),
            clock: Clock::default(),
            calls,
            secrets,
            workers,
        });
        config.tell(updates);
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
            state.carry_out(self, index, None);
        }
    }

    /// Starts its threads.
    ///
    /// # Errors
    ///
    /// If one cannot be started; then none runs.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let started = self.calls.start(self).and_then(|()| self.clock.start(self));
        if started.is_err() {
            self.close();
        }
        started
    }

    /// Ends everything that this configuration has started.
    pub(crate) fn close(&self) {
        self.clock.close();
        self.calls.close();
        for index in 0..self.threads() {
            if let Some(mut state) = self.worker(index) {
                state.worker.close();
                state.carry_out(self, index, None);
            }
        }
    }

    pub(crate) fn log(&self, line: &LogLine) {
        envoy::say(LogLevel::Info, || line.to_json());
    }

    /// Logs and counts the secrets that Envoy has delivered: whether each is in use, or why not.
    pub(crate) fn tell(&self, updates: Vec<Update>) {
        self.secrets
            .tell(updates, |metric| self.metrics.add(metric, 1));
    }

    /// Counts a request that was refused because this module failed.
    pub(crate) fn count_failure(&self) {
        let verdict = SourceMetric::Verdicts(Code::InternalError);
        self.metrics.add(Metric::Source(None, verdict), 1);
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

/// The metrics of a configuration.
pub(crate) struct Metrics {
    envoy: envoy::Config,
    /// By [`Metric::index`]. One that Envoy does not give is left out: that is no reason to refuse.
    known: Vec<Option<(Kind, usize)>>,
}

impl Metrics {
    fn define(envoy: envoy::Config, definitions: &[metrics::Definition]) -> Self {
        let mut known = Vec::new();
        for definition in definitions {
            let index = definition.metric.index();
            if known.len() <= index {
                known.resize(index.saturating_add(1), None);
            }
            let id = envoy.define(definition.kind, &definition.name);
            if let (Some(id), Some(value)) = (id, definition.value) {
                envoy.set(id, value);
            }
            if let Some(place) = known.get_mut(index) {
                *place = id.map(|id| (definition.kind, id));
            }
        }
        Self { envoy, known }
    }

    pub(crate) fn add(&self, metric: Metric, by: i64) {
        if let Some((kind, id)) = self.known.get(metric.index()).copied().flatten() {
            self.envoy.add(kind, id, by);
        }
    }

    /// Only on a thread of Envoy's: its histograms are kept by thread.
    pub(crate) fn record(&self, metric: Metric, value: u64) {
        if let Some((_, id)) = self.known.get(metric.index()).copied().flatten() {
            self.envoy.record(id, value);
        }
    }
}

/// The time.
pub(crate) fn now() -> UnixMillis {
    // Before 1970 everything is stale: refused, not let through.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
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
