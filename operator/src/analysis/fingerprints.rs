//! Statements by fingerprint: totals on every arm, and how much each moved.
//!
//! Bounded: at most [`TRACKED`] fingerprints have histograms of their own; what takes less of
//! production's time is put together as `other`.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;
use understudy_crds::{
    experiment::StatementClass,
    labels::{BASELINE, PRODUCTION},
    report::FingerprintReport,
};
use understudy_mirror::measure::interval::{Fingerprint, Interval, histogram};

use super::{blocks::merge, compare::Tracker, criteria::HEADLINE_QUANTILE, totals::micros};

/// Fingerprints with histograms of their own. One takes some 50 KiB for each arm.
pub const TRACKED: usize = 500;
/// The name of everything else in a report.
pub const OTHER: &str = "other";

/// What the fingerprints mean: normalised text and class, from whoever parsed the statements.
pub type Texts = HashMap<Fingerprint, (String, StatementClass)>;

/// One fingerprint on all arms.
#[derive(Debug, Clone, Default)]
struct Tracked {
    by_arm: BTreeMap<String, Histogram<u64>>,
    /// Candidate against baseline, by candidate.
    effects: BTreeMap<String, Tracker>,
    /// Time that production spent on it, µs.
    production_us: u64,
}

impl Tracked {
    fn add(&mut self, arm: &str, service: &Histogram<u64>) {
        if !self.by_arm.contains_key(arm) {
            self.by_arm.insert(arm.to_owned(), histogram());
        }
        if let Some(total) = self.by_arm.get_mut(arm) {
            merge(total, service);
        }
    }

    fn calls(&self) -> i64 {
        self.by_arm.get(PRODUCTION).map_or(0, |service| micros(service.len()))
    }

    fn quantile_by_arm(&self, quantile: f64) -> BTreeMap<String, i64> {
        let of = |service: &Histogram<u64>| micros(service.value_at_quantile(quantile));
        self.by_arm.iter().filter(|(_, s)| !s.is_empty()).map(|(arm, s)| (arm.clone(), of(s))).collect()
    }
}

/// All fingerprints of an experiment.
#[derive(Debug, Clone)]
pub(super) struct Fingerprints {
    capacity: usize,
    alpha: f64,
    candidates: Vec<String>,
    tracked: HashMap<Fingerprint, Tracked>,
    other: Tracked,
}

impl Fingerprints {
    pub(super) fn new(candidates: Vec<String>, alpha: f64) -> Self {
        Self { capacity: TRACKED, alpha, candidates, tracked: HashMap::new(), other: Tracked::default() }
    }

    pub(super) fn add_candidate(&mut self, name: &str) {
        self.candidates.push(name.to_owned());
    }

    pub(super) fn remove_candidate(&mut self, name: &str) {
        self.candidates.retain(|candidate| candidate != name);
        for tracked in self.tracked.values_mut().chain(std::iter::once(&mut self.other)) {
            tracked.by_arm.remove(name);
            tracked.effects.remove(name);
        }
    }

    pub(super) fn push(&mut self, interval: &Interval) {
        let spent = interval.arms.get(PRODUCTION).map(|arm| &arm.fingerprints);
        for (fingerprint, service) in spent.into_iter().flatten() {
            self.make_room(*fingerprint, time_us(service));
        }
        for (arm, measured) in &interval.arms {
            for (fingerprint, service) in &measured.fingerprints {
                self.tracked.get_mut(fingerprint).unwrap_or(&mut self.other).add(arm, service);
            }
        }
        let Some(baseline) = interval.arms.get(BASELINE) else { return };
        for candidate in &self.candidates {
            let Some(measured) = interval.arms.get(candidate) else { continue };
            for (fingerprint, tracked) in &mut self.tracked {
                let (judged, against) =
                    (measured.fingerprints.get(fingerprint), baseline.fingerprints.get(fingerprint));
                if judged.is_none() && against.is_none() {
                    continue;
                }
                if !tracked.effects.contains_key(candidate) {
                    tracked.effects.insert(candidate.clone(), Tracker::new(HEADLINE_QUANTILE, self.alpha));
                }
                if let Some(effect) = tracked.effects.get_mut(candidate) {
                    effect.push(judged, against);
                }
            }
        }
    }

    /// Sees to it that a fingerprint is tracked if it has earned it, at the expense of the smallest.
    fn make_room(&mut self, fingerprint: Fingerprint, spent_us: u64) {
        if let Some(tracked) = self.tracked.get_mut(&fingerprint) {
            tracked.production_us = tracked.production_us.saturating_add(spent_us);
            return;
        }
        if self.tracked.len() >= self.capacity {
            let smallest = self.tracked.iter().min_by_key(|(id, tracked)| (tracked.production_us, **id));
            let Some((&smallest, tracked)) = smallest else { return };
            if tracked.production_us >= spent_us {
                return;
            }
            if let Some(evicted) = self.tracked.remove(&smallest) {
                for (arm, service) in &evicted.by_arm {
                    self.other.add(arm, service);
                }
            }
        }
        self.tracked.insert(fingerprint, Tracked { production_us: spent_us, ..Tracked::default() });
    }

