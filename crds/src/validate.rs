//! The rules that the CRD states in its schema and in CEL, for documents that never meet an API
//! server (`understudy run -f`). A test holds the two together.

use std::collections::BTreeSet;

use crate::{
    experiment::{Candidate, Criterion, ShadowExperiment, ShadowExperimentSpec, Target},
    labels::{BASELINE, PRODUCTION},
};

/// A field that is not right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Violation {
    /// Path of the field, like `spec.success[0].quantile`.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Everything that is wrong with an experiment; empty when it may run.
pub fn violations(experiment: &ShadowExperiment) -> Vec<Violation> {
    let ShadowExperimentSpec { target, candidates, success, schedule, traffic, .. } = &experiment.spec;
    let mut found = Vec::new();
    let mut wrong = |field: &str, reason: String| found.push(Violation { field: field.to_owned(), reason });

    match experiment.metadata.name.as_deref() {
        None | Some("") => wrong("metadata.name", "the experiment needs a name".into()),
        Some(name) if !is_dns_label(name, 63) => wrong(
            "metadata.name",
            format!("`{name}` is not a name: lower-case letters, digits and `-`, at most 63, not at the ends"),
        ),
        Some(_) => {}
    }

    let Target { stateful_set, local, cloud_native_pg, citus } = target;
    let targets = [stateful_set.is_some(), local.is_some(), cloud_native_pg.is_some(), citus.is_some()];
    if targets.iter().filter(|t| **t).count() != 1 {
        wrong("spec.target", "target needs exactly one of statefulSet, local, cloudNativePg, citus".into());
    }
    if let Some(local) = local {
        if !(1..=65535).contains(&local.port) {
            wrong("spec.target.local.port", format!("{} is not a port: 1 to 65535", local.port));
        }
        for (field, value) in [("host", &local.host), ("user", &local.user), ("database", &local.database)] {
            if value.is_empty() {
                wrong(&format!("spec.target.local.{field}"), "must not be empty".into());
            }
        }
    }

    if candidates.len() > 8 {
        wrong("spec.candidates", format!("at most 8 candidates, there are {}", candidates.len()));
    }
    let mut names = BTreeSet::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let Candidate { name, sql, .. } = candidate;
        let field = format!("spec.candidates[{index}].name");
        if !is_dns_label(name, 40) {
            wrong(&field, format!("`{name}` is not a name: lower-case letters, digits and `-`, at most 40"));
        }
        if name == PRODUCTION || name == BASELINE {
            wrong(&field, "production and baseline are names of other arms".into());
        }
        if !names.insert(name) {
            wrong(&field, format!("there is another candidate `{name}`"));
        }
        if sql.as_ref().is_some_and(|sql| sql.apply.is_empty()) {
            wrong(&format!("spec.candidates[{index}].sql.apply"), "needs at least one statement".into());
        }
    }

    if !success.is_empty() && candidates.is_empty() {
        wrong("spec.success", "success criteria judge candidates; there are none".into());
    }
    if success.len() > 16 {
        wrong("spec.success", format!("at most 16 criteria, there are {}", success.len()));
    }
    for (index, criterion) in success.iter().enumerate() {
        let Criterion { class: _, quantile, improve_by, regress_by } = criterion;
        if improve_by.is_some() == regress_by.is_some() {
            wrong(&format!("spec.success[{index}]"), "a criterion needs exactly one of improveBy and regressBy".into());
        }
        if !(0.01..=0.999).contains(quantile) {
            wrong(&format!("spec.success[{index}].quantile"), format!("{quantile} is not between 0.01 and 0.999"));
        }
    }

    if schedule.minimum > schedule.maximum {
        wrong("spec.schedule", format!("minimum ({}) is longer than maximum ({})", schedule.minimum, schedule.maximum));
    }
    if !(0..=100).contains(&traffic.reads) {
        wrong("spec.traffic.reads", format!("{} is not between 0 and 100", traffic.reads));
    }
    found
}

fn is_dns_label(name: &str, max: usize) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= max && name.chars().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}
