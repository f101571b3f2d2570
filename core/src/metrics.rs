//! The guard's metrics: `docs/metrics.md` says what each is for.
//!
//! Names are made here alone, so that every shell has the same. Envoy gives filters
//! no labels: they are part of the name, and `stats_tags` in `envoy.yaml` extracts them.

use crate::outcome::Outcome;
use crate::policy::{Mode, Policy};
use crate::store::redis::StoreError;
use crate::verdict::Code;

/// Label used when no source matched. No source can have this name.
const NO_SOURCE: &str = "*";

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Gauge: always 1; its name has the version.
    BuildInfo,
    /// Counter: claims on the shared store whose circuit opened.
    CircuitOpenings,
    /// Gauge: circuits that are not closed.
    CircuitsOpen,
    /// Counter: responses that were too long to be held until their claims were settled.
    EarlyResponses,
    /// Counter: delivered events that were forgotten before the end of their window.
    Evictions,
    /// Gauge: live claims in the local store.
    Claims,
    /// Gauge: delivered events in the local store.
    Delivered,
    /// Gauge: how many events the local store has room for.
    Capacity,
    /// Gauge: bytes of bodies that are held, in steps.
    HeldBytes,
    /// Counter: `store.on_error` has decided about a request.
    Fallbacks,
    /// Counter: secrets that were delivered while the host serves, and are in use since.
    SecretUpdates,
    /// Counter: secrets that were delivered and are of no use.
    SecretUpdateFailures,
    /// Counter: settlements that were sent again.
    SettleRetries,
    /// Counter: calls that failed.
    StoreErrors(StoreError),
    /// One of a source; `None` for requests that match none.
    Source(Option<usize>, SourceMetric),
}

/// A metric of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceMetric {
    /// Histogram: bytes of the bodies that were read.
    BodyBytes,
    /// Counter: duplicates with another body.
    BodyChanges,
    /// Histogram: how long heads were held, in milliseconds.
    DecisionMillis,
    /// Gauge: 1 if verdicts are carried out.
    Enforcing,
    /// Counter: claims that were released.
    Releases,
    /// Counter: deliveries that could not be recorded.
    SettleFailures,
    /// Counter: requests that waited for another.
    Waits,
    /// Counter: outcomes of forwarded requests.
    Outcomes(Outcome),
    /// Counter: verdicts.
    Verdicts(Code),
}

/// What a metric is to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is added to.
    Counter,
    /// It is added to and set.
    Gauge,
    /// Values are put into it.
    Histogram,
}

/// A metric to be made before the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Which.
    pub metric: Metric,
    /// What it is.
    pub kind: Kind,
    /// Its whole name.
    pub name: String,
    /// What a gauge is set to at the start.
    pub value: Option<u64>,
}

/// Metrics of the process: those without a payload, then one for each [`StoreError`].
const GLOBAL: usize = 13 + StoreError::ALL.len();
/// Metrics of a source: those without a payload, then outcomes and verdicts.
const PER_SOURCE: usize = 7 + Outcome::ALL.len() + Code::ALL.len();

impl Metric {
    /// Its place in a table that holds all metrics of a configuration.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::CircuitOpenings => 0,
            Self::CircuitsOpen => 1,
            Self::EarlyResponses => 2,
            Self::Evictions => 3,
            Self::Claims => 4,
            Self::Delivered => 5,
            Self::Capacity => 6,
            Self::Fallbacks => 7,
            Self::SettleRetries => 8,
            Self::BuildInfo => 9,
            Self::HeldBytes => 10,
            Self::SecretUpdates => 11,
            Self::SecretUpdateFailures => 12,
            Self::StoreErrors(error) => 13 + error.index(),
            Self::Source(source, metric) => {
                // Requests without a source come first.
                let block = source.map_or(0, |index| index.saturating_add(1));
                GLOBAL
                    .saturating_add(block.saturating_mul(PER_SOURCE))
                    .saturating_add(metric.index())
            }
        }
    }
}

impl SourceMetric {
    const fn index(self) -> usize {
        match self {
            Self::BodyBytes => 0,
            Self::BodyChanges => 1,
            Self::DecisionMillis => 2,
            Self::Enforcing => 3,
            Self::Releases => 4,
            Self::SettleFailures => 5,
            Self::Waits => 6,
            Self::Outcomes(outcome) => 7 + outcome.index(),
            Self::Verdicts(code) => 7 + Outcome::ALL.len() + code.index(),
        }
    }
}

