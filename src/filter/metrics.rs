//! The guard's metrics: `docs/metrics.md` says what each is for. The ABI knows no labels, so they
//! stand in the name; `stats_tags` in `envoy.yaml` makes labels of them.

use super::host::{self, MetricKind};
use callback_guard_core::outcome::Outcome;
use callback_guard_core::policy::{Mode, Policy, Source};
use callback_guard_core::store::bucket::Change;
use callback_guard_core::store::circuit::Turn;
use callback_guard_core::store::redis::StoreError;
use callback_guard_core::verdict::Code;

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
    body_bytes: Option<u32>,
    body_changes: Option<u32>,
    decision_milliseconds: Option<u32>,
    outcomes: [Option<u32>; 4],
    releases: Option<u32>,
    settle_failures: Option<u32>,
    waits: Option<u32>,
}

impl Metrics {
    pub(super) fn define(policy: &Policy) -> Self {
        let counter = |name: &str| host::define_metric(MetricKind::Counter, name);
        let gauge = |name: &str| host::define_metric(MetricKind::Gauge, name);
        let histogram = |name: &str| host::define_metric(MetricKind::Histogram, name);
        let verdicts = |source: &str| {
            let name = |code: &Code| {
                counter(&format!(
                    "callback_guard.requests_total.source.{source}.verdict.{code}"
                ))
            };
            Code::ALL.iter().map(name).collect()
        };
        let source = |source: &Source| {
            let name = &source.name;
            record(
                gauge(&format!("callback_guard.enforcing.source.{name}")),
                u64::from(source.mode == Mode::Enforce),
            );
            SourceMetrics {
                verdicts: verdicts(name),
                body_bytes: histogram(&format!("callback_guard.body_bytes.source.{name}")),
                body_changes: counter(&format!("callback_guard.body_changes_total.source.{name}")),
                decision_milliseconds: histogram(&format!(
                    "callback_guard.decision_milliseconds.source.{name}"
                )),
                outcomes: ["accepted", "refused", "not_reached", "unknown"].map(|outcome| {
                    counter(&format!(
                        "callback_guard.outcomes_total.source.{name}.outcome.{outcome}"
                    ))
                }),
                releases: counter(&format!("callback_guard.releases_total.source.{name}")),
                settle_failures: counter(&format!(
                    "callback_guard.settle_failures_total.source.{name}"
                )),
                waits: counter(&format!("callback_guard.waits_total.source.{name}")),
            }
        };
        record(
            gauge("callback_guard.store_capacity"),
            u64::from(policy.capacity),
        );
        Self {
            sources: policy.sources.iter().map(source).collect(),
            unmatched: verdicts(NO_SOURCE),
            claims: gauge("callback_guard.store_claims"),
            delivered: gauge("callback_guard.store_delivered"),
            evictions: counter("callback_guard.store_evictions_total"),
            remote: policy.remote.as_ref().map(|remote| RemoteMetrics {
                errors: StoreError::ALL
                    .iter()
                    .map(|error| {
                        counter(&format!(
                            "callback_guard.store_errors_total.error.{}",
                            error.as_str()
                        ))
                    })
                    .collect(),
                fallbacks: counter(&format!(
                    "callback_guard.store_fallbacks_total.action.{}",
                    remote.on_error.as_str()
                )),
                retries: counter("callback_guard.store_settle_retries_total"),
                circuit_openings: counter("callback_guard.store_circuit_openings_total"),
                circuits_open: gauge("callback_guard.store_circuits_open"),
                early_responses: counter("callback_guard.store_early_responses_total"),
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

    /// How long the body is that was read, in bytes.
    pub(super) fn body(&self, source: Option<usize>, bytes: usize) {
        record(
            self.source(source).and_then(|source| source.body_bytes),
            u64::try_from(bytes).unwrap_or(u64::MAX),
        );
    }

    /// How long the head of a request waited for the decision, in milliseconds.
    pub(super) fn decision(&self, source: Option<usize>, millis: u64) {
        record(
            self.source(source)
                .and_then(|source| source.decision_milliseconds),
            millis,
        );
    }

    pub(super) fn release(&self, source: Option<usize>) {
        add(self.source(source).and_then(|source| source.releases), 1);
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

fn record(metric: Option<u32>, value: u64) {
    if let Some(id) = metric {
        host::record_metric(id, value);
    }
}
