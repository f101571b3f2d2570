//! The host's numbers of the guard's metrics.

use callback_guard_core::metrics::{Kind, Metric, definitions};
use callback_guard_core::policy::Policy;

use crate::host::{self, MetricKind};

/// Numbers of the metrics, looked up once, by [`Metric::index`].
///
/// A metric that the host does not give is left out: it is no reason to refuse requests.
pub(crate) struct Metrics(Vec<Option<u32>>);

impl Metrics {
    pub(crate) fn define(policy: &Policy) -> Self {
        let mut ids = Vec::new();
        for definition in definitions(policy) {
            let kind = match definition.kind {
                Kind::Counter => MetricKind::Counter,
                Kind::Gauge => MetricKind::Gauge,
                Kind::Histogram => MetricKind::Histogram,
            };
            let id = host::define_metric(kind, &definition.name);
            if let (Some(id), Some(value)) = (id, definition.value) {
                host::record_metric(id, value);
            }
            let index = definition.metric.index();
            if ids.len() <= index {
                ids.resize(index.saturating_add(1), None);
            }
            if let Some(place) = ids.get_mut(index) {
                *place = id;
            }
        }
        Self(ids)
    }

    pub(crate) fn add(&self, metric: Metric, by: i64) {
        if let Some(id) = self.id(metric) {
            host::increment_metric(id, by);
        }
    }

    pub(crate) fn record(&self, metric: Metric, value: u64) {
        if let Some(id) = self.id(metric) {
            host::record_metric(id, value);
        }
    }

    fn id(&self, metric: Metric) -> Option<u32> {
        self.0.get(metric.index()).copied().flatten()
    }
}
