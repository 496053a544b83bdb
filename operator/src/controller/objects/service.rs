//! The Services of our own pods. Production's Service is not made here; `routing` changes its selector.

use serde_json::json;
use understudy_crds::pods::{AGENT_PORT, CONTROL_PORT, POSTGRES_PORT};

use super::{Kind, Object, object};
use crate::controller::fit::Fit;

/// The mirror's control port, under a name that its certificate bears.
pub fn mirror(fit: &Fit<'_>) -> Object {
    let spec = json!({ "spec": {
        "selector": fit.names.mirror_selector(),
        "ports": [{ "name": "control", "port": CONTROL_PORT, "targetPort": "control" }],
    }});
    object(fit, Kind::Service, fit.names.mirror(), None, &fit.names.mirror_labels(), None, spec)
}

/// DNS names for the arms. An arm has its name before it is ready: the mirror makes it so.
pub fn arms(fit: &Fit<'_>) -> Object {
    let spec = json!({ "spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": fit.names.arms_selector(),
        "ports": [
            { "name": "postgres", "port": POSTGRES_PORT, "targetPort": POSTGRES_PORT },
            { "name": "agent", "port": AGENT_PORT, "targetPort": AGENT_PORT },
        ],
    }});
    object(fit, Kind::Service, fit.names.arms(), None, &fit.names.labels(), None, spec)
}
