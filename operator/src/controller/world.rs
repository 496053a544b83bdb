//! Everything that is known about one experiment at one moment, as plain data. Nothing in here asks
//! anybody; `dereference` fills it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod, Service},
};
use understudy_crds::{ShadowExperiment, ShadowExperimentStatus};

use super::{names::Names, objects::Kind, rollout::Attempt};

/// What the controller was told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The image with our programs, for the mirror pod and the arms' init containers.
    pub image: String,
    /// When a node pulls it.
    pub image_pull_policy: Option<String>,
    /// The only namespace to look at; all of them without it.
    pub namespace: Option<String>,
    /// The cluster's domain, where names need it.
    pub cluster_domain: Option<String>,
}

/// One experiment's world.
#[derive(Clone, Debug)]
pub struct World {
    /// What is asked, and what was last said about it.
    pub experiment: ShadowExperiment,
    /// What its things are called.
    pub names: Names,
    /// When this was seen.
    pub now: Timestamp,
    /// The StatefulSet of the worker.
    pub stateful_set: Option<StatefulSet>,
    /// The StatefulSet's governing Service is there, so its pods have names in the DNS.
    pub governed: bool,
    /// The worker's pod.
    pub worker: Option<Pod>,
    /// The claim that holds the worker's data.
    pub worker_claim: Option<PersistentVolumeClaim>,
    /// The Service through which clients reach the worker.
    pub service: Option<Service>,
    /// The pods that the Service selects by its own selector, ours left out.
    pub selected: Vec<String>,
    /// Whether the Secret can be used.
    pub credentials: Credentials,
    /// Other experiments on the same worker.
    pub rivals: Vec<Rival>,
    /// What we have made so far.
    pub ours: Ours,
    /// What the mirror pod says.
    pub mirror: MirrorSaid,
    /// How the rollout's step that runs now, or ran last, is.
    pub attempt: Option<Attempt>,
}

/// The Secret with the worker's superuser. Its password is not in here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// There is no such Secret.
    #[default]
    Missing,
    /// It lacks these keys.
    Incomplete(Vec<&'static str>),
    /// It is complete.
    Complete {
        /// The role.
        user: String,
    },
}

/// Another experiment on the same worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// It was there first, so it has the worker.
    pub first: bool,
}

/// What has been made for the experiment.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    /// Everything, by kind and name, with what it was made from.
    pub objects: BTreeMap<(Kind, String), Existing>,
    /// The mirror's pod.
    pub mirror: Option<Pod>,
    /// The arms' pods by arm.
    pub arms: BTreeMap<String, Pod>,
}

/// Something that we made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// What it was made from.
    pub revision: String,
    /// It is being deleted.
    pub going: bool,
    /// The arm that it belongs to.
    pub arm: Option<String>,
}

/// What the mirror pod says.
#[derive(Clone, Debug, Default)]
pub struct MirrorSaid {
    /// Whether `/healthz` answered just now; none when there is nobody to ask.
    pub healthy: Option<bool>,
    /// How often in a row it has not answered.
    pub silent: u32,
    /// Its status.
    pub status: Option<Box<ShadowExperimentStatus>>,
    /// The version of the candidates that its arms are of, where it has a status.
    pub candidates: String,
}
