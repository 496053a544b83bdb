//! Does a rollout's deeds, one worker after the other, each gated by the worker's health. How far it is
//! is written on the experiment before each deed.
//!
//! What can't be done since the API server or a worker can't be reached is tried again later; what was
//! tried and failed is taken back from all workers.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use understudy_crds::{Candidate, ShadowExperiment, labels::ROLLOUT};

use super::{Record, Stage, WorkerState, set, sql};
use crate::{
    controller::{error::is_conflict, pods},
    error::{ErrorKind, Side, UserError},
    platform::local::worker::Worker,
};

/// Longest time for a worker to come back.
const READY_LIMIT: Duration = Duration::from_secs(15 * 60);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a rollout can't go on for now.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// The API server.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// Something that we need is not there.
    #[error("{0}")]
    Missing(&'static str),
    /// A worker can't be reached; nothing has been done to it yet.
    #[error("{}", .0.what)]
    Worker(UserError),
}

/// A worker that could not be changed.
struct Failed {
    error: UserError,
    /// Its PostgreSQL has the change nevertheless.
    applied: bool,
}

/// Does what is left to do of an experiment's rollout.
pub async fn run(client: Client, namespace: String, name: String) -> Result<(), Stuck> {
    let experiments: Api<ShadowExperiment> = Api::namespaced(client.clone(), &namespace);
    let experiment = experiments.get(&name).await?;
    let target = experiment.spec.target.stateful_set.clone().ok_or(Stuck::Missing("spec.target.statefulSet"))?;
    let Some(record) = Record::of(&experiment) else { return Ok(()) };
    let mut driver = Driver {
        experiments,
        sets: Api::namespaced(client.clone(), &namespace),
        pods: Api::namespaced(client.clone(), &namespace),
        secrets: Api::namespaced(client, &namespace),
        name,
        target,
        record,
        template_is_back: false,
    };
    while driver.record.is_active() {
        match driver.record.stage {
            Stage::Rolling => driver.roll().await?,
            Stage::TakingBack => driver.take_back().await?,
            Stage::Done | Stage::TakenBack => {}
        }
    }
    Ok(())
}

struct Driver {
    experiments: Api<ShadowExperiment>,
    sets: Api<StatefulSet>,
    pods: Api<Pod>,
    secrets: Api<Secret>,
    name: String,
    target: understudy_crds::experiment::StatefulSetTarget,
    record: Record,
    template_is_back: bool,
}

impl Driver {
    /// The next worker gets the change.
    async fn roll(&mut self) -> Result<(), Stuck> {
        if let Some(why) = self.called_off().await? {
            return self.give_up(why.to_owned()).await;
        }
        let set = self.sets.get(&self.target.name).await?;
        let Some(index) = self.record.next() else { return self.finish().await };
        let Some(worker) = self.record.workers.get(index).cloned() else { return Ok(()) };
        let by_sql = self.by_sql(&set);
        let interrupted = worker.state == WorkerState::Begun;
        if worker.state == WorkerState::Waiting {
            let connection = self.connect(&worker.pod, &set).await?;
            let before = sql::settings_before(&connection, &by_sql).await.map_err(Stuck::Worker)?;
            if let Some(worker) = self.record.workers.get_mut(index) {
                worker.before = before;
                worker.state = WorkerState::Begun;
            }
            if self.record.set_before.is_none() && set::touches(&set, &self.record.candidate) {
                self.record.set_before = set::before(&set).and_then(|before| serde_json::to_value(before).ok());
            }
            self.save().await?;
        }
        tracing::info!(experiment = %self.name, worker = %worker.pod, candidate = %self.record.candidate.name,
            "a worker gets the change");
        match self.change_worker(index, &worker.pod, worker.ordinal, &by_sql, interrupted).await? {
            Ok(()) => {
                self.mark(index, WorkerState::Done);
                self.save().await
            }
            Err(Failed { error, applied }) => {
                // What its PostgreSQL did not keep need not be taken back: that could hit what is another's.
                self.mark(index, if applied { WorkerState::Done } else { WorkerState::TakenBack });
                self.give_up(shown(&worker.pod, &error)).await
            }
        }
    }

