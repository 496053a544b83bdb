//! A promotion that is asked for or under way, and the report that is kept for it.

use std::collections::BTreeMap;

use kube::ResourceExt;
use understudy_crds::{
    condition::{ConditionReason, ConditionType, Phase},
    labels::TESTED,
    pods::{PromotionNotice, PromotionState},
};

use super::{Action, Planner, is_over};
use crate::controller::{
    fit::Refusal,
    objects::{Kind, change_revision, config::version},
    rollout::{self, Record, Stage},
    world::World,
};

impl Planner<'_> {
    /// Writes down what was judged: a candidate that is edited afterwards is another one.
    pub(super) fn record_tested(&mut self) {
        let World { experiment, mirror, .. } = self.world;
        if !is_over(self.draft.phase) || mirror.status.is_none() || experiment.annotations().contains_key(TESTED) {
            return;
        }
        let candidates = &experiment.spec.candidates;
        // Edited before it was written down: then nothing is known to be what was judged.
        let same = version(candidates) == mirror.candidates;
        let judged = candidates.iter().filter(|_| same);
        let tested = judged.map(|candidate| (candidate.name.clone(), change_revision(Some(candidate)))).collect();
        self.actions.push(Action::RecordTested(tested));
    }

    /// Why a candidate is not promoted, if it is not what was judged. `None` as long as that is not written down.
    fn untested(&self, name: &str) -> Option<Result<(), Refusal>> {
        let experiment = &self.world.experiment;
        let refuse = |message: String| Some(Err(Refusal { reason: ConditionReason::InvalidSpec, message }));
        let Some(text) = experiment.annotations().get(TESTED) else {
            // As long as the mirror may still say it, that is waited for.
            self.mirror_is_lost(true)?;
            return refuse(format!("the mirror is gone, so it is not known whether `{name}` is what was tested"));
        };
        let tested: BTreeMap<String, String> = serde_json::from_str(text).unwrap_or_default();
        let candidate = experiment.spec.candidates.iter().find(|candidate| candidate.name == name);
        if candidate.is_some_and(|found| tested.get(name) != Some(&change_revision(Some(found)))) {
            return refuse(format!("candidate `{name}` was edited since it was tested; test it in another experiment"));
        }
        Some(Ok(()))
    }

    /// A promotion that is asked for, or under way.
    pub(super) fn promote(&mut self) {
        let world = self.world;
        let verdict = self.draft.verdict.clone();
        let Some(record) = Record::of(&world.experiment) else {
            let Some(name) = rollout::asked(&world.experiment, verdict.as_ref()) else { return };
            if !matches!(self.draft.phase, Phase::Concluded | Phase::Halted) {
                return;
            }
            let Some(set) = &world.stateful_set else { return };
            let Some(tested) = self.untested(name) else { return };
            match tested.and_then(|()| rollout::prepare(&world.experiment, name, set)) {
                Ok(record) => {
                    self.draft.promoting(&record);
                    self.actions.push(Action::BeginRollout(Box::new(record)));
                }
                Err(refusal) => {
                    self.draft.set(ConditionType::Promoted, false, refusal.reason, &refusal.message);
                }
            }
            return;
        };
        let said = world.mirror.status.as_ref().map(|status| status.phase);
        let notice = |state| Action::Announce(PromotionNotice { state, candidate: record.candidate.name.clone() });
        // What comes of it can be measured only on what passes the mirror.
        let said = said.filter(|_| self.in_the_path());
        match (record.stage, said) {
            (Stage::Rolling, Some(Phase::Concluded)) => self.actions.push(notice(PromotionState::Began)),
            (Stage::Done, Some(Phase::Promoting)) => self.actions.push(notice(PromotionState::Ended)),
            _ => {}
        }
        if record.is_active() {
            self.actions.push(Action::DriveRollout);
        }
        self.draft.rolled(&record, said == Some(Phase::Promoting), world.attempt.as_ref());
    }

    /// What the mirror wrote is kept: its pod goes one day.
    pub(super) fn keep_report(&mut self) {
        let Some(status) = &self.world.mirror.status else { return };
        let name = self.world.names.report();
        let kept = self.world.ours.objects.get(&(Kind::ConfigMap, name)).map(|found| found.revision.as_str());
        if is_over(status.phase) && status.phase != Phase::Promoting && kept != Some(&format!("{:?}", status.phase)) {
            self.actions.push(Action::KeepReport(status.phase));
        }
    }
}
