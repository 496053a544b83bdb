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

use jiff::Timestamp;
use kube::ResourceExt;
use understudy_crds::{
    condition::{ArmState, ConditionReason, ConditionStatus, ConditionType, Outcome, Phase},
    labels::{FINALIZER, ROUTING},
    pods::{CandidatesNotice, PromotionNotice, PromotionState},
    status::ShadowExperimentStatus,
};

use super::{
    fit::{Fit, Refusal, examine},
    objects::{self, Kind, Object},
    pods,
    rollout::{self, Record, Stage},
    routing::{self, Selector, Standing},
    status::{Draft, holds},
    world::{Credentials, Settings, World},
};

/// Silent probes in a row after which a mirror counts as hung.
pub const SILENT_LIMIT: u32 = 3;
/// How long a mirror stays in the path after a verdict that may be promoted, so that the outcome can be
/// measured.
const LINGER_SECONDS: i64 = 3600;

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
        self.promote();
        if mirror_is_at_work || self.draft.rolling() { Again::Soon } else { Again::Later }
    }

    fn go_on(&mut self, settings: &Settings) -> Again {
        let begun = self.draft.phase != Phase::Pending || self.world.ours.mirror.is_some();
        match examine(self.world) {
            Ok(fit) => {
                let edited = self.tell_candidates(&fit);
                let message =
                    if edited { "the edited candidates are on their way" } else { "the worker is fit for it" };
                self.draft.set(ConditionType::Accepted, true, ConditionReason::AsPlanned, message);
                self.make(&fit, settings, begun, edited);
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
        self.promote();
        self.route();
        self.keep_report();
        if self.draft.phase == Phase::Promoted || (self.draft.phase == Phase::Concluded && !self.lingers()) {
            self.remove_arms(|_| true);
            return Again::Later;
        }
        Again::Soon
    }

    /// Whether the mirror does not work with these candidates yet; it is told.
    fn tell_candidates(&mut self, fit: &Fit<'_>) -> bool {
        let mirror = &self.world.mirror;
        if self.world.ours.mirror.is_none() || is_over(self.draft.phase) {
            return false;
        }
        let wanted = objects::config::candidates(fit, &objects::arms(fit));
        if mirror.status.is_none() {
            // One that is silent may still work with others.
            return true;
        }
        let edited = mirror.candidates != wanted.version;
        if edited {
            self.actions.push(Action::TellCandidates(wanted));
        }
        edited
    }

    /// What is missing is made, what is not wanted any more is removed. While the mirror may still play to arms
    /// that were `edited` away, they are left alone.
    fn make(&mut self, fit: &Fit<'_>, settings: &Settings, begun: bool, edited: bool) {
        let world = self.world;
        if is_over(self.draft.phase) {
            return;
        }
        if let Some(selector) = world.service.as_ref().and_then(routing::own_selector)
            && recorded(world).as_ref() != Some(&selector)
        {
            self.actions.push(Action::RecordSelector(selector));
        }
        let there = |kind: Kind, name: &str| world.ours.objects.get(&(kind, name.to_owned()));
        if there(Kind::Secret, &world.names.tls()).is_none() {
            self.actions.push(Action::MakeCertificates);
        }
        let wanted = objects::wanted(fit, settings);
        let replaced: Vec<&str> = wanted
            .iter()
            .filter(|object| matches!(object.kind, Kind::Pod | Kind::Volume))
            .filter(|object| there(object.kind, &object.name).is_some_and(|found| found.revision != object.revision))
            .filter_map(|object| object.arm.as_deref())
            .collect();
        let unwanted = |arm: &str| replaced.contains(&arm) || !objects::arms(fit).iter().any(|a| a.name == arm);
        if !edited {
            self.remove_arms(unwanted);
        }
        for object in &wanted {
            // What is being replaced is made anew when the old one is gone.
            if object.arm.as_deref().is_some_and(|arm| replaced.contains(&arm)) {
                continue;
            }
            let make = match there(object.kind, &object.name) {
                Some(found) => object.kind.changes_in_place() && !found.going && found.revision != object.revision,
                None => match (&object.arm, object.kind) {
                    // What belonged to an arm that has lived is not made again: it would be another.
                    (Some(arm), _) => self.may_be_seeded(arm),
                    (None, Kind::Pod) => !begun,
                    (None, _) => true,
                },
            };
            if make {
                self.actions.push(Action::Ensure(Box::new(object.clone())));
            }
        }
    }

    /// Whether an arm has not joined the traffic yet, as far as the mirror knows.
    fn may_be_seeded(&self, arm: &str) -> bool {
        let known = self.draft.before.arms.iter().find(|known| known.name == arm);
        known.is_none_or(|known| matches!(known.state, ArmState::Seeding | ArmState::Removed))
    }

    /// Why the mirror can't be relied on any more, if it can't.
    fn mirror_is_lost(&self, begun: bool) -> Option<Refusal> {
        let gone = |message: String| Refusal { reason: ConditionReason::MirrorGone, message };
        match &self.world.ours.mirror {
            None if begun => Some(gone("the mirror's pod is gone".to_owned())),
            Some(pod) if pods::has_ended(pod) => {
                Some(gone(format!("the mirror's pod has ended{}", pods::how_it_ended(pod))))
            }
            Some(_) if self.world.mirror.silent >= SILENT_LIMIT => {
                Some(gone(format!("the mirror did not answer {SILENT_LIMIT} times in a row")))
            }
            _ => None,
        }
    }

    fn fail(&mut self, refusal: Refusal) {
        self.route_direct();
        self.draft.phase = Phase::Failed;
        let Refusal { reason, message } = refusal;
        let message = format!("{message}; production goes direct");
        self.draft.set(ConditionType::Mirroring, false, reason, &message);
        self.draft.set(ConditionType::Healthy, false, reason, &message);
    }

    /// Where the Service leads, and where it shall.
    fn route(&mut self) {
        let Some(service) = &self.world.service else { return };
        let stays = match self.draft.phase {
            Phase::Cloning | Phase::CatchingUp | Phase::WarmingUp | Phase::Observing => true,
            Phase::Concluded => self.lingers(),
            Phase::Promoting => self.in_the_path(),
            Phase::Pending | Phase::Promoted | Phase::Halted | Phase::Failed => false,
        };
        let ready =
            self.world.ours.mirror.as_ref().is_some_and(pods::is_ready) && self.world.mirror.healthy == Some(true);
        match routing::standing(service, &self.world.names) {
            Standing::Mirror if stays => {
                self.draft.set(
                    ConditionType::Mirroring,
                    true,
                    ConditionReason::AsPlanned,
                    "clients reach the worker through the mirror",
                );
            }
            Standing::Direct if stays && ready && recorded(self.world).is_some() => {
                self.actions.push(Action::RouteToMirror);
                let message = "the mirror takes the Service's place";
                self.draft.set(ConditionType::Mirroring, true, ConditionReason::AsPlanned, message);
            }
            Standing::Direct if stays => {
                let message = "the mirror is being started; production goes direct";
                self.draft.set(ConditionType::Mirroring, false, ConditionReason::InProgress, message);
            }
            Standing::Changed if !is_over(self.draft.phase) => {
                let message = format!("somebody changed the selector of Service `{}`", service.name_any());
                self.fail(Refusal { reason: ConditionReason::ServiceChanged, message });
            }
            Standing::Other(other) if stays => {
                let message = format!("the mirror of {other} stands in the place of Service `{}`", service.name_any());
                self.fail(Refusal { reason: ConditionReason::WorkerTaken, message });
            }
            Standing::Mirror | Standing::Direct | Standing::Changed | Standing::Other(_) => {
                self.route_direct();
                self.release();
                let message = match self.draft.phase {
                    Phase::Promoting => "the mirror has left the path; production goes direct",
                    _ => "the experiment is over; production goes direct",
                };
                self.draft.set(ConditionType::Mirroring, false, ConditionReason::AsPlanned, message);
            }
        }
    }

    /// Whether production is led through the mirror, and the mirror serves it. One that was taken out of
    /// the path after the verdict does not come back: its arms have missed what went past it.
    fn in_the_path(&self) -> bool {
        let standing = self.world.service.as_ref().map(|service| routing::standing(service, &self.world.names));
        standing == Some(Standing::Mirror) && self.mirror_is_lost(true).is_none()
    }

    /// A mirror that no Service leads to may end.
    fn release(&mut self) {
        let world = self.world;
        let direct = world
            .service
            .as_ref()
            .is_none_or(|service| matches!(routing::standing(service, &world.names), Standing::Direct));
        if direct && world.mirror.status.is_some() {
            self.actions.push(Action::ReleaseMirror);
        }
    }

    /// What the mirror wrote is kept: its pod goes one day.
    fn keep_report(&mut self) {
        let Some(status) = &self.world.mirror.status else { return };
        let name = self.world.names.report();
        let kept = self.world.ours.objects.get(&(Kind::ConfigMap, name)).map(|found| found.revision.as_str());
        if is_over(status.phase) && status.phase != Phase::Promoting && kept != Some(&format!("{:?}", status.phase)) {
            self.actions.push(Action::KeepReport(status.phase));
        }
    }

    fn route_direct(&mut self) {
        let standing = self.world.service.as_ref().map(|service| routing::standing(service, &self.world.names));
        if matches!(standing, Some(Standing::Mirror | Standing::Changed)) {
            self.actions.push(Action::RouteDirect);
        }
    }

    /// Whether the mirror stays in the path since a promotion may follow.
    fn lingers(&self) -> bool {
        let better = self.draft.verdict.as_ref().is_some_and(|verdict| verdict.outcome == Outcome::Better);
        let refused = holds(&self.draft.conditions, ConditionType::Promoted) == Some(ConditionStatus::False);
        let since = self.draft.conditions.iter().find(|condition| condition.type_ == ConditionType::Concluded);
        let since = since.and_then(|condition| condition.last_transition_time.parse::<Timestamp>().ok());
        let recent = since.is_none_or(|since| self.world.now.as_second() - since.as_second() < LINGER_SECONDS);
        better && !refused && recent && self.in_the_path()
    }

    /// A promotion that is asked for, or under way.
    fn promote(&mut self) {
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

    fn remove_arms(&mut self, which: impl Fn(&str) -> bool) {
        for ((kind, name), found) in &self.world.ours.objects {
            if !found.going && found.arm.as_deref().is_some_and(&which) {
                self.actions.push(Action::Delete(*kind, name.clone()));
            }
        }
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
