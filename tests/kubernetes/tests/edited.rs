//! Candidates that are added, changed and removed while an experiment runs touch only their own arms.

#![expect(clippy::indexing_slicing, reason = "a test that can't have what it needs has failed")]

use std::time::Duration;

use serde_json::Value;
use understudy_kubernetes_tests::{
    fixture::{Workers, has_cluster},
    kubectl::until,
};

const LIMIT: Duration = Duration::from_secs(180);

/// An experiment that goes on until somebody ends it, with these candidates.
fn experiment(candidates: &str) -> String {
    format!(
        "
apiVersion: understudy.dev/v1alpha1
kind: ShadowExperiment
metadata: {{ name: edited, namespace: NAMESPACE }}
spec:
  target:
    statefulSet: {{ name: events, ordinal: 2, service: events-2, database: app, credentialsSecret: events-superuser }}
  candidates:
{candidates}
  schedule: {{ warmUp: 2s, minimum: 10m, maximum: 1h }}
  capture: {{ memory: 64Mi }}
"
    )
}

const COST: &str = "  - { name: cost, parameters: { random_page_cost: '1.1' } }";
const MEMORY: &str = "  - { name: memory, parameters: { work_mem: 16MB } }";
const MORE_MEMORY: &str = "  - { name: memory, parameters: { work_mem: 32MB } }";
const WRONG: &str = "  - { name: wrong, sql: { apply: ['CREATE INDEX ON no_such_table (x)'] } }";

/// Waits until these arms, and no others, are there and live; the experiment then.
fn until_live(workers: &Workers, names: &[&str]) -> Value {
    until(&format!("{names:?} are live"), LIMIT, || {
        let found = workers.experiment("edited");
        let arms = found["status"]["arms"].as_array().cloned().unwrap_or_default();
        let live = |name: &&str| arms.iter().any(|arm| arm["name"] == **name && arm["state"] == "Live");
        if arms.len() == names.len() && names.iter().all(live) { Ok(found) } else { Err(found["status"].to_string()) }
    })
}

/// A setting of an arm's server, asked in its pod: nobody else but the mirror is let in.
fn setting(workers: &Workers, arm: &str, name: &str) -> String {
    let (pod, sql) = (format!("edited-{arm}"), format!("SHOW {name}"));
    let psql = ["psql", "-h", "/run/understudy/socket", "-U", "postgres", "-d", "app", "-Atc", &sql];
    let exec = ["exec", &pod, "-c", "postgres", "--"];
    workers.run(&exec.iter().chain(&psql).copied().collect::<Vec<_>>()).trim().to_owned()
}

/// Which pod an arm has.
fn pod_of(workers: &Workers, arm: &str) -> String {
    workers.run(&["get", "pod", &format!("edited-{arm}"), "--output=jsonpath={.metadata.uid}"])
}

/// Waits until an arm is compared with the baseline.
fn until_compared(workers: &Workers, arm: &str) {
    until(&format!("{arm} is compared"), LIMIT, || {
        let found = workers.experiment("edited");
        let comparisons = found["status"]["comparisons"].as_array().cloned().unwrap_or_default();
        if comparisons.iter().any(|c| c["candidate"] == arm) { Ok(()) } else { Err(found["status"].to_string()) }
    });
}

#[test]
fn edited_candidates_touch_only_their_own_arms() {
    if !has_cluster() {
        return;
    }
    let workers = Workers::start("understudy-edited");
    // Reads are cheap on production and on all arms: many servers share this machine's cores.
    workers.start_workload("events-2");
    workers.sql("events-2", "CREATE INDEX CONCURRENTLY ON events (user_id, kind)");
    workers.apply(&experiment(COST)).expect("an experiment");
    workers.until_phase("edited", &["Observing"], LIMIT);
    let (baseline, first) = (pod_of(&workers, "baseline"), pod_of(&workers, "cost"));

    // Added: it is seeded and cut beside the others.
    workers.apply(&experiment(&format!("{COST}\n{MEMORY}"))).expect("a candidate more");
    let found = until_live(&workers, &["baseline", "cost", "memory"]);
    let cut = |arm: &str| {
        let arms = found["status"]["arms"].as_array().expect("arms");
        arms.iter().find(|a| a["name"] == arm).expect("the arm")["cut"]["lsn"].clone()
    };
    assert_eq!(pod_of(&workers, "cost"), first, "who was there is not touched");
    assert_ne!(cut("memory"), cut("cost"), "it left the WAL later, at a cut of its own");
    assert_eq!(cut("baseline"), cut("cost"));
    let memory = pod_of(&workers, "memory");
    assert_eq!(setting(&workers, "memory", "work_mem"), "16MB");

    // Changed: another arm of the same name, compared in its turn. One that can't be made is lost by itself.
    workers.apply(&experiment(&format!("{COST}\n{MORE_MEMORY}\n{WRONG}"))).expect("another change");
    until("the wrong one is lost", LIMIT, || {
        let found = workers.experiment("edited");
        let arms = found["status"]["arms"].as_array().cloned().unwrap_or_default();
        let wrong = arms.iter().find(|arm| arm["name"] == "wrong").cloned().unwrap_or_default();
        let says = wrong["message"].as_str().is_some_and(|message| message.contains("no_such_table"));
        if wrong["state"] == "Lost" && says { Ok(()) } else { Err(found["status"].to_string()) }
    });
    workers.apply(&experiment(&format!("{COST}\n{MORE_MEMORY}"))).expect("the wrong one goes");
    until_live(&workers, &["baseline", "cost", "memory"]);
    assert_ne!(pod_of(&workers, "memory"), memory);
    assert_eq!(setting(&workers, "memory", "work_mem"), "32MB");
    until_compared(&workers, "memory");

    // Removed: nothing of it is left, and the others go on.
    workers.apply(&experiment(MORE_MEMORY)).expect("a candidate less");
    until("everything of it is gone", LIMIT, || {
        let left =
            workers.kubectl(&["get", "pods,pvc,configmaps", "-l", "understudy.dev/arm=cost", "--output=name"])?;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
    let found = until_live(&workers, &["baseline", "memory"]);
    assert_eq!(found["status"]["phase"], "Observing", "{found}");
    assert_eq!(pod_of(&workers, "baseline"), baseline, "the baseline was never touched");
    let comparisons = found["status"]["comparisons"].to_string();
    assert!(!comparisons.contains("\"cost\""), "{comparisons}");
    for arm in found["status"]["arms"].as_array().expect("arms") {
        assert_eq!(arm["exchanges"]["lost"], 0, "{arm}");
    }
    let ledger = workers.check_ledger("events-2");
    assert_eq!(ledger.errors, 0, "{ledger:?}");
}
