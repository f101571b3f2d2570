//! What all workers of a configuration share.

use callback_guard_core::log::LogLine;
use callback_guard_core::metrics::{Metric, SourceMetric};
use callback_guard_core::verdict::Code;

use crate::abi::LogLevel;
use crate::calls::Calls;
use crate::clock::Clock;
use crate::envoy;
use crate::metrics::Metrics;
use crate::secrets::{Secrets, Update};

/// All of a configuration but its workers.
pub(crate) struct Shared {
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) calls: Calls,
    pub(crate) secrets: Secrets,
}

impl Shared {
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
