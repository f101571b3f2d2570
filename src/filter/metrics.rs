//! The guard's metrics. The ABI knows no labels, so they stand in the name; `stats_tags` in
//! `envoy.yaml` makes labels of them.

use super::host::{self, MetricKind};
use crate::circuit::Turn;
use crate::dedupe::Change;
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::redis::StoreError;
use crate::verdict::Code;

/// What stands for the source of a request that matched none. No source can have this name.
const NO_SOURCE: &str = "*";

/// Numbers of the metrics, looked up once: on the way of a request a metric is an index.
///
/// A metric that the host does not give is left out: it is no reason to refuse requests.
pub(super) struct Metrics {
    sources: Vec<SourceMetrics>,
    unmatched: Vec<Option<u32>>,
    claims: Option<u32>,
    delivered: Option<u32>,
    evictions: Option<u32>,
    remote: Option<RemoteMetrics>,
}

/// The metrics of a store that many proxies share.
struct RemoteMetrics {
    errors: Vec<Option<u32>>,
    fallbacks: Option<u32>,
    retries: Option<u32>,
    circuit_openings: Option<u32>,
    circuits_open: Option<u32>,
    early_responses: Option<u32>,
}

struct SourceMetrics {
    verdicts: Vec<Option<u32>>,
    body_changes: Option<u32>,
    waits: Option<u32>,
    settle_failures: Option<u32>,
    outcomes: [Option<u32>; 4],
}

impl Metrics {
    pub(super) fn define(policy: &Policy) -> Self {
        let counter = |name: &str| host::define_metric(MetricKind::Counter, name);
        let gauge = |name: &str| host::define_metric(MetricKind::Gauge, name);
        let verdicts = |source: &str| {
            let name = |code: &Code| {
                counter(&format!(
                    "callback_guard.requests.source.{source}.verdict.{code}"
                ))
            };
            Code::ALL.iter().map(name).collect()
        };
        let source = |source: &str| SourceMetrics {
            verdicts: verdicts(source),
            body_changes: counter(&format!("callback_guard.body_changes.source.{source}")),
            waits: counter(&format!("callback_guard.waits.source.{source}")),
            settle_failures: counter(&format!("callback_guard.settle_failures.source.{source}")),
            outcomes: ["accepted", "refused", "not_reached", "unknown"].map(|outcome| {
                counter(&format!(
                    "callback_guard.outcomes.source.{source}.outcome.{outcome}"
                ))
            }),
        };
        if let Some(capacity) = gauge("callback_guard.store_capacity") {
            host::record_metric(capacity, u64::from(policy.capacity));
        }
        Self {
            sources: policy
                .sources
                .iter()
                .map(|configured| source(&configured.name))
                .collect(),
            unmatched: verdicts(NO_SOURCE),
            claims: gauge("callback_guard.store_claims"),
            delivered: gauge("callback_guard.store_delivered"),
            evictions: counter("callback_guard.store_evictions"),
            remote: policy.remote.as_ref().map(|remote| RemoteMetrics {
                errors: StoreError::ALL
                    .iter()
                    .map(|error| {
                        counter(&format!(
                            "callback_guard.store_errors.error.{}",
                            error.as_str()
                        ))
                    })
                    .collect(),
                fallbacks: counter(&format!(
                    "callback_guard.store_fallbacks.action.{}",
                    remote.on_error.as_str()
                )),
                retries: counter("callback_guard.store_settle_retries"),
                circuit_openings: counter("callback_guard.store_circuit_openings"),
                circuits_open: gauge("callback_guard.store_circuits_open"),
                early_responses: counter("callback_guard.store_early_responses"),
            }),
        }
    }

    pub(super) fn verdict(&self, source: Option<usize>, code: Code) {
        let verdicts = match source {
            Some(index) => self.sources.get(index).map(|source| &source.verdicts),
            None => Some(&self.unmatched),
        };
        add(
            verdicts.and_then(|verdicts| verdicts.get(code.index()).copied().flatten()),
            1,
        );
    }

    pub(super) fn body_change(&self, source: Option<usize>) {
        add(
            self.source(source).and_then(|source| source.body_changes),
            1,
        );
    }

    pub(super) fn wait(&self, source: Option<usize>) {
        add(self.source(source).and_then(|source| source.waits), 1);
    }

    pub(super) fn settle_failure(&self, source: Option<usize>) {
        add(
            self.source(source)
                .and_then(|source| source.settle_failures),
            1,
        );
    }

    pub(super) fn outcome(&self, source: Option<usize>, outcome: Outcome) {
        let Some(source) = self.source(source) else {
            return;
        };
        let [accepted, refused, not_reached, unknown] = source.outcomes;
        let metric = match outcome {
            Outcome::Accepted => accepted,
            Outcome::Refused => refused,
            Outcome::NotReached => not_reached,
            Outcome::Unknown => unknown,
        };
        add(metric, 1);
    }

    pub(super) fn change(&self, change: Change) {
        add(self.claims, change.claims);
        add(self.delivered, change.delivered);
        add(self.evictions, i64::from(change.evicted));
    }

    /// The shared store did not answer, or not so that it can be understood.
    pub(super) fn store_error(&self, error: StoreError) {
        let errors = self.remote.as_ref().map(|remote| &remote.errors);
        add(
            errors.and_then(|errors| errors.get(error.index()).copied().flatten()),
            1,
        );
    }

    /// `store.on_error` has decided about a request.
    pub(super) fn store_fallback(&self) {
        add(self.remote.as_ref().and_then(|remote| remote.fallbacks), 1);
    }

    /// A settlement is told the shared store again.
    pub(super) fn settle_retry(&self) {
        add(self.remote.as_ref().and_then(|remote| remote.retries), 1);
    }

    /// A response was too long to be held until its claim was settled.
    pub(super) fn early_response(&self) {
        add(
            self.remote
                .as_ref()
                .and_then(|remote| remote.early_responses),
            1,
        );
    }

    /// The circuit to the shared store has opened or closed.
    pub(super) fn circuit(&self, turn: Turn) {
        let Some(remote) = &self.remote else { return };
        match turn {
            Turn::Closed => add(remote.circuits_open, -1),
            Turn::None => {}
            Turn::Opened => {
                add(remote.circuit_openings, 1);
                add(remote.circuits_open, 1);
            }
        }
    }

    fn source(&self, source: Option<usize>) -> Option<&SourceMetrics> {
        self.sources.get(source?)
    }
}

fn add(metric: Option<u32>, by: i64) {
    if let Some(id) = metric
        && by != 0
    {
        host::increment_metric(id, by);
    }
}
