//! An index candidate from `kubectl apply` to its promotion on all workers, as in the README.

use std::time::Duration;

use understudy_kubernetes_tests::{
    fixture::{Workers, has_cluster},
    kubectl::understudy,
};

const EXPERIMENT: &str = "
apiVersion: understudy.dev/v1alpha1
kind: ShadowExperiment
metadata: { name: user-id-index, namespace: NAMESPACE }
spec:
  target:
    statefulSet: { name: events, ordinal: 2, service: events-2, database: app, credentialsSecret: events-superuser }
  candidates:
  - name: user-id-index
    parameters: { random_page_cost: '1.1' }
    sql:
      apply: ['CREATE INDEX CONCURRENTLY events_user_kind ON events (user_id, kind, ts)']
      revert: ['DROP INDEX CONCURRENTLY IF EXISTS events_user_kind']
  schedule: { warmUp: 5s, minimum: 10s, maximum: 6m }
  success: [{ class: Read, quantile: 0.5, improveBy: 15% }]
  capture: { memory: 64Mi }
";

#[test]
fn an_index_is_tried_on_one_worker_and_promoted_to_all() {
    if !has_cluster() {
        return;
    }
    let workers = Workers::start("understudy-index");
    let direct = workers.selector("events-2");
    for worker in ["events-0", "events-1", "events-2"] {
        workers.start_workload(worker);
    }
    workers.apply(EXPERIMENT).expect("an experiment");
    let concluded = workers.until_phase("user-id-index", &["Concluded"], Duration::from_secs(500));
    let status = &concluded["status"];
    assert_eq!(status["verdict"]["outcome"], "Better", "{status}");
    for arm in status["arms"].as_array().expect("arms") {
        assert_eq!(arm["exchanges"]["lost"], 0, "{arm}");
        assert!(arm["exchanges"]["played"].as_i64() > Some(100), "{arm}");
    }
    assert_ne!(workers.selector("events-2"), direct, "the mirror is in the path");
    let index = "SELECT count(*) FROM pg_indexes WHERE indexname = 'events_user_kind'";
    for worker in ["events-0", "events-1", "events-2"] {
        assert_eq!(workers.sql(worker, index), "0", "nothing is on {worker} yet");
    }

    let report = tempfile::tempdir().expect("a directory");
    let out = report.path().display().to_string();
    understudy(&["report", "user-id-index", "-n", &workers.namespace, "--out", &out, "--gate"]);
    let page = std::fs::read_to_string(report.path().join("report.html")).expect("a page");
    assert!(page.contains("Better") && !page.contains("not-to-be-shown"), "the page has the verdict, and no password");

    understudy(&["promote", "user-id-index", "-n", &workers.namespace]);
    let promoted = workers.until_phase("user-id-index", &["Promoted"], Duration::from_secs(500));
    let status = &promoted["status"];
    assert_eq!((&status["rollout"]["done"], &status["rollout"]["of"]), (&3.into(), &3.into()), "{status}");
    assert!(!status["outcomes"].as_array().expect("what production then did").is_empty());
    for worker in ["events-0", "events-1", "events-2"] {
        assert_eq!(workers.sql(worker, index), "1", "the index is on {worker}");
        assert_eq!(workers.sql(worker, "SHOW random_page_cost"), "1.1", "the setting is on {worker}");
    }
    assert_eq!(workers.selector("events-2"), direct, "production is direct again");
    for worker in ["events-0", "events-1", "events-2"] {
        let ledger = workers.check_ledger(worker);
        assert_eq!(ledger.errors, 0, "{worker}: {ledger:?}");
    }
}
