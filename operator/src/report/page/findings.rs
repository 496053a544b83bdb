//! What was found, in sentences and tables: the verdict, the judged differences, and what a promotion
//! then did.

use understudy_crds::{
    condition::{Outcome, Phase},
    experiment::{Criterion, StatementClass},
    labels::PRODUCTION,
    report::Report,
    status::{Comparison, Verdict},
};

use super::{
    super::{curves::capital, forest::StripScale},
    unbroken,
};
use crate::analysis::{
    criteria::{self, Decision, decide, is_about, is_improvement, same_quantile, threshold},
    wording,
};

/// The verdict in one word and one sentence.
pub(super) struct Headline {
    pub word: &'static str,
    /// `good`, `bad` or `open`.
    pub tone: &'static str,
    /// The candidate, where there are several.
    pub candidate: String,
    pub sentence: String,
}

/// The verdict, or that there is none yet.
pub(super) fn headline(report: &Report) -> Headline {
    let Some(Verdict { outcome, candidate, reason: _, message }) = &report.status.verdict else {
        let sentence = match report.status.phase {
            Phase::Failed => "the experiment could not go on; the timeline below says why",
            Phase::Halted => "the experiment was stopped before there was anything to say",
            _ => "the experiment has not come to its end",
        };
        return Headline { word: "No verdict", tone: "open", candidate: String::new(), sentence: capital(sentence) };
    };
    let (word, tone) = match outcome {
        Outcome::Better => ("Better", "good"),
        Outcome::Equivalent => ("Equivalent", "good"),
        Outcome::Worse => ("Worse", "bad"),
        Outcome::Inconclusive => ("Inconclusive", "open"),
        Outcome::Invalid => ("Invalid", "bad"),
    };
    let candidate = candidate.clone().unwrap_or_default();
    Headline { word, tone, candidate, sentence: unbroken(&format!("{}.", capital(message))) }
}

/// One difference between a candidate and the baseline, with what was asked.
pub(super) struct Finding {
    pub candidate: String,
    pub what: String,
    pub before: String,
    pub after: String,
    pub delta: String,
    pub interval: String,
    pub asked: String,
}

/// The differences of the candidates, in the order of the status.
pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let criteria = criteria::of(&report.experiment.spec);
    report
        .status
        .comparisons
        .iter()
        .filter(|comparison| comparison.against != PRODUCTION)
        .map(|comparison| Finding {
            candidate: comparison.candidate.clone(),
            what: what(comparison.class, comparison.quantile),
            before: latency_at(report, &comparison.against, comparison.class, comparison.quantile),
            after: latency_at(report, &comparison.candidate, comparison.class, comparison.quantile),
            delta: wording::difference(comparison.delta),
            interval: wording::interval(comparison.low, comparison.high),
            asked: criteria
                .iter()
                .find(|criterion| is_about(comparison, criterion))
                .map(|criterion| asked(criterion, comparison))
                .unwrap_or_default(),
        })
        .collect()
}

fn asked(criterion: &Criterion, comparison: &Comparison) -> String {
    let limit = wording::threshold(threshold(criterion));
    let wanted = if is_improvement(criterion) { format!("{limit} or better") } else { format!("at most {limit}") };
    let decided = match decide(criterion, comparison.low, comparison.high) {
        Decision::Holds => "holds",
        Decision::Refuted { .. } => "does not hold",
        Decision::Open => "not clear",
    };
    format!("{wanted}: {decided}")
}

fn what(class: StatementClass, quantile: f64) -> String {
    format!("{} {}", capital(wording::class(class)), wording::quantile(quantile))
}

fn latency_at(report: &Report, arm: &str, class: StatementClass, quantile: f64) -> String {
    let points = report.curves.get(arm).and_then(|by_class| by_class.get(&class));
    let point = points.and_then(|points| points.iter().find(|point| same_quantile(point.quantile, quantile)));
    point.map(|point| wording::latency(point.value_us)).unwrap_or_default()
}

/// What was predicted for production, and what it did.
pub(super) struct Prediction {
    pub what: String,
    pub before: String,
    pub after: String,
    pub predicted: String,
    pub predicted_interval: String,
    pub predicted_strip: String,
    pub observed: String,
    pub observed_interval: String,
    pub observed_strip: String,
    /// Whether the two intervals have anything in common.
    pub agrees: bool,
}

/// After a promotion: prediction and outcome, side by side.
pub(super) fn predictions(report: &Report) -> Vec<Prediction> {
    let outcomes = &report.status.outcomes;
    let scale = StripScale::over(outcomes.iter().flat_map(|outcome| [outcome.predicted, outcome.observed]));
    outcomes
        .iter()
        .map(|outcome| Prediction {
            what: what(outcome.class, outcome.quantile),
            before: wording::latency(outcome.before_us),
            after: wording::latency(outcome.after_us),
            predicted: wording::difference(outcome.predicted.delta),
            predicted_interval: wording::interval(outcome.predicted.low, outcome.predicted.high),
            predicted_strip: scale.strip(outcome.predicted, "c0"),
            observed: wording::difference(outcome.observed.delta),
            observed_interval: wording::interval(outcome.observed.low, outcome.observed.high),
            observed_strip: scale.strip(outcome.observed, "prod"),
            agrees: outcome.predicted.low <= outcome.observed.high && outcome.observed.low <= outcome.predicted.high,
        })
        .collect()
}
