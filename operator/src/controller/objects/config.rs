//! The documents of the mirror pod and of the arm pods. No password: that is a file of a Secret.

use std::path::Path;

use serde::Serialize;
use serde_json::json;
use understudy_crds::{
    Candidate,
    condition::Phase,
    experiment::LocalTarget,
    pods::{ArmPeer, ArmPod, CREDENTIALS_DIR, CandidatesNotice, MirrorPod},
};

use super::{Kind, Object, WantedArm, arm_revision, object};
use crate::controller::{fit::Fit, names::fingerprint};

/// The report's key in its ConfigMap.
pub const REPORT: &str = "report.json";

/// An experiment's report, as the mirror wrote it in a phase; it outlives the mirror's pod.
pub fn report(fit: &Fit<'_>, phase: Phase, text: &str) -> Object {
    let content = json!({ "data": { REPORT: text } });
    object(fit, Kind::ConfigMap, fit.names.report(), None, &fit.names.labels(), Some(format!("{phase:?}")), content)
}

/// The document's key in its ConfigMap, and its file's name.
pub const KEY: &str = "config.json";

/// How the worker is reached past its Service, and where the mirror listens.
pub fn worker(fit: &Fit<'_>) -> LocalTarget {
    LocalTarget {
        host: fit.worker_host.clone(),
        port: fit.port.number,
        user: fit.user.to_owned(),
        database: fit.target.database.clone(),
        password_file: Some(Path::new(CREDENTIALS_DIR).join("password").display().to_string()),
        listen: format!("0.0.0.0:{}", fit.port.number),
    }
}

/// The mirror's document.
pub fn mirror(fit: &Fit<'_>, arms: &[WantedArm<'_>]) -> Object {
    let CandidatesNotice { version, candidates: _, arms } = candidates(fit, arms);
    let document = MirrorPod {
        experiment: fit.names.experiment.clone(),
        namespace: fit.names.namespace.clone(),
        // The kill switch is thrown over the control port, not by a file that arrives a minute later.
        spec: understudy_crds::ShadowExperimentSpec { halt: false, ..fit.experiment.spec.clone() },
        worker: worker(fit),
        candidates: version,
        arms,
    };
    config_map(fit, fit.names.mirror(), None, &document)
}

/// The candidates that there shall be, and where their arms are.
pub fn candidates(fit: &Fit<'_>, arms: &[WantedArm<'_>]) -> CandidatesNotice {
    let peer = |arm: &WantedArm<'_>| ArmPeer {
        name: arm.name.into(),
        role: arm.role,
        host: fit.names.arm_host(arm.name),
        revision: arm_revision(arm),
    };
    let candidates = fit.experiment.spec.candidates.clone();
    CandidatesNotice { version: version(&candidates), candidates, arms: arms.iter().map(peer).collect() }
}

/// What tells candidates from those that they were before.
pub fn version(candidates: &[Candidate]) -> String {
    // Plain data with string keys always becomes JSON.
    fingerprint(&serde_json::to_string(candidates).unwrap_or_default())
}

/// An arm's document.
pub fn arm(fit: &Fit<'_>, arm: &WantedArm<'_>) -> Object {
    let document = ArmPod {
        experiment: fit.names.experiment.clone(),
        namespace: fit.names.namespace.clone(),
        arm: arm.name.to_owned(),
        role: arm.role,
        revision: arm_revision(arm),
        candidate: arm.candidate.map(|(_, candidate)| candidate.clone()),
        candidate_index: arm.candidate.map(|(index, _)| index),
        worker: worker(fit),
    };
    config_map(fit, fit.names.arm(arm.name), Some(arm.name), &document)
}

fn config_map(fit: &Fit<'_>, name: String, arm: Option<&str>, document: &impl Serialize) -> Object {
    let labels = match arm {
        Some(arm) => fit.names.arm_labels(arm),
        None => fit.names.mirror_labels(),
    };
    // Plain data with string keys always becomes JSON.
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    object(fit, Kind::ConfigMap, name, arm, &labels, None, json!({ "data": { KEY: text } }))
}
