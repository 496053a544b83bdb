//! The Kubernetes objects that an experiment needs, as pure functions of what was found fit. Golden
//! files hold their text; a test holds each to its type.

mod arm_pod;
pub mod config;
mod mirror_pod;
mod network_policy;
mod service;
pub mod tls;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource, api::ApiResource};
use serde_json::{Value, json};
use understudy_crds::{
    Candidate,
    condition::ArmRole,
    labels::{BASELINE, REVISION},
};

use super::{fit::Fit, names::fingerprint, world::Settings};

/// Kinds of objects that we make, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Certificates.
    Secret,
    /// Documents of the pods.
    ConfigMap,
    /// Names of the pods.
    Service,
    /// Who may reach the pods.
    NetworkPolicy,
    /// Arms' volumes.
    Volume,
    /// The mirror and the arms.
    Pod,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Secret, Self::ConfigMap, Self::Service, Self::NetworkPolicy, Self::Volume, Self::Pod];

    /// How the API server knows it.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::Volume => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
        }
    }

    /// Whether one that is there is changed when something else is asked for. Pods and volumes are
    /// made anew instead, and certificates stay.
    pub const fn changes_in_place(self) -> bool {
        matches!(self, Self::ConfigMap | Self::Service | Self::NetworkPolicy)
    }
}

/// An object to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The arm that it belongs to.
    pub arm: Option<String>,
    /// What it is made from, for telling whether something else is asked for.
    pub revision: String,
    /// The whole of it.
    pub body: Value,
}

/// An arm that there shall be.
#[derive(Clone, Copy, Debug)]
pub struct WantedArm<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is for.
    pub role: ArmRole,
    /// The change, with its place in the document; none for the baseline.
    pub candidate: Option<(usize, &'a Candidate)>,
}

/// The arms that there shall be, the baseline first.
pub fn arms<'a>(fit: &Fit<'a>) -> Vec<WantedArm<'a>> {
    let spec = &fit.experiment.spec;
    let baseline = spec.baseline.then_some(WantedArm { name: BASELINE, role: ArmRole::Baseline, candidate: None });
    let candidates = spec.candidates.iter().enumerate().map(|(index, candidate)| WantedArm {
        name: &candidate.name,
        role: ArmRole::Candidate,
        candidate: Some((index, candidate)),
    });
    baseline.into_iter().chain(candidates).collect()
}

/// Everything that the experiment needs, but its certificates, in the order in which it is made.
pub fn wanted(fit: &Fit<'_>, settings: &Settings) -> Vec<Object> {
    let arms = arms(fit);
    let mut all = vec![
        config::mirror(fit, &arms),
        service::mirror(fit),
        service::arms(fit),
        network_policy::mirror(fit),
        network_policy::arms(fit),
    ];
    for arm in &arms {
        all.push(config::arm(fit, arm));
        all.push(arm_pod::volume(fit, arm));
        all.push(arm_pod::pod(fit, arm, settings));
    }
    all.push(mirror_pod::pod(fit, settings));
    all.sort_by_key(|object| object.kind);
    all
}

/// What an arm is made from: its change alone, so that nothing else that is edited touches it.
fn arm_revision(arm: &WantedArm<'_>) -> String {
    change_revision(arm.candidate.map(|(_, candidate)| candidate))
}

/// What tells a change from another one.
pub fn change_revision(change: Option<&Candidate>) -> String {
    // Plain data with string keys always becomes JSON.
    fingerprint(&serde_json::to_string(&change).unwrap_or_default())
}

/// The parts of an object that all have in common.
fn object(
    fit: &Fit<'_>,
    kind: Kind,
    name: String,
    arm: Option<&str>,
    labels: &BTreeMap<String, String>,
    revision: Option<String>,
    content: Value,
) -> Object {
    let resource = kind.resource();
    let revision = revision.unwrap_or_else(|| fingerprint(&content.to_string()));
    let mut body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": name,
            "namespace": fit.names.namespace,
            "labels": labels,
            "annotations": { REVISION: revision },
            "ownerReferences": [owner(fit)],
        },
    });
    if let (Some(body), Value::Object(content)) = (body.as_object_mut(), content) {
        body.extend(content);
    }
    Object { kind, name, arm: arm.map(ToOwned::to_owned), revision, body }
}

/// The experiment, as the owner of what is made for it.
fn owner(fit: &Fit<'_>) -> Option<OwnerReference> {
    fit.experiment.controller_owner_ref(&())
}

#[cfg(test)]
pub(crate) mod tests;
