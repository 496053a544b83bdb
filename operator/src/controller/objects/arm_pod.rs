//! An arm's pod and its volume: the worker's own pod, as far as `template` keeps it, with the
//! candidate's change, run by our agent.

use serde_json::{Value, json};
use understudy_crds::{
    experiment::{InstanceChange, StorageChange},
    pods::{AGENT_PORT, CONFIG_FILE, DATA_DIR, HEALTH_PORT, POSTGRES_PORT, PROGRAM_DIR, SCRATCH_DIR},
};

use super::{
    Kind, Object, WantedArm, arm_revision,
    mirror_pod::{documents, without_nulls},
    object, tls,
};
use crate::controller::{fit::Fit, template, world::Settings};

/// Names of our own volumes in an arm's pod.
const DATA: &str = "understudy-data";
const PROGRAM: &str = "understudy-program";
const SCRATCH: &str = "understudy-scratch";

/// The pod.
pub fn pod(fit: &Fit<'_>, arm: &WantedArm<'_>, settings: &Settings) -> Object {
    let name = fit.names.arm(arm.name);
    let (spec, container) = (fit.worker_spec, fit.container);
    let candidate = arm.candidate.map(|(_, candidate)| candidate);
    let instance = candidate.and_then(|candidate| candidate.instance.clone()).unwrap_or_default();
    let InstanceChange { node_selector, tolerations, resources } = instance;
    let mut node_selectors = spec.node_selector.clone().unwrap_or_default();
    node_selectors.extend(node_selector);
    let tolerations: Vec<_> = spec.tolerations.iter().flatten().cloned().chain(tolerations).collect();
    let image = candidate.and_then(|candidate| candidate.image.as_ref()).or(container.image.as_ref());
    let own_place = |path: &str| path == "/dev/shm" || !path.starts_with("/etc/understudy");
    let kept = template::volumes(spec, container);
    let mounts = container
        .volume_mounts
        .iter()
        .flatten()
        .filter(|mount| kept.iter().any(|volume| volume.name == mount.name) && own_place(&mount.mount_path));
    let mounts: Vec<Value> = mounts
        .map(|mount| json!(mount))
        .chain([
            json!({ "name": DATA, "mountPath": DATA_DIR }),
            json!({ "name": PROGRAM, "mountPath": PROGRAM_DIR, "readOnly": true }),
            json!({ "name": SCRATCH, "mountPath": SCRATCH_DIR }),
            json!({ "name": "understudy", "mountPath": "/etc/understudy", "readOnly": true }),
        ])
        .collect();
    // Where the pod has a group of its own the key is for that group; else for whoever runs in there.
    let mode = if spec.security_context.as_ref().is_some_and(|c| c.fs_group.is_some()) { 0o440 } else { 0o444 };
    let volumes: Vec<Value> = kept
        .iter()
        .map(|volume| json!(volume))
        .chain([
            json!({ "name": DATA, "persistentVolumeClaim": { "claimName": name } }),
            json!({ "name": PROGRAM, "emptyDir": {} }),
            json!({ "name": SCRATCH, "emptyDir": {} }),
            documents(fit, &name, tls::ARM, mode),
        ])
        .collect();
    let content = json!({ "spec": {
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "hostname": arm.name,
        "subdomain": fit.names.arms(),
        "terminationGracePeriodSeconds": 30,
        "securityContext": spec.security_context,
        "imagePullSecrets": spec.image_pull_secrets,
        "nodeSelector": node_selectors,
        "tolerations": tolerations,
        "initContainers": [{
            "name": "understudy",
            "image": settings.image,
            "imagePullPolicy": settings.image_pull_policy,
            "command": ["understudy-operator", "install", PROGRAM_DIR],
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            "volumeMounts": [{ "name": PROGRAM, "mountPath": PROGRAM_DIR }],
        }],
        "containers": [{
            "name": "postgres",
            "image": image,
            "imagePullPolicy": container.image_pull_policy,
            "command": [format!("{PROGRAM_DIR}/understudy-operator"), "arm", "--config", CONFIG_FILE],
            "env": template::environment(container),
            "ports": [
                { "name": "postgres", "containerPort": POSTGRES_PORT, "protocol": "TCP" },
                { "name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP" },
                { "name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP" },
            ],
            "resources": resources.or_else(|| container.resources.clone()),
            "securityContext": container.security_context,
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    }});
    let labels = fit.names.arm_labels(arm.name);
    object(fit, Kind::Pod, name, Some(arm.name), &labels, Some(arm_revision(arm)), without_nulls(content))
}

/// Its volume: as large as the worker's and of the same class, unless the candidate says otherwise.
pub fn volume(fit: &Fit<'_>, arm: &WantedArm<'_>) -> Object {
    let storage = arm.candidate.and_then(|(_, candidate)| candidate.storage.clone()).unwrap_or_default();
    let StorageChange { storage_class_name, size, directory: _ } = storage;
    let like = fit.claim.and_then(|claim| claim.spec.as_ref());
    let class = storage_class_name.or_else(|| like.and_then(|spec| spec.storage_class_name.clone()));
    let size = size.map_or_else(|| fit.volume_size.clone(), |size| size.to_string());
    let content = without_nulls(json!({ "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class,
        "resources": { "requests": { "storage": size } },
    }}));
    let (name, labels) = (fit.names.arm(arm.name), fit.names.arm_labels(arm.name));
    object(fit, Kind::Volume, name, Some(arm.name), &labels, Some(arm_revision(arm)), content)
}
