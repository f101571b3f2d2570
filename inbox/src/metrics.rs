//! What `/metrics` shows.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::delivery::Outcome;
use crate::refusal::Refusal;

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Label(&'static str, String);

impl EncodeLabelSet for Label {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        use prometheus_client::encoding::EncodeLabel as _;
        (self.0, self.1.as_str()).encode(encoder.encode_label())
    }
}

/// Counters, gauges and histograms of one inbox.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: Family<Label, Counter>,
    known: Family<Label, Counter>,
    refused: Family<Label, Counter>,
    attempts: Family<Label, Counter>,
    delivered: Family<Label, Counter>,
    dead: Family<Label, Counter>,
    /// Claims that had ended before their attempt had.
    pub lost_claims: Counter,
    /// Delivered events that were removed after `--keep`.
    pub purged: Counter,
    /// Events still to be delivered.
    pub backlog: Gauge,
    /// Their bytes.
    pub backlog_bytes: Gauge,
    /// Dead events in the store.
    pub dead_events: Gauge,
    /// The age of the oldest event still to be delivered.
    pub oldest_seconds: Gauge<f64, AtomicU64>,
    /// 1 while `pause` holds for all sources.
    pub paused: Gauge,
    /// 1 while the circuit is open.
    pub circuit_open: Gauge,
    /// 1 while the store answers.
    pub store_up: Gauge,
    /// Attempts under way.
    pub in_flight: Gauge,
    /// From the arrival to the application's 2xx.
    pub delivery_seconds: Histogram,
    /// From a request's body to its place in the store.
    pub store_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of it at zero.
    #[must_use]
    pub fn new() -> Self {
        let delivery = [
            0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0, 86_400.0,
            259_200.0,
        ];
        let store = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("callback_guard_inbox"),
            accepted: Family::default(),
            known: Family::default(),
            refused: Family::default(),
            attempts: Family::default(),
            delivered: Family::default(),
            dead: Family::default(),
            lost_claims: Counter::default(),
            purged: Counter::default(),
            backlog: Gauge::default(),
            backlog_bytes: Gauge::default(),
            dead_events: Gauge::default(),
            oldest_seconds: Gauge::default(),
            paused: Gauge::default(),
            circuit_open: Gauge::default(),
            store_up: Gauge::default(),
            in_flight: Gauge::default(),
            delivery_seconds: Histogram::new(delivery),
            store_seconds: Histogram::new(store),
        };
        metrics.register();
        // What is never counted is there as zero: an alert on it has something to compare.
        for refusal in Refusal::ALL {
            let _ = metrics
                .refused
                .get_or_create(&Label("code", refusal.code().to_owned()));
        }
        for outcome in ["delivered", "refused", "gone", "failed"] {
            let _ = metrics
                .attempts
                .get_or_create(&Label("outcome", outcome.to_owned()));
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("accepted", "Events stored", self.accepted.clone());
        registry.register(
            "known",
            "Callbacks whose event was already stored",
            self.known.clone(),
        );
        registry.register(
            "refused",
            "Requests not taken, by code",
            self.refused.clone(),
        );
        registry.register("attempts", "Attempts, by outcome", self.attempts.clone());
        registry.register("delivered", "Events delivered", self.delivered.clone());
        registry.register("dead", "Events that died", self.dead.clone());
        registry.register(
            "lost_claims",
            "Attempts that ended after their lease",
            self.lost_claims.clone(),
        );
        registry.register(
            "purged",
            "Delivered events removed after --keep",
            self.purged.clone(),
        );
        registry.register(
            "backlog",
            "Events still to be delivered",
            self.backlog.clone(),
        );
        registry.register(
            "backlog_bytes",
            "Bytes of the backlog",
            self.backlog_bytes.clone(),
        );
        registry.register(
            "dead_events",
            "Dead events in the store",
            self.dead_events.clone(),
        );
        registry.register(
            "oldest_seconds",
            "Age of the oldest event still to be delivered",
            self.oldest_seconds.clone(),
        );
        registry.register(
            "paused",
            "1 while all deliveries are paused",
            self.paused.clone(),
        );
        registry.register(
            "circuit_open",
            "1 while the application fails and is only probed",
            self.circuit_open.clone(),
        );
        registry.register(
            "store_up",
            "1 while the store answers",
            self.store_up.clone(),
        );
        registry.register("in_flight", "Attempts under way", self.in_flight.clone());
        registry.register(
            "delivery_seconds",
            "Time from arrival to delivery",
            self.delivery_seconds.clone(),
        );
        registry.register(
            "store_seconds",
            "Time to store an accepted event",
            self.store_seconds.clone(),
        );
    }

    /// An event was stored.
    pub fn accepted(&self, source: &str) {
        self.accepted.get_or_create(&by_source(source)).inc();
    }

    /// An event was there already.
    pub fn known(&self, source: &str) {
        self.known.get_or_create(&by_source(source)).inc();
    }

    /// A request was not taken.
    pub fn refused(&self, refusal: Refusal) {
        self.refused
            .get_or_create(&Label("code", refusal.code().to_owned()))
            .inc();
    }

    /// An attempt ended.
    pub fn attempt(&self, outcome: &Outcome) {
        let word = match outcome {
            outcome if outcome.is_success() => "delivered",
            outcome if outcome.is_gone() => "gone",
            Outcome::Answered { .. } => "refused",
            Outcome::Failed => "failed",
        };
        self.attempts
            .get_or_create(&Label("outcome", word.to_owned()))
            .inc();
    }

    /// An event was delivered, or has died.
    pub fn ended(&self, source: &str, is_delivered: bool) {
        let family = if is_delivered {
            &self.delivered
        } else {
            &self.dead
        };
        family.get_or_create(&by_source(source)).inc();
    }

    /// As Prometheus reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn by_source(source: &str) -> Label {
    Label("source", source.to_owned())
}
