//! What happens to production when an experiment ends in another way than it was meant to: halted, deleted,
//! its pods killed, its operator restarted, its SQL wrong. In each a client with a ledger of acknowledged
//! writes is connected all the time.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::time::{Duration, Instant};

use serde_json::Value;
use understudy_kubernetes_tests::{
    fixture::{Workers, condition, has_cluster},
    kubectl::{kubectl, until},
};

const LIMIT: Duration = Duration::from_secs(180);

/// An experiment that goes on until somebody ends it.
fn experiment(name: &str, sql: &str) -> String {
    format!(
        "
apiVersion: understudy.dev/v1alpha1
kind: ShadowExperiment
metadata: {{ name: {name}, namespace: NAMESPACE }}
spec:
  target:
    statefulSet: {{ name: events, ordinal: 2, service: events-2, database: app, credentialsSecret: events-superuser }}
  candidates:
  - name: index
    sql: {{ apply: ['{sql}'] }}
  schedule: {{ warmUp: 2s, minimum: 10m, maximum: 1h }}
  capture: {{ memory: 64Mi }}
"
    )
}

const INDEX: &str = "CREATE INDEX ON events (user_id, kind)";

/// Three workers with a workload on the last one.
struct Scene {
    workers: Workers,
    direct: Value,
}

impl Scene {
    fn new(namespace: &str) -> Option<Self> {
        if !has_cluster() {
            return None;
        }
        let workers = Workers::start(namespace);
        let direct = workers.selector("events-2");
        workers.start_workload("events-2");
        Some(Self { workers, direct })
    }

    /// An experiment that has come to this phase.
    fn running(&self, name: &str, phase: &str) {
        self.workers.apply(&experiment(name, INDEX)).expect("an experiment");
        self.workers.until_phase(name, &[phase], LIMIT);
    }

    /// Waits until the Service leads to the worker itself. How long it took.
    fn until_direct(&self, what: &str, limit: Duration) -> Duration {
        let began = Instant::now();
        until(what, limit, || {
            let selector = self.workers.selector("events-2");
            if selector == self.direct { Ok(()) } else { Err(selector.to_string()) }
        });
        began.elapsed()
    }

    /// Nothing of the experiment's is left.
    fn until_gone(&self, name: &str) {
        let label = format!("understudy.dev/experiment={name}");
        until("everything that was made is gone", LIMIT, || {
            let what = "pods,persistentvolumeclaims,services,configmaps,secrets,networkpolicies";
            let left = self.workers.kubectl(&["get", what, "-l", &label, "--output=name"])?;
            if left.trim().is_empty() { Ok(()) } else { Err(left) }
        });
    }

    /// The workload goes on, has lost nothing, and saw no error.
    fn until_served(&self, errors: u64) {
        let before = self.workers.ledger("events-2").expect("a ledger").transactions;
        until("the workload goes on", LIMIT, || {
            let now = self.workers.ledger("events-2")?;
            if now.transactions > before + 50 { Ok(()) } else { Err(format!("{now:?}")) }
        });
        let ledger = self.workers.check_ledger("events-2");
        assert!(ledger.errors <= errors, "{ledger:?}");
    }
}

