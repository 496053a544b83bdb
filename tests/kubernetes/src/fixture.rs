//! A namespace with three workers and the workloads of some of them; it goes when this is dropped, and says
//! how long it was there.

use std::{
    collections::BTreeMap,
    env,
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    kubectl::{given, kubectl, object, until, until_within},
    ledger::Ledger,
};

const WORKERS: &str = include_str!("../manifests/workers.yaml");
const WORKLOAD: &str = include_str!("../manifests/workload.yaml");

/// The operator's chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/understudy");
/// The namespace of the operator.
pub const SYSTEM: &str = "understudy-system";
/// What selects the operator's pods in there.
pub const OPERATOR: &str = "app.kubernetes.io/instance=understudy,app.kubernetes.io/name=understudy-operator";

/// Whether the operator is installed: once is enough for all tests of a run, until one takes it away.
static INSTALLED: Mutex<bool> = Mutex::new(false);

/// Installs the operator with its chart unless it is there, and waits until it is. `UNDERSTUDY_TEST_IMAGE`
/// names another image than the test cluster's.
fn install_operator() {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return;
    }
    let image = env::var("UNDERSTUDY_TEST_IMAGE").unwrap_or_else(|_| "localhost/understudy/understudy".to_owned());
    helm(&[
        "upgrade",
        "--install",
        "understudy",
        CHART,
        "--namespace",
        SYSTEM,
        "--create-namespace",
        "--set",
        &format!("image.repository={image},image.tag=latest,image.pullPolicy=Never"),
        "--wait",
        "--timeout=120s",
    ]);
    *installed = true;
}

/// Takes the operator away again, as its chart does it; the next scene installs it anew.
///
/// # Panics
/// When that fails.
pub fn uninstall_operator() {
    *INSTALLED.lock().unwrap_or_else(PoisonError::into_inner) = false;
    helm(&["uninstall", "understudy", "--namespace", SYSTEM, "--wait", "--timeout=120s"]);
}

/// Runs `helm`.
///
/// # Panics
/// When it fails.
pub fn helm(arguments: &[&str]) -> String {
    let done = Command::new("helm").args(arguments).output().expect("helm");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "helm {}: {said}", arguments.join(" "));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Whether there is a cluster to test on; it has the operator then. Without one the tests say so and pass, except where one is
/// required (`UNDERSTUDY_REQUIRE_CLUSTER`).
pub fn has_cluster() -> bool {
    if kubectl(&["get", "--raw", "/readyz"]).is_ok() {
        install_operator();
        return true;
    }
    assert!(env::var_os("UNDERSTUDY_REQUIRE_CLUSTER").is_none(), "there is no cluster: see KUBECONFIG, make cluster");
    eprintln!("SKIPPED: there is no cluster (KUBECONFIG, or make cluster)");
    false
}

/// Three workers.
pub struct Workers {
    /// Their namespace.
    pub namespace: String,
    began: Instant,
}

impl Workers {
    /// Three workers that are ready, in a fresh namespace.
    ///
    /// # Panics
    /// When they do not become ready.
    pub fn start(namespace: &str) -> Self {
        let workers = Self { namespace: namespace.to_owned(), began: Instant::now() };
        workers.remove(true);
        given(&["apply", "-f", "-"], &WORKERS.replace("NAMESPACE", namespace)).expect("the workers' manifests");
        workers.run(&["rollout", "status", "statefulset/events", "--timeout=180s"]);
        workers
    }

    fn remove(&self, wait: bool) {
        // Experiments first: their finalizers need the operator, and the workers.
        for kind in ["shadowexperiments", "pods,statefulsets"] {
            let _ = kubectl(&["-n", &self.namespace, "delete", kind, "--all", "--timeout=60s", "--ignore-not-found"]);
        }
        let wait = if wait { "--wait=true" } else { "--wait=false" };
        let _ = kubectl(&["delete", "namespace", &self.namespace, "--ignore-not-found", wait, "--timeout=120s"]);
    }

