//! The page as its template sees it: sentences, tables and finished charts, in the order in which
//! somebody who was not there asks for them.

mod change;
mod findings;

use askama::Template;
use understudy_crds::{
    labels::{BASELINE, PRODUCTION},
    report::{Report, TimelineEvent},
};

use self::{
    change::Change,
    findings::{Finding, Headline, Prediction},
};
use super::{
    curves::{self, Titled},
    delta,
    forest::{self, Forest},
    trust::{self, Check},
};
use crate::analysis::wording;

/// Colour classes of candidates, in their order; there are at most eight.
const CANDIDATE_COLOURS: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];

/// Everything the template shows.
#[derive(Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    name: String,
    /// When and on what it ran.
    when: String,
    hypothesis: String,
    headline: Headline,
    findings: Vec<Finding>,
    checks: Vec<Check>,
    sides: Vec<Side>,
    curves: Vec<Titled>,
    deltas: Vec<Titled>,
    forests: Vec<Forest>,
    several: bool,
    plans: Vec<Plans>,
    changes: Vec<Change>,
    timeline: Vec<Event>,
    predictions: Vec<Prediction>,
    environment: Vec<(&'static str, String)>,
    document: String,
}

/// One side, for the legend.
struct Side {
    name: String,
    colour: String,
    what: &'static str,
}

/// The plans of one statement, side by side.
struct Plans {
    text: String,
    sides: Vec<(String, String)>,
}

/// One event of the timeline.
struct Event {
    time: String,
    step: String,
    message: String,
}

impl Page {
    pub(super) fn of(report: &Report) -> Self {
        let spec = &report.experiment.spec;
        let name = report.experiment.metadata.name.clone().unwrap_or_default();
        let sides = sides(report);
        let colours: Vec<(String, String)> =
            sides.iter().map(|side| (side.name.clone(), side.colour.clone())).collect();
        let colour_of = |name: &str| {
            let known = colours.iter().find(|(side, _)| side == name);
            known.map_or_else(|| "c0".to_owned(), |(_, colour)| colour.clone())
        };
        let forests = forest::forests(report, colour_of);
        Self {
            when: when(report),
            hypothesis: unbroken(&spec.hypothesis.clone().unwrap_or_else(|| question(report))),
            headline: findings::headline(report),
            findings: findings::findings(report),
            checks: trust::checks(report),
            curves: curves::panels(report, &colours),
            deltas: delta::panels(report, colour_of),
            several: forests.len() > 1,
            forests,
            plans: plans(report),
            changes: spec.candidates.iter().map(change::of).collect(),
            timeline: report.timeline.iter().map(event).collect(),
            predictions: findings::predictions(report),
            environment: environment(report),
            document: document(report),
            sides,
            name,
        }
    }
}

fn sides(report: &Report) -> Vec<Side> {
    let side = |name: &str, colour: &str, what| Side { name: name.to_owned(), colour: colour.to_owned(), what };
    let candidates = report.experiment.spec.candidates.iter().zip(CANDIDATE_COLOURS);
    [side(PRODUCTION, "prod", "the worker"), side(BASELINE, "base", "a clone as it is")]
        .into_iter()
        .chain(candidates.map(|(candidate, colour)| side(&candidate.name, colour, "a clone with the change")))
        .filter(|side| report.curves.contains_key(&side.name))
        .collect()
}

/// What is asked where the user did not say.
fn question(report: &Report) -> String {
    match report.experiment.spec.candidates.as_slice() {
        [] => "How far can clones of this worker be trusted?".to_owned(),
        [only] => format!("Would {} make this worker better?", only.name),
        _ => "Which of these changes would make this worker better?".to_owned(),
    }
}

fn when(report: &Report) -> String {
    let environment = &report.environment;
    let (from, to) = (moment(&environment.started_at), moment(&environment.ended_at));
    let from_day = environment.started_at.get(..10).unwrap_or_default();
    let mut parts = Vec::new();
    if !from_day.is_empty() {
        parts.push(if to.is_empty() { format!("{from_day} {from}") } else { format!("{from_day}, {from} to {to}") });
    }
    if !environment.postgres.is_empty() {
        parts.push(format!("PostgreSQL {}", environment.postgres));
    }
    parts.join(" · ")
}

