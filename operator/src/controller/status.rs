//! The status that an experiment shows: what the mirror says, with the controller's own observations
//! laid over it. Pure.

use jiff::Timestamp;
use understudy_crds::{
    ShadowExperimentStatus,
    condition::{Condition, ConditionReason, ConditionStatus, ConditionType, Phase},
    status::{Rollout, Verdict},
};

use super::{
    fit::Refusal,
    pods,
    rollout::{Attempt, Record, Stage},
    world::World,
};

/// The longest message that is kept in status.
const LONGEST_MESSAGE: usize = 1024;

/// A status in the making.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What was last said.
    pub before: ShadowExperimentStatus,
    /// Where the experiment stands.
    pub phase: Phase,
    /// Observations.
    pub conditions: Vec<Condition>,
    /// What the experiment says.
    pub verdict: Option<Verdict>,
    rollout: Option<Rollout>,
    rolling: bool,
    said: Option<Box<ShadowExperimentStatus>>,
    now: Timestamp,
}

/// Whether a condition holds, as far as is known.
pub fn holds(conditions: &[Condition], type_: ConditionType) -> Option<ConditionStatus> {
    conditions.iter().find(|condition| condition.type_ == type_).map(|condition| condition.status)
}

impl Draft {
    /// Begins with what was last said.
    pub fn of(world: &World) -> Self {
        let before = world.experiment.status.clone().unwrap_or_default();
        Self {
            phase: before.phase,
            conditions: before.conditions.clone(),
            verdict: before.verdict.clone(),
            rollout: before.rollout.clone(),
            rolling: false,
            said: None,
            now: world.now,
            before,
        }
    }

    /// Sets a condition. Its time changes only when its status does.
    pub fn set(&mut self, type_: ConditionType, holds: bool, reason: ConditionReason, message: &str) {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        self.put(type_, status, reason, message);
    }

