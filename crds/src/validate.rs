//! The rules that the CRD states in its schema and in CEL, for documents that never meet an API
//! server (`understudy run -f`). A test holds the two together.
//!
//! What the types alone refuse (unknown fields, quantities that can't be read) is not looked at again.

use std::collections::BTreeSet;

use crate::{
    experiment::{
        Candidate, CandidateSql, Criterion, LocalTarget, Schedule, ShadowExperiment, ShadowExperimentSpec,
        StatefulSetTarget, StorageChange, Target, TrafficSpec,
    },
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

/// Everything that is wrong with an experiment, in the document's order; empty when it may run.
pub fn violations(experiment: &ShadowExperiment) -> Vec<Violation> {
    let ShadowExperimentSpec {
        hypothesis,
        target,
        clone: _,
        cut: _,
        capture: _,
        baseline: _,
        candidates,
        align: _,
        traffic,
        schedule,
        success,
        guardrails: _,
        promotion: _,
        halt: _,
    } = &experiment.spec;
    let mut found = Found::default();
    found.name(experiment.metadata.name.as_deref().unwrap_or_default());
    found.length("spec.hypothesis", hypothesis.as_deref(), 0, 1000);
    found.target(target);
    found.count("spec.candidates", "candidates", candidates.len(), 0, 8);
    let mut names = BTreeSet::new();
    for (index, candidate) in candidates.iter().enumerate() {
        found.candidate(&format!("spec.candidates[{index}]"), candidate);
        if !names.insert(&candidate.name) {
            found.wrong(
                format!("spec.candidates[{index}].name"),
                format!("there is another candidate `{}`", candidate.name),
            );
        }
    }
    let TrafficSpec { reads } = traffic;
    if !(0..=100).contains(reads) {
        found.wrong("spec.traffic.reads", format!("{reads} is not between 0 and 100"));
    }
    let Schedule { warm_up: _, minimum, maximum } = schedule;
    if minimum > maximum {
        found.wrong("spec.schedule", format!("minimum ({minimum}) is longer than maximum ({maximum})"));
    }
    if !success.is_empty() && candidates.is_empty() {
        found.wrong("spec.success", "success criteria judge candidates; there are none");
    }
    found.count("spec.success", "criteria", success.len(), 0, 16);
    for (index, criterion) in success.iter().enumerate() {
        found.criterion(&format!("spec.success[{index}]"), criterion);
    }
    found.0
}

/// What has been found so far. One method for each part of the document.
#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn wrong(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Violation { field: field.into(), reason: reason.into() });
    }

    /// The length of a text, in characters as an API server counts them.
    fn length(&mut self, field: impl Into<String>, text: Option<&str>, least: usize, most: usize) {
        match text.map(|text| text.chars().count()) {
            Some(0) if least > 0 => self.wrong(field, "must not be empty"),
            Some(length) if length > most => {
                self.wrong(field, format!("{length} characters long, at most {most} are allowed"));
            }
            _ => {}
        }
    }

    fn count(&mut self, field: impl Into<String>, things: &str, count: usize, least: usize, most: usize) {
        if count < least {
            self.wrong(field, format!("needs at least {least}"));
        } else if count > most {
            self.wrong(field, format!("at most {most} {things}, there are {count}"));
        }
    }

    fn name(&mut self, name: &str) {
        if name.is_empty() {
            self.wrong("metadata.name", "the experiment needs a name");
        } else if !is_dns_label(name, 63) {
            self.wrong("metadata.name", not_a_name(name, 63));
        }
    }

    fn target(&mut self, target: &Target) {
        let Target { stateful_set, local, cloud_native_pg, citus } = target;
        let given = [stateful_set.is_some(), local.is_some(), cloud_native_pg.is_some(), citus.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            self.wrong("spec.target", "target needs exactly one of statefulSet, local, cloudNativePg, citus");
        }
        if let Some(StatefulSetTarget { name, ordinal, service, database, credentials_secret }) = stateful_set {
            let path = "spec.target.statefulSet";
            self.length(format!("{path}.name"), Some(name), 1, 253);
            if *ordinal < 0 {
                self.wrong(format!("{path}.ordinal"), format!("{ordinal} is not the ordinal of a pod: 0 or more"));
            }
            self.length(format!("{path}.service"), Some(service), 1, 63);
            self.length(format!("{path}.database"), Some(database), 1, 63);
            self.length(format!("{path}.credentialsSecret"), Some(credentials_secret), 1, 253);
        }
        if let Some(LocalTarget { host, port, user, database, password_file, listen }) = local {
            let path = "spec.target.local";
            self.length(format!("{path}.host"), Some(host), 1, 253);
            if !(1..=65535).contains(port) {
                self.wrong(format!("{path}.port"), format!("{port} is not a port: 1 to 65535"));
            }
            self.length(format!("{path}.user"), Some(user), 1, 63);
            self.length(format!("{path}.database"), Some(database), 1, 63);
            self.length(format!("{path}.passwordFile"), password_file.as_deref(), 1, 4096);
            if !is_host_and_port(listen) {
                self.wrong(
                    format!("{path}.listen"),
                    format!("`{listen}` is not HOST:PORT, like 127.0.0.1:6432 or [::1]:6432"),
                );
            }
        }
    }

    fn candidate(&mut self, path: &str, candidate: &Candidate) {
        let Candidate { name, parameters, sql, storage, instance: _, image, binaries } = candidate;
        if !is_dns_label(name, 40) {
            self.wrong(format!("{path}.name"), not_a_name(name, 40));
        }
        if name == PRODUCTION || name == BASELINE {
            self.wrong(format!("{path}.name"), "production and baseline are names of other arms");
        }
        self.count(format!("{path}.parameters"), "parameters", parameters.len(), 0, 64);
        for parameter in parameters.keys().filter(|parameter| !is_parameter_name(parameter)) {
            self.wrong(
                format!("{path}.parameters"),
                format!("`{parameter}` is not the name of a server setting, like random_page_cost"),
            );
        }
        if let Some(CandidateSql { apply, revert }) = sql {
            for (field, statements, least) in [("apply", apply, 1), ("revert", revert, 0)] {
                let path = format!("{path}.sql.{field}");
                self.count(&path, "statements", statements.len(), least, 64);
                for (index, statement) in statements.iter().enumerate() {
                    self.length(format!("{path}[{index}]"), Some(statement), 1, usize::MAX);
                }
            }
        }
        if let Some(StorageChange { storage_class_name, size: _, directory }) = storage {
            self.length(format!("{path}.storage.storageClassName"), storage_class_name.as_deref(), 1, 253);
            self.length(format!("{path}.storage.directory"), directory.as_deref(), 1, 4096);
        }
        self.length(format!("{path}.image"), image.as_deref(), 1, 1024);
        self.length(format!("{path}.binaries"), binaries.as_deref(), 1, 4096);
    }

    fn criterion(&mut self, path: &str, criterion: &Criterion) {
        let Criterion { class: _, quantile, improve_by, regress_by } = criterion;
        if improve_by.is_some() == regress_by.is_some() {
            self.wrong(path, "a criterion needs exactly one of improveBy and regressBy");
        }
        if !(0.01..=0.999).contains(quantile) {
            self.wrong(format!("{path}.quantile"), format!("{quantile} is not between 0.01 and 0.999"));
        }
    }
}

fn not_a_name(name: &str, most: usize) -> String {
    format!("`{name}` is not a name: lower-case letters, digits and `-`, at most {most}, `-` not at the ends")
}

fn is_dns_label(name: &str, most: usize) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= most && name.chars().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// A setting of the server or, with a dot, of an extension.
fn is_parameter_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_is_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':' || c == '.'),
        None => !host.is_empty() && !host.contains(|c: char| c.is_ascii_whitespace() || ":[]".contains(c)),
    };
    let digits = port.bytes().all(|b| b.is_ascii_digit()) && (port.len() < 5 || !port.starts_with('0'));
    text.len() <= 260 && host_is_good && digits && port.parse::<u16>().is_ok()
}
