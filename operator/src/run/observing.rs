//! The observation: every half second it collects what was measured, judges, asks the plan what is
//! next, and shows where things stand.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use understudy_crds::{
    condition::{ConditionReason, ConditionType, Phase},
    status::Verdict,
};

use super::{Run, cutting, editing::Newcomers, finish::Books, observed};
use crate::{
    analysis::{
        Analysis,
        verdict::{Checks, GuardrailTripped, judge},
    },
    error::UserError,
    plan::{self, Next, World},
    platform::Platform,
    store::Stage,
};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How often the worker is searched for sessions that bypass the mirror, in looks.
const LOOKS_PER_LEAK_SEARCH: u32 = 4;

impl<P: Platform> Run<'_, P> {
    /// Observes until there is a verdict. `None`: halted.
    pub(super) async fn observe(&mut self, books: &mut Books) -> Result<Option<Analysis>, UserError> {
        let spec = self.options.experiment.spec.clone();
        books.edited(&self.options.experiment);
        let criteria = self.criteria();
        let mut analysis = Analysis::of_experiment(&spec);
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut halted = self.halted.clone();
        let (mut looks, mut leaking) = (0_u32, BTreeSet::new());
        let mut newcomers = Newcomers::new();
        let catching_up = self.options.screen.step("caught up");
        let mut catching_up = Some(catching_up);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = halted.wait_for(|halted| *halted) => {}
            }
            looks = looks.wrapping_add(1);
            for (arm, why) in self.platform.dead_arms().await {
                if let Some(shared) = self.mirror.arm(&arm) {
                    shared.lose(why.to_string().lines().next().unwrap_or("its server has ended"));
                }
            }
            if looks.is_multiple_of(LOOKS_PER_LEAK_SEARCH) {
                self.search_leaks(&mut leaking).await?;
            }
            self.learn_schemas().await;
            self.edit(&mut newcomers, &mut analysis, books);
            let intervals = self.mirror.take_intervals();
            for interval in &intervals {
                analysis.push(interval);
            }
            books.intervals(Stage::Observing, intervals)?;
            let verdict = self.judged(&analysis, None, false);
            books.look(&self.state, &self.mirror, &analysis).await?;
            let status = self.state.status();
            let disks = self.platform.disks();
            let world = World {
                disks: &disks,
                status: &status,
                in_phase: self.state.in_phase(),
                halted: self.state.is_halted(),
                verdict: verdict.is_some() && status.phase == Phase::Observing,
            };
            match plan::next(&world, &spec.schedule, &spec.guardrails) {
                Next::Stay => {}
                Next::Enter(phase) => {
                    if let Some(step) = catching_up.take() {
                        let played: i64 = status.arms.iter().map(|arm| arm.exchanges.played).sum();
                        let lost: i64 = status.arms.iter().map(|arm| arm.exchanges.lost).sum();
                        let played = crate::screen::count(played.unsigned_abs());
                        step.done(&format!("{played} exchanges replayed, {lost} lost"));
                    }
                    if phase == Phase::Observing {
                        self.mirror.observe(plan::interval(&spec.schedule), &newcomers.names());
                        books.observation_began();
                    }
                    self.state.enter(phase);
                }
                Next::Conclude(tripped) => {
                    drop(catching_up.take());
                    self.conclude(&analysis, tripped);
                    newcomers.stop(&self.mirror);
                    self.options.screen.live(&self.state.status(), &criteria, self.moment());
                    self.options.screen.live_done("observed", &observed(&analysis));
                    books.concluded(&self.state, &self.mirror, &analysis).await?;
                    return Ok(Some(analysis));
                }
                Next::Halt => {
                    drop(catching_up.take());
                    self.options.screen.live_clear();
                    self.judged(&analysis, None, true);
                    self.state.freeze();
                    return Ok(None);
                }
            }
            if status.phase != Phase::CatchingUp {
                self.options.screen.live(&self.state.status(), &criteria, self.moment());
            }
        }
    }

    /// What the experiment says now.
    fn judged(&self, analysis: &Analysis, tripped: Option<GuardrailTripped>, halted: bool) -> Option<Verdict> {
        let comparisons = analysis.comparisons();
        let spec = &self.options.experiment.spec;
        let status = self.state.status();
        let mut checks = Checks { guardrail: tripped, halted, ..Checks::of(analysis, &status) };
        // The last intervals are still on their way when the schedule ends: its end is the clock's.
        if status.phase == Phase::Observing && self.state.in_phase() >= spec.schedule.maximum.duration() {
            checks.elapsed = checks.elapsed.max(spec.schedule.maximum.duration());
        }
        let verdict = judge(spec, &comparisons, &checks);
        self.state.judged(comparisons, verdict.clone());
        verdict
    }

    fn conclude(&self, analysis: &Analysis, tripped: Option<GuardrailTripped>) {
        let healthy = match &tripped {
            Some(tripped) => (false, ConditionReason::GuardrailTripped, tripped.message.clone()),
            None => match self
                .state
                .status()
                .arms
                .iter()
                .find_map(|arm| arm.message.as_ref().map(|m| (arm.name.clone(), m.clone())))
            {
                Some((arm, message)) => (false, ConditionReason::ArmLost, format!("{arm}: {message}")),
                None => (true, ConditionReason::AsPlanned, "no arm lost, no guardrail tripped".to_owned()),
            },
        };
        let (holds, reason, message) = healthy;
        self.state.condition(ConditionType::Healthy, holds, reason, &message);
        if !holds {
            self.state.event("trouble", &message);
        }
        self.judged(analysis, tripped, false);
        self.state.freeze();
        self.state.enter(Phase::Concluded);
        let said = self.state.status().verdict.map(|v| v.message).unwrap_or_default();
        self.state.condition(ConditionType::Concluded, true, ConditionReason::AsPlanned, &said);
    }

    /// Sessions that bypass the mirror and write. One that was found writing at the last look as well is
    /// not another leak: `leaking` has their backends.
    async fn search_leaks(&self, leaking: &mut BTreeSet<i32>) -> Result<(), UserError> {
        let mut found = cutting::direct_sessions(&*self.platform, &self.mirror).await?;
        found.retain(|session| session.writing);
        let before = std::mem::replace(leaking, found.iter().map(|session| session.pid).collect());
        for session in found.iter().filter(|session| !before.contains(&session.pid)) {
            self.state.leaked(1);
            let message = format!(
                "{} of {} (process {}) writes around the mirror: the clones don't get it",
                session.application, session.user, session.pid
            );
            self.state.condition(ConditionType::Healthy, false, ConditionReason::WriteLeaked, &message);
            self.state.event("leak", &message);
        }
        Ok(())
    }
}