    fn put(&mut self, type_: ConditionType, status: ConditionStatus, reason: ConditionReason, message: &str) {
        let known = self.before.conditions.iter().find(|known| known.type_ == type_ && known.status == status);
        let last_transition_time = match known {
            Some(known) => known.last_transition_time.clone(),
            None => self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        let message = message.chars().take(LONGEST_MESSAGE).collect();
        let new = Condition { type_, status, reason, message, last_transition_time };
        match self.conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) => *condition = new,
            None => self.conditions.push(new),
        }
    }

    /// The experiment can't be run as things are.
    pub fn refuse(&mut self, refusal: &Refusal) {
        self.set(ConditionType::Accepted, false, refusal.reason, &refusal.message);
    }

    /// What the mirror says is so.
    pub fn take_over(&mut self, world: &World) {
        if let Some(said) = &world.mirror.status {
            self.said = Some(said.clone());
            self.verdict = said.verdict.clone().or_else(|| self.verdict.take());
            // Before its first word about a phase it clones.
            self.phase = if said.phase == Phase::Pending { Phase::Cloning } else { said.phase };
            for Condition { type_, status, reason, message, last_transition_time: _ } in &said.conditions {
                // Where the Service leads, whether the experiment fits and the rollout are ours to say.
                if !matches!(type_, ConditionType::Mirroring | ConditionType::Accepted | ConditionType::Promoted) {
                    self.put(*type_, *status, *reason, message);
                }
            }
        }
        if self.phase == Phase::Cloning {
            let troubled = world.ours.arms.values().chain(world.ours.mirror.as_ref()).find_map(pods::trouble);
            match troubled {
                Some(trouble) => {
                    self.set(ConditionType::Cloned, false, ConditionReason::PodNotStarted, &trouble);
                }
                None if holds(&self.conditions, ConditionType::Cloned) != Some(ConditionStatus::True) => {
                    let message = "the worker is being cloned";
                    self.set(ConditionType::Cloned, false, ConditionReason::InProgress, message);
                }
                None => {}
            }
        }
    }

    /// A rollout begins.
    pub fn promoting(&mut self, record: &Record) {
        self.rolling = true;
        self.phase = Phase::Promoting;
        self.rollout = Some(record.status());
        let message = format!("{} goes to {} workers", record.candidate.name, record.workers.len());
        self.set(ConditionType::Promoted, false, ConditionReason::InProgress, &message);
    }

    /// How far the rollout is. `measured`: the mirror still measures what came of it.
    pub fn rolled(&mut self, record: &Record, measured: bool, attempt: Option<&Attempt>) {
        let (name, status) = (&record.candidate.name, record.status());
        let (done, of) = (status.done, status.of);
        self.rolling = record.is_active();
        match record.stage {
            Stage::Rolling | Stage::TakingBack => {
                self.phase = Phase::Promoting;
                let doing = if record.stage == Stage::Rolling { "goes to the workers" } else { "is being taken back" };
                let stuck = match attempt {
                    Some(Attempt::Stuck(why)) => format!("; tried again: {why}"),
                    _ => String::new(),
                };
                let current = status.current.as_deref().map(|pod| format!(", now {pod}")).unwrap_or_default();
                let message = format!("{name} {doing}: {done} of {of}{current}{stuck}");
                self.set(ConditionType::Promoted, false, ConditionReason::InProgress, &message);
            }
            Stage::Done => {
                self.phase = if measured { Phase::Promoting } else { Phase::Promoted };
                let message = format!("{name} is on all {of} workers");
                self.set(ConditionType::Promoted, true, ConditionReason::AsPlanned, &message);
            }
            Stage::TakenBack => {
                if !matches!(self.phase, Phase::Halted | Phase::Failed) {
                    self.phase = Phase::Concluded;
                }
                let why = record.reason.as_deref().unwrap_or("it failed");
                let message = format!("{name} was taken back from all workers: {why}");
                self.set(ConditionType::Promoted, false, ConditionReason::PromotionReverted, &message);
            }
        }
        self.rollout = Some(status);
    }

    /// Why a rollout was taken back, where that is not known yet.
    pub fn newly_reverted(&self) -> Option<String> {
        let reverted = |conditions: &[Condition]| {
            let is =
                |c: &&Condition| c.type_ == ConditionType::Promoted && c.reason == ConditionReason::PromotionReverted;
            conditions.iter().find(is).map(|condition| condition.message.clone())
        };
        reverted(&self.conditions).filter(|_| reverted(&self.before.conditions).is_none())
    }

    /// Whether a rollout is under way.
    pub fn rolling(&self) -> bool {
        self.rolling
    }

    /// Why the experiment is in a phase, for its Event.
    pub fn why(&self, phase: Phase) -> String {
        let about = |type_| {
            let found = self.conditions.iter().find(|condition| condition.type_ == type_);
            found.map(|condition| condition.message.clone()).unwrap_or_default()
        };
        match phase {
            Phase::Pending => about(ConditionType::Accepted),
            Phase::Cloning => "the worker is being cloned".to_owned(),
            Phase::CatchingUp => "the arms play what production did since the cut".to_owned(),
            Phase::WarmingUp => "the arms are level with production".to_owned(),
            Phase::Observing => "statements are measured and compared".to_owned(),
            Phase::Concluded => match &self.verdict {
                Some(verdict) => format!("{:?}: {}", verdict.outcome, verdict.message),
                None => about(ConditionType::Concluded),
            },
            Phase::Promoting | Phase::Promoted => about(ConditionType::Promoted),
            Phase::Halted | Phase::Failed => about(ConditionType::Mirroring),
        }
    }

    /// The status.
    pub fn finish(&mut self, world: &World) -> ShadowExperimentStatus {
        let base = self.said.take().map_or_else(|| self.before.clone(), |said| *said);
        let ShadowExperimentStatus {
            phase: _,
            observed_generation: _,
            conditions: _,
            production,
            mut arms,
            comparisons,
            verdict: _,
            outcomes,
            rollout: _,
            summary,
        } = base;
        for arm in &mut arms {
            if let Some(pod) = world.ours.arms.get(&arm.name) {
                arm.endpoint = pod.metadata.name.as_ref().map(|name| format!("pod/{name}"));
            }
        }
        let mut conditions = std::mem::take(&mut self.conditions);
        conditions.sort_by_key(|condition| order(condition.type_));
        ShadowExperimentStatus {
            phase: self.phase,
            observed_generation: world.experiment.metadata.generation,
            conditions,
            production,
            arms,
            comparisons,
            verdict: self.verdict.take(),
            outcomes,
            rollout: self.rollout.take(),
            summary,
        }
    }
}

/// The order in which conditions are shown: that of an experiment's life.
const fn order(type_: ConditionType) -> u8 {
    match type_ {
        ConditionType::Accepted => 0,
        ConditionType::Mirroring => 1,
        ConditionType::Cloned => 2,
        ConditionType::Healthy => 3,
        ConditionType::Concluded => 4,
        ConditionType::Promoted => 5,
    }
}
