//! Where production is led: through the mirror only while the mirror can serve it, else direct.

use jiff::Timestamp;
use kube::ResourceExt;
use understudy_crds::condition::{ConditionReason, ConditionStatus, ConditionType, Outcome, Phase};

use super::{Action, Planner, SILENT_LIMIT, is_over, recorded};
use crate::{
    controller::{
        fit::Refusal,
        pods,
        routing::{self, Standing},
        status::holds,
    },
    plan::promotion_window,
};

impl Planner<'_> {
    /// Why the mirror can't be relied on any more, if it can't.
    pub(super) fn mirror_is_lost(&self, begun: bool) -> Option<Refusal> {
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

    pub(super) fn fail(&mut self, refusal: Refusal) {
        self.route_direct();
        self.draft.phase = Phase::Failed;
        let Refusal { reason, message } = refusal;
        let message = format!("{message}; production goes direct");
        self.draft.set(ConditionType::Mirroring, false, reason, &message);
        self.draft.set(ConditionType::Healthy, false, reason, &message);
    }

    /// Where the Service leads, and where it shall.
    pub(super) fn route(&mut self) {
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

    /// A mirror that no Service leads to may end.
    pub(super) fn release(&mut self) {
        let world = self.world;
        let direct = world
            .service
            .as_ref()
            .is_none_or(|service| matches!(routing::standing(service, &world.names), Standing::Direct));
        if direct && world.mirror.status.is_some() {
            self.actions.push(Action::ReleaseMirror);
        }
    }

    pub(super) fn route_direct(&mut self) {
        let standing = self.world.service.as_ref().map(|service| routing::standing(service, &self.world.names));
        if matches!(standing, Some(Standing::Mirror | Standing::Changed)) {
            self.actions.push(Action::RouteDirect);
        }
    }

    /// Whether the mirror stays in the path since a promotion may follow.
    pub(super) fn lingers(&self) -> bool {
        let better = self.draft.verdict.as_ref().is_some_and(|verdict| verdict.outcome == Outcome::Better);
        let refused = holds(&self.draft.conditions, ConditionType::Promoted) == Some(ConditionStatus::False);
        let since = self.draft.conditions.iter().find(|condition| condition.type_ == ConditionType::Concluded);
        let since = since.and_then(|condition| condition.last_transition_time.parse::<Timestamp>().ok());
        let recent = since.is_none_or(|since| {
            self.world.now.as_second() - since.as_second() < promotion_window().as_secs().cast_signed()
        });
        better && !refused && recent && self.in_the_path()
    }

    /// Whether production is led through the mirror, and the mirror serves it. One that was taken out of
    /// the path after the verdict does not come back: its arms have missed what went past it.
    pub(super) fn in_the_path(&self) -> bool {
        let standing = self.world.service.as_ref().map(|service| routing::standing(service, &self.world.names));
        standing == Some(Standing::Mirror) && self.mirror_is_lost(true).is_none()
    }
}
