//! What each side did in all: histograms by class, and counts.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use understudy_crds::{
    experiment::StatementClass,
    report::CurvePoint,
    status::{Latency, LatencyByClass},
};
use understudy_mirror::measure::interval::{ArmInterval, histogram};

use super::blocks::merge;

/// Statements of one side, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Statements measured, by class.
    pub measured: BTreeMap<StatementClass, u64>,
    /// Statements that failed.
    pub errors: u64,
    /// Statements cancelled or timed out.
    pub cancelled: u64,
}

impl Counts {
    /// Statements of a class that were measured.
    pub fn of(&self, class: StatementClass) -> u64 {
        self.measured.get(&class).copied().unwrap_or(0)
    }

    pub(super) fn push(&mut self, interval: &ArmInterval) {
        for (class, service) in &interval.service {
            *self.measured.entry(*class).or_default() += service.len();
        }
        self.errors += interval.errors;
        self.cancelled += interval.cancelled;
    }

    /// All statements: measured, failed and cancelled.
    pub fn all(&self) -> u64 {
        self.measured.values().sum::<u64>() + self.errors + self.cancelled
    }
}

/// Everything one side did, in one histogram for each class.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    service: BTreeMap<StatementClass, Histogram<u64>>,
    counts: Counts,
}

impl Totals {
    pub(super) fn push(&mut self, interval: &ArmInterval) {
        for (class, service) in &interval.service {
            merge(self.service.entry(*class).or_insert_with(histogram), service);
        }
        self.counts.push(interval);
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    pub(super) fn latency(&self) -> LatencyByClass {
        self.service.iter().filter(|(_, h)| !h.is_empty()).map(|(class, h)| ((*class).into(), latency(h))).collect()
    }

    pub(super) fn curves(&self) -> BTreeMap<StatementClass, Vec<CurvePoint>> {
        self.service.iter().filter(|(_, h)| !h.is_empty()).map(|(class, h)| (*class, curve(h))).collect()
    }

    /// Latency at a quantile, µs; 0 where nothing was measured.
    pub(super) fn at(&self, class: StatementClass, quantile: f64) -> i64 {
        self.service.get(&class).map_or(0, |service| micros(service.value_at_quantile(quantile)))
    }
}

/// Latency of one class as status shows it.
pub(super) fn latency(service: &Histogram<u64>) -> Latency {
    Latency {
        count: micros(service.len()),
        p50_us: micros(service.value_at_quantile(0.5)),
        p95_us: micros(service.value_at_quantile(0.95)),
        p99_us: micros(service.value_at_quantile(0.99)),
    }
}

pub(super) fn micros(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Points of a percentile curve, denser towards both ends, as far as there are statements for them.
fn curve(service: &Histogram<u64>) -> Vec<CurvePoint> {
    const QUANTILES: [f64; 25] = [
        0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98,
        0.99, 0.995, 0.998, 0.999, 0.9999,
    ];
    let count = service.len() as f64;
    QUANTILES
        .into_iter()
        .filter(|quantile| count * quantile.min(1.0 - quantile) >= 1.0 - 1e-9)
        .map(|quantile| CurvePoint { quantile, value_us: micros(service.value_at_quantile(quantile)) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_where_the_statements_end() {
        let mut service = histogram();
        for value in 1..=100 {
            service.record(value).unwrap();
        }
        let points = curve(&service);
        assert_eq!(points.first().map(|p| p.value_us), Some(1));
        assert_eq!(points.last().map(|p| p.value_us), Some(99));
    }
}
