//! A promotion to every worker of the StatefulSet: what is to be done, how far it is, and who does it.
//!
//! How far it is stands on the experiment (an annotation), written before each deed, so that a
//! restarted operator goes on; `drive` does the deeds in a task of its own, since a reconciliation must
//! never wait for an index to be built.

pub mod drive;
pub mod set;
pub mod sql;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use understudy_crds::{
    Candidate, ShadowExperiment,
    condition::{ConditionReason, Outcome},
    experiment::PromotionPolicy,
    labels::{PROMOTE, ROLLOUT},
    status::{Rollout, Verdict},
};

use super::fit::Refusal;

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What is rolled out: the very object that was tested.
    pub candidate: Candidate,
    /// Its place in the document, for messages.
    pub index: usize,
    /// Where it stands.
    pub stage: Stage,
    /// The workers, in the order in which they get it.
    pub workers: Vec<WorkerRecord>,
    /// What the change replaced in the StatefulSet, to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_before: Option<Value>,
    /// Why it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// One worker after the other gets it.
    Rolling,
    /// One worker after the other loses it again.
    TakingBack,
    /// All workers have it.
    Done,
    /// No worker has it.
    TakenBack,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerRecord {
    /// Its pod.
    pub pod: String,
    /// Its ordinal.
    pub ordinal: i32,
    /// Where it stands.
    pub state: WorkerState,
    /// What `ALTER SYSTEM` had set on it before; none for a setting that it had not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<String, Option<String>>,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerState {
    /// Nothing has been done to it.
    Waiting,
    /// The change is being made.
    Begun,
    /// It has the change.
    Done,
    /// The change was taken back.
    TakenBack,
}

/// How the task that does the deeds is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// At work.
    Running,
    /// It could not go on for now; it is tried again.
    Stuck(String),
}

impl Record {
    /// What stands on the experiment.
    pub fn of(experiment: &ShadowExperiment) -> Option<Self> {
        serde_json::from_str(experiment.annotations().get(ROLLOUT)?).ok()
    }

    /// A rollout that begins: the highest ordinal first, as a StatefulSet does it.
    pub fn begin(candidate: &Candidate, index: usize, set: &StatefulSet) -> Self {
        let spec = set.spec.as_ref();
        let first = spec.and_then(|spec| spec.ordinals.as_ref()).and_then(|o| o.start).unwrap_or(0);
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let worker = |ordinal| WorkerRecord {
            pod: format!("{}-{ordinal}", set.name_any()),
            ordinal,
            state: WorkerState::Waiting,
            before: BTreeMap::new(),
        };
        Self {
            candidate: candidate.clone(),
            index,
            stage: Stage::Rolling,
            workers: (first..first + replicas).rev().map(worker).collect(),
            set_before: None,
            reason: None,
        }
    }

    /// Whether there is something left to do.
    pub fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Rolling | Stage::TakingBack)
    }

    /// The worker that is next, in the direction in which it goes.
    pub fn next(&self) -> Option<usize> {
        match self.stage {
            Stage::Rolling => {
                self.workers.iter().position(|w| matches!(w.state, WorkerState::Begun | WorkerState::Waiting))
            }
            // The last that got it is the first to lose it.
            Stage::TakingBack => {
                self.workers.iter().rposition(|w| matches!(w.state, WorkerState::Begun | WorkerState::Done))
            }
            Stage::Done | Stage::TakenBack => None,
        }
    }

    /// As it stands in status.
    pub fn status(&self) -> Rollout {
        let done = self.workers.iter().filter(|worker| worker.state == WorkerState::Done).count();
        Rollout {
            candidate: self.candidate.name.clone(),
            done: i32::try_from(done).unwrap_or(i32::MAX),
            of: i32::try_from(self.workers.len()).unwrap_or(i32::MAX),
            current: self.next().and_then(|index| self.workers.get(index)).map(|worker| worker.pod.clone()),
        }
    }
}

/// The candidate that is asked to be promoted: by a person, or by the verdict under `Automatic`.
pub fn asked<'a>(experiment: &'a ShadowExperiment, verdict: Option<&'a Verdict>) -> Option<&'a str> {
    let by_hand = experiment.annotations().get(PROMOTE).map(String::as_str);
    let by_verdict = || {
        let automatic = experiment.spec.promotion.policy == PromotionPolicy::Automatic;
        verdict.filter(|verdict| automatic && verdict.outcome == Outcome::Better)?.candidate.as_deref()
    };
    by_hand.or_else(by_verdict)
}

/// The rollout of a candidate, or why it can't be.
pub fn prepare(experiment: &ShadowExperiment, name: &str, set: &StatefulSet) -> Result<Record, Refusal> {
    let refuse = |message: String| Refusal { reason: ConditionReason::InvalidSpec, message };
    let found = experiment.spec.candidates.iter().enumerate().find(|(_, candidate)| candidate.name == name);
    let Some((index, candidate)) = found else {
        return Err(refuse(format!("there is no candidate `{name}` to promote")));
    };
    if candidate.storage.is_some() {
        return Err(refuse(format!(
            "spec.candidates[{index}].storage: another storage can't be promoted yet; \
             a StatefulSet's volumes can't be changed in place"
        )));
    }
    Ok(Record::begin(candidate, index, set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": { "name": "events" },
            "spec": { "replicas": 3, "serviceName": "events", "selector": {}, "template": {} },
        }))
        .unwrap()
    }

    #[test]
    fn workers_get_it_from_the_last_to_the_first_and_lose_it_the_other_way() {
        let mut record = Record::begin(&Candidate { name: "idx".into(), ..Candidate::default() }, 0, &set());
        let pods: Vec<_> = record.workers.iter().map(|worker| worker.pod.as_str()).collect();
        assert_eq!(pods, ["events-2", "events-1", "events-0"]);
        record.workers[0].state = WorkerState::Done;
        record.workers[1].state = WorkerState::Begun;
        assert_eq!(
            record.status(),
            Rollout { candidate: "idx".into(), done: 1, of: 3, current: Some("events-1".into()) }
        );
        record.stage = Stage::TakingBack;
        assert_eq!(record.next(), Some(1));
        record.workers[1].state = WorkerState::TakenBack;
        assert_eq!(record.next(), Some(0));
        record.workers[0].state = WorkerState::TakenBack;
        assert_eq!(record.next(), None);
    }

    #[test]
    fn another_storage_is_refused() {
        let experiment: ShadowExperiment = serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "ShadowExperiment", "metadata": { "name": "idx" },
            "spec": { "target": {}, "candidates": [{ "name": "a" }, { "name": "zfs", "storage": { "size": "1Gi" } }] },
        }))
        .unwrap();
        assert!(prepare(&experiment, "a", &set()).is_ok());
        let refusal = prepare(&experiment, "zfs", &set()).unwrap_err();
        assert!(refusal.message.starts_with("spec.candidates[1].storage:"), "{}", refusal.message);
        assert!(prepare(&experiment, "none", &set()).is_err());
    }
}
