//! `--verify`: compares every table of the worker with every arm's, at one and the same moment of
//! production's life, while traffic goes on.
//!
//! The gate is closed for a moment in which no transaction is open; a snapshot on the worker is taken;
//! the gate opens. The arms play everything until that moment and hold; a snapshot is taken there; they
//! go on. The comparison then takes as long as it takes, and nobody waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use understudy_crds::condition::ArmState;

use super::Run;
use crate::{
    error::{ErrorKind, Side, UserError},
    platform::{
        Platform,
        local::{
            session::{Names, Session},
            verify::{self, TableComparison, TableOutcome},
        },
    },
    screen::{Ending, Progress},
};

/// For so long a quiet moment is looked for, and the arms may take to reach it.
const LIMIT: Duration = Duration::from_secs(120);

impl<P: Platform> Run<'_, P> {
    /// Whether any table differs.
    pub(super) async fn verify(&mut self) -> Result<bool, UserError> {
        let step = self.options.screen.step("verified");
        if !self.mirror.arms().iter().any(|arm| arm.is_alive()) {
            step.end(Ending::Failed, "nothing: every arm was lost");
            return Ok(true);
        }
        step.progress(Progress::Doing("looking for a moment without open transactions".to_owned()));
        let database = self.platform.worker().target().database.clone();
        let worker = self.platform.worker().connect_to(&database, Names::User).await?;
        self.quiet_snapshot(&worker).await?;
        let mut sides: Vec<(String, Session)> = Vec::new();
        for arm in self.mirror.arms() {
            if arm.state().0 == ArmState::Lost {
                continue;
            }
            step.progress(Progress::Doing(format!("{} plays until that moment", arm.name)));
            let until = Instant::now() + LIMIT;
            while !arm.held.load(Ordering::Acquire) && arm.is_alive() {
                if Instant::now() > until {
                    return Err(UserError::new(
                        ErrorKind::TimedOut,
                        Side::Arm,
                        "an arm did not reach the moment of the comparison",
                    )
                    .fact("arm", &arm.name)
                    .fact("limit", format!("{} s", LIMIT.as_secs())));
                }
                sleep(Duration::from_millis(5)).await;
            }
            let session = self.platform.connect_arm(&arm.name, &database, Names::User).await?;
            verify::open_snapshot(&session).await?;
            sides.push((arm.name.clone(), session));
            arm.hold_from_ns.store(u64::MAX, Ordering::Relaxed);
        }
        let (mut tables, mut differing, mut clocks) = (0, Vec::new(), BTreeSet::new());
        for (arm, session) in &sides {
            step.progress(Progress::Doing(format!("comparing the tables of {arm}")));
            let compared = verify::compare(&worker, session, &BTreeMap::new()).await?;
            tables = compared.len();
            for TableComparison { table, outcome } in compared {
                match outcome {
                    TableOutcome::Same { .. } => {}
                    TableOutcome::SameButClock { columns, .. } => {
                        clocks.extend(columns.iter().map(|column| format!("{table}.{column}")));
                    }
                    TableOutcome::Differs { .. } | TableOutcome::OnlyLeft | TableOutcome::OnlyRight => {
                        differing.push(format!("{table} on {arm}"));
                    }
                }
            }
        }
        let arms = sides.len();
        if differing.is_empty() {
            let mut message = format!("{tables} tables hold the same rows on the worker and on {arms} arms");
            if !clocks.is_empty() {
                let columns: Vec<String> = clocks.into_iter().collect();
                message = format!("{message}, but for each server's own clock in {}", columns.join(", "));
            }
            step.done(&message);
            self.state.event("verified", &message);
        } else {
            let message = format!("{} of {} tables differ: {}", differing.len(), tables * arms, differing.join(", "));
            step.end(Ending::Failed, &message);
            self.state.event("verified", &message);
        }
        Ok(!differing.is_empty())
    }

    /// Takes a snapshot on the worker in a moment in which no transaction is open, and lets the arms
    /// hold at that moment.
    async fn quiet_snapshot(&self, worker: &Session) -> Result<(), UserError> {
        let pause = self.options.experiment.spec.cut.max_pause.duration();
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            let gate = self.mirror.close_gate(pause).await;
            if gate.in_flight.is_empty() && !gate.has_open_transactions() {
                let held = timeout(gate.left(), verify::open_snapshot(worker)).await;
                if let Ok(opened) = held {
                    opened?;
                    if let Some(cut) = gate.seal() {
                        for arm in self.mirror.arms() {
                            arm.held.store(false, Ordering::Release);
                            arm.hold_from_ns.store(cut.at_ns, Ordering::Relaxed);
                        }
                        return Ok(());
                    }
                    worker.run("ROLLBACK", LIMIT).await?;
                } else {
                    drop(gate);
                    return Err(UserError::new(
                        ErrorKind::TimedOut,
                        Side::Worker,
                        "the worker took longer for a snapshot than production may wait",
                    ));
                }
            } else {
                drop(gate);
            }
            sleep(Duration::from_millis(200)).await;
        }
        Err(UserError::new(ErrorKind::TimedOut, Side::Worker, "no moment without an open transaction was found")
            .fact("limit", format!("{} s", LIMIT.as_secs()))
            .remedy("try again when fewer transactions stay open"))
    }
}