    /// Why the rollout is not to go on, if somebody wants it so.
    async fn called_off(&self) -> Result<Option<&'static str>, Stuck> {
        let experiment = self.experiments.get(&self.name).await?;
        if experiment.metadata.deletion_timestamp.is_some() {
            return Ok(Some("the experiment was deleted"));
        }
        Ok(experiment.spec.halt.then_some("the experiment was halted"))
    }

    async fn change_worker(
        &mut self,
        index: usize,
        pod: &str,
        ordinal: i32,
        by_sql: &Candidate,
        interrupted: bool,
    ) -> Result<Result<(), Failed>, Stuck> {
        let not_applied = |error| Ok(Err(Failed { error, applied: false }));
        if self.record.set_before.is_some() {
            let candidate = self.record.candidate.clone();
            self.change_set(|set| {
                set::put(set, &candidate);
                set::hold_below(set, ordinal);
            })
            .await?;
            if let Err(error) = self.follows(pod).await? {
                return not_applied(error);
            }
        }
        let set = self.sets.get(&self.target.name).await?;
        let connection = self.connect(pod, &set).await?;
        if interrupted && (by_sql.sql.is_some() || !by_sql.parameters.is_empty()) {
            // An operator before us was at it. How far it came is not known, so it starts anew.
            let before = self.record.workers.get(index).map(|worker| worker.before.clone()).unwrap_or_default();
            let back = sql::take_back(&connection, self.record.index, by_sql, &before).await;
            if let Some(error) = back.map_or_else(Some, |back| back.failed) {
                tracing::info!(worker = %pod, error = %error.what, "the change was not there yet");
            }
        }
        if by_sql.sql.is_some() || !by_sql.parameters.is_empty() {
            let restart = match sql::put(&connection, self.record.index, by_sql).await {
                Ok(restart) => restart,
                Err(error) => return not_applied(error),
            };
            if restart && let Err(error) = self.restart(pod).await {
                return Ok(Err(Failed { error, applied: true }));
            }
        }
        // After a restart the pod has another address.
        let connection = self.connect(pod, &set).await?;
        let checked = sql::check(&connection, self.record.index, by_sql).await;
        Ok(checked.map_err(|error| Failed { error, applied: true }))
    }

    /// All workers have it: the set goes back to its own way of updating.
    async fn finish(&mut self) -> Result<(), Stuck> {
        if let Some(before) = self.set_before() {
            let own = before.clone();
            self.change_set(|set| {
                let mut original = set.clone();
                set::put_back(&mut original, &own);
                if let (Some(spec), Some(original)) = (set.spec.as_mut(), original.spec) {
                    spec.update_strategy = original.update_strategy;
                }
            })
            .await?;
        }
        self.record.stage = Stage::Done;
        self.save().await
    }

    async fn give_up(&mut self, reason: String) -> Result<(), Stuck> {
        tracing::warn!(experiment = %self.name, reason, "the promotion failed and is taken back");
        self.record.stage = Stage::TakingBack;
        self.record.reason = Some(reason);
        self.save().await
    }

    /// The last worker that got the change loses it again.
    async fn take_back(&mut self) -> Result<(), Stuck> {
        if let Some(before) = self.set_before()
            && !self.template_is_back
        {
            self.change_set(|set| set::put_back(set, &before)).await?;
            self.follow_all().await?;
            self.template_is_back = true;
        }
        let Some(index) = self.record.next() else {
            self.record.stage = Stage::TakenBack;
            return self.save().await;
        };
        let Some(worker) = self.record.workers.get(index).cloned() else { return Ok(()) };
        let set = self.sets.get(&self.target.name).await?;
        let by_sql = self.by_sql(&set);
        // A worker on which it failed has taken it back by itself; doing it again does no harm.
        if by_sql.sql.is_some() || !by_sql.parameters.is_empty() {
            let connection = self.connect(&worker.pod, &set).await?;
            match sql::take_back(&connection, self.record.index, &by_sql, &worker.before).await {
                Ok(sql::TakenBack { restart, failed }) => {
                    if let Some(error) = failed.filter(|_| worker.state == WorkerState::Done) {
                        self.note(&worker.pod, &error);
                    }
                    if restart && let Err(error) = self.restart(&worker.pod).await {
                        self.note(&worker.pod, &error);
                    }
                }
                Err(error) => self.note(&worker.pod, &error),
            }
        }
        self.mark(index, WorkerState::TakenBack);
        self.save().await
    }

    /// Waits until all workers that had the changed template have their own again: while the set restarts
    /// one of them, nobody else may. The last that got it comes first: it may be why nothing goes on.
    async fn follow_all(&mut self) -> Result<(), Stuck> {
        let touched = self.record.workers.iter().rev().filter(|worker| worker.state != WorkerState::Waiting);
        let pods: Vec<String> = touched.map(|worker| worker.pod.clone()).collect();
        for pod in pods {
            if let Err(error) = self.follows(&pod).await? {
                self.note(&pod, &error);
            }
        }
        Ok(())
    }

    /// What could not be taken back must be said: a person has to look.
    fn note(&mut self, pod: &str, error: &UserError) {
        let reason = self.record.reason.get_or_insert_default();
        reason.push_str("; not taken back: ");
        reason.push_str(&shown(pod, error));
    }

    fn mark(&mut self, index: usize, state: WorkerState) {
        if let Some(worker) = self.record.workers.get_mut(index) {
            worker.state = state;
        }
    }

    fn set_before(&self) -> Option<set::Before> {
        self.record.set_before.clone().and_then(|before| serde_json::from_value(before).ok())
    }

    /// The part of the change that PostgreSQL makes itself.
    fn by_sql(&self, set: &StatefulSet) -> Candidate {
        let (_, parameters) = set::split(set, &self.record.candidate);
        Candidate { parameters, ..self.record.candidate.clone() }
    }

    /// Writes down how far it is.
    async fn save(&self) -> Result<(), Stuck> {
        // Plain data with string keys always becomes JSON.
        let text = serde_json::to_string(&self.record).unwrap_or_default();
        let patch = json!({ "metadata": { "annotations": { ROLLOUT: text } } });
        self.experiments.patch_metadata(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn change_set(&self, change: impl Fn(&mut StatefulSet)) -> Result<(), Stuck> {
        loop {
            let found = self.sets.get(&self.target.name).await?;
            let mut set = found.clone();
            change(&mut set);
            if set == found {
                return Ok(());
            }
            match self.sets.replace(&self.target.name, &PostParams::default(), &set).await {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a pod is as the template has it, and ready.
    async fn follows(&self, pod: &str) -> Result<Result<(), UserError>, Stuck> {
        let end = Instant::now() + READY_LIMIT;
        loop {
            let set = self.sets.get(&self.target.name).await?;
            let status = set.status.clone().unwrap_or_default();
            let seen = status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0);
            let found = self.pods.get_opt(pod).await?;
            let current = found.as_ref().and_then(|pod| pod.labels().get("controller-revision-hash"));
            let follows = seen && current.is_some() && current == status.update_revision.as_ref();
            if follows && found.as_ref().is_some_and(pods::is_ready) {
                return Ok(Ok(()));
            }
            // A StatefulSet waits for ever for a pod that never becomes ready, also when the template has
            // been put right since.
            let in_the_way = found.as_ref().is_some_and(|pod| {
                current != status.update_revision.as_ref()
                    && pod.metadata.deletion_timestamp.is_none()
                    && (set::updated_by_deletion(&set) || !pods::is_ready(pod))
            });
            if seen && in_the_way {
                self.pods.delete(pod, &DeleteParams::default()).await?;
            }
            if Instant::now() >= end {
                let trouble = found.as_ref().and_then(pods::trouble).unwrap_or_default();
                return Ok(Err(not_back(pod).fact("reason", trouble)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Restarts a worker by deleting its pod, and waits until it serves again.
    async fn restart(&self, pod: &str) -> Result<(), UserError> {
        let failed = |e: &kube::Error| {
            UserError::new(ErrorKind::Unreachable, Side::Worker, "a worker can't be restarted")
                .fact("pod", pod)
                .fact("reason", e)
        };
        let uid = |pod: &Pod| pod.metadata.uid.clone();
        let before = self.pods.get_opt(pod).await.map_err(|e| failed(&e))?.as_ref().and_then(uid);
        self.pods.delete(pod, &DeleteParams::default()).await.map_err(|e| failed(&e))?;
        let end = Instant::now() + READY_LIMIT;
        while Instant::now() < end {
            // An API server that is away for a moment is no reason to give up a worker.
            if let Ok(Some(now)) = self.pods.get_opt(pod).await
                && uid(&now) != before
                && pods::is_ready(&now)
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(not_back(pod))
    }

    async fn connect(&self, pod: &str, set: &StatefulSet) -> Result<Worker, Stuck> {
        let secret = self.secrets.get(&self.target.credentials_secret).await?;
        let key = |name: &str| {
            let bytes = secret.data.as_ref()?.get(name)?;
            String::from_utf8(bytes.0.clone()).ok()
        };
        let found = self.pods.get(pod).await?;
        let host = found.status.and_then(|status| status.pod_ip).ok_or(Stuck::Missing("the worker's address"))?;
        let access = sql::Access {
            host,
            port: set::port(set),
            database: self.target.database.clone(),
            user: key("username").ok_or(Stuck::Missing("the Secret's username"))?,
            password: key("password").ok_or(Stuck::Missing("the Secret's password"))?,
        };
        access.worker().map_err(Stuck::Worker)
    }
}

fn not_back(pod: &str) -> UserError {
    UserError::new(ErrorKind::TimedOut, Side::Worker, "a worker is not ready again")
        .fact("pod", pod)
        .fact("limit", format!("{} min", READY_LIMIT.as_secs() / 60))
}

/// One line: the pod, what happened, why.
fn shown(pod: &str, error: &UserError) -> String {
    let because = error.facts.iter().find(|(key, _)| key == "because").map(|(_, value)| value.as_str());
    let reason = error.facts.iter().find(|(key, _)| key == "reason").map(|(_, value)| value.as_str());
    let parts: Vec<&str> = [Some(error.what.as_str()), because, reason].into_iter().flatten().collect();
    format!("{pod}: {}", parts.join(": "))
}
