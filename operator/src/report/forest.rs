//! What moved: a row for each statement, with its difference as a dot and its interval as a line, all
//! on one scale.

use std::fmt::Write as _;

use understudy_crds::{
    labels::BASELINE,
    report::{FingerprintReport, Report},
    status::Effect,
};

use super::chart::{Scale, escaped};
use crate::analysis::wording;

/// Rows shown; the rest is counted.
const ROWS: usize = 12;
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 24.0;
const MARGIN: f64 = 8.0;

/// The statements of one candidate.
pub(super) struct Forest {
    pub candidate: String,
    pub rows: Vec<Row>,
    /// The axis under the rows.
    pub axis: String,
    /// What is said about the statements that have no row; empty when there are none.
    pub rest: String,
}

/// One statement.
pub(super) struct Row {
    pub text: String,
    pub calls: String,
    pub before: String,
    pub after: String,
    pub delta: String,
    pub interval: String,
    pub moved: bool,
    pub strip: String,
}

/// A forest for each candidate that has an effect on some statement.
pub(super) fn forests(report: &Report, colour_of: impl Fn(&str) -> String) -> Vec<Forest> {
    let names = report.experiment.spec.candidates.iter().map(|candidate| candidate.name.as_str());
    names.filter_map(|name| forest(&report.fingerprints, name, &colour_of(name))).collect()
}

fn forest(fingerprints: &[FingerprintReport], candidate: &str, colour: &str) -> Option<Forest> {
    let mut with_effect: Vec<(&FingerprintReport, Effect)> =
        fingerprints.iter().filter_map(|f| Some((f, *f.effect.get(candidate)?))).collect();
    if with_effect.is_empty() {
        return None;
    }
    // What moved comes first; within that, the order of production's time stays.
    with_effect.sort_by_key(|(_, effect)| !moved(effect));
    let range = StripScale::over(with_effect.iter().take(ROWS).map(|(_, effect)| *effect));
    let rows = with_effect.iter().take(ROWS).map(|(f, effect)| row(f, *effect, candidate, colour, &range)).collect();
    let (hidden, few) = (with_effect.len().saturating_sub(ROWS), fingerprints.len().saturating_sub(with_effect.len()));
    let mut rest = Vec::new();
    if hidden > 0 {
        rest.push(format!("{hidden} more are in report.json"));
    }
    if few > 0 {
        let were = if few == 1 { "statement was" } else { "statements were" };
        rest.push(format!("{few} {were} called too seldom for an interval"));
    }
    Some(Forest { candidate: candidate.to_owned(), rows, axis: range.axis(), rest: rest.join("; ") })
}

fn row(f: &FingerprintReport, effect: Effect, candidate: &str, colour: &str, range: &StripScale) -> Row {
    let latency = |arm: &str| f.p95_us.get(arm).map(|us| wording::latency(*us)).unwrap_or_default();
    Row {
        text: f.text.clone(),
        calls: wording::count(u64::try_from(f.calls).unwrap_or(0)),
        before: latency(BASELINE),
        after: latency(candidate),
        delta: wording::difference(effect.delta),
        interval: wording::interval(effect.low, effect.high),
        moved: moved(&effect),
        strip: range.strip(effect, colour),
    }
}

fn moved(effect: &Effect) -> bool {
    effect.low > 0.0 || effect.high < 0.0
}

/// The one scale of all strips: logarithm of the ratio, zero within.
pub(super) struct StripScale {
    x: Scale,
    low: f64,
    high: f64,
}

impl StripScale {
    /// A scale that shows all of some effects; what is far out is cut off.
    pub(super) fn over(effects: impl Iterator<Item = Effect>) -> Self {
        let (mut low, mut high) = (-0.1_f64, 0.1_f64);
        for effect in effects {
            low = low.min(log(effect.low));
            high = high.max(log(effect.high));
        }
        let (low, high) = (low.max(-3.5) * 1.05, high.min(2.5) * 1.05);
        Self { x: Scale::new((low, high), (MARGIN, WIDTH - MARGIN)), low, high }
    }

    /// One effect: a dot with its interval, and the line of no difference.
    pub(super) fn strip(&self, effect: Effect, colour: &str) -> String {
        let middle = HEIGHT / 2.0;
        let (zero, dot) = (self.x.at(0.0), self.x.at(log(effect.delta)));
        let bounded = |value: f64| self.x.at(log(value)).clamp(1.0, WIDTH - 1.0);
        let (low, high) = (bounded(effect.low), bounded(effect.high));
        let about = format!("{} {}", wording::difference(effect.delta), wording::interval(effect.low, effect.high));
        format!(
            r#"<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}"><path class="rule zero" d="M{zero:.1} 0V{HEIGHT}"/><path class="line {colour}" d="M{low:.1} {middle}H{high:.1}"/><circle class="dot {colour}" cx="{dot:.1}" cy="{middle}" r="4"/></svg>"#,
            escaped(&about)
        )
    }

    /// The axis of the strips.
    pub(super) fn axis(&self) -> String {
        const TICKS: [f64; 11] = [0.0, -0.9, 1.0, -0.5, -0.75, 4.0, -0.25, 0.5, 0.25, -0.1, 0.1];
        let mut places: Vec<(f64, f64)> = Vec::new();
        for tick in TICKS {
            let place = self.x.at(log(tick));
            let within = (self.low..=self.high).contains(&log(tick)) && (18.0..=WIDTH - 18.0).contains(&place);
            if within && places.iter().all(|(_, other)| (place - other).abs() > 44.0) {
                places.push((tick, place));
            }
        }
        let mut labels = String::new();
        for (tick, x) in &places {
            let label = escaped(&wording::threshold(*tick));
            // Writing to a string never fails.
            let _ = write!(
                labels,
                r#"<path class="grid" d="M{x:.1} 0v5"/><text class="tick" x="{x:.1}" y="18" text-anchor="middle">{label}</text>"#
            );
        }
        format!(r#"<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{labels}</svg>"#)
    }
}

fn log(relative: f64) -> f64 {
    relative.max(-0.999).ln_1p()
}
