//! The report: everything an experiment found out, on one page and as JSON.
//!
//! [`build`] puts it together, from a running experiment or from the store alike; [`json`] and [`html`]
//! print it. The page is one file that needs nothing else: no network, no script, no font.
//! Everything here is pure; statements and names are user data and are escaped, and no values that
//! stood in a statement are shown.

mod chart;
mod curves;
mod delta;
mod forest;
mod page;
mod plan;
mod trust;

use understudy_crds::{
    ShadowExperiment, ShadowExperimentStatus,
    report::{Environment, FingerprintReport, Report, TimelineEvent},
};

use crate::{analysis::Analysis, store::Recorded};

/// What a report is made of besides what was measured.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The experiment as it was asked for.
    pub experiment: ShadowExperiment,
    /// What was found.
    pub status: ShadowExperimentStatus,
    /// Where it ran.
    pub environment: Environment,
    /// Statements, those that took most of production's time first, with plans of those that moved.
    pub fingerprints: Vec<FingerprintReport>,
    /// What happened, in order.
    pub timeline: Vec<TimelineEvent>,
}

/// The report of an experiment.
pub fn build(facts: Facts, analysis: &Analysis) -> Report {
    let Facts { experiment, status, environment, mut fingerprints, timeline } = facts;
    for plan in fingerprints.iter_mut().flat_map(|fingerprint| fingerprint.plans.values_mut()) {
        *plan = plan::without_values(plan);
    }
    Report {
        experiment,
        status,
        environment,
        fingerprints,
        curves: analysis.curves(),
        series: analysis.series(),
        timeline,
    }
}

/// The report of what the store has of an experiment; the same as the one made when it ended.
pub fn rebuild(recorded: Recorded) -> Report {
    let Recorded {
        experiment,
        status,
        environment,
        observed,
        promoted: _,
        fingerprints,
        verdicts: _,
        timeline,
        outcomes: _,
    } = recorded;
    let mut analysis = Analysis::of_experiment(&experiment.spec);
    for interval in &observed {
        analysis.push(interval);
    }
    build(Facts { experiment, status, environment, fingerprints, timeline }, &analysis)
}

/// A report that could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The JSON could not be made.
    #[error("the report can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The page could not be made.
    #[error("the report's page can't be made: {0}")]
    Page(#[from] askama::Error),
}

/// `report.json`.
pub fn json(report: &Report) -> Result<String, ReportError> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}

/// `report.html`: one page in one file.
pub fn html(report: &Report) -> Result<String, ReportError> {
    Ok(askama::Template::render(&page::Page::of(report))?)
}

#[cfg(test)]
mod tests;
