//! The `ShadowExperiment`: what a user writes.
//!
//! Plain data with its schema. Rules between fields are CEL rules here, so that the API server
//! enforces them, and the same rules in [`crate::validate`] for documents that never meet one.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    quantity::{ByteSize, Percent, Span},
    status::ShadowExperimentStatus,
};

/// An experiment: a worker, its candidates, and the rules for stopping and for judging.
///
/// Understudy clones the worker once per candidate and once unchanged (the baseline), plays every
/// read and write of the worker's real traffic to the clones, and compares them.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "ShadowExperiment",
    plural = "shadowexperiments",
    singular = "shadowexperiment",
    shortname = "shadow",
    category = "understudy",
    namespaced,
    status = "ShadowExperimentStatus",
    derive = "PartialEq",
    doc = "A question about a production PostgreSQL worker, would this change make it better?, and its answer: the worker is cloned with the change, real traffic is mirrored to the clone, and what is measured there is judged. `spec` is what you ask; `status` is what has been found.",
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("the experiment's name needs lower-case letters, digits and '-', at most 63, '-' not at the ends"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Verdict","type":"string","jsonPath":".status.verdict.outcome"}"#,
    printcolumn = r#"{"name":"Read p95","type":"string","jsonPath":".status.summary.readP95"}"#,
    printcolumn = r#"{"name":"Write p95","type":"string","jsonPath":".status.summary.writeP95"}"#,
    printcolumn = r#"{"name":"Lag","type":"string","jsonPath":".status.summary.lag"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("size(self.success) == 0 || size(self.candidates) > 0")
    .message("success criteria judge candidates; there are none").field_path(".success"))]
#[x_kube(validation = Rule::new("self.target == oldSelf.target")
    .message("target can't be changed; make another experiment").field_path(".target"))]
pub struct ShadowExperimentSpec {
    /// What you expect to happen, in your own words; it heads the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub hypothesis: Option<String>,
    /// The production worker under study.
    pub target: Target,
    /// How the worker is cloned.
    #[serde(default)]
    pub clone: CloneSpec,
    /// How a clone leaves the worker's WAL and joins the mirrored traffic.
    #[serde(default)]
    pub cut: CutSpec,
    /// How traffic is captured and kept until every arm has played it.
    #[serde(default)]
    pub capture: CaptureSpec,
    /// Whether an unchanged clone runs beside the candidates, so that noise is known (A/A). To go without one is not
    /// supported yet.
    #[serde(default = "yes")]
    pub baseline: bool,
    /// The changes under test, one clone for each; they may be added, changed and removed while the
    /// experiment runs. Empty: an A/A test of the baseline alone.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub candidates: Vec<Candidate>,
    /// What happens to facts that only production knows and that an arm got differently: `Repair`
    /// corrects them on the arm (not supported yet), `Count` counts them as divergence. Unset: the best that the platform
    /// supports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub align: Option<Align>,
    /// Which part of the traffic is played.
    #[serde(default)]
    pub traffic: TrafficSpec,
    /// How long the experiment warms up, and observes at least and at most.
    #[serde(default)]
    pub schedule: Schedule,
    /// What the candidate must achieve. Empty: reads no slower at p95, and writes at most 5 % slower.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub success: Vec<Criterion>,
    /// Conditions that stop the experiment by themselves.
    #[serde(default)]
    pub guardrails: Guardrails,
    /// What happens with a candidate that is Better.
    #[serde(default)]
    pub promotion: Promotion,
    /// The kill switch: production goes direct, at once.
    #[serde(default)]
    pub halt: bool,
}

/// The production worker under study: exactly one of the four.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "[has(self.statefulSet), has(self.local), has(self.cloudNativePg), has(self.citus)].filter(t, t).size() == 1")
    .message("target needs exactly one of statefulSet, local, cloudNativePg, citus"))]
pub struct Target {
    /// One pod of a StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<StatefulSetTarget>,
    /// A server that this machine reaches directly; for the local platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalTarget>,
    /// A worker that CloudNativePG runs. Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_native_pg: Option<ReservedTarget>,
    /// A worker of a Citus cluster. Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citus: Option<ReservedTarget>,
}

/// One pod of a StatefulSet.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatefulSetTarget {
    /// The StatefulSet's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Which pod of it.
    #[schemars(range(min = 0))]
    pub ordinal: i32,
    /// The Service through which clients reach that pod.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// The database that the candidate's SQL runs in.
    #[schemars(length(min = 1, max = 63))]
    pub database: String,
    /// The Secret, in the experiment's namespace, with `username` and `password` of a superuser.
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret: String,
}

