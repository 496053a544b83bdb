//! After a promotion: what was predicted, and what production then did.
//!
//! Production has the change and the baseline has not, and both still get the same statements. So the
//! observed effect is production against the baseline, less what stood between the two before the
//! change (the A/A difference of the experiment).

use understudy_crds::{
    experiment::ShadowExperimentSpec,
    labels::{BASELINE, PRODUCTION},
    status::{Comparison, Effect, PromotionOutcome},
};

use super::{Analysis, compare::relative, criteria};

/// What became of each criterion. `before` observed the experiment, `after` the time since the change
/// was on production ([`Analysis::of_promotion`]). Criteria without an interval on either side are left
/// out; when there are none, the headline quantiles stand in.
pub fn outcomes(
    spec: &ShadowExperimentSpec,
    candidate: &str,
    before: &Analysis,
    after: &Analysis,
) -> Vec<PromotionOutcome> {
    let (predictions, observations) = (before.comparisons(), after.comparisons());
    let find = |all: &[Comparison], judged: &str, against: &str, class, quantile| {
        all.iter()
            .find(|c| {
                c.candidate == judged
                    && c.against == against
                    && c.class == class
                    && criteria::same_quantile(c.quantile, quantile)
            })
            .map(|c| Effect { delta: c.delta, low: c.low, high: c.high })
    };
    criteria::compared(&criteria::of(spec))
        .into_iter()
        .filter_map(|(class, quantile)| {
            let predicted = find(&predictions, candidate, BASELINE, class, quantile)?;
            let offset = find(&predictions, BASELINE, PRODUCTION, class, quantile)?;
            let seen = find(&observations, PRODUCTION, BASELINE, class, quantile)?;
            Some(PromotionOutcome {
                class,
                quantile,
                before_us: before.latency_at(PRODUCTION, class, quantile),
                after_us: after.latency_at(PRODUCTION, class, quantile),
                predicted,
                observed: corrected(seen, offset),
            })
        })
        .collect()
}

/// Production against the baseline, less what stood between them before: ratios multiply. The two
/// were measured at other times, so their errors are independent and add up by their squares.
fn corrected(seen: Effect, offset: Effect) -> Effect {
    let log = |relative: f64| relative.max(-0.999).ln_1p();
    let mean = log(seen.delta) + log(offset.delta);
    let below = (log(seen.delta) - log(seen.low)).hypot(log(offset.delta) - log(offset.low));
    let above = (log(seen.high) - log(seen.delta)).hypot(log(offset.high) - log(offset.delta));
    Effect { delta: relative(mean), low: relative(mean - below), high: relative(mean + above) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_that_was_slower_all_along_is_taken_into_account() {
        // The baseline was 25 % slower than production; production with the change is 80 % faster.
        let seen = Effect { delta: -0.8, low: -0.82, high: -0.78 };
        let offset = Effect { delta: 0.25, low: 0.2, high: 0.3 };
        let observed = corrected(seen, offset);
        assert!((observed.delta + 0.75).abs() < 1e-6, "{observed:?}");
        assert!(observed.low < -0.77 && observed.low > -0.8 && observed.high > -0.73, "{observed:?}");
    }

    #[test]
    fn without_an_offset_what_is_seen_is_what_there_is() {
        let seen = Effect { delta: -0.5, low: -0.6, high: -0.4 };
        let observed = corrected(seen, Effect::default());
        assert!((observed.low - seen.low).abs() < 1e-6 && (observed.high - seen.high).abs() < 1e-6);
    }
}
