//! What the controller carries from one reconciliation to the next. Nothing in here is needed after a
//! restart: what must last stands in the cluster.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::{Client, ResourceExt, runtime::events::Recorder};
use tokio::task::JoinHandle;
use understudy_crds::ShadowExperiment;

use super::{
    metrics::Metrics,
    rollout::{
        Attempt,
        drive::{self, Stuck},
    },
    world::Settings,
};

/// The first pause after a failure; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Numbers in status change all the time; they are written no more often than this.
const WRITE_EVERY: Duration = Duration::from_millis(900);
/// The pause before a rollout that is stuck is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// What all reconciliations share.
pub struct Context {
    /// The way to the API server.
    pub client: Client,
    /// What the controller was told.
    pub settings: Settings,
    /// Where Events go.
    pub recorder: Recorder,
    /// Counters.
    pub metrics: Metrics,
    memory: Mutex<HashMap<String, Memory>>,
}

#[derive(Default)]
struct Memory {
    heard: bool,
    halted: bool,
    silent: u32,
    failures: u32,
    rests_until: Option<Instant>,
    written: Option<Instant>,
    task: Option<JoinHandle<Result<(), Stuck>>>,
    stuck: Option<(String, Instant)>,
}

impl Memory {
    /// The pause after a failure. One that came before its time, since something else had happened, does not
    /// make the next pause longer: our own pods' news would soon have us wait for a minute.
    fn failed(&mut self, now: Instant) -> Duration {
        if let Some(rest) = self.rests_until.and_then(|end| end.checked_duration_since(now)).filter(|r| !r.is_zero()) {
            return rest;
        }
        self.failures = (self.failures + 1).min(16);
        let pause = (FIRST_PAUSE * 2_u32.pow(self.failures - 1)).min(LONGEST_PAUSE);
        self.rests_until = Some(now + pause);
        pause
    }
}

impl Context {
    /// Everything, with nothing in its memory.
    pub fn new(client: Client, settings: Settings, recorder: Recorder, metrics: Metrics) -> Self {
        Self { client, settings, recorder, metrics, memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, experiment: &ShadowExperiment, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(self.memory().entry(experiment.uid().unwrap_or_default()).or_default())
    }

    /// The kill switch stands so.
    pub fn halted(&self, experiment: &ShadowExperiment, thrown: bool) {
        self.with(experiment, |memory| memory.halted = thrown);
    }

    /// Whether the kill switch has been thrown, also since a reconciliation began.
    pub fn is_halted(&self, experiment: &ShadowExperiment) -> bool {
        self.with(experiment, |memory| memory.halted)
    }

    /// Whether the mirror has ever answered.
    pub fn has_heard(&self, experiment: &ShadowExperiment) -> bool {
        self.with(experiment, |memory| memory.heard)
    }

    /// Notes whether the mirror answered; says how often in a row it has not.
    pub fn heard(&self, experiment: &ShadowExperiment, healthy: bool) -> u32 {
        self.with(experiment, |memory| {
            memory.heard |= healthy;
            memory.silent = if healthy { 0 } else { memory.silent + 1 };
            memory.silent
        })
    }

    /// The pause after a failure: longer each time.
    pub fn failed(&self, experiment: &ShadowExperiment) -> Duration {
        self.with(experiment, |memory| memory.failed(Instant::now()))
    }

    /// It went well.
    pub fn succeeded(&self, experiment: &ShadowExperiment) {
        self.with(experiment, |memory| (memory.failures, memory.rests_until) = (0, None));
    }

    /// Whether status may be written again, when only numbers have changed.
    pub fn may_write(&self, experiment: &ShadowExperiment, urgent: bool) -> bool {
        self.with(experiment, |memory| {
            let may = urgent || memory.written.is_none_or(|written| written.elapsed() >= WRITE_EVERY);
            if may {
                memory.written = Some(Instant::now());
            }
            may
        })
    }

    /// How the rollout's task is.
    pub fn attempt(&self, experiment: &ShadowExperiment) -> Option<Attempt> {
        self.with(experiment, |memory| match (&memory.task, &memory.stuck) {
            (_, Some((why, _))) => Some(Attempt::Stuck(why.clone())),
            (Some(_), None) => Some(Attempt::Running),
            (None, None) => None,
        })
    }

    /// Sees to it that the rollout's task runs.
    pub async fn drive(&self, experiment: &ShadowExperiment) {
        let ended = self.with(experiment, |memory| memory.task.take_if(|task| task.is_finished()));
        if let Some(ended) = ended {
            let stuck = match ended.await {
                Ok(Ok(())) => None,
                Ok(Err(stuck)) => Some(stuck.to_string()),
                Err(_) => Some("the rollout's task ended unexpectedly".to_owned()),
            };
            if let Some(why) = &stuck {
                tracing::warn!(experiment = %experiment.name_any(), why, "the rollout can't go on now");
            }
            self.with(experiment, |memory| memory.stuck = stuck.map(|why| (why, Instant::now())));
        }
        self.with(experiment, |memory| {
            let rests = memory.stuck.as_ref().is_some_and(|(_, since)| since.elapsed() < TRY_AGAIN);
            if memory.task.is_none() && !rests {
                let namespace = experiment.namespace().unwrap_or_default();
                let task = drive::run(self.client.clone(), namespace, experiment.name_any());
                memory.task = Some(tokio::spawn(task));
            }
        });
    }

    /// The experiment is gone.
    pub fn forget(&self, experiment: &ShadowExperiment) {
        let gone = self.memory().remove(&experiment.uid().unwrap_or_default());
        if let Some(task) = gone.and_then(|memory| memory.task) {
            task.abort();
        }
    }

    /// Ends the rollouts' tasks; another operator goes on with them.
    pub fn stop(&self) {
        for memory in self.memory().values() {
            if let Some(task) = &memory.task {
                task.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_who_is_woken_early_keeps_the_pause_that_was_left() {
        let (mut memory, began) = (Memory::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let pauses: Vec<u64> =
            [0, 1, 3, 4, 6, 7, 15].into_iter().map(|second| memory.failed(at(second)).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 3, 1, 8, 16]);
        for _ in 0..100 {
            let rest = memory.failed(memory.rests_until.unwrap_or(began));
            assert!(rest <= LONGEST_PAUSE);
        }
    }
}
