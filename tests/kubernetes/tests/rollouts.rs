//! Changes on their way to all workers: settings that need a restart, another machine, another image; one
//! worker after the other, and back again from all of them where one worker can't have it.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test that can't have what it needs has failed")]

use std::time::Duration;

use serde_json::Value;
use understudy_kubernetes_tests::{
    fixture::{Workers, condition, has_cluster},
    kubectl::{object, understudy, until},
    scene::{LIMIT, Scene, experiment},
};

const WORKERS: [&str; 3] = ["events-0", "events-1", "events-2"];
/// Three workers are restarted, each more than once.
const ROLLOUT: Duration = Duration::from_secs(300);
/// One setting stands in the StatefulSet, so it goes through the template; the other is PostgreSQL's own, and
/// takes effect with a restart. The index makes it better.
const SETTINGS: &str = "
  candidates:
  - name: roomy
    parameters: { shared_buffers: 48MB, max_locks_per_transaction: '96' }
    sql:
      apply: ['CREATE INDEX CONCURRENTLY events_user_kind ON events (user_id, kind, ts)']
      revert: ['DROP INDEX CONCURRENTLY IF EXISTS events_user_kind']
  schedule: { warmUp: 2s, minimum: 8s, maximum: 6m }
  success: [{ class: Read, quantile: 0.5, improveBy: 15% }]";

