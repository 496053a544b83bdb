//! A promotion that is asked for or under way, and the report that is kept for it.

use understudy_crds::{
    condition::{ConditionType, Phase},
    pods::{PromotionNotice, PromotionState},
};

use super::{Action, Planner, is_over};
use crate::controller::{
    objects::Kind,
    rollout::{self, Record, Stage},
};

impl Planner<'_> {
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
            match rollout::prepare(&world.experiment, name, set) {
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
