//! What a candidate must achieve, and whether an interval decides it.

use understudy_crds::{
    experiment::{Criterion, ShadowExperimentSpec, StatementClass},
    quantity::Percent,
    status::{Comparison, PromotionOutcome},
};

/// The quantile that is always compared for reads and writes.
pub const HEADLINE_QUANTILE: f64 = 0.95;

/// The criteria of an experiment: the user's, or where there are none that reads are no slower and
/// writes at most 5 % slower at p95. An experiment without candidates has none.
pub fn of(spec: &ShadowExperimentSpec) -> Vec<Criterion> {
    if spec.candidates.is_empty() || !spec.success.is_empty() {
        return spec.success.clone();
    }
    [(StatementClass::Read, 0.0), (StatementClass::Write, 0.05)]
        .into_iter()
        .map(|(class, allowed)| Criterion {
            class,
            quantile: HEADLINE_QUANTILE,
            improve_by: None,
            regress_by: Some(Percent::from_fraction(allowed)),
        })
        .collect()
}

/// Which classes are compared at which quantile: those of the criteria, then p95 of reads and writes.
pub(super) fn compared(criteria: &[Criterion]) -> Vec<(StatementClass, f64)> {
    let headline = [StatementClass::Read, StatementClass::Write].map(|class| (class, HEADLINE_QUANTILE));
    let mut all: Vec<(StatementClass, f64)> = Vec::new();
    for (class, quantile) in criteria.iter().map(|c| (c.class, c.quantile)).chain(headline) {
        if !all.iter().any(|(c, q)| *c == class && same_quantile(*q, quantile)) {
            all.push((class, quantile));
        }
    }
    all
}

/// Whether two quantiles are the same; they come from documents, not from arithmetic.
pub fn same_quantile(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// Whether a comparison is about a criterion's statements and quantile.
pub fn is_about(comparison: &Comparison, criterion: &Criterion) -> bool {
    comparison.class == criterion.class && same_quantile(comparison.quantile, criterion.quantile)
}

/// Whether an outcome is about a criterion's statements and quantile.
pub fn is_outcome_of(outcome: &PromotionOutcome, criterion: &Criterion) -> bool {
    outcome.class == criterion.class && same_quantile(outcome.quantile, criterion.quantile)
}

/// Whether a criterion asks for an improvement.
pub fn is_improvement(criterion: &Criterion) -> bool {
    criterion.improve_by.is_some()
}

/// The relative difference that a criterion allows at most: −0.15 for `improveBy: 15%`.
pub fn threshold(criterion: &Criterion) -> f64 {
    match (criterion.improve_by, criterion.regress_by) {
        (Some(by), _) => -by.fraction(),
        (None, Some(by)) => by.fraction(),
        (None, None) => 0.0,
    }
}

/// What an interval says about a criterion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The whole interval lies below the threshold.
    Holds,
    /// The whole interval lies above the threshold.
    Refuted {
        /// The candidate is really slower: the interval lies above zero too.
        slower: bool,
    },
    /// The threshold lies within the interval.
    Open,
}

/// What the interval from `low` to `high` says about a criterion.
pub fn decide(criterion: &Criterion, low: f64, high: f64) -> Decision {
    let threshold = threshold(criterion);
    if high < threshold {
        Decision::Holds
    } else if low > threshold {
        Decision::Refuted { slower: low > 0.0 }
    } else {
        Decision::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn criterion(improve: Option<f64>, regress: Option<f64>) -> Criterion {
        Criterion {
            class: StatementClass::Read,
            quantile: 0.95,
            improve_by: improve.map(Percent::from_fraction),
            regress_by: regress.map(Percent::from_fraction),
        }
    }

    #[test]
    fn a_criterion_is_decided_when_its_threshold_lies_outside_the_interval() {
        let improve = criterion(Some(0.15), None);
        let regress = criterion(None, Some(0.05));
        for (name, criterion, low, high, expected) in [
            ("wholly better", &improve, -0.3, -0.2, Decision::Holds),
            ("threshold within", &improve, -0.2, -0.1, Decision::Open),
            ("better, but not enough", &improve, -0.10, -0.05, Decision::Refuted { slower: false }),
            ("no better", &improve, -0.1, 0.1, Decision::Refuted { slower: false }),
            ("slower", &improve, 0.01, 0.1, Decision::Refuted { slower: true }),
            ("touching", &improve, -0.2, -0.15, Decision::Open),
            ("a little slower, allowed", &regress, 0.01, 0.04, Decision::Holds),
            ("not clear", &regress, 0.01, 0.06, Decision::Open),
            ("too slow", &regress, 0.06, 0.09, Decision::Refuted { slower: true }),
        ] {
            assert_eq!(decide(criterion, low, high), expected, "{name}");
        }
    }

    #[test]
    fn headline_quantiles_are_compared_once() {
        let criteria = [criterion(Some(0.1), None)];
        assert_eq!(compared(&criteria), [(StatementClass::Read, 0.95), (StatementClass::Write, 0.95)]);
    }
}
