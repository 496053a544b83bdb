//! The status of an experiment: the resource's `status`, the answer of the mirror's `/v1/status`,
//! and the `status` of `report.json` are this one type.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    condition::{ArmRole, ArmState, Condition, DivergenceKind, Outcome, Phase, SkipReason, VerdictReason},
    experiment::StatementClass,
};

/// Where an experiment stands and what it has found.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShadowExperimentStatus {
    /// Where the experiment stands.
    pub phase: Phase,
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Observations, one of each type.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What production does.
    pub production: ProductionStatus,
    /// The clones.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub arms: Vec<ArmStatus>,
    /// The differences so far.
    pub comparisons: Vec<Comparison>,
    /// What the experiment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// After a promotion: what was predicted and what production then did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<PromotionOutcome>,
    /// How far the promotion to the workers is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The same, rounded, for `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// How far a promotion is.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// The candidate that is rolled out.
    pub candidate: String,
    /// Workers that have it.
    pub done: i32,
    /// Workers that there are.
    pub of: i32,
    /// The worker that gets it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
}

/// Numbers as `kubectl get` shows them.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// The candidate's read p95 against the baseline's, like `-74.5%`.
    #[serde(rename = "readP95", skip_serializing_if = "Option::is_none")]
    pub read_p95: Option<String>,
    /// The candidate's write p95 against the baseline's.
    #[serde(rename = "writeP95", skip_serializing_if = "Option::is_none")]
    pub write_p95: Option<String>,
    /// How far the slowest arm is behind, like `1.0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
}

/// Latency by class: `read`, `write`, `commit`, `utility`.
pub type LatencyByClass = BTreeMap<ClassKey, Latency>;

/// A statement class as a key in status, in lower case.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClassKey {
    /// [`StatementClass::Read`].
    Read,
    /// [`StatementClass::Write`].
    Write,
    /// [`StatementClass::Commit`].
    Commit,
    /// [`StatementClass::Utility`].
    Utility,
}

impl From<StatementClass> for ClassKey {
    fn from(class: StatementClass) -> Self {
        match class {
            StatementClass::Read => Self::Read,
            StatementClass::Write => Self::Write,
            StatementClass::Commit => Self::Commit,
            StatementClass::Utility => Self::Utility,
        }
    }
}

/// Latency of one class of statements: service time (sent to answered), in microseconds.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Latency {
    /// Statements measured.
    pub count: i64,
    /// Median, µs.
    pub p50_us: i64,
    /// 95th percentile, µs.
    pub p95_us: i64,
    /// 99th percentile, µs.
    pub p99_us: i64,
}

/// What production does.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProductionStatus {
    /// Latency by class.
    pub latency: LatencyByClass,
    /// Client sessions open now.
    pub sessions: i64,
    /// Statements that failed.
    pub errors: i64,
    /// Statements that are played but not measured: the client sent them before it had the answer to
    /// those before, so their own time can't be told apart.
    pub pipelined: i64,
    /// Statements that are played but not measured: production took more than ten minutes for each, and nothing that
    /// began after it could have been looked at before it was done.
    pub too_long: i64,
    /// What the mirror added to a request at the 99th percentile (bytes read until bytes handed on), a power of two that is
    /// an upper limit of it, µs.
    pub overhead_p99_us: i64,
    /// Writes that reached the worker without passing the mirror.
    pub leaks: i64,
}

/// One clone.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmStatus {
    /// `baseline`, or the candidate's name.
    pub name: String,
    /// What it is for.
    pub role: ArmRole,
    /// Where it stands.
    pub state: ArmState,
    /// Why it is `Lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where it can be reached. Local: its unix socket; Kubernetes: the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Where it left the worker's WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutStatus>,
    /// How far it is behind production.
    #[serde(default)]
    pub lag: Lag,
    /// What became of the captured exchanges.
    #[serde(default)]
    pub exchanges: ExchangeCounts,
    /// How often its outcome differed from production's, by kind.
    #[serde(default)]
    pub divergence: BTreeMap<DivergenceKind, i64>,
    /// Statements compared with production's.
    #[serde(default)]
    pub compared: i64,
    /// Statements whose rows were not compared since they overlapped a write of the same tables, or were overtaken by one
    /// on the arm, draw on the clock or on chance, or leave to the plan which rows they pick.
    #[serde(default)]
    pub ambiguous: i64,
    /// Latency by class.
    #[serde(default)]
    pub latency: LatencyByClass,
}

/// The cut of one arm.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CutStatus {
    /// Where the arm left the WAL.
    pub lsn: String,
    /// For how long new transactions waited, ms.
    pub pause_ms: f64,
    /// Attempts, the good one included.
    pub attempts: i32,
    /// Transactions that were open at the cut and are played from their beginning.
    pub carried_over: i32,
}

/// How far an arm is behind production.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lag {
    /// Captured exchanges that have not been played yet.
    pub exchanges: i64,
    /// Age of the oldest of them, s.
    pub seconds: f64,
}

/// What became of the captured exchanges of an arm.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExchangeCounts {
    /// Captured since the cut.
    pub captured: i64,
    /// Played to the end.
    pub played: i64,
    /// Not played although they should have been.
    pub lost: i64,
    /// Deliberately not played, by reason.
    pub skipped: BTreeMap<SkipReason, i64>,
}

/// One difference between two arms, at one quantile of one class.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The arm that is judged. The A/A comparison has `baseline` here.
    pub candidate: String,
    /// The arm it is held against: `baseline`, or `production` for the A/A comparison.
    pub against: String,
    /// The statements.
    pub class: StatementClass,
    /// The quantile of their latency.
    pub quantile: f64,
    /// Relative difference: -0.21 is 21 % less.
    pub delta: f64,
    /// Lower end of the interval; it holds at every look.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Blocks of time that went into it.
    #[serde(default)]
    pub blocks: i64,
    /// Whether the interval decides the criterion (or, without one, excludes zero).
    pub conclusive: bool,
}

/// What the experiment says.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The verdict.
    pub outcome: Outcome,
    /// The candidate it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// Why, for programs.
    pub reason: VerdictReason,
    /// Why, for people, with the numbers.
    pub message: String,
}

/// What was predicted for production, and what it then did, at one quantile of one class.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromotionOutcome {
    /// The statements.
    pub class: StatementClass,
    /// The quantile of their latency.
    pub quantile: f64,
    /// Production's latency while the experiment observed, µs.
    pub before_us: i64,
    /// Production's latency after the promotion, µs.
    pub after_us: i64,
    /// What the experiment had said: candidate against baseline.
    pub predicted: Effect,
    /// What happened: production with the change against the baseline without, on the same
    /// statements at the same moment.
    pub observed: Effect,
}

/// A relative difference with its interval.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// -0.21 is 21 % less.
    pub delta: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}
