//! Which fields a platform does not support yet.
//!
//! A field whose behaviour comes later is refused by name; it is never ignored.

use crate::experiment::{
    Align, Candidate, CaptureSpec, CloneMethod, CloneSpec, ShadowExperimentSpec, StorageChange, Target, TrafficSpec,
};

/// A field that this platform does not support yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what} is not supported on {platform} yet{instead}")]
pub struct Unsupported {
    /// Where the experiment was to run: `the local platform`, `Kubernetes`.
    pub platform: &'static str,
    /// Path of the field.
    pub field: String,
    /// What was asked for.
    pub what: String,
    /// What to do instead, beginning with `; `, or empty.
    pub instead: String,
}

/// Collects what a platform refuses, in the document's order.
struct Refused {
    platform: &'static str,
    found: Vec<Unsupported>,
}

impl Refused {
    fn field(&mut self, field: impl Into<String>, what: &str, instead: &str) {
        let instead = if instead.is_empty() { String::new() } else { format!("; {instead}") };
        self.found.push(Unsupported { platform: self.platform, field: field.into(), what: what.to_owned(), instead });
    }

    /// What no platform does yet.
    fn everywhere_before_candidates(&mut self, spec: &ShadowExperimentSpec) {
        let CloneSpec { method } = &spec.clone;
        if *method == CloneMethod::VolumeSnapshot {
            self.field("spec.clone.method", "VolumeSnapshot", "use BaseBackup");
        }
        let CaptureSpec { memory: _, disk: _, direct: _ } = &spec.capture;
        if !spec.baseline {
            self.field("spec.baseline", "an experiment without a baseline", "without it, noise is not known");
        }
    }

    fn everywhere_after_candidates(&mut self, spec: &ShadowExperimentSpec) {
        if spec.align == Some(Align::Repair) {
            self.field("spec.align", "Repair", "leave it out, or use Count");
        }
        let TrafficSpec { reads } = &spec.traffic;
        if *reads != 100 {
            self.field("spec.traffic.reads", "a sample of the reads", "leave it out, or use 100");
        }
    }
}

/// The fields of `spec` that the operator does not support on Kubernetes yet, in the document's order.
pub fn unsupported_on_kubernetes(spec: &ShadowExperimentSpec) -> Vec<Unsupported> {
    let mut refused = Refused { platform: "Kubernetes", found: Vec::new() };
    let Target { stateful_set: _, local, cloud_native_pg, citus } = &spec.target;
    let instead = "name the worker in spec.target.statefulSet";
    if local.is_some() {
        refused.field("spec.target.local", "a server outside the cluster", instead);
    }
    if cloud_native_pg.is_some() {
        refused.field("spec.target.cloudNativePg", "CloudNativePG", instead);
    }
    if citus.is_some() {
        refused.field("spec.target.citus", "Citus", instead);
    }
    refused.everywhere_before_candidates(spec);
    for (index, candidate) in spec.candidates.iter().enumerate() {
        let Candidate { name: _, parameters: _, sql: _, storage, instance: _, image: _, binaries } = candidate;
        let path = format!("spec.candidates[{index}]");
        if let Some(StorageChange { storage_class_name: _, size: _, directory: Some(_) }) = storage {
            refused.field(format!("{path}.storage.directory"), "a directory", "use storage.storageClassName");
        }
        if binaries.is_some() {
            refused.field(format!("{path}.binaries"), "a directory of binaries", "use image");
        }
    }
    refused.everywhere_after_candidates(spec);
    refused.found
}

/// The fields of `spec` that the local platform does not support yet, in the document's order.
pub fn unsupported_locally(spec: &ShadowExperimentSpec) -> Vec<Unsupported> {
    let mut refused = Refused { platform: "the local platform", found: Vec::new() };
    let Target { stateful_set, local: _, cloud_native_pg, citus } = &spec.target;
    if stateful_set.is_some() {
        refused.field("spec.target.statefulSet", "a StatefulSet", "name the worker in spec.target.local");
    }
    if cloud_native_pg.is_some() {
        refused.field("spec.target.cloudNativePg", "CloudNativePG", "name the worker in spec.target.local");
    }
    if citus.is_some() {
        refused.field("spec.target.citus", "Citus", "name the worker in spec.target.local");
    }
    refused.everywhere_before_candidates(spec);
    for (index, candidate) in spec.candidates.iter().enumerate() {
        let Candidate { name: _, parameters: _, sql: _, storage, instance, image, binaries: _ } = candidate;
        let path = format!("spec.candidates[{index}]");
        if let Some(StorageChange { storage_class_name, size, directory: _ }) = storage {
            if storage_class_name.is_some() {
                refused.field(format!("{path}.storage.storageClassName"), "a storage class", "use storage.directory");
            }
            if size.is_some() {
                refused.field(format!("{path}.storage.size"), "a volume size", "use storage.directory");
            }
        }
        if instance.is_some() {
            refused.field(format!("{path}.instance"), "another instance", "");
        }
        if image.is_some() {
            refused.field(format!("{path}.image"), "an image", "use binaries");
        }
    }
    refused.everywhere_after_candidates(spec);
    refused.found
}
