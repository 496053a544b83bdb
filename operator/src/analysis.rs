//! From intervals of measurement to differences and a verdict.
//!
//! Everything here is a pure function or a plain accumulator over data: no clock, no I/O, no `async`.
//! [`Analysis`] takes the intervals one by one, as they come, and always knows the differences so far;
//! [`verdict::judge`] says what they mean; [`outcome::outcomes`] compares a promotion with what was
//! predicted.

mod blocks;
mod compare;
pub mod confidence;
pub mod criteria;
pub mod fingerprints;
mod noise;
pub mod outcome;
mod totals;
pub mod verdict;
pub mod wording;

use std::{collections::BTreeMap, time::Duration};

use understudy_crds::{
    experiment::{Criterion, ShadowExperimentSpec, StatementClass},
    labels::{BASELINE, PRODUCTION},
    report::{CurvePoint, DeltaSeries, FingerprintReport},
    status::{Comparison, LatencyByClass},
};
use understudy_mirror::measure::interval::Interval;

use self::{
    compare::Difference,
    confidence::FALSE_VERDICTS,
    criteria::{Decision, decide, is_about},
    fingerprints::Fingerprints,
    totals::Totals,
};
pub use self::{fingerprints::Texts, totals::Counts};

/// The part of the share that may be wrong that is kept for candidates that are added later. It costs the
/// first ones 2 % of an interval's width.
const KEPT_FOR_LATER: f64 = 0.1;

/// Everything that was measured, and the differences so far. A push costs some merges of histograms;
/// a look costs nothing. Memory does not grow with time.
#[derive(Debug, Clone)]
pub struct Analysis {
    criteria: Vec<Criterion>,
    differences: Vec<Difference>,
    /// What candidates that are still to come may be wrong with.
    alpha_left: f64,
    /// When an arm first had a part, µs since observation began.
    joined_us: BTreeMap<String, u64>,
    totals: BTreeMap<String, Totals>,
    /// What production did in the intervals that an arm had a part in, by arm.
    beside: BTreeMap<String, Counts>,
    fingerprints: Fingerprints,
    /// End of the last interval, µs since observation began.
    end_us: u64,
}

impl Analysis {
    /// The analysis of an experiment: the baseline against production (A/A), and every candidate
    /// against the baseline (A/B), at the criteria's quantiles and always at p95 of reads and writes.
    ///
    /// All intervals of an experiment together may be wrong once in twenty experiments, so each of them
    /// has its part of that, and a part is kept for candidates that are added later.
    pub fn of_experiment(spec: &ShadowExperimentSpec) -> Self {
        let criteria = criteria::of(spec);
        let candidates: Vec<&str> = spec.candidates.iter().map(|candidate| candidate.name.as_str()).collect();
        let judged = criteria.len().saturating_mul(candidates.len()).max(1);
        let alpha = FALSE_VERDICTS * (1.0 - KEPT_FOR_LATER) / judged as f64;
        let pairs = std::iter::once((BASELINE, PRODUCTION)).chain(candidates.iter().map(|name| (*name, BASELINE)));
        let names = candidates.iter().map(|name| (*name).to_owned()).collect();
        Self::new(criteria.clone(), pairs, alpha, Fingerprints::new(names, alpha))
    }

    /// The analysis of a promotion: production, which has the change, against the baseline, which has
    /// not.
    pub fn of_promotion(spec: &ShadowExperimentSpec) -> Self {
        let criteria = criteria::of(spec);
        let alpha = FALSE_VERDICTS / criteria.len().max(1) as f64;
        Self::new(criteria, std::iter::once((PRODUCTION, BASELINE)), alpha, Fingerprints::new(Vec::new(), alpha))
    }

