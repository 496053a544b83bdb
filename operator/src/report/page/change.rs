//! What was done: a candidate as a list of what it adds to the worker.

use understudy_crds::experiment::{Candidate, CandidateSql, StorageChange};

/// A candidate, line by line.
pub(super) struct Change {
    pub name: String,
    pub lines: Vec<String>,
    /// What would take it back.
    pub revert: Vec<String>,
}

/// The change that a candidate makes.
pub(super) fn of(candidate: &Candidate) -> Change {
    let Candidate { name, parameters, sql, storage, instance, image, binaries } = candidate;
    let mut lines: Vec<String> = parameters.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let CandidateSql { apply, revert } = sql.clone().unwrap_or_default();
    lines.extend(apply);
    let StorageChange { storage_class_name, size, directory } = storage.clone().unwrap_or_default();
    lines.extend(storage_class_name.map(|class| format!("storage class {class}")));
    lines.extend(size.map(|size| format!("volume of {size}")));
    lines.extend(directory.map(|directory| format!("data in {directory}")));
    if instance.is_some() {
        lines.push("another kind of machine".to_owned());
    }
    lines.extend(image.as_ref().map(|image| format!("image {image}")));
    lines.extend(binaries.as_ref().map(|binaries| format!("server binaries {binaries}")));
    if lines.is_empty() {
        lines.push("nothing: an A/A test".to_owned());
    }
    Change { name: name.clone(), lines, revert }
}
