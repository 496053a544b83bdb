//! The closed lists of conditions, their reasons, and the other words that stand in status, metrics
//! and events. One enum for each list; nothing is ever labelled with a free string.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where an experiment stands.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted; nothing has been done yet.
    #[default]
    Pending,
    /// The worker is being cloned.
    Cloning,
    /// The arms play what production did since the cut.
    CatchingUp,
    /// The arms are level with production; nothing is measured yet.
    WarmingUp,
    /// Statements are measured and compared.
    Observing,
    /// There is a verdict.
    Concluded,
    /// The candidate is being applied to the workers.
    Promoting,
    /// The candidate is on all workers.
    Promoted,
    /// The user stopped it; production is direct.
    Halted,
    /// It could not go on; the reason stands in the conditions.
    Failed,
}

/// What a condition is about.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// The experiment can be run: its worker, Service and Secret are there and fit.
    Accepted,
    /// The mirror relays and captures production's traffic.
    Mirroring,
    /// The worker has been cloned and the arms live on mirrored traffic.
    Cloned,
    /// There is a verdict.
    Concluded,
    /// The candidate is on all workers.
    Promoted,
    /// No guardrail has been tripped, no arm lost, nothing leaked.
    Healthy,
}

/// Whether a condition holds.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows yet.
    Unknown,
}

/// Why a condition is as it is.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionReason {
    /// All is as planned.
    AsPlanned,
    /// Still at work.
    InProgress,
    /// The user stopped it.
    HaltedByUser,
    /// A guardrail stopped it.
    GuardrailTripped,
    /// An arm was lost.
    ArmLost,
    /// A write reached the worker without passing the mirror.
    WriteLeaked,
    /// The worker could not be reached, or refused.
    WorkerRefused,
    /// The clone could not be made.
    CloneFailed,
    /// The cut could not be made within the pause that was allowed.
    CutFailed,
    /// The candidate could not be applied.
    CandidateFailed,
    /// The promotion failed and was taken back.
    PromotionReverted,
    /// The experiment is not valid, or asks for what this platform does not support.
    InvalidSpec,
    /// A StatefulSet, pod, Service or Secret that the experiment names is not there.
    TargetMissing,
    /// The mirror can't take the Service's place.
    ServiceNotRoutable,
    /// Somebody else changed the Service while the mirror stood in its place.
    ServiceChanged,
    /// An older experiment is at work on the same worker.
    WorkerTaken,
    /// The cluster refused something that the experiment needs: a quota, a policy.
    ClusterRefused,
    /// A pod can't be started: no node for it, no image, no volume.
    PodNotStarted,
    /// The mirror died or hung; production goes direct.
    MirrorGone,
}

/// One observation about the experiment.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: ConditionReason,
    /// Why, for people.
    pub message: String,
    /// When `status` last changed, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
}

/// What the experiment says about a candidate.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// All criteria hold, one of them an improvement.
    Better,
    /// A criterion is refuted by a candidate that is really slower.
    Worse,
    /// All criteria hold, none of them an improvement.
    Equivalent,
    /// Not clear when the schedule ended, or before it did: by a halt or a guardrail.
    Inconclusive,
    /// A check failed: the numbers may not be believed.
    Invalid,
}

/// Why a verdict is as it is.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VerdictReason {
    /// Every criterion holds.
    CriteriaMet,
    /// A criterion is refuted.
    CriterionRefuted,
    /// An interval still contains its threshold.
    NotConclusive,
    /// No statement of a judged class was seen.
    NoTraffic,
    /// Too few statements or blocks for an interval.
    TooFewSamples,
    /// The baseline does not agree with production.
    BaselineDisagrees,
    /// An arm was lost before the end.
    ArmLost,
    /// More outcomes differed from production's than allowed.
    Diverged,
    /// A guardrail stopped the experiment.
    GuardrailTripped,
    /// The user stopped the experiment before it was clear.
    Halted,
    /// The experiment has no candidate: it measures the noise.
    NoCandidate,
}

/// Where an arm stands.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ArmState {
    /// Its data is being copied, or it follows the worker's WAL.
    Seeding,
    /// It plays what production did since the cut.
    CatchingUp,
    /// It is level with production.
    Live,
    /// It fell off the log, died, or missed a write; nothing it says counts any more.
    Lost,
    /// It was taken away.
    Removed,
}

/// What an arm is for.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ArmRole {
    /// The worker as it is.
    Baseline,
    /// The worker with the change.
    Candidate,
}

/// Why an exchange was deliberately not played.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SkipReason {
    /// It would act outside the arm's own tables.
    SideEffect,
    /// It names a server's own identities: a process, a snapshot, a prepared transaction.
    ServerIdentity,
    /// It belongs to a replication connection: those are counted (`understudy_replication_connections_total`) and not
    /// captured, so no exchange is skipped for it today.
    Replication,
    /// It belongs to a session whose state from before the capture could not be rebuilt.
    UnknownSession,
    /// It was not committed to the arm's past or future: already on the clone at the cut.
    BeforeCut,
}

/// How an arm's outcome differed from production's.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DivergenceKind {
    /// One of the two failed, or they failed differently.
    Error,
    /// Another number of rows.
    RowCount,
    /// Other contents of rows.
    Rows,
    /// Another transaction state after the exchange.
    TransactionState,
    /// It was played out of production's order, since those that it waited for waited for it.
    Order,
}

impl DivergenceKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Error, Self::RowCount, Self::Rows, Self::TransactionState, Self::Order];
}