    fn new<'a>(
        criteria: Vec<Criterion>,
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
        alpha: f64,
        fingerprints: Fingerprints,
    ) -> Self {
        let compared = criteria::compared(&criteria);
        let differences = pairs
            .flat_map(|(judged, against)| {
                compared.iter().map(move |(class, quantile)| Difference::new(judged, against, *class, *quantile, alpha))
            })
            .collect();
        let (alpha_left, joined_us) = (FALSE_VERDICTS * KEPT_FOR_LATER, BTreeMap::new());
        Self {
            criteria,
            differences,
            alpha_left,
            joined_us,
            totals: BTreeMap::new(),
            beside: BTreeMap::new(),
            fingerprints,
            end_us: 0,
        }
    }

    /// A candidate that was added later. It gets half of what is left of the share that may be wrong, so
    /// that the share of all together is kept, however many are added.
    pub fn add_candidate(&mut self, name: &str) {
        self.alpha_left /= 2.0;
        let alpha = self.alpha_left / self.criteria.len().max(1) as f64;
        let of = |(class, quantile): (StatementClass, f64)| Difference::new(name, BASELINE, class, quantile, alpha);
        self.differences.extend(criteria::compared(&self.criteria).into_iter().map(of));
        self.fingerprints.add_candidate(name);
    }

    /// A candidate that was removed: nothing of it counts any more.
    pub fn remove_candidate(&mut self, name: &str) {
        self.differences.retain(|difference| difference.judged != name);
        self.fingerprints.remove_candidate(name);
        self.totals.remove(name);
        self.beside.remove(name);
        self.joined_us.remove(name);
    }

    /// Takes the next interval.
    pub fn push(&mut self, interval: &Interval) {
        for difference in &mut self.differences {
            difference.push(interval);
        }
        for (name, arm) in &interval.arms {
            if !self.joined_us.contains_key(name) {
                self.joined_us.insert(name.clone(), interval.start_us);
            }
            if !self.totals.contains_key(name) {
                self.totals.insert(name.clone(), Totals::default());
            }
            if let Some(totals) = self.totals.get_mut(name) {
                totals.push(arm);
            }
        }
        if let Some(production) = interval.arms.get(PRODUCTION) {
            for name in interval.arms.keys() {
                self.beside.entry(name.clone()).or_default().push(production);
            }
        }
        self.fingerprints.push(interval);
        self.end_us = self.end_us.max(interval.start_us.saturating_add(interval.length_us));
    }

    /// The differences so far, A/A first; those that have no honest interval yet are left out.
    pub fn comparisons(&self) -> Vec<Comparison> {
        self.differences
            .iter()
            .filter_map(Difference::comparison)
            .map(|comparison| Comparison { conclusive: self.is_conclusive(&comparison), ..comparison })
            .collect()
    }

    fn is_conclusive(&self, comparison: &Comparison) -> bool {
        let Comparison { low, high, .. } = *comparison;
        let mut about = self.criteria.iter().filter(|criterion| is_about(comparison, criterion)).peekable();
        if comparison.against == PRODUCTION || about.peek().is_none() {
            return low > 0.0 || high < 0.0;
        }
        about.all(|criterion| decide(criterion, low, high) != Decision::Open)
    }

    /// The differences over time: a series for each of [`Self::comparisons`], in the same order.
    pub fn series(&self) -> Vec<DeltaSeries> {
        self.differences.iter().filter(|d| d.comparison().is_some()).map(Difference::series).collect()
    }

    /// Latency of one side over all that was observed.
    pub fn latency(&self, arm: &str) -> LatencyByClass {
        self.totals.get(arm).map(Totals::latency).unwrap_or_default()
    }

    /// Latency of one side at a quantile, µs; 0 where nothing was measured.
    pub fn latency_at(&self, arm: &str, class: StatementClass, quantile: f64) -> i64 {
        self.totals.get(arm).map_or(0, |totals| totals.at(class, quantile))
    }

    /// What one side did, counted.
    pub fn counts(&self, arm: &str) -> Counts {
        self.totals.get(arm).map(Totals::counts).unwrap_or_default()
    }

    /// What production did in those intervals that an arm had a part in.
    pub fn production_beside(&self, arm: &str) -> Counts {
        self.beside.get(arm).cloned().unwrap_or_default()
    }

    /// How much of the observation was over when an arm first had a part in it.
    pub fn joined_after(&self, arm: &str) -> Duration {
        Duration::from_micros(self.joined_us.get(arm).copied().unwrap_or(0))
    }

    /// Percentile curves of all sides, by class.
    pub fn curves(&self) -> BTreeMap<String, BTreeMap<StatementClass, Vec<CurvePoint>>> {
        self.totals.iter().map(|(name, totals)| (name.clone(), totals.curves())).collect()
    }

    /// Statements by fingerprint, those that took most of production's time first.
    pub fn fingerprints(&self, texts: &Texts) -> Vec<FingerprintReport> {
        self.fingerprints.report(texts)
    }

    /// For how long was observed.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.end_us)
    }
}

#[cfg(test)]
mod tests;
