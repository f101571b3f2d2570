//! The metrics of a configuration.

use callback_guard_core::metrics::{self, Kind, Metric};

use crate::envoy;

/// Those that Envoy has defined.
pub(crate) struct Metrics {
    envoy: envoy::Config,
    /// By [`Metric::index`]. One that Envoy does not give is left out: that is no reason to refuse.
    known: Vec<Option<(Kind, usize)>>,
}

impl Metrics {
    pub(crate) fn define(envoy: envoy::Config, definitions: &[metrics::Definition]) -> Self {
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
