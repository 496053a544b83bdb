//! What an experiment needs done, given its world. Pure: what was observed goes in, actions and the new
//! status come out. Every action may be repeated.
//!
//! ```text
//!  Pending ──fit──► Cloning ──the mirror's word──► CatchingUp ► WarmingUp ► Observing ► Concluded
//!     ▲                │                                                                  │ promote
//!     └─ not fit: a condition, tried again       mirror dead or hung: Failed              ▼
//!  from anywhere: halt ► Halted;  deletion ► direct, everything removed        Promoting ► Promoted
//! ```
//!
//! Whatever happens, production goes direct before anything else is done.

mod arms;
mod leading;
mod promoting;

use std::collections::BTreeMap;

use kube::ResourceExt;
use understudy_crds::{
    condition::{ConditionReason, ConditionType, Phase},
    labels::{FINALIZER, ROUTING},
    pods::{CandidatesNotice, PromotionNotice},
    status::ShadowExperimentStatus,
};

use self::arms::Candidates;
use super::{
    fit::{Refusal, examine},
    objects::{Kind, Object},
    rollout::Record,
    routing::{self, Selector, Standing},
    status::Draft,
    world::{Credentials, Settings, World},
};

/// Silent probes in a row after which a mirror counts as hung.
pub const SILENT_LIMIT: u32 = 3;

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Production goes direct.
    RouteDirect,
    /// Keep the resource until production goes direct again.
    AddFinalizer,
    /// Write the Service's own selector on the experiment.
    RecordSelector(Selector),
    /// Make the certificates.
    MakeCertificates,
    /// Make an object, or change it.
    Ensure(Box<Object>),
    /// Remove an object.
    Delete(Kind, String),
    /// The mirror takes the Service's place.
    RouteToMirror,
    /// Tell the mirror to stop mirroring.
    HaltMirror,
    /// Tell the mirror that no Service leads to it any more.
    ReleaseMirror,
    /// Keep the report that the mirror wrote in this phase.
    KeepReport(Phase),
    /// Tell the mirror which candidates there shall be.
    TellCandidates(CandidatesNotice),
    /// Tell the mirror about the promotion.
    Announce(PromotionNotice),
    /// Write down what was judged, by candidate.
    RecordTested(BTreeMap<String, String>),
    /// Write down that a rollout begins.
    BeginRollout(Box<Record>),
    /// See to it that the rollout goes on.
    DriveRollout,
    /// Say it as an Event.
    Say(Saying),
    /// Let the resource go.
    RemoveFinalizer,
}

/// An Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// Whether somebody should look.
    pub warning: bool,
    /// The phase, or the condition's reason.
    pub reason: String,
    /// For people.
    pub note: String,
}

/// When to look again, if nothing happens before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// In a second.
    Soon,
    /// When something has been changed, or after a while.
    Later,
}

/// What is to be done, and what is then to be said.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// The new status; none when the resource goes.
    pub status: Option<ShadowExperimentStatus>,
    /// When to look again.
    pub again: Again,
}

/// What an experiment needs done.
pub fn plan(world: &World, settings: &Settings) -> Plan {
    if world.experiment.metadata.deletion_timestamp.is_some() {
        return teardown(world);
    }
    let mut planner = Planner { world, actions: Vec::new(), draft: Draft::of(world) };
    planner.run(settings)
}

struct Planner<'a> {
    world: &'a World,
    actions: Vec<Action>,
    draft: Draft,
}

