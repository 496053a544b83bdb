//! What the controller counts. Labels come from closed lists.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Everything is done for now.
    Done,
    /// It is tried again.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciliations: Family<ByOutcome, Histogram, fn() -> Histogram>,
    errors: Family<ByKind, Counter>,
    leader: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 12))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("understudy_operator");
        let reconciliations: Family<ByOutcome, Histogram, fn() -> Histogram> = Family::new_with_constructor(histogram);
        let (errors, leader) = (Family::default(), Gauge::default());
        registry.register("reconcile_duration_seconds", "How long reconciliations take", reconciliations.clone());
        registry.register("errors", "Reconciliations that failed, by kind", errors.clone());
        registry.register("leader", "Whether this operator is the one at work", leader.clone());
        Self { registry, reconciliations, errors, leader }
    }
}

impl Metrics {
    /// A reconciliation ended.
    pub fn reconciled(&self, took: Duration, error: Option<&'static str>) {
        let outcome = if error.is_some() { Outcome::Failed } else { Outcome::Done };
        self.reconciliations.get_or_create(&ByOutcome { outcome }).observe(took.as_secs_f64());
        if let Some(kind) = error {
            self.errors.get_or_create(&ByKind { kind }).inc();
        }
    }

    /// This operator is at work, or not.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// As OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