#[test]
fn the_kill_switch_has_production_direct_within_a_second() {
    let Some(scene) = Scene::new("understudy-halt") else { return };
    scene.running("halted", "Observing");
    assert_ne!(scene.workers.selector("events-2"), scene.direct, "the mirror is in the path");
    scene.workers.run(&["patch", "shadow", "halted", "--type=merge", "-p", r#"{"spec":{"halt":true}}"#]);
    let took = scene.until_direct("production is direct", Duration::from_secs(5));
    eprintln!("direct {} ms after kubectl patch returned", took.as_millis());
    let halted = scene.workers.until_phase("halted", &["Halted"], LIMIT);
    assert_eq!(condition(&halted, "Mirroring")["reason"], "HaltedByUser", "{halted}");
    scene.until_served(0);

    // The resource goes, and leaves nothing.
    scene.workers.run(&["delete", "shadow", "halted", "--timeout=120s"]);
    scene.until_gone("halted");
    scene.until_served(0);
}

#[test]
fn a_deleted_experiment_leaves_nothing_in_whatever_phase() {
    let Some(scene) = Scene::new("understudy-delete") else { return };
    for (name, phase) in [("early", "Cloning"), ("late", "Observing")] {
        scene.running(name, phase);
        scene.workers.run(&["delete", "shadow", name, "--timeout=120s"]);
        scene.until_direct("production is direct", Duration::from_secs(5));
        scene.until_gone(name);
        scene.until_served(0);
    }
}

#[test]
fn a_mirror_that_dies_is_taken_out_of_the_path() {
    let Some(scene) = Scene::new("understudy-mirror") else { return };
    scene.running("mirrored", "Observing");
    scene.workers.run(&["delete", "pod", "mirrored-mirror", "--grace-period=0", "--force"]);
    let took = scene.until_direct("production is direct", Duration::from_secs(10));
    eprintln!("direct {} ms after the mirror's pod was killed", took.as_millis());
    until("the experiment says so", LIMIT, || {
        let found = scene.workers.experiment("mirrored");
        let healthy = condition(&found, "Healthy");
        if healthy["reason"] == "MirrorGone" { Ok(()) } else { Err(found["status"].to_string()) }
    });
    // Those who were connected to it when it died saw that; nothing they were told is lost.
    scene.until_served(60);
}

#[test]
fn an_arm_that_dies_is_lost_and_production_does_not_notice() {
    let Some(scene) = Scene::new("understudy-arm") else { return };
    scene.running("armed", "Observing");
    scene.workers.run(&["delete", "pod", "armed-index", "--grace-period=0", "--force"]);
    until("the arm is lost", LIMIT, || {
        let found = scene.workers.experiment("armed");
        let arms = found["status"]["arms"].as_array().cloned().unwrap_or_default();
        let lost = arms.iter().any(|arm| arm["name"] == "index" && arm["state"] == "Lost");
        if lost { Ok(()) } else { Err(found["status"].to_string()) }
    });
    scene.until_served(0);
}

#[test]
fn an_operator_that_is_restarted_goes_on_where_it_was() {
    let Some(scene) = Scene::new("understudy-restart") else { return };
    scene.running("lasting", "Cloning");
    for phase in ["Observing", "Halted"] {
        kubectl(&[
            "-n",
            "understudy-system",
            "delete",
            "pod",
            "-l",
            "app.kubernetes.io/name=understudy",
            "--wait=false",
        ])
        .expect("the operator goes");
        if phase == "Halted" {
            scene.workers.run(&["patch", "shadow", "lasting", "--type=merge", "-p", r#"{"spec":{"halt":true}}"#]);
        }
        scene.workers.until_phase("lasting", &[phase], LIMIT);
    }
    scene.until_direct("production is direct", LIMIT);
    scene.until_served(0);
}

#[test]
fn a_candidate_whose_sql_fails_ends_the_experiment_and_says_why() {
    let Some(scene) = Scene::new("understudy-sql") else { return };
    scene.workers.apply(&experiment("wrong", "CREATE INDEX ON no_such_table (x)")).expect("an experiment");
    until("the experiment failed", LIMIT, || {
        let found = scene.workers.experiment("wrong");
        if found["status"]["phase"] == "Failed" { Ok(()) } else { Err(found["status"].to_string()) }
    });
    let said = scene.workers.experiment("wrong")["status"]["conditions"].to_string();
    assert!(said.contains("CandidateFailed") && said.contains("no_such_table"), "{said}");
    scene.until_direct("production is direct", Duration::from_secs(10));
    scene.until_served(0);
}

#[test]
fn what_is_wrong_with_a_manifest_is_said_at_admission() {
    let Some(scene) = Scene::new("understudy-admission") else { return };
    let good = experiment("refused", INDEX);
    for (from, to, word) in [
        ("ordinal: 2", "ordinal: -1", "ordinal"),
        ("service: events-2, ", "", "service"),
        ("- name: index", "- name: baseline", "production and baseline are names of other arms"),
        ("warmUp: 2s", "warmUp: soon", "warmUp"),
        ("minimum: 10m", "minimum: 2h", "minimum is longer than maximum"),
        ("    statefulSet:", "    local: { host: x, user: me, database: app }\n    statefulSet:", "exactly one of"),
    ] {
        assert!(good.contains(from), "{from}");
        let refused = scene.workers.apply(&good.replace(from, to)).expect_err("refused");
        assert!(refused.contains(word), "{to}: {refused}");
    }
    // What only shows later is a condition with a reason, and nothing is made.
    scene.workers.apply(&good.replace("service: events-2", "service: nowhere")).expect("taken");
    until("the reason stands in the status", LIMIT, || {
        let found = scene.workers.experiment("refused");
        let accepted = condition(&found, "Accepted");
        let says = accepted["message"].as_str().is_some_and(|message| message.contains("nowhere"));
        if accepted["status"] == "False" && says { Ok(()) } else { Err(found["status"].to_string()) }
    });
    scene.until_served(0);
}