impl Planner<'_> {
    fn run(&mut self, settings: &Settings) -> Plan {
        let world = self.world;
        let before = self.draft.phase;
        let again = if world.experiment.spec.halt || matches!(before, Phase::Halted | Phase::Failed) {
            self.stopped()
        } else if !world.experiment.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            self.actions.push(Action::AddFinalizer);
            Again::Soon
        } else {
            self.go_on(settings)
        };
        let phase = self.draft.phase;
        if phase != before {
            let warning = matches!(phase, Phase::Failed);
            let note = self.draft.why(phase);
            self.actions.push(Action::Say(Saying { warning, reason: format!("{phase:?}"), note }));
        }
        if let Some(note) = self.draft.newly_reverted() {
            let reason = format!("{:?}", ConditionReason::PromotionReverted);
            self.actions.push(Action::Say(Saying { warning: true, reason, note }));
        }
        Plan { actions: std::mem::take(&mut self.actions), status: Some(self.draft.finish(world)), again }
    }

    /// The kill switch was thrown, or it could not go on: production is direct, the clones go.
    fn stopped(&mut self) -> Again {
        self.route_direct();
        self.release();
        self.keep_report();
        if self.world.experiment.spec.halt && self.draft.phase != Phase::Failed {
            self.draft.phase = Phase::Halted;
            self.draft.set(ConditionType::Mirroring, false, ConditionReason::HaltedByUser, "production goes direct");
        }
        let mirror_is_at_work = self.world.mirror.status.as_ref().is_some_and(|status| !is_over(status.phase));
        if mirror_is_at_work {
            self.actions.push(Action::HaltMirror);
        }
        self.remove_arms(|_| true);
        self.record_tested();
        self.promote();
        if mirror_is_at_work || self.draft.rolling() { Again::Soon } else { Again::Later }
    }

    fn go_on(&mut self, settings: &Settings) -> Again {
        let begun = self.draft.phase != Phase::Pending || self.world.ours.mirror.is_some();
        match examine(self.world) {
            Ok(fit) => {
                let candidates = self.tell_candidates(&fit);
                let message = match candidates {
                    Candidates::Told => "the candidates were edited; the mirror is told",
                    Candidates::Taken | Candidates::Unknown => "the worker is fit for it",
                };
                self.draft.set(ConditionType::Accepted, true, ConditionReason::AsPlanned, message);
                self.make(&fit, settings, begun, candidates);
            }
            Err(refusal) => {
                self.draft.refuse(&refusal);
                if !begun {
                    self.route_direct();
                    self.say_once(&refusal);
                    return Again::Later;
                }
            }
        }
        if self.draft.phase == Phase::Pending {
            self.draft.phase = Phase::Cloning;
        }
        if !is_over(self.draft.phase)
            && let Some(refusal) = self.mirror_is_lost(begun)
        {
            self.fail(refusal);
            return Again::Soon;
        }
        self.draft.take_over(self.world);
        self.record_tested();
        self.promote();
        self.route();
        self.keep_report();
        if self.draft.phase == Phase::Promoted || (self.draft.phase == Phase::Concluded && !self.lingers()) {
            self.remove_arms(|_| true);
            return Again::Later;
        }
        Again::Soon
    }

    /// A refusal is an Event when it is new.
    fn say_once(&mut self, refusal: &Refusal) {
        let known = self
            .draft
            .before
            .conditions
            .iter()
            .any(|condition| condition.type_ == ConditionType::Accepted && condition.message == refusal.message);
        if !known {
            let note = refusal.message.clone();
            self.actions.push(Action::Say(Saying { warning: true, reason: format!("{:?}", refusal.reason), note }));
        }
    }
}

/// Nothing is measured any more.
const fn is_over(phase: Phase) -> bool {
    matches!(phase, Phase::Concluded | Phase::Promoting | Phase::Promoted | Phase::Halted | Phase::Failed)
}

/// The Service's own selector, as it stands on the experiment.
pub fn recorded(world: &World) -> Option<Selector> {
    serde_json::from_str(world.experiment.annotations().get(ROUTING)?).ok()
}

/// The resource goes: production direct first, then everything that was made, then the resource. A
/// promotion that is not over is taken back: nobody could go on with it.
fn teardown(world: &World) -> Plan {
    let mut actions = Vec::new();
    let standing = world.service.as_ref().map(|service| routing::standing(service, &world.names));
    if matches!(standing, Some(Standing::Mirror | Standing::Changed)) {
        actions.push(Action::RouteDirect);
    }
    if world.mirror.status.as_ref().is_some_and(|status| !is_over(status.phase)) {
        actions.push(Action::HaltMirror);
    }
    for ((kind, name), found) in &world.ours.objects {
        if !found.going {
            actions.push(Action::Delete(*kind, name.clone()));
        }
    }
    // A rollout that is under way is taken back first, as long as there are workers to take it back from.
    let there = world.stateful_set.is_some() && matches!(world.credentials, Credentials::Complete { .. });
    if there && Record::of(&world.experiment).is_some_and(|record| record.is_active()) {
        actions.push(Action::DriveRollout);
    }
    if world.ours.objects.is_empty() && actions.is_empty() {
        actions.push(Action::RemoveFinalizer);
    }
    Plan { actions, status: None, again: Again::Soon }
}

#[cfg(test)]
mod tests;
