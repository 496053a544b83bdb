//! `report.json`: everything the report shows, for programs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    experiment::{ShadowExperiment, StatementClass},
    status::{Effect, ShadowExperimentStatus},
};

/// The whole report of an experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The experiment as it was asked for.
    pub experiment: ShadowExperiment,
    /// What was found.
    pub status: ShadowExperimentStatus,
    /// Where it ran.
    pub environment: Environment,
    /// Statements by normalised text, those that took most of production's time first.
    pub fingerprints: Vec<FingerprintReport>,
    /// Percentile curves: arm, then class, then points.
    #[serde(default)]
    pub curves: BTreeMap<String, BTreeMap<StatementClass, Vec<CurvePoint>>>,
    /// The difference over time, one series for each comparison in `status.comparisons`.
    #[serde(default)]
    pub series: Vec<DeltaSeries>,
    /// What happened when, in order.
    #[serde(default)]
    pub timeline: Vec<TimelineEvent>,
}

/// Where an experiment ran.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    /// Version of Understudy.
    pub understudy: String,
    /// Version of the worker.
    pub postgres: String,
    /// `local` or `kubernetes`.
    pub platform: String,
    /// Cores of the machine.
    pub cores: i64,
    /// Memory of the machine, bytes.
    pub memory_bytes: i64,
    /// When the experiment began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: String,
    /// Size of the worker's data, bytes.
    pub data_bytes: i64,
    /// How long the arms live behind production, ms.
    pub shift_ms: i64,
}

/// One normalised statement.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FingerprintReport {
    /// Identity of the normalised statement, 16 hexadecimal digits.
    pub fingerprint: String,
    /// The statement with its constants replaced by `$n`.
    pub text: String,
    /// What it does.
    pub class: StatementClass,
    /// Statements that production executed.
    pub calls: i64,
    /// p95 of the service time by arm, production included, µs.
    pub p95_us: BTreeMap<String, i64>,
    /// p50 of the service time by arm, production included, µs.
    pub p50_us: BTreeMap<String, i64>,
    /// Candidate against baseline at p95, by candidate. Absent where there are too few calls.
    pub effect: BTreeMap<String, Effect>,
    /// The plan by arm, as `EXPLAIN` prints it. Only of statements that moved most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plans: BTreeMap<String, String>,
}

/// One point of a percentile curve.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CurvePoint {
    /// Quantile, 0 to 1.
    pub quantile: f64,
    /// Service time, µs.
    pub value_us: i64,
}

/// A difference over time.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaSeries {
    /// The arm that is judged.
    pub candidate: String,
    /// The arm it is held against.
    pub against: String,
    /// The statements.
    pub class: StatementClass,
    /// The quantile.
    pub quantile: f64,
    /// Seconds of observation, with what was known then.
    pub points: Vec<DeltaPoint>,
}

/// What was known at one moment.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaPoint {
    /// Seconds since observation began.
    pub seconds: f64,
    /// The difference.
    pub effect: Effect,
}

/// One event.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEvent {
    /// RFC 3339.
    pub at: String,
    /// The step: `worker`, `mirror`, `clones`, `cut`, …
    pub step: String,
    /// What happened, in a sentence.
    pub message: String,
}
