//! Candidates that are added, changed and removed while an experiment runs. Only their own arms are touched:
//! an arm that comes later is seeded and cut by itself, one after the other, and is measured once it has
//! caught up and warmed up; one that goes is forgotten.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use understudy_crds::{
    condition::{ArmRole, ArmState, Phase},
    experiment::DirectSessions,
};
use understudy_mirror::mirror::Mirror;

use super::{Run, cutting, finish::Books, state::State};
use crate::{
    analysis::Analysis,
    error::{ErrorKind, Side, UserError},
    plan::{self, Edits},
    platform::{Edited, Platform},
};

/// Arms that came later than the others and are not measured yet.
pub(super) struct Newcomers<P> {
    making: JoinSet<(String, Result<P, UserError>)>,
    /// By candidate.
    all: BTreeMap<String, Newcomer>,
    /// Held by the one that is being made: production is copied, and paused, for one at a time.
    turn: Arc<Mutex<()>>,
}

struct Newcomer {
    task: AbortHandle,
    /// Since when it has been level with production.
    level_since: Option<Instant>,
}

impl<P: Platform> Newcomers<P> {
    pub(super) fn new() -> Self {
        Self { making: JoinSet::new(), all: BTreeMap::new(), turn: Arc::default() }
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<String> {
        self.all.keys().cloned().collect()
    }

    /// Lets go of a newcomer, however far it is.
    fn forget(&mut self, name: &str) {
        if let Some(newcomer) = self.all.remove(name) {
            newcomer.task.abort();
        }
    }

    /// The experiment has concluded: nobody waits for them any more.
    pub(super) fn stop(&mut self, mirror: &Mirror) {
        for name in self.names() {
            self.forget(&name);
            mirror.forget_arm(&name);
        }
    }

    /// Those that have been warm for long enough are measured.
    fn join(&mut self, mirror: &Mirror, phase: Phase, warm_up: Duration) {
        self.all.retain(|name, newcomer| {
            let Some((state, _)) = mirror.arm(name).map(|arm| arm.state()) else { return true };
            if matches!(state, ArmState::Lost | ArmState::Removed) {
                return false;
            }
            if state == ArmState::Live {
                let since = newcomer.level_since.get_or_insert_with(Instant::now);
                if phase == Phase::Observing && since.elapsed() >= warm_up {
                    mirror.join(name);
                    return false;
                }
            }
            true
        });
    }
}

impl<P: Platform> Run<'_, P> {
    /// As long as nothing was cut, whoever is added is seeded with the others.
    pub(super) fn edit_before_the_cut(&mut self) -> Result<(), UserError> {
        let Some(Edited { candidates, version }) = self.platform.edited() else { return Ok(()) };
        let spec = &mut self.options.experiment.spec;
        let Edits { removed, added } = plan::edits(&spec.candidates, &candidates);
        spec.candidates = candidates;
        for name in removed {
            self.platform.dismiss(&name);
            self.state.arm_removed(&name);
            self.state.event("candidates", &format!("{name} was removed"));
        }
        for candidate in added {
            self.platform.admit(&candidate)?;
            self.state.arm_added(&candidate.name);
            self.state.event("candidates", &format!("{} was added", candidate.name));
        }
        self.arms = super::arms(&self.options.experiment);
        self.state.took_candidates(&version);
        Ok(())
    }

    /// Looks whether candidates were edited, and how far the newcomers are.
    pub(super) fn edit(&mut self, newcomers: &mut Newcomers<P>, analysis: &mut Analysis, books: &mut Books) {
        if let Some(edited) = self.platform.edited() {
            self.take(edited, newcomers, analysis, books);
        }
        while let Some(made) = newcomers.making.try_join_next() {
            // One that was let go of says nothing any more.
            let Ok((name, result)) = made else { continue };
            match result {
                Ok(platform) => self.platform.welcome(platform),
                Err(error) => {
                    newcomers.all.remove(&name);
                    match self.mirror.arm(&name) {
                        Some(arm) => arm.lose(&error.line()),
                        None => self.state.arm_failed(&name, &error.line()),
                    }
                    self.state.event("candidates", &format!("{name} has no arm: {}", error.line()));
                }
            }
        }
        let warm_up = self.options.experiment.spec.schedule.warm_up.duration();
        newcomers.join(&self.mirror, self.state.status().phase, warm_up);
    }

    fn take(&mut self, edited: Edited, newcomers: &mut Newcomers<P>, analysis: &mut Analysis, books: &mut Books) {
        let spec = &mut self.options.experiment.spec;
        let Edits { removed, added } = plan::edits(&spec.candidates, &edited.candidates);
        let (policy, max_pause) = (spec.capture.direct, spec.cut.max_pause.duration());
        spec.candidates = edited.candidates;
        for name in removed {
            newcomers.forget(&name);
            // Before the arm itself goes: a status never compares an arm that it does not have.
            self.state.arm_removed(&name);
            self.mirror.forget_arm(&name);
            self.platform.dismiss(&name);
            analysis.remove_candidate(&name);
            self.state.event("candidates", &format!("{name} was removed"));
        }
        for candidate in added {
            let name = candidate.name.clone();
            self.state.arm_added(&name);
            analysis.add_candidate(&name);
            self.state.event("candidates", &format!("{name} was added"));
            let making = Making {
                opening: self.platform.newcomer(&candidate),
                turn: Arc::clone(&newcomers.turn),
                mirror: Arc::clone(&self.mirror),
                state: self.state.clone(),
                name: name.clone(),
                policy,
                max_pause,
            };
            let task = newcomers.making.spawn(async move { (making.name.clone(), Box::pin(making.make()).await) });
            newcomers.all.insert(name, Newcomer { task, level_since: None });
        }
        self.arms = super::arms(&self.options.experiment);
        books.edited(&self.options.experiment);
        self.state.took_candidates(&edited.version);
    }
}

/// An arm that is made while others play.
struct Making<F> {
    opening: F,
    turn: Arc<Mutex<()>>,
    mirror: Arc<Mirror>,
    state: State,
    name: String,
    policy: DirectSessions,
    max_pause: Duration,
}

impl<P: Platform, F: Future<Output = Result<P, UserError>>> Making<F> {
    /// The same steps as for the first arms: clone, cut, change, replay.
    async fn make(self) -> Result<P, UserError> {
        let Self { opening, turn, mirror, state, name, policy, max_pause } = self;
        let _turn = turn.lock().await;
        let mut platform = opening.await?;
        platform.seed(Arc::new(|_, _| {})).await?;
        platform.prepare_cut().await?;
        cutting::drain_direct(&platform, &mirror, policy, |_| {}).await?;
        let arms = [(name.clone(), ArmRole::Candidate)];
        let made = cutting::make(&platform, &mirror, &arms, max_pause).await?;
        let recovered = platform.cut(&made.probe, &made.in_doubt()).await?;
        let missing = || UserError::new(ErrorKind::Missing, Side::Arm, format!("{name} is nowhere to be reached"));
        let endpoint = platform.endpoints().into_iter().find(|e| e.name == name).ok_or_else(missing)?;
        state.arm_cut(&name, made.status.clone(), endpoint.text.clone());
        platform.apply().await?;
        let committed = recovered.get(&name).map(|found| made.committed(found)).unwrap_or_default();
        mirror.start_arm(&made.to_start, &name, endpoint.address, committed).map_err(|error| {
            UserError::new(ErrorKind::Exited, Side::Host, "an arm can't start").fact("reason", error)
        })?;
        Ok(platform)
    }
}
