//! The verdict in words: what was found, with its numbers, and what was asked for.

use std::time::Duration;

use understudy_crds::{
    condition::Outcome,
    experiment::{Criterion, ShadowExperimentSpec, StatementClass},
    status::Comparison,
};

use super::Decided;
use crate::analysis::{
    criteria::{Decision, HEADLINE_QUANTILE, is_improvement, same_quantile, threshold},
    wording,
};

/// More than this many times the observation so far is no advice.
const TOO_MUCH_MORE: f64 = 100.0;

/// What a candidate's criteria say together.
pub(super) fn of(outcome: Option<Outcome>, decided: &[Decided<'_>], elapsed: Duration) -> String {
    let worth_saying = |decided: &&Decided<'_>| match outcome {
        Some(Outcome::Worse) => matches!(decided.decision, Some(Decision::Refuted { slower: true })),
        Some(_) => true,
        None => decided.decision != Some(Decision::Holds),
    };
    let phrases: Vec<String> =
        decided.iter().filter(worth_saying).map(|decided| phrase(outcome, decided, elapsed)).collect();
    phrases.join("; ")
}

fn phrase(outcome: Option<Outcome>, decided: &Decided<'_>, elapsed: Duration) -> String {
    let Decided { criterion, comparison, decision } = decided;
    let (Some(comparison), Some(decision)) = (comparison, decision) else {
        return format!("too few {} for an interval of {}", wording::class(criterion.class), named(criterion));
    };
    let delta = wording::difference(comparison.delta);
    let interval = wording::interval(comparison.low, comparison.high);
    let (named, asked) = (named(criterion), asked(criterion));
    match decision {
        Decision::Holds if is_improvement(criterion) => format!("{named} {delta}, {asked}"),
        Decision::Holds if outcome == Some(Outcome::Better) => {
            let headline = same_quantile(criterion.quantile, HEADLINE_QUANTILE);
            let what = if headline { wording::class(criterion.class).to_owned() } else { named };
            format!("{what} within what was allowed")
        }
        Decision::Holds => format!("{named} {delta}, {asked}"),
        Decision::Refuted { slower: true } => format!("{named} {delta} {interval}, {asked}"),
        Decision::Refuted { slower: false } => format!("{named} {delta} {interval}, {asked}: not reached"),
        Decision::Open => {
            let more = more_time(criterion, comparison, elapsed);
            format!("{named} {delta} {interval}, {asked}: not clear yet{more}")
        }
    }
}

fn named(criterion: &Criterion) -> String {
    format!("{} {}", wording::class(criterion.class), wording::quantile(criterion.quantile))
}

fn asked(criterion: &Criterion) -> String {
    let threshold = wording::threshold(threshold(criterion));
    if is_improvement(criterion) {
        format!("criterion was {threshold}")
    } else {
        format!("at most {threshold} was allowed")
    }
}

/// How much longer it would take at this rate: an interval narrows with the root of its time.
fn more_time(criterion: &Criterion, comparison: &Comparison, elapsed: Duration) -> String {
    let log = |relative: f64| relative.max(-0.999).ln_1p();
    let half_width = (log(comparison.high) - log(comparison.low)) / 2.0;
    let distance = (log(comparison.delta) - log(threshold(criterion))).abs();
    let factor = (half_width / distance.max(1e-9)).powi(2) - 1.0;
    if !factor.is_finite() || factor > TOO_MUCH_MORE {
        return "; the difference is too close to it to be told in any useful time".to_owned();
    }
    let more = Duration::from_secs_f64((elapsed.as_secs_f64() * factor.max(0.0)).max(1.0));
    format!("; about {} more would tell", wording::duration(more))
}

/// Nothing was seen of what is judged.
pub(super) fn no_traffic(class: Option<StatementClass>) -> String {
    format!("no {} reached production through the mirror", class.map_or("statements", wording::class))
}

/// The experiment ended before its own minimum.
pub(super) fn too_early(elapsed: Duration, spec: &ShadowExperimentSpec) -> String {
    let minimum = spec.schedule.minimum.duration();
    format!("{} of at least {} were observed", wording::duration(elapsed), wording::duration(minimum))
}
