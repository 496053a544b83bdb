//! The operator itself goes away: restarted in every phase of an experiment's life, or killed while it leads.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that can't have what it needs has failed"
)]

use std::time::Duration;

use understudy_kubernetes_tests::{
    fixture::{OPERATOR, SYSTEM, Workers, condition},
    kubectl::{kubectl, object, until},
    scene::{LIMIT, Scene, experiment},
};

const WORKERS: [&str; 3] = ["events-0", "events-1", "events-2"];
/// The change takes its time on each worker, so that the operator can be met at it.
const INDEX: &str = "
  candidates:
  - name: index
    sql:
      apply: ['SELECT pg_sleep(4)', 'CREATE INDEX CONCURRENTLY events_user_kind ON events (user_id, kind, ts)']
      revert: ['DROP INDEX CONCURRENTLY IF EXISTS events_user_kind']
  schedule: { warmUp: 10s, minimum: 15s, maximum: 6m }
  success: [{ class: Read, quantile: 0.5, improveBy: 15% }]";
/// The operator's limit for a leader that does not renew its Lease is 15 s; the next one asks every two.
const TAKEN_OVER: Duration = Duration::from_secs(20);

/// All operators go, and others come.
fn restart_operator() {
    let gone = kubectl(&["-n", SYSTEM, "delete", "pod", "-l", OPERATOR, "--wait=false", "--output=name"]);
    assert!(gone.expect("the operator goes").contains("pod/"), "there was an operator");
}

fn secret(workers: &Workers) -> String {
    let found = object(&workers.namespace, "secret", "events-superuser");
    serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": found["data"],
        "metadata": { "name": "events-superuser", "namespace": workers.namespace },
    })
    .to_string()
}

#[test]
fn an_operator_that_is_restarted_in_each_phase_or_killed_while_it_leads_goes_on_where_it_was() {
    let Some(scene) = Scene::new("understudy-operator") else { return };
    for worker in ["events-0", "events-1"] {
        scene.workers.start_workload(worker);
    }
    restarted_in_each_phase(&scene);
    scene.delete("lasting");
    killed_while_it_leads(&scene);
}

fn restarted_in_each_phase(scene: &Scene) {
    let workers = &scene.workers;
    // Pending: something that it needs comes while nobody looks.
    let kept = secret(workers);
    workers.run(&["delete", "secret", "events-superuser"]);
    workers.apply(&experiment("lasting", INDEX)).expect("an experiment");
    until("it is refused", LIMIT, || {
        let accepted = condition(&workers.experiment("lasting"), "Accepted");
        if accepted["reason"] == "TargetMissing" { Ok(()) } else { Err(accepted.to_string()) }
    });
    restart_operator();
    workers.apply(&kept).expect("the Secret is there again");
    for phase in ["Cloning", "WarmingUp", "Observing"] {
        workers.until_phase("lasting", &[phase], LIMIT);
        restart_operator();
    }
    let concluded = workers.until_phase("lasting", &["Concluded"], LIMIT);
    assert_eq!(concluded["status"]["verdict"]["outcome"], "Better", "{}", concluded["status"]);
    restart_operator();
    workers.run(&["annotate", "shadow", "lasting", "understudy.dev/promote=index"]);
    until("the second worker gets the change", LIMIT, || {
        let rollout = workers.experiment("lasting")["status"]["rollout"].clone();
        if rollout["current"] == "events-1" { Ok(()) } else { Err(rollout.to_string()) }
    });
    restart_operator();
    let promoted = workers.until_phase("lasting", &["Promoted"], LIMIT);
    let status = &promoted["status"];
    assert_eq!((&status["rollout"]["done"], &status["rollout"]["of"]), (&3.into(), &3.into()), "{status}");
    for worker in WORKERS {
        let valid = "SELECT count(*) FILTER (WHERE i.indisvalid) || ' of ' || count(*)
                       FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname = 'events_user_kind'";
        assert_eq!(workers.sql(worker, valid), "1 of 1", "{worker}");
        assert_eq!(workers.check_ledger(worker).errors, 0, "{worker}");
    }
    assert_eq!(workers.selector("events-2"), scene.direct, "production is direct again");
}

fn killed_while_it_leads(scene: &Scene) {
    kubectl(&["-n", SYSTEM, "rollout", "status", "deployment/understudy", "--timeout=60s"]).expect("two operators");
    scene.running("orphaned", "  schedule: { warmUp: 1s, minimum: 10m, maximum: 1h }", "Observing");
    let leader = || {
        let lease = object(SYSTEM, "lease", "understudy-operator");
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    let killed = leader();
    assert_ne!(object(SYSTEM, "pod", &killed), serde_json::Value::Null, "{killed} leads");
    kubectl(&["-n", SYSTEM, "delete", "pod", &killed, "--force", "--grace-period=0"]).expect("it is killed");
    scene.halt("orphaned");
    let took = scene.until_direct("production is direct", TAKEN_OVER);
    eprintln!("direct {} ms after the leader was killed and the halt thrown", took.as_millis());
    scene.workers.until_phase("orphaned", &["Halted"], LIMIT);
    assert_ne!(leader(), killed, "another one leads");
    scene.until_served(0);
    kubectl(&["-n", SYSTEM, "rollout", "status", "deployment/understudy", "--timeout=60s"]).expect("two operators");
}
