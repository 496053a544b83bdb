//! Whether clones can be trusted: the baseline against production (A/A).

use understudy_crds::{
    condition::VerdictReason,
    experiment::Criterion,
    labels::{BASELINE, PRODUCTION},
    status::Comparison,
};

use crate::analysis::{
    criteria::{self, is_about},
    wording,
};

/// The baseline agrees with production while its latency is at most this many times production's, and
/// no less than production's divided by this: −33 % to +50 %.
///
/// What slows down both clones alike does not bias the candidate against the baseline; it bends how far
/// their difference carries over to production. On one machine a clone shares cores and disk with
/// production and with the other clones, and its answers travel another way, so a baseline that is 10
/// to 25 % slower is to be expected, and small statements (tens of µs) go beyond that now and then.
/// If what slows the clones comes on top of the statement itself, a baseline 50 % slower makes a
/// difference look a third smaller than it is, and never changes its sign. Beyond that, a clone is
/// limited by something that production is not (a cold cache, a starved core, a bloated table), and
/// what helps there need not help production.
pub const AGREEMENT: f64 = 1.5;

/// What A/A says.
pub(super) enum Agreement {
    /// No interval lies wholly outside, and each says something. A sentence about it.
    Agrees(String),
    /// An interval lies wholly outside.
    Disagrees(String),
    /// There is no interval yet, or one so wide that it excludes nothing.
    Unknown(VerdictReason, String),
}

/// Whether the baseline agrees with production, for all that is judged.
pub(super) fn with_production(criteria: &[Criterion], comparisons: &[Comparison]) -> Agreement {
    let (lowest, highest) = (1.0 / AGREEMENT - 1.0, AGREEMENT - 1.0);
    let judged = criteria::compared(criteria);
    let aa: Vec<&Comparison> = comparisons
        .iter()
        .filter(|c| c.candidate == BASELINE && c.against == PRODUCTION)
        // Without criteria (an A/A test) whatever has traffic is judged.
        .filter(|c| criteria.is_empty() || criteria.iter().any(|criterion| is_about(c, criterion)))
        .collect();
    let missing = criteria.iter().find(|criterion| !aa.iter().any(|c| is_about(c, criterion)));
    let named = |c: &Comparison| format!("{} {}", wording::class(c.class), wording::quantile(c.quantile));
    let numbers =
        |c: &Comparison| format!("{} {} {}", named(c), wording::difference(c.delta), wording::interval(c.low, c.high));
    if let Some(outside) = aa.iter().find(|c| c.low > highest || c.high < lowest) {
        return Agreement::Disagrees(format!(
            "clones can't be trusted: the baseline, unchanged, differs from production: {}; between {} and {} is allowed",
            numbers(outside),
            wording::threshold((lowest * 100.0).round() / 100.0),
            wording::threshold(highest),
        ));
    }
    if let Some(criterion) = missing {
        let (class, quantile) = (wording::class(criterion.class), wording::quantile(criterion.quantile));
        return Agreement::Unknown(
            VerdictReason::TooFewSamples,
            format!("too few {class} to hold the baseline's {quantile} against production's"),
        );
    }
    if aa.is_empty() {
        let class = judged.first().map_or("statements", |(class, _)| wording::class(*class));
        return Agreement::Unknown(
            VerdictReason::TooFewSamples,
            format!("too few {class} to hold the baseline against production"),
        );
    }
    if let Some(wide) = aa.iter().find(|c| c.low < lowest && c.high > highest) {
        return Agreement::Unknown(
            VerdictReason::NotConclusive,
            format!("too noisy to tell whether clones can be trusted: baseline against production, {}", numbers(wide)),
        );
    }
    let all: Vec<String> = aa.iter().map(|c| numbers(c)).collect();
    Agreement::Agrees(format!("the baseline agrees with production: {}", all.join("; ")))
}
