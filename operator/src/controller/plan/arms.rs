//! Which arms there shall be: what is missing is made, what is not wanted any more goes, and the mirror is told
//! before anything is taken from under it.

use understudy_crds::condition::ArmState;

use super::{Action, Planner, is_over, recorded};
use crate::controller::{
    fit::Fit,
    objects::{self, Kind},
    routing,
    world::Settings,
};

/// What the mirror knows of the candidates that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidates {
    /// Its arms are of them, or there is no mirror yet.
    Taken,
    /// It has only just been told.
    Told,
    /// It says nothing: its arms may be of others.
    Unknown,
}

impl Planner<'_> {
    /// Whether the mirror's arms are of these candidates; where they are of others, it is told.
    pub(super) fn tell_candidates(&mut self, fit: &Fit<'_>) -> Candidates {
        let mirror = &self.world.mirror;
        if self.world.ours.mirror.is_none() || is_over(self.draft.phase) {
            return Candidates::Taken;
        }
        if mirror.status.is_none() {
            return Candidates::Unknown;
        }
        let wanted = objects::config::candidates(fit, &objects::arms(fit));
        if mirror.candidates == wanted.version {
            return Candidates::Taken;
        }
        self.actions.push(Action::TellCandidates(wanted));
        Candidates::Told
    }

    /// What is missing is made, what is not wanted any more is removed. While the mirror may still play to arms
    /// of other candidates, they are left alone.
    pub(super) fn make(&mut self, fit: &Fit<'_>, settings: &Settings, begun: bool, candidates: Candidates) {
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
        if candidates == Candidates::Taken {
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
    pub(super) fn may_be_seeded(&self, arm: &str) -> bool {
        let known = self.draft.before.arms.iter().find(|known| known.name == arm);
        known.is_none_or(|known| matches!(known.state, ArmState::Seeding | ArmState::Removed))
    }

    pub(super) fn remove_arms(&mut self, which: impl Fn(&str) -> bool) {
        for ((kind, name), found) in &self.world.ours.objects {
            if !found.going && found.arm.as_deref().is_some_and(&which) {
                self.actions.push(Action::Delete(*kind, name.clone()));
            }
        }
    }
}
