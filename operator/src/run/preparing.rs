//! From the first clone to arms that live on mirrored traffic: clones, cut, candidate, replay. Must not judge what they
//! then do.

use std::{collections::BTreeMap, sync::Arc};

use understudy_crds::condition::{ConditionReason, ConditionType, Phase};

use super::{
    Companion, Run,
    cutting::{self, CutMade},
};
use crate::{
    error::{ErrorKind, Side, UserError},
    platform::Platform,
    screen::{Ending, Progress},
};

impl<P: Platform> Run<'_, P> {
    /// Clones, cut, candidate, replay. `false`: halted on the way.
    pub(super) async fn prepare_arms(&mut self, companion: &impl Companion) -> Result<bool, UserError> {
        self.state.enter(Phase::Cloning);
        let mut halted = self.halted.clone();
        let prepared = async {
            while !self.seed(companion).await? {
                self.edit_before_the_cut()?;
            }
            let made = self.cut().await?;
            self.start_arms(made).await
        };
        tokio::select! {
            result = prepared => result.map(|()| true),
            // The sender lives as long as the state does.
            _ = halted.wait_for(|halted| *halted) => Ok(false),
        }
    }

    /// `false`: the candidates were edited meanwhile.
    async fn seed(&mut self, companion: &impl Companion) -> Result<bool, UserError> {
        let step = self.options.screen.step("clones");
        let before = companion.transactions();
        let (sender, mut copied) = tokio::sync::mpsc::unbounded_channel();
        let on_progress: crate::platform::OnProgress = Arc::new(move |arm, now| {
            // Nobody looks any more: the step is over.
            let _ = sender.send((arm.to_owned(), now));
        });
        let mut arms = BTreeMap::new();
        let bytes = self.platform.facts().data_bytes;
        let edited = self.platform.until_edited();
        let seeding = self.platform.seed(on_progress);
        tokio::pin!(seeding, edited);
        loop {
            tokio::select! {
                result = &mut seeding => break result?,
                () = &mut edited => return Ok(false),
                Some((arm, now)) = copied.recv() => {
                    arms.insert(arm, (now.done_bytes, now.total_bytes));
                    let (done, total) = arms.values().fold((0, 0), |(d, t), (done, total)| (d + done, t + total));
                    step.progress(Progress::Bytes { done, total });
                }
            }
        }
        let mut message = format!("{} × {} by base backup", self.arms.len(), crate::screen::bytes(bytes));
        if let (Some(before), Some(after)) = (before, companion.transactions()) {
            let served = crate::screen::count(after.saturating_sub(before));
            message = format!("{message}, while the worker served {served} transactions");
        }
        step.done(&message);
        self.state.event("clones", &message);
        Ok(true)
    }

    async fn cut(&mut self) -> Result<CutMade, UserError> {
        let step = self.options.screen.step("cut");
        // What the arms play is planned from the cut on.
        self.learn_schemas().await;
        self.platform.prepare_cut().await?;
        let policy = self.options.experiment.spec.capture.direct;
        let direct = cutting::drain_direct(self.platform, &self.mirror, policy, |busy| {
            let who: Vec<_> = busy.iter().map(|s| format!("{} ({})", s.application, s.pid)).collect();
            step.progress(Progress::Doing(format!("waiting for direct transactions to end: {}", who.join(", "))));
        })
        .await?;
        let max_pause = self.options.experiment.spec.cut.max_pause.duration();
        let made = cutting::make(self.platform, &self.mirror, &self.arms, max_pause).await?;
        let status = &made.status;
        let carried = match status.carried_over {
            0 => "no transaction was open".to_owned(),
            1 => "1 open transaction carried over".to_owned(),
            n => format!("{n} open transactions carried over"),
        };
        let message = format!("at {}: production paused {} ms, {carried}", status.lsn, status.pause_ms);
        step.done(&message);
        self.state.event("cut", &message);
        if made.drawn > 0 {
            let note = format!(
                "{} of them may have drawn from sequences: rows that they add may have other numbers on the clones, which is \
                 counted as divergence",
                made.drawn
            );
            self.options.screen.note(&note);
            self.state.event("cut", &note);
        }
        if !direct.is_empty() {
            let note = format!(
                "{} direct sessions on the worker bypass the mirror; their writes are watched for",
                direct.len()
            );
            self.options.screen.note(&note);
            self.state.event("direct", &note);
        }
        Ok(made)
    }

    async fn start_arms(&mut self, made: CutMade) -> Result<(), UserError> {
        let step = self.options.screen.step("candidate");
        step.progress(Progress::Doing("the clones recover to the cut".to_owned()));
        let recovered = self.platform.cut(&made.probe, &made.in_doubt()).await?;
        let endpoints = self.platform.endpoints();
        let texts = endpoints.iter().map(|e| (e.name.clone(), e.text.clone())).collect();
        self.state.cut_done(made.status.clone(), texts);
        let message = self.change();
        step.progress(Progress::Doing(message.clone()));
        self.platform.apply().await?;
        if self.options.experiment.spec.candidates.is_empty() {
            step.end(Ending::Done, "none: the baseline alone, to see the noise (A/A)");
        } else {
            step.done(&message);
        }
        self.state.event("candidate", &message);
        for endpoint in endpoints {
            let committed = recovered.get(&endpoint.name).map(|r| made.committed(r)).unwrap_or_default();
            self.mirror.start_arm(&made.to_start, &endpoint.name, endpoint.address, committed).map_err(|error| {
                UserError::new(ErrorKind::Exited, Side::Host, "an arm can't start").fact("reason", error)
            })?;
        }
        self.state.enter(Phase::CatchingUp);
        self.state.condition(
            ConditionType::Cloned,
            true,
            ConditionReason::AsPlanned,
            "the arms live on mirrored traffic",
        );
        Ok(())
    }

    /// The candidates in a line: `user-id-index: CREATE INDEX …, random_page_cost = 1.1`.
    fn change(&self) -> String {
        let candidates = self.options.experiment.spec.candidates.iter().map(|candidate| {
            let sql = candidate.sql.iter().flat_map(|sql| sql.apply.iter().cloned());
            let parameters = candidate.parameters.iter().map(|(name, value)| format!("{name} = {value}"));
            let storage = candidate.storage.iter().flat_map(|s| s.directory.iter()).map(|d| format!("data in {d}"));
            let binaries = candidate.binaries.iter().map(|b| format!("binaries of {b}"));
            let parts: Vec<String> = sql.chain(parameters).chain(storage).chain(binaries).collect();
            format!("{}: {}", candidate.name, if parts.is_empty() { "no change".into() } else { parts.join(", ") })
        });
        candidates.collect::<Vec<_>>().join("; ")
    }
}
