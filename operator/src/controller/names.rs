//! What the things that we make are called, and how they are marked. Every name fits a DNS label.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt};
use understudy_crds::{
    ShadowExperiment,
    labels::{ARM, COMPONENT, COMPONENT_ARM, COMPONENT_MIRROR, EXPERIMENT},
};

/// The longest DNS label.
const LONGEST: usize = 63;
/// Hexadecimal digits of the hash that makes a shortened name unique.
const HASH: usize = 8;

/// Names of one experiment's things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The experiment.
    pub experiment: String,
    /// Its namespace.
    pub namespace: String,
    /// The cluster's domain, if names shall be written with it.
    domain: Option<String>,
}

impl Names {
    /// Of an experiment.
    pub fn of(experiment: &ShadowExperiment, domain: Option<&str>) -> Self {
        Self {
            experiment: experiment.name_any(),
            namespace: experiment.namespace().unwrap_or_default(),
            domain: domain.map(ToOwned::to_owned),
        }
    }

    /// The mirror's pod, its document and its Service.
    pub fn mirror(&self) -> String {
        bounded(&format!("{}-mirror", self.experiment))
    }

    /// An arm's pod, its document and its volume.
    pub fn arm(&self, arm: &str) -> String {
        bounded(&format!("{}-{arm}", self.experiment))
    }

    /// The headless Service that gives arms their DNS names, and their NetworkPolicy.
    pub fn arms(&self) -> String {
        bounded(&format!("{}-arms", self.experiment))
    }

    /// The ConfigMap with the experiment's report.
    pub fn report(&self) -> String {
        bounded(&format!("{}-report", self.experiment))
    }

    /// The Secret with the experiment's certificates.
    pub fn tls(&self) -> String {
        bounded(&format!("{}-tls", self.experiment))
    }

    /// A name in the cluster's DNS.
    pub fn dns(&self, service: &str) -> String {
        match &self.domain {
            Some(domain) => format!("{service}.{}.svc.{domain}", self.namespace),
            None => format!("{service}.{}.svc", self.namespace),
        }
    }

    /// Where the mirror finds an arm.
    pub fn arm_host(&self, arm: &str) -> String {
        self.dns(&format!("{arm}.{}", self.arms()))
    }

    /// Marks of everything that belongs to the experiment.
    pub fn labels(&self) -> BTreeMap<String, String> {
        labels([
            ("app.kubernetes.io/managed-by", "understudy"),
            ("app.kubernetes.io/part-of", "understudy"),
            (EXPERIMENT, &self.experiment),
        ])
    }

    /// Marks of the mirror's pod; the worker's Service selects by [`Self::mirror_selector`].
    pub fn mirror_labels(&self) -> BTreeMap<String, String> {
        let mut all = self.labels();
        all.extend(labels([("app.kubernetes.io/name", "understudy-mirror"), (COMPONENT, COMPONENT_MIRROR)]));
        all
    }

    /// Marks of an arm's pod: never the worker's own.
    pub fn arm_labels(&self, arm: &str) -> BTreeMap<String, String> {
        let mut all = self.labels();
        all.extend(labels([("app.kubernetes.io/name", "understudy-arm"), (COMPONENT, COMPONENT_ARM), (ARM, arm)]));
        all
    }

    /// Selects the mirror's pod and no other.
    pub fn mirror_selector(&self) -> BTreeMap<String, String> {
        labels([(EXPERIMENT, self.experiment.as_str()), (COMPONENT, COMPONENT_MIRROR)])
    }

    /// Selects the arms' pods and no others.
    pub fn arms_selector(&self) -> BTreeMap<String, String> {
        labels([(EXPERIMENT, self.experiment.as_str()), (COMPONENT, COMPONENT_ARM)])
    }

    /// The same marks as a list selector.
    pub fn list_selector(&self) -> String {
        format!("{EXPERIMENT}={}", self.experiment)
    }
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A name that fits: cut, and told apart by a hash, when it is too long.
fn bounded(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let head: String = name.chars().take(LONGEST - HASH - 1).collect();
    let hash = fingerprint(name);
    let tail: String = hash.chars().take(HASH).collect();
    format!("{}-{tail}", head.trim_end_matches('-'))
}

/// A short fingerprint of a text, the same on every machine and in every version.
pub fn fingerprint(text: &str) -> String {
    format!("{:016x}", rapidhash::v3::rapidhash_v3(text.as_bytes()))
}

/// `namespace/name`, for logs.
pub fn shown<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    format!("{}/{}", meta.namespace.as_deref().unwrap_or("-"), meta.name.as_deref().unwrap_or("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_a_dns_label_and_stay_apart() {
        let names = |experiment: &str| Names { experiment: experiment.into(), namespace: "db".into(), domain: None };
        assert_eq!(names("idx").arm("baseline"), "idx-baseline");
        assert_eq!(names("idx").arm_host("baseline"), "baseline.idx-arms.db.svc");
        let long = "x".repeat(63);
        let (a, b) = (names(&long).arm("a"), names(&long).arm("b"));
        assert!(a.len() <= 63 && b.len() <= 63 && a != b, "{a} {b}");
    }
}