/// Every metric that a policy needs.
#[must_use]
pub fn definitions(policy: &Policy) -> Vec<Definition> {
    let mut all = Vec::new();
    let mut define = |metric, kind, name: String, value| {
        all.push(Definition {
            metric,
            kind,
            name: format!("callback_guard.{name}"),
            value,
        });
    };
    let global = |name: &str| name.to_owned();
    define(
        Metric::Capacity,
        Kind::Gauge,
        global("store_capacity"),
        Some(policy.capacity.into()),
    );
    define(
        Metric::BuildInfo,
        Kind::Gauge,
        format!("build_info.version.{}", crate::VERSION),
        Some(1),
    );
    define(Metric::Claims, Kind::Gauge, global("store_claims"), None);
    define(
        Metric::Delivered,
        Kind::Gauge,
        global("store_delivered"),
        None,
    );
    define(
        Metric::Evictions,
        Kind::Counter,
        global("store_evictions_total"),
        None,
    );
    define(Metric::HeldBytes, Kind::Gauge, global("held_bytes"), None);
    if let Some(remote) = &policy.remote {
        for error in StoreError::ALL {
            let name = format!("store_errors_total.error.{}", error.as_str());
            define(Metric::StoreErrors(*error), Kind::Counter, name, None);
        }
        let fallbacks = format!("store_fallbacks_total.action.{}", remote.on_error.as_str());
        for (metric, kind, name) in [
            (Metric::Fallbacks, Kind::Counter, &*fallbacks),
            (
                Metric::SettleRetries,
                Kind::Counter,
                "store_settle_retries_total",
            ),
            (
                Metric::CircuitOpenings,
                Kind::Counter,
                "store_circuit_openings_total",
            ),
            (Metric::CircuitsOpen, Kind::Gauge, "store_circuits_open"),
            (
                Metric::EarlyResponses,
                Kind::Counter,
                "store_early_responses_total",
            ),
        ] {
            define(metric, kind, global(name), None);
        }
    }
    #[cfg(feature = "native")]
    if !policy.subscriptions.is_empty() {
        for (metric, name) in [
            (Metric::SecretUpdates, "secret_updates_total"),
            (Metric::SecretUpdateFailures, "secret_update_failures_total"),
        ] {
            define(metric, Kind::Counter, global(name), None);
        }
    }
    let names = policy
        .sources
        .iter()
        .map(|source| (Some(source.index), &*source.name));
    for (index, source) in core::iter::once((None, NO_SOURCE)).chain(names) {
        for code in Code::ALL {
            define(
                Metric::Source(index, SourceMetric::Verdicts(*code)),
                Kind::Counter,
                format!("requests_total.source.{source}.verdict.{code}"),
                None,
            );
        }
    }
    for source in &policy.sources {
        let name = &source.name;
        for outcome in Outcome::ALL {
            define(
                Metric::Source(Some(source.index), SourceMetric::Outcomes(*outcome)),
                Kind::Counter,
                format!("outcomes_total.source.{name}.outcome.{}", outcome.as_str()),
                None,
            );
        }
        let enforcing = Some(u64::from(source.mode == Mode::Enforce));
        for (metric, kind, text, value) in [
            (SourceMetric::BodyBytes, Kind::Histogram, "body_bytes", None),
            (
                SourceMetric::BodyChanges,
                Kind::Counter,
                "body_changes_total",
                None,
            ),
            (
                SourceMetric::DecisionMillis,
                Kind::Histogram,
                "decision_milliseconds",
                None,
            ),
            (SourceMetric::Enforcing, Kind::Gauge, "enforcing", enforcing),
            (
                SourceMetric::Releases,
                Kind::Counter,
                "releases_total",
                None,
            ),
            (
                SourceMetric::SettleFailures,
                Kind::Counter,
                "settle_failures_total",
                None,
            ),
            (SourceMetric::Waits, Kind::Counter, "waits_total", None),
        ] {
            define(
                Metric::Source(Some(source.index), metric),
                kind,
                format!("{text}.source.{name}"),
                value,
            );
        }
    }
    all
}