/// A server that this machine reaches directly.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalTarget {
    /// Host name, address, or the directory of the server's unix socket.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port, 1 to 65535.
    #[serde(default = "postgres_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// A superuser of the worker.
    #[schemars(length(min = 1, max = 63))]
    pub user: String,
    /// The database that the candidate's SQL runs in.
    #[schemars(length(min = 1, max = 63))]
    pub database: String,
    /// A file whose first line is the user's password. Not needed where the server asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub password_file: Option<String>,
    /// Where the mirror listens for the worker's clients, as `HOST:PORT`; port 0 takes a free one.
    #[serde(default = "listen_anywhere")]
    #[schemars(
        length(min = 1, max = 260),
        regex(
            pattern = r"^([^:\[\]\s]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
        )
    )]
    pub listen: String,
}

/// A target whose kind is reserved for later; nothing can be said about it yet.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservedTarget {}

/// How the worker is cloned.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloneSpec {
    /// What copies the data: `BaseBackup` takes a base backup while the worker serves,
    /// `VolumeSnapshot` takes a snapshot of the worker's volume (not supported yet).
    #[serde(default)]
    pub method: CloneMethod,
}

/// What copies the data.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloneMethod {
    /// `pg_basebackup`, while the worker serves.
    #[default]
    BaseBackup,
    /// A snapshot of the worker's volume: not supported yet.
    VolumeSnapshot,
}

/// How a clone leaves the worker's WAL.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CutSpec {
    /// The longest time for which new transactions may wait while the cut is made.
    #[serde(default = "max_pause")]
    pub max_pause: Span,
}

/// How traffic is captured.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaptureSpec {
    /// The most memory that captured traffic may take. Unset: an eighth of the machine's, at most 2Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// The most disk that captured traffic may take once half of the memory is used. Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// What happens to sessions that reach the worker without passing the mirror: with `Wait` the cut
    /// waits until they have gone, with `Terminate` they are terminated before the cut, with `Ignore`
    /// they stay and what they write is reported as a leak.
    #[serde(default)]
    pub direct: DirectSessions,
}

/// What happens to sessions that reach the worker without passing the mirror.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectSessions {
    /// The cut waits until they have gone.
    #[default]
    Wait,
    /// They are terminated before the cut.
    Terminate,
    /// They stay; what they write is reported as a leak.
    Ignore,
}

/// One change under test. The clone is the worker plus this; promotion is every worker plus this.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(self.name in ['production', 'baseline'])")
    .message("production and baseline are names of other arms").field_path(".name"))]
#[x_kube(validation = Rule::new("!has(self.parameters) || self.parameters.all(p, p.size() <= 63 && p.matches('^[A-Za-z_][A-Za-z0-9_.]*$'))")
    .message("a parameter's name needs letters, digits, '_' and '.', at most 63, and begins with a letter").field_path(".parameters"))]
pub struct Candidate {
    /// The candidate's name, unique in the experiment: lower-case letters, digits and `-`. It names
    /// the arm in status, metrics and files.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Server settings, as they would stand in `postgresql.conf`; every value is a string, so quote
    /// numbers and words like `off`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub parameters: BTreeMap<String, String>,
    /// SQL that makes the change, and SQL that takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<CandidateSql>,
    /// Another storage: the file system under the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageChange>,
    /// Kubernetes: another kind of machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceChange>,
    /// Kubernetes: another PostgreSQL image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Local platform: the directory of another build's server binaries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub binaries: Option<String>,
}

/// SQL that makes the change, and SQL that takes it back.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CandidateSql {
    /// Statements run in order, each by itself (so that `CONCURRENTLY` works).
    #[schemars(length(min = 1, max = 64), inner(length(min = 1)))]
    pub apply: Vec<String>,
    /// Statements that take the change back, run in order when a promotion's check fails.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub revert: Vec<String>,
}

/// Another storage.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageChange {
    /// Kubernetes: the storage class of the clone's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Kubernetes: the size of the clone's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// Local platform: the directory in which the clone's data is put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub directory: Option<String>,
}

/// Another kind of machine.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceChange {
    /// Labels that the clone's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the clone's pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<k8s_openapi::api::core::v1::Toleration>,
    /// CPU and memory of the clone's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<k8s_openapi::api::core::v1::ResourceRequirements>,
}

/// What happens to facts that only production knows and that an arm got differently.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Align {
    /// Corrected on the arm.
    Repair,
    /// Counted as divergence.
    Count,
}

