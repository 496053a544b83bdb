//! The promotion: the very same change on the worker, and then what production did, beside what was
//! predicted. The clones stay meanwhile: the baseline, which has not got the change, plays the same
//! statements at the same moment, so whatever else goes on in the world falls on both.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use understudy_crds::{
    condition::{ConditionReason, ConditionType, Phase},
    experiment::Criterion,
};

use super::{Run, finish::Books};
use crate::{
    analysis::{Analysis, criteria, outcome::outcomes},
    error::UserError,
    plan,
    platform::{Platform, local::promotion::Effect},
    screen::{Progress, count},
    store::Stage,
};

impl<P: Platform> Run<'_, P> {
    pub(super) async fn promote(
        &mut self,
        candidate: &str,
        before: &Analysis,
        books: &mut Books,
    ) -> Result<(), UserError> {
        self.state.enter(Phase::Promoting);
        let step = self.options.screen.step("promoted");
        step.progress(Progress::Doing("the same change is made on the worker".to_owned()));
        let promoted = match self.platform.promote(candidate, None).await {
            Ok(promoted) => promoted,
            Err(error) => {
                step.fail("the change was taken back");
                let reason = error.kind.condition_reason();
                self.state.condition(ConditionType::Promoted, false, reason, &error.line());
                self.state.event("promotion", &format!("failed: {}", error.what));
                return Err(error);
            }
        };
        let waiting: Vec<_> =
            promoted.settings.iter().filter(|(_, e)| **e == Effect::AtRestart).map(|(name, _)| name.as_str()).collect();
        let message = if waiting.is_empty() {
            format!("{candidate}: the same change, now on the worker and in effect")
        } else {
            format!("{candidate}: on the worker; {} take effect when it is restarted", waiting.join(", "))
        };
        step.done(&message);
        self.state.condition(ConditionType::Promoted, true, ConditionReason::AsPlanned, &message);
        self.state.event("promoted", &message);
        self.measure_outcome(candidate, before, books).await?;
        self.state.enter(Phase::Promoted);
        Ok(())
    }

    /// Goes on measuring until the outcome is clear, or its time is over.
    async fn measure_outcome(
        &mut self,
        candidate: &str,
        before: &Analysis,
        books: &mut Books,
    ) -> Result<(), UserError> {
        let spec = self.options.experiment.spec.clone();
        let (least, most) = plan::outcome_time(&spec.schedule);
        let step = self.options.screen.step("outcome");
        self.mirror.observe(plan::interval(&spec.schedule), &[]);
        let mut after = Analysis::of_promotion(&spec);
        let began = Instant::now();
        let (mut found, judged) = (Vec::new(), criteria::of(&spec));
        while began.elapsed() < most && !self.state.is_halted() {
            sleep(Duration::from_millis(500)).await;
            let intervals = self.mirror.take_intervals();
            for interval in &intervals {
                after.push(interval);
            }
            books.intervals(Stage::Promoted, intervals)?;
            found = outcomes(&spec, candidate, before, &after);
            let statements = after.counts(understudy_crds::labels::PRODUCTION).all();
            let so_far = format!("production is measured on: {} statements", count(statements));
            step.progress(Progress::Doing(so_far));
            let told = |criterion: &Criterion| found.iter().any(|outcome| criteria::is_outcome_of(outcome, criterion));
            if began.elapsed() >= least && judged.iter().all(told) {
                break;
            }
        }
        drop(step);
        if found.is_empty() {
            self.options.screen.note("after the promotion there was too little traffic to say what production did");
        }
        self.options.screen.outcomes(&found);
        for outcome in &found {
            self.state.event("outcome", &crate::screen::outcome_line(outcome));
        }
        self.state.promoted(found);
        Ok(())
    }
}