    /// Runs `kubectl` in the namespace.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.kubectl(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, where it may fail.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let all: Vec<&str> = ["--namespace", &self.namespace].iter().chain(arguments).copied().collect();
        kubectl(&all)
    }

    /// Applies a manifest, `NAMESPACE` being this one.
    pub fn apply(&self, manifest: &str) -> Result<String, String> {
        given(&["--namespace", &self.namespace, "apply", "-f", "-"], &manifest.replace("NAMESPACE", &self.namespace))
    }

    /// Starts the workload of a worker, and waits until it works.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_workload(&self, worker: &str) {
        self.apply(&WORKLOAD.replace("WORKER", worker)).expect("the workload's manifest");
        until("the workload works", Duration::from_secs(120), || {
            let ledger = self.ledger(worker)?;
            if ledger.transactions > 20 { Ok(()) } else { Err(format!("{ledger:?}")) }
        });
    }

    /// What the workload says.
    pub fn ledger(&self, worker: &str) -> Result<Ledger, String> {
        let line = self.kubectl(&["logs", &format!("workload-{worker}"), "-c", "workload", "--tail=1"])?;
        serde_json::from_str(line.trim()).map_err(|e| format!("{e}: {line}"))
    }

    /// Runs SQL on a worker itself, around everything; the output, unaligned.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, worker: &str, sql: &str) -> String {
        let output =
            self.run(&["exec", worker, "-c", "postgres", "--", "psql", "-U", "postgres", "-d", "app", "-Atc", sql]);
        output.trim().to_owned()
    }

    /// Holds the ledger against the worker: no acknowledged entry may be missing. The ledger.
    ///
    /// # Panics
    /// When one is.
    pub fn check_ledger(&self, worker: &str) -> Ledger {
        let ledger = self.ledger(worker).expect("a ledger");
        let rows = self.sql(worker, "SELECT session, count(*), max(n) FROM ledger GROUP BY 1 ORDER BY 1");
        let found: BTreeMap<u32, (i64, i64)> = rows
            .lines()
            .filter_map(|row| {
                let mut parts = row.split('|').map(str::parse::<i64>);
                let (session, count, last) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
                Some((u32::try_from(session).ok()?, (count, last)))
            })
            .collect();
        for (session, acknowledged) in &ledger.acknowledged {
            let (count, last) = found.get(session).copied().unwrap_or_default();
            assert!(last >= *acknowledged, "session {session}: entry {acknowledged} was acknowledged, {last} is there");
            assert_eq!(count, last, "session {session}: entries are missing before {last}");
        }
        ledger
    }

    /// An experiment.
    pub fn experiment(&self, name: &str) -> Value {
        object(&self.namespace, "shadowexperiment", name)
    }

    /// Waits for a phase of an experiment; the experiment then.
    ///
    /// # Panics
    /// When it does not come, or another end does.
    pub fn until_phase(&self, name: &str, phases: &[&str], limit: Duration) -> Value {
        let lasts = phases.iter().all(|phase| matches!(*phase, "Concluded" | "Promoted" | "Halted"));
        let pause = Duration::from_millis(if lasts { 2000 } else { 250 });
        until_within(&format!("{name} is {phases:?}"), limit, pause, || {
            let experiment = self.experiment(name);
            let phase = experiment["status"]["phase"].as_str().unwrap_or("nothing").to_owned();
            if phases.contains(&phase.as_str()) {
                return Ok(experiment);
            }
            let conditions = experiment["status"]["conditions"].to_string();
            assert!(!matches!(phase.as_str(), "Failed"), "{name} failed: {conditions}");
            Err(format!("{phase}; {conditions}"))
        })
    }

    /// The workers' pods, in the order of their ordinals.
    ///
    /// # Panics
    /// When they can't be had.
    pub fn pods(&self) -> Vec<Value> {
        let list = self.run(&["get", "pods", "-l", "app=events", "--sort-by=.metadata.name", "--output=json"]);
        let list: Value = serde_json::from_str(&list).expect("a list");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The selector of a Service.
    pub fn selector(&self, service: &str) -> Value {
        object(&self.namespace, "service", service)["spec"]["selector"].clone()
    }
}

/// A condition of an experiment; null where it is not there.
pub fn condition(experiment: &Value, name: &str) -> Value {
    let all = experiment["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|condition| condition["type"] == name).unwrap_or_default()
}

impl Drop for Workers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What happened stands in there.
            for what in [
                vec!["get", "shadowexperiments,pods,persistentvolumeclaims,services", "-o", "wide"],
                vec!["get", "events", "--sort-by=.lastTimestamp"],
                vec!["logs", "-l", "understudy.dev/component=mirror", "--tail=40", "--prefix"],
                vec!["logs", "-l", "understudy.dev/component=arm", "--tail=40", "--prefix"],
            ] {
                eprintln!("{}", self.kubectl(&what).unwrap_or_else(|error| error));
            }
            if env::var_os("UNDERSTUDY_KEEP").is_some() {
                return;
            }
        }
        self.remove(false);
        eprintln!("{}: {} s", self.namespace, self.began.elapsed().as_secs());
    }
}