/// The time of day of an RFC 3339 time.
fn moment(at: &str) -> String {
    at.get(11..19).unwrap_or(at).to_owned()
}

fn event(event: &TimelineEvent) -> Event {
    Event { time: moment(&event.at), step: event.step.clone(), message: unbroken(&event.message) }
}

/// Text whose numbers stay with their units at the end of a line.
pub(super) fn unbroken(text: &str) -> String {
    const NARROW_NO_BREAK_SPACE: char = '\u{202f}';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(' ') {
        out.push_str(before);
        let unit = after.split([' ', ',', ';', ']', '.']).next().unwrap_or_default();
        let number = before.ends_with(|c: char| c.is_ascii_digit());
        let bound = number && matches!(unit, "%" | "µs" | "ms" | "s" | "min" | "h" | "d" | "MB" | "GB" | "MiB" | "GiB");
        out.push(if bound { NARROW_NO_BREAK_SPACE } else { ' ' });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn plans(report: &Report) -> Vec<Plans> {
    let order = |name: &str| match name {
        PRODUCTION => 0,
        BASELINE => 1,
        _ => 2,
    };
    report
        .fingerprints
        .iter()
        .filter(|fingerprint| !fingerprint.plans.is_empty())
        .map(|fingerprint| {
            let mut sides: Vec<(String, String)> =
                fingerprint.plans.iter().map(|(arm, plan)| (arm.clone(), plan.clone())).collect();
            sides.sort_by_key(|(name, _)| order(name));
            Plans { text: fingerprint.text.clone(), sides }
        })
        .collect()
}

fn environment(report: &Report) -> Vec<(&'static str, String)> {
    let environment = &report.environment;
    let gib = |bytes: i64| format!("{:.1} GiB", bytes as f64 / f64::from(1_u32 << 30));
    let size = |bytes: i64| if bytes < 1 << 30 { format!("{} MiB", bytes >> 20) } else { gib(bytes) };
    let known = |value: String, is_known: bool| if is_known { value } else { "not recorded".to_owned() };
    vec![
        ("Understudy", known(environment.understudy.clone(), !environment.understudy.is_empty())),
        ("PostgreSQL", known(environment.postgres.clone(), !environment.postgres.is_empty())),
        ("Platform", known(environment.platform.clone(), !environment.platform.is_empty())),
        ("Cores", known(environment.cores.to_string(), environment.cores > 0)),
        ("Memory", known(gib(environment.memory_bytes), environment.memory_bytes > 0)),
        ("Data of the worker", known(size(environment.data_bytes), environment.data_bytes > 0)),
        ("Clones live behind by", format!("{:.1} s", environment.shift_ms as f64 / 1e3)),
        ("Started", known(environment.started_at.clone(), !environment.started_at.is_empty())),
        ("Ended", known(environment.ended_at.clone(), !environment.ended_at.is_empty())),
        ("Statements of production", wording::count(statements(report))),
    ]
}

fn statements(report: &Report) -> u64 {
    report.status.production.latency.values().map(|latency| u64::try_from(latency.count).unwrap_or(0)).sum()
}

/// The experiment as `understudy run -f` takes it.
fn document(report: &Report) -> String {
    let mut experiment = report.experiment.clone();
    experiment.status = None;
    serde_saphyr::to_string(&experiment).unwrap_or_else(|error| format!("# not printable: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_with_their_units() {
        assert_eq!(
            unbroken("reads p95 −74.5 %, criterion was −15 %; 2.7 ms"),
            "reads p95 −74.5\u{202f}%, criterion was −15\u{202f}%; 2.7\u{202f}ms"
        );
        assert_eq!(unbroken("12 transactions in 3 steps % x"), "12 transactions in 3 steps % x");
    }
}
