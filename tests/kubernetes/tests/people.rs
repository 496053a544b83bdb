//! What a person sees and says with `kubectl`: explanations, columns, waiting, a small status; and sessions
//! that reach the worker around the mirror, ended where that is asked.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use understudy_kubernetes_tests::{
    fixture::has_cluster,
    kubectl::{kubectl, until},
    scene::{LIMIT, Scene},
};

/// A status is read by everybody who lists experiments.
const LARGEST_STATUS_BYTES: usize = 16 << 10;

#[test]
fn kubectl_explains_every_field_of_an_experiment() {
    if !has_cluster() {
        return;
    }
    let definition = kubectl(&["get", "crd", "shadowexperiments.understudy.dev", "--output=json"]).expect("the CRD");
    let definition: Value = serde_json::from_str(&definition).expect("a document");
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    for part in ["spec", "status"] {
        let fields: Vec<&String> = schema[part]["properties"].as_object().expect("fields").keys().collect();
        assert!(fields.len() > 5, "{fields:?}");
        for field in fields {
            let said = kubectl(&["explain", &format!("shadow.{part}.{field}")]).expect("an explanation");
            let (_, text) = said.split_once("DESCRIPTION:").expect("a description");
            let text = text.split("FIELDS:").next().unwrap_or_default().trim();
            assert!(text.len() > 10 && text != "<empty>", "{part}.{field} is not explained: {said}");
        }
    }
}

#[test]
fn an_experiment_is_followed_with_kubectl_and_ends_sessions_around_the_mirror() {
    let Some(scene) = Scene::new("understudy-people") else { return };
    let workers = &scene.workers;
    // A long-lived pool's: it was there before the mirror, and would stay.
    let command = "PGPASSWORD=$POSTGRES_PASSWORD exec psql -h events-2 -U postgres -d app -c 'SELECT pg_sleep(600)'";
    let pool = Command::new("kubectl")
        .args(["-n", &workers.namespace, "exec", "events-0", "-c", "postgres", "--", "sh", "-c", command])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
    until("the session is there", Duration::from_secs(20), || match workers.sql("events-2", asleep).as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    });
    let asked = "
  candidates:
  - name: index
    sql: { apply: ['CREATE INDEX ON events (user_id, kind)'] }
  schedule: { warmUp: 1s, minimum: 8s, maximum: 10s }";
    let manifest = understudy_kubernetes_tests::scene::experiment("followed", asked)
        .replace("memory: 64Mi", "memory: 64Mi, direct: Terminate");
    workers.apply(&manifest).expect("an experiment");
    workers.until_phase("followed", &["Observing"], LIMIT);
    assert_eq!(workers.sql("events-2", asleep), "0", "the session was ended");
    let ended = pool.wait_with_output().expect("kubectl");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("terminating connection"), "{said}");

    let table = workers.run(&["get", "shadow"]);
    let mut lines = table.lines();
    let columns = lines.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(columns, "NAME PHASE VERDICT READ P95 WRITE P95 LAG AGE");
    assert!(lines.next().is_some_and(|line| line.starts_with("followed")), "{table}");

    workers.run(&["patch", "shadow", "followed", "--type=merge", "-p", r#"{"spec":{"hypothesis":"It helps."}}"#]);
    until("the change was seen", Duration::from_secs(10), || {
        let found = workers.experiment("followed");
        let (asked, seen) = (&found["metadata"]["generation"], &found["status"]["observedGeneration"]);
        if *asked == 2 && asked == seen { Ok(()) } else { Err(format!("{asked}, {seen}")) }
    });
    workers.run(&["wait", "--for=condition=Concluded", "shadow/followed", "--timeout=120s"]);
    let found = workers.experiment("followed");
    let status = found["status"].to_string();
    eprintln!("status: {} bytes", status.len());
    assert!(status.len() < LARGEST_STATUS_BYTES, "{} bytes: {status}", status.len());
    assert_eq!(found["metadata"]["generation"], found["status"]["observedGeneration"]);
    let table = workers.run(&["get", "shadow", "followed", "--no-headers"]);
    let outcome = found["status"]["verdict"]["outcome"].as_str().expect("an outcome");
    assert!(table.contains("Concluded") && table.contains(outcome), "{table}");
    // Sessions of the workload that were direct when the mirror came were ended, too: six at most.
    scene.until_served(6);
}
