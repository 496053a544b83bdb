//! Who may reach our pods, and whom they may reach. A clone of production must not act on the world.

use serde_json::{Value, json};
use understudy_crds::pods::{AGENT_PORT, CONTROL_PORT, HEALTH_PORT, POSTGRES_PORT};

use super::{Kind, Object, object};
use crate::controller::fit::Fit;

/// An arm: reached by the mirror alone; reaches the worker and the DNS, and nothing else.
pub fn arms(fit: &Fit<'_>) -> Object {
    let spec = json!({ "spec": {
        "podSelector": { "matchLabels": fit.names.arms_selector() },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{
            "from": [{ "podSelector": { "matchLabels": fit.names.mirror_selector() } }],
            "ports": [tcp(POSTGRES_PORT), tcp(AGENT_PORT)],
        }],
        "egress": [worker(fit), dns()],
    }});
    object(fit, Kind::NetworkPolicy, fit.names.arms(), None, &fit.names.labels(), None, spec)
}

/// The mirror: clients come from wherever they came from before, the operator on its own ports; it
/// reaches the worker, the arms and the DNS.
pub fn mirror(fit: &Fit<'_>) -> Object {
    let spec = json!({ "spec": {
        "podSelector": { "matchLabels": fit.names.mirror_selector() },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            { "ports": [{ "protocol": "TCP", "port": fit.port.number }] },
            { "ports": [tcp(CONTROL_PORT), tcp(HEALTH_PORT)] },
        ],
        "egress": [
            worker(fit),
            {
                "to": [{ "podSelector": { "matchLabels": fit.names.arms_selector() } }],
                "ports": [tcp(POSTGRES_PORT), tcp(AGENT_PORT)],
            },
            dns(),
        ],
    }});
    object(fit, Kind::NetworkPolicy, fit.names.mirror(), None, &fit.names.mirror_labels(), None, spec)
}

fn tcp(port: u16) -> Value {
    json!({ "protocol": "TCP", "port": port })
}

fn worker(fit: &Fit<'_>) -> Value {
    json!({
        "to": [{ "podSelector": { "matchLabels": { "statefulset.kubernetes.io/pod-name": fit.worker_name } } }],
        "ports": [{ "protocol": "TCP", "port": fit.port.number }],
    })
}

/// The cluster's DNS, on whatever port its pods listen behind their Service, or a node's own cache of it.
fn dns() -> Value {
    json!({ "to": [
        {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
            "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
        },
        { "ipBlock": { "cidr": "169.254.20.10/32" } },
    ]})
}
