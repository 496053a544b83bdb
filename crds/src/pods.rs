//! What the operator hands to the pods that it makes: the mirror pod's and the arm pods' documents, and
//! the names, ports and paths on which both sides agree.
//!
//! Data only. A password is never in here: it stands in a file that the pod mounts from the Secret.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    condition::ArmRole,
    experiment::{Candidate, LocalTarget, ShadowExperimentSpec},
};

/// Where clients reach the mirror pod, and the mirror reaches an arm's PostgreSQL, over mutual TLS.
pub const POSTGRES_PORT: u16 = 5432;
/// Where both kinds of pods answer whether they are well: `/healthz`, `/readyz`, and the mirror pod `/metrics`. Plain HTTP, no verbs,
/// nothing about anybody's data.
pub const HEALTH_PORT: u16 = 8080;
/// Where the mirror pod answers its operator, over mutual TLS: `GET /v1/status`, `GET /v1/report.json`,
/// `POST /v1/halt`, `GET` and `POST /v1/candidates` ([`CandidatesTaken`], [`CandidatesNotice`]), `POST /v1/promotion` ([`PromotionNotice`]), and
/// `POST /v1/release`: no Service leads here any more, so the mirror may end once its clients have left.
pub const CONTROL_PORT: u16 = 8443;
/// Where an arm pod answers its mirror pod, over mutual TLS: `/v1/arm` and its verbs.
pub const AGENT_PORT: u16 = 8444;

/// Where a pod finds its document.
pub const CONFIG_FILE: &str = "/etc/understudy/config.json";
/// Where a pod finds `ca.crt`, `tls.crt` and `tls.key`; the certificate serves as server's and client's.
pub const TLS_DIR: &str = "/etc/understudy/tls";
/// Where a pod finds `password`, the worker's superuser's.
pub const CREDENTIALS_DIR: &str = "/etc/understudy/credentials";
/// Where an arm pod's volume is.
pub const DATA_DIR: &str = "/var/lib/understudy/data";
/// Where an arm pod finds the `understudy-operator` program, put there by an init container.
pub const PROGRAM_DIR: &str = "/understudy/bin";
/// Where a pod may write what need not outlive it.
pub const SCRATCH_DIR: &str = "/run/understudy";

/// The mirror pod's document (`understudy-operator mirror --config FILE`).
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorPod {
    /// The experiment's name.
    pub experiment: String,
    /// Its namespace.
    pub namespace: String,
    /// What is asked.
    pub spec: ShadowExperimentSpec,
    /// How the worker is reached directly, and where the mirror listens. `password_file` is a path in
    /// the pod.
    pub worker: LocalTarget,
    /// What this version of the candidates is called.
    pub candidates: String,
    /// The arms, the baseline first.
    pub arms: Vec<ArmPeer>,
}

/// The candidates that there shall be, and where their arms are (`POST /v1/candidates`). It may come more than
/// once; only what it changes is touched.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CandidatesNotice {
    /// What this version of them is called.
    pub version: String,
    /// All candidates.
    pub candidates: Vec<Candidate>,
    /// All arms, the baseline first.
    pub arms: Vec<ArmPeer>,
}

/// The candidates that the mirror pod's arms are of (`GET /v1/candidates`).
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CandidatesTaken {
    /// Their version; arms that are of none of them have been let go of.
    pub version: String,
}

/// An arm, as the mirror pod finds it.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArmPeer {
    /// `baseline`, or the candidate's name.
    pub name: String,
    /// What it is for.
    pub role: ArmRole,
    /// Its pod's DNS name.
    pub host: String,
    /// What it is made from; another one for a candidate that was changed.
    pub revision: String,
}

/// An arm pod's document (`understudy-operator arm --config FILE`).
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArmPod {
    /// The experiment's name.
    pub experiment: String,
    /// Its namespace.
    pub namespace: String,
    /// `baseline`, or the candidate's name.
    pub arm: String,
    /// What it is for.
    pub role: ArmRole,
    /// What it is made from.
    pub revision: String,
    /// The change; none for the baseline.
    pub candidate: Option<Candidate>,
    /// Its place among `spec.candidates`, for messages.
    pub candidate_index: Option<usize>,
    /// How the worker is reached directly.
    pub worker: LocalTarget,
}

/// What the operator tells the mirror pod about a promotion (`POST /v1/promotion`). It may come more
/// than once.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromotionNotice {
    /// How far it is.
    pub state: PromotionState,
    /// The candidate that is rolled out.
    pub candidate: String,
}

/// How far a promotion is.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromotionState {
    /// The first worker gets the change now.
    Began,
    /// All workers have it: what production does from here on is the outcome.
    Ended,
}