    /// The fingerprints, those that took most of production's time first, `other` last.
    pub(super) fn report(&self, texts: &Texts) -> Vec<FingerprintReport> {
        let mut order: Vec<(&Fingerprint, &Tracked)> = self.tracked.iter().collect();
        order.sort_by_key(|(fingerprint, tracked)| (std::cmp::Reverse(tracked.production_us), **fingerprint));
        let mut reports: Vec<FingerprintReport> = order
            .into_iter()
            .map(|(fingerprint, tracked)| {
                let (text, class) = texts
                    .get(fingerprint)
                    .cloned()
                    .unwrap_or_else(|| (format!("statement {fingerprint}"), StatementClass::Utility));
                report(fingerprint.to_string(), text, class, tracked)
            })
            .collect();
        if self.other.calls() > 0 {
            let text = "all other statements".to_owned();
            reports.push(report(OTHER.to_owned(), text, StatementClass::Utility, &self.other));
        }
        reports
    }
}

fn report(fingerprint: String, text: String, class: StatementClass, tracked: &Tracked) -> FingerprintReport {
    FingerprintReport {
        fingerprint,
        text,
        class,
        calls: tracked.calls(),
        p95_us: tracked.quantile_by_arm(0.95),
        p50_us: tracked.quantile_by_arm(0.5),
        effect: tracked.effects.iter().filter_map(|(name, effect)| Some((name.clone(), effect.effect()?))).collect(),
        plans: BTreeMap::new(),
    }
}

/// Time spent in all: the sum over a histogram's values, µs.
fn time_us(service: &Histogram<u64>) -> u64 {
    service.iter_recorded().fold(0_u64, |sum, step| {
        sum.saturating_add(step.value_iterated_to().saturating_mul(step.count_since_last_iteration()))
    })
}

#[cfg(test)]
mod tests {
    use understudy_mirror::measure::interval::ArmInterval;

    use super::*;

    /// Fingerprint, latency in µs, calls.
    type Statements = [(u64, u64, u64)];

    fn interval(index: u64, arms: &[(&str, &Statements)]) -> Interval {
        let arm = |statements: &Statements| {
            let mut arm = ArmInterval::default();
            for (fingerprint, value_us, count) in statements {
                let service = arm.fingerprints.entry(Fingerprint(*fingerprint)).or_insert_with(histogram);
                service.record_n(*value_us, *count).unwrap();
            }
            arm
        };
        Interval {
            index,
            start_us: index * 1_000_000,
            length_us: 1_000_000,
            arms: arms.iter().map(|(name, statements)| ((*name).to_owned(), arm(statements))).collect(),
        }
    }

    #[test]
    fn what_took_most_of_productions_time_comes_first() {
        let mut all = Fingerprints::new(Vec::new(), 0.05);
        all.push(&interval(0, &[(PRODUCTION, &[(1, 10, 100), (2, 1000, 2)])]));
        let texts = Texts::from([(Fingerprint(2), ("SELECT $1".to_owned(), StatementClass::Read))]);
        let report = all.report(&texts);
        assert_eq!(report[0].text, "SELECT $1");
        assert_eq!((report[1].calls, report[1].text.as_str()), (100, "statement 0000000000000001"));
    }

    #[test]
    fn beyond_the_capacity_the_smallest_are_put_together() {
        let mut all = Fingerprints::new(Vec::new(), 0.05);
        all.capacity = 2;
        all.push(&interval(0, &[(PRODUCTION, &[(1, 100, 9), (2, 100, 5)])]));
        all.push(&interval(1, &[(PRODUCTION, &[(3, 100, 1)])]));
        all.push(&interval(2, &[(PRODUCTION, &[(4, 100, 7)])]));
        let report = all.report(&Texts::new());
        let seen: Vec<(&str, i64)> = report.iter().map(|r| (r.fingerprint.as_str(), r.calls)).collect();
        assert_eq!(seen, [("0000000000000001", 9), ("0000000000000004", 7), (OTHER, 6)]);
    }

    #[test]
    fn a_statement_that_moved_has_an_effect_and_one_with_few_calls_has_none() {
        let mut all = Fingerprints::new(vec!["index".to_owned()], 0.05);
        for index in 0..60 {
            let wobble = index % 3 * 10;
            all.push(&interval(
                index,
                &[
                    (PRODUCTION, &[(1, 1000, 50), (2, 500, 1)]),
                    (BASELINE, &[(1, 1000 + wobble, 50), (2, 500, 1)]),
                    ("index", &[(1, 300, 50), (2, 500, 1)]),
                ],
            ));
        }
        let report = all.report(&Texts::new());
        let effect = report[0].effect["index"];
        assert!(effect.high < -0.6 && effect.low > -0.8, "{effect:?}");
        assert!(report[1].effect.is_empty(), "60 calls are one block");
    }
}