/// Asks for the promotion, and follows it to one of its ends: never are two workers away, and who has not been
/// restarted has noticed nothing. `watched` have a workload. The experiment then.
fn until_rolled(workers: &Workers, name: &str, candidate: &str, end: &str, watched: &[&str]) -> Value {
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let before: Vec<Value> = workers.pods().iter().map(uid).collect();
    understudy(&["promote", name, "-n", &workers.namespace, "--candidate", candidate, "--force"]);
    until(&format!("the rollout of {candidate} ends as {end}"), ROLLOUT, || {
        // Before the pods: a pod that is the same afterwards had been the same then.
        let ledgers: Vec<_> = watched.iter().map(|worker| (*worker, workers.ledger(worker))).collect();
        let pods = workers.pods();
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        assert!(ready >= 2, "two workers are away at the same time: {pods:?}");
        for pod in
            pods.iter().filter(|pod| before.contains(&uid(pod)) && pod["metadata"]["deletionTimestamp"].is_null())
        {
            let found = ledgers.iter().find(|(worker, _)| pod["metadata"]["name"] == *worker);
            if let Some((worker, Ok(ledger))) = found {
                assert_eq!(ledger.errors, 0, "{worker} was not restarted: {ledger:?}");
            }
        }
        let found = workers.experiment(name);
        let (phase, promoted) = (found["status"]["phase"].clone(), condition(&found, "Promoted"));
        assert_ne!(phase, "Failed", "{found}");
        let ended = promoted["reason"] != "InProgress" && promoted["reason"].is_string();
        if phase == end && ended { Ok(found) } else { Err(format!("{phase}: {promoted}")) }
    })
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The last worker was the first.
fn check_order(workers: &Workers) {
    let started: Vec<String> = workers.pods().iter().map(|pod| pod["status"]["startTime"].to_string()).collect();
    assert!(started[2] < started[1] && started[1] < started[0], "{started:?}");
}

/// The workload goes on, errors have ended (a client may wait ten seconds for a pod that is gone before it
/// counts one), and no commit is missing.
fn check_served(workers: &Workers, worker: &str) {
    let mut before = workers.ledger(worker).expect("a ledger");
    until("the workload goes on without an error", LIMIT, || {
        let now = workers.ledger(worker)?;
        if now.errors > before.errors {
            before = now.clone();
        }
        if now.transactions > before.transactions + 100 { Ok(()) } else { Err(format!("{now:?}")) }
    });
    workers.check_ledger(worker);
}

fn strategy(workers: &Workers) -> Value {
    object(&workers.namespace, "statefulset", "events")["spec"]["updateStrategy"].clone()
}

#[test]
fn settings_that_need_a_restart_go_to_one_worker_after_the_other() {
    if !has_cluster() {
        return;
    }
    let workers = Workers::start("understudy-settings");
    let (direct, own) = (workers.selector("events-2"), strategy(&workers));
    for worker in WORKERS {
        workers.start_workload(worker);
    }
    workers.apply(&experiment("settings", SETTINGS)).expect("an experiment");
    let concluded = workers.until_phase("settings", &["Concluded"], LIMIT);
    assert_eq!(concluded["status"]["verdict"]["outcome"], "Better", "{}", concluded["status"]);
    assert_ne!(workers.selector("events-2"), direct, "the mirror is in the path");
    let promoted = until_rolled(&workers, "settings", "roomy", "Promoted", &WORKERS);
    let status = &promoted["status"];
    assert_eq!((&status["rollout"]["done"], &status["rollout"]["of"]), (&3.into(), &3.into()), "{status}");
    assert_eq!(condition(&promoted, "Promoted")["status"], "True", "{status}");
    check_order(&workers);
    for worker in WORKERS {
        assert_eq!(workers.sql(worker, "SHOW shared_buffers"), "48MB", "{worker}");
        assert_eq!(workers.sql(worker, "SHOW max_locks_per_transaction"), "96", "{worker}");
        let index = "SELECT count(*) FROM pg_indexes WHERE indexname = 'events_user_kind'";
        assert_eq!(workers.sql(worker, index), "1", "{worker}");
        check_served(&workers, worker);
    }
    assert_eq!(strategy(&workers), own, "the set updates in its own way again");
    assert_eq!(workers.selector("events-2"), direct, "production is direct again");
}

#[test]
fn a_change_is_taken_back_from_all_where_one_can_not_have_it_or_the_experiment_is_deleted() {
    let Some(scene) = Scene::new("understudy-takeback") else { return };
    for worker in ["events-0", "events-1"] {
        scene.workers.sql(worker, "CREATE TABLE events (user_id int, kind int, ts timestamptz)");
    }
    refused_by_one(&scene);
    scene.delete("refused");
    deleted_meanwhile(&scene);
}

fn refused_by_one(scene: &Scene) {
    let workers = &scene.workers;
    workers.sql("events-0", "CREATE INDEX events_user_kind ON events (kind)");
    let own = strategy(workers);
    scene.running("refused", SETTINGS, "Concluded");
    let back = until_rolled(workers, "refused", "roomy", "Concluded", &["events-2"]);
    let (promoted, rollout) = (condition(&back, "Promoted"), &back["status"]["rollout"]);
    let said = promoted["message"].as_str().unwrap_or_default();
    assert_eq!((&promoted["status"], &promoted["reason"]), (&"False".into(), &"PromotionReverted".into()), "{back}");
    assert!(said.contains("events-0") && said.contains("already exists") && !said.contains("not taken back"), "{said}");
    assert_eq!((&rollout["done"], &rollout["of"], &rollout["current"]), (&0.into(), &3.into(), &Value::Null), "{back}");
    scene.until_direct("production is direct", Duration::from_secs(10));
    for (worker, left) in [("events-2", ""), ("events-1", ""), ("events-0", "(kind)")] {
        let index = "SELECT substring(indexdef FROM '[(].*') FROM pg_indexes WHERE indexname = 'events_user_kind'";
        assert_eq!(workers.sql(worker, index), left, "{worker}");
        assert_eq!(workers.sql(worker, "SHOW shared_buffers"), "32MB", "{worker}");
        assert_eq!(workers.sql(worker, "SHOW max_locks_per_transaction"), "64", "{worker}");
        let pending = "SELECT pending_restart FROM pg_settings WHERE name = 'max_locks_per_transaction'";
        assert_eq!(workers.sql(worker, pending), "f", "{worker}");
        let kept = "SELECT count(*) FROM pg_file_settings WHERE sourcefile ~ 'auto.conf$'";
        assert_eq!(workers.sql(worker, kept), "0", "{worker} has no setting of ours");
    }
    assert_eq!(strategy(workers), own, "the set updates in its own way again");
}

fn deleted_meanwhile(scene: &Scene) {
    let workers = &scene.workers;
    workers.sql("events-0", "DROP INDEX events_user_kind");
    let slowly = "
  candidates:
  - name: index
    sql:
      apply: ['SELECT pg_sleep(3)', 'CREATE INDEX CONCURRENTLY events_user_kind ON events (user_id, kind, ts)']
      revert: ['DROP INDEX CONCURRENTLY IF EXISTS events_user_kind']
  schedule: { warmUp: 1s, minimum: 3s, maximum: 4s }";
    scene.running("deleted", slowly, "Concluded");
    understudy(&["promote", "deleted", "-n", &workers.namespace, "--candidate", "index", "--force"]);
    until("the second worker gets the change", LIMIT, || {
        let rollout = workers.experiment("deleted")["status"]["rollout"].clone();
        if rollout["current"] == "events-1" { Ok(()) } else { Err(rollout.to_string()) }
    });
    let index = "SELECT count(*) FROM pg_indexes WHERE indexname = 'events_user_kind'";
    assert_eq!(workers.sql("events-2", index), "1", "the first one has it");
    scene.delete("deleted");
    for worker in WORKERS {
        assert_eq!(workers.sql(worker, index), "0", "{worker}");
    }
    assert_eq!(workers.selector("events-2"), scene.direct, "production is direct");
    check_served(workers, "events-2");
}

#[test]
fn another_machine_and_another_image_go_through_the_template_however_the_set_is_updated() {
    let Some(scene) = Scene::new("understudy-template") else { return };
    let workers = &scene.workers;
    let soon = "  schedule: { warmUp: 1s, minimum: 3s, maximum: 4s }";
    let own = strategy(workers);
    let machine = "instance: { nodeSelector: { kubernetes.io/os: linux }, resources: { requests: { cpu: 60m } } }";
    scene.running("machine", &format!("  candidates: [{{ name: small, {machine} }}]\n{soon}"), "Concluded");
    until_rolled(workers, "machine", "small", "Promoted", &["events-2"]);
    check_order(workers);
    for pod in workers.pods() {
        let spec = &pod["spec"];
        assert_eq!(spec["nodeSelector"]["kubernetes.io/os"], "linux", "{spec}");
        assert_eq!(spec["nodeSelector"]["node.kubernetes.io/instance-type"], "standard", "its own is kept");
        assert_eq!(spec["containers"][0]["resources"]["requests"]["cpu"], "60m", "{spec}");
    }
    assert_eq!(strategy(workers), own, "the set updates in its own way again");
    scene.until_direct("production is direct", Duration::from_secs(10));
    scene.delete("machine");

    let by_deletion = r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}"#;
    workers.run(&["patch", "statefulset", "events", "--type=merge", "-p", by_deletion]);
    let own = strategy(workers);
    let image = "localhost/understudy/postgres:15-again";
    scene
        .workers
        .apply(&experiment("image", &format!("  candidates: [{{ name: again, image: '{image}' }}]\n{soon}")))
        .expect("an experiment");
    workers.until_phase("image", &["Concluded"], LIMIT);
    // What went wrong in the restarts of before is counted already.
    until_rolled(workers, "image", "again", "Promoted", &[]);
    check_order(workers);
    for pod in workers.pods() {
        assert_eq!(pod["spec"]["containers"][0]["image"], image);
    }
    assert_eq!((&strategy(workers), &own["type"]), (&own, &"OnDelete".into()));
    scene.until_direct("production is direct", Duration::from_secs(10));
    check_served(workers, "events-2");
}