/// Which part of the traffic is played.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficSpec {
    /// Per cent of read-only sessions that are played. Sessions that write are always played. Less than 100 is not
    /// supported yet.
    #[serde(default = "all_reads")]
    #[schemars(range(min = 0, max = 100))]
    pub reads: i32,
}

/// `minimum <= maximum` in CEL, in seconds, since CEL's durations know no days. Where there are none,
/// `indexOf` is -1 and the rest is the whole. Parts of a second are left to [`crate::validate`].
const MINIMUM_WITHIN_MAXIMUM: &str = "\
(self.minimum.contains('d') ? int(self.minimum.substring(0, self.minimum.indexOf('d'))) * 86400 : 0) \
+ duration('0h' + self.minimum.substring(self.minimum.indexOf('d') + 1)).getSeconds() \
<= (self.maximum.contains('d') ? int(self.maximum.substring(0, self.maximum.indexOf('d'))) * 86400 : 0) \
+ duration('0h' + self.maximum.substring(self.maximum.indexOf('d') + 1)).getSeconds()";

/// How long the experiment warms up and observes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(MINIMUM_WITHIN_MAXIMUM).message("minimum is longer than maximum"))]
pub struct Schedule {
    /// Traffic is played but not measured for this long after an arm has caught up.
    #[serde(default = "warm_up")]
    pub warm_up: Span,
    /// No verdict before this much observation.
    #[serde(default = "minimum")]
    pub minimum: Span,
    /// The end, with or without a clear verdict; no arm may take longer to catch up, either.
    #[serde(default = "maximum")]
    pub maximum: Span,
}

/// What a candidate must achieve: exactly one of `improveBy` and `regressBy`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.improveBy) != has(self.regressBy)")
    .message("a criterion needs exactly one of improveBy and regressBy"))]
pub struct Criterion {
    /// The statements that are judged: `Read` changes nothing, `Write` may change data or lock it,
    /// `Commit` ends a transaction that wrote, `Utility` is everything else.
    pub class: StatementClass,
    /// The quantile of their latency, between 0.01 and 0.999.
    #[schemars(range(min = 0.01, max = 0.999))]
    pub quantile: f64,
    /// Holds when the candidate is faster than the baseline by at least this much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub improve_by: Option<Percent>,
    /// Holds when the candidate is slower than the baseline by no more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regress_by: Option<Percent>,
}

/// What a statement does; latency is kept apart for each.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StatementClass {
    /// Changes nothing.
    Read,
    /// May change data or lock it.
    Write,
    /// Ends a transaction that wrote.
    Commit,
    /// Everything else: settings, transaction control, DDL.
    Utility,
}

impl StatementClass {
    /// All classes, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Commit, Self::Utility];

    /// The class in lower case, as it stands in status, metrics and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Commit => "commit",
            Self::Utility => "utility",
        }
    }
}

/// Conditions that stop the experiment by themselves.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guardrails {
    /// The most that an arm may fall behind production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<Span>,
    /// The largest share of statements whose outcome may differ from production's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_divergence: Option<Percent>,
    /// The most that the mirror may add to a request at the 99th percentile, which is known in powers of two of microseconds,
    /// rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_production_overhead: Option<Span>,
}

/// What happens with a candidate that is Better.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Promotion {
    /// Who decides: with `Manual` a person does (`understudy promote`), with `Automatic` the verdict:
    /// Better is promoted.
    #[serde(default)]
    pub policy: PromotionPolicy,
}

/// Who decides about the promotion.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromotionPolicy {
    /// A person.
    #[default]
    Manual,
    /// The verdict: Better is promoted.
    Automatic,
}

impl Default for CutSpec {
    fn default() -> Self {
        Self { max_pause: max_pause() }
    }
}

impl Default for TrafficSpec {
    fn default() -> Self {
        Self { reads: all_reads() }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self { warm_up: warm_up(), minimum: minimum(), maximum: maximum() }
    }
}

fn yes() -> bool {
    true
}

fn postgres_port() -> i32 {
    5432
}

fn listen_anywhere() -> String {
    "127.0.0.1:0".to_owned()
}

fn all_reads() -> i32 {
    100
}

fn max_pause() -> Span {
    Span::from_millis(50)
}

fn warm_up() -> Span {
    Span::from_secs(10 * 60)
}

fn minimum() -> Span {
    Span::from_secs(3600)
}

fn maximum() -> Span {
    Span::from_secs(14 * 86_400)
}
