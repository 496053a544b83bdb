//! Which fields a platform does not support yet.
//!
//! A field whose behaviour comes later is refused by name; it is never ignored.

use crate::experiment::{
    Align, Candidate, CaptureSpec, CloneMethod, CloneSpec, ShadowExperimentSpec, Target, TrafficSpec,
};

/// A field that this platform does not support yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what} is not supported on the local platform yet{instead}")]
pub struct Unsupported {
    /// Path of the field.
    pub field: String,
    /// What was asked for.
    pub what: String,
    /// What to do instead, beginning with `; `, or empty.
    pub instead: String,
}

/// The fields of `spec` that the local platform does not support yet, in the document's order.
pub fn unsupported_locally(spec: &ShadowExperimentSpec) -> Vec<Unsupported> {
    let mut found = Vec::new();
    let mut refuse = |field: String, what: &str, instead: &str| {
        let instead = if instead.is_empty() { String::new() } else { format!("; {instead}") };
        found.push(Unsupported { field, what: what.to_owned(), instead });
    };
    let Target { stateful_set, local: _, cloud_native_pg, citus } = &spec.target;
    if stateful_set.is_some() {
        refuse("spec.target.statefulSet".into(), "a StatefulSet", "name the worker in spec.target.local");
    }
    if cloud_native_pg.is_some() {
        refuse("spec.target.cloudNativePg".into(), "CloudNativePG", "name the worker in spec.target.local");
    }
    if citus.is_some() {
        refuse("spec.target.citus".into(), "Citus", "name the worker in spec.target.local");
    }
    let CloneSpec { method } = &spec.clone;
    if *method == CloneMethod::VolumeSnapshot {
        refuse("spec.clone.method".into(), "VolumeSnapshot", "use BaseBackup");
    }
    let CaptureSpec { memory: _, disk, direct: _ } = &spec.capture;
    if disk.is_some() {
        refuse("spec.capture.disk".into(), "a traffic log on disk", "leave it out and set spec.capture.memory");
    }
    if !spec.baseline {
        refuse("spec.baseline".into(), "an experiment without a baseline", "without it, noise is not known");
    }
    for (index, candidate) in spec.candidates.iter().enumerate() {
        let Candidate { name: _, parameters: _, sql: _, storage, instance, image, binaries: _ } = candidate;
        let path = format!("spec.candidates[{index}]");
        if let Some(storage) = storage {
            if storage.storage_class_name.is_some() {
                refuse(format!("{path}.storage.storageClassName"), "a storage class", "use storage.directory");
            }
            if storage.size.is_some() {
                refuse(format!("{path}.storage.size"), "a volume size", "use storage.directory");
            }
        }
        if instance.is_some() {
            refuse(format!("{path}.instance"), "another instance", "");
        }
        if image.is_some() {
            refuse(format!("{path}.image"), "an image", "use binaries");
        }
    }
    if spec.align == Some(Align::Repair) {
        refuse("spec.align".into(), "Repair", "leave it out, or use Count");
    }
    let TrafficSpec { reads } = &spec.traffic;
    if *reads != 100 {
        refuse("spec.traffic.reads".into(), "a sample of the reads", "leave it out, or use 100");
    }
    found
}
