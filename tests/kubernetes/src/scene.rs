//! What most scenarios begin with: workers, a client with a ledger on the last of them, and an experiment
//! that studies it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    fixture::{Workers, has_cluster},
    kubectl::until,
};

/// Longest time for what an experiment does by itself.
pub const LIMIT: Duration = Duration::from_secs(480);
/// Longest time until production is direct again, whatever happened.
pub const DIRECT: Duration = Duration::from_secs(5);

/// What is asked of an experiment with an index that goes on until somebody ends it.
pub const ENDLESS: &str = "
  candidates:
  - name: index
    sql: { apply: ['CREATE INDEX ON events (user_id, kind)'] }
  schedule: { warmUp: 2s, minimum: 10m, maximum: 1h }";

/// An experiment on the last worker; `rest` is what is asked, as it stands below `spec`.
pub fn experiment(name: &str, rest: &str) -> String {
    experiment_on(2, name, rest)
}

/// The same, on the worker of this ordinal.
pub fn experiment_on(ordinal: u32, name: &str, rest: &str) -> String {
    format!(
        "
apiVersion: understudy.dev/v1alpha1
kind: ShadowExperiment
metadata: {{ name: {name}, namespace: NAMESPACE }}
spec:
  target:
    statefulSet:
      {{ name: events, ordinal: {ordinal}, service: events-{ordinal}, database: app, credentialsSecret: events-superuser }}
  capture: {{ memory: 64Mi }}
{rest}
"
    )
}

/// Three workers with a workload on the last one.
pub struct Scene {
    /// The workers.
    pub workers: Workers,
    /// The selector of the last worker's Service, as it was.
    pub direct: Value,
}

impl Scene {
    /// A scene in a fresh namespace; none without a cluster.
    ///
    /// # Panics
    /// When the workers do not start.
    pub fn new(namespace: &str) -> Option<Self> {
        if !has_cluster() {
            return None;
        }
        let workers = Workers::start(namespace);
        let direct = workers.selector("events-2");
        workers.start_workload("events-2");
        Some(Self { workers, direct })
    }

    /// Starts an experiment, and waits until it has come to this phase; the experiment then.
    ///
    /// # Panics
    /// When it does not.
    pub fn running(&self, name: &str, rest: &str, phase: &str) -> Value {
        self.workers.apply(&experiment(name, rest)).expect("an experiment");
        self.workers.until_phase(name, &[phase], LIMIT)
    }

    /// Throws the kill switch.
    ///
    /// # Panics
    /// When the API server does not take it.
    pub fn halt(&self, name: &str) {
        self.workers.run(&["patch", "shadow", name, "--type=merge", "-p", r#"{"spec":{"halt":true}}"#]);
    }

    /// Waits until the Service leads to the worker itself. How long it took.
    ///
    /// # Panics
    /// When it does not within the limit.
    pub fn until_direct(&self, what: &str, limit: Duration) -> Duration {
        let began = Instant::now();
        until(what, limit, || {
            let selector = self.workers.selector("events-2");
            if selector == self.direct { Ok(()) } else { Err(selector.to_string()) }
        });
        began.elapsed()
    }

    /// Deletes an experiment, and waits until nothing of it is left.
    ///
    /// # Panics
    /// When something is.
    pub fn delete(&self, name: &str) {
        self.workers.run(&["delete", "shadow", name, "--timeout=120s"]);
        let label = format!("understudy.dev/experiment={name}");
        until("everything that was made is gone", LIMIT, || {
            let what = "pods,persistentvolumeclaims,services,configmaps,secrets,networkpolicies";
            let left = self.workers.kubectl(&["get", what, "-l", &label, "--output=name"])?;
            if left.trim().is_empty() { Ok(()) } else { Err(left) }
        });
    }

    /// The workload goes on, has lost nothing, and saw no more errors than these.
    ///
    /// # Panics
    /// When it does not.
    pub fn until_served(&self, errors: u64) {
        let before = self.workers.ledger("events-2").expect("a ledger").transactions;
        until("the workload goes on", LIMIT, || {
            let now = self.workers.ledger("events-2")?;
            if now.transactions > before + 50 { Ok(()) } else { Err(format!("{now:?}")) }
        });
        let ledger = self.workers.check_ledger("events-2");
        assert!(ledger.errors <= errors, "{ledger:?}");
    }
}
