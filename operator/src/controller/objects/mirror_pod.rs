//! The mirror's pod: it stands in production's path, so it asks for what it needs, is not restarted
//! behind anybody's back, and has no access to the Kubernetes API.

use serde_json::{Value, json};
use understudy_crds::pods::{CONFIG_FILE, CONTROL_PORT, HEALTH_PORT, SCRATCH_DIR};

use super::{Kind, Object, config, object, tls};
use crate::controller::{fit::Fit, names::Names, world::Settings};

/// The user that our image runs as.
const USER: i64 = 65532;

/// The pod.
pub fn pod(fit: &Fit<'_>, settings: &Settings) -> Object {
    let name = fit.names.mirror();
    let template = fit.worker_spec;
    let content = json!({ "spec": {
        // A mirror that died has lost its traffic log; the controller routes around it at once.
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        // Clients that are connected through it may finish; see the mirror pod's own limit, 300 s.
        "terminationGracePeriodSeconds": 330,
        "priorityClassName": template.priority_class_name,
        "tolerations": template.tolerations,
        "imagePullSecrets": template.image_pull_secrets,
        "affinity": { "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": { "matchLabels": { "statefulset.kubernetes.io/pod-name": fit.worker_name } },
            },
        }]}},
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "mirror",
            "image": settings.image,
            "imagePullPolicy": settings.image_pull_policy,
            "command": ["understudy-operator", "mirror", "--config", CONFIG_FILE],
            "ports": [
                { "name": fit.port.name, "containerPort": fit.port.number, "protocol": "TCP" },
                { "name": "control", "containerPort": CONTROL_PORT, "protocol": "TCP" },
                { "name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP" },
            ],
            "readinessProbe": {
                "httpGet": { "path": "/readyz", "port": "health" },
                "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3,
            },
            // No limits: throttling or killing it would be felt by production.
            "resources": { "requests": {
                "cpu": "100m", "memory": "256Mi",
                // So that the node has room for the traffic log. What it leaves free there is the log's own care.
                "ephemeral-storage": fit.experiment.spec.capture.disk.map(|disk| disk.to_string()),
            }},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": [
                { "name": "understudy", "mountPath": "/etc/understudy", "readOnly": true },
                { "name": "understudy-scratch", "mountPath": SCRATCH_DIR },
                { "name": "understudy-scratch", "mountPath": "/tmp", "subPath": "tmp" },
            ],
        }],
        "volumes": [
            documents(fit, &name, tls::MIRROR, 0o440),
            { "name": "understudy-scratch", "emptyDir": {} },
        ],
    }});
    let revision = Some(names_revision(&fit.names));
    let content = without_nulls(content);
    object(fit, Kind::Pod, name, None, &fit.names.mirror_labels(), revision, content)
}

/// The mirror is made once; what changes later reaches it through its document.
fn names_revision(names: &Names) -> String {
    crate::controller::names::fingerprint(&names.mirror())
}

/// One volume with a pod's document, its certificate and the worker's password.
pub fn documents(fit: &Fit<'_>, config_map: &str, who: tls::Holder, mode: i32) -> Value {
    json!({ "name": "understudy", "projected": { "defaultMode": mode, "sources": [
        { "configMap": { "name": config_map, "items": [{ "key": config::KEY, "path": config::KEY }] } },
        { "secret": { "name": fit.names.tls(), "items": [
            { "key": tls::CA, "path": "tls/ca.crt" },
            { "key": who.certificate(), "path": "tls/tls.crt" },
            { "key": who.key(), "path": "tls/tls.key" },
        ]}},
        { "secret": { "name": fit.target.credentials_secret, "items": [
            { "key": "password", "path": "credentials/password" },
        ]}},
    ]}})
}

/// Leaves out what is not set.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v)));
            Value::Object(kept.collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
