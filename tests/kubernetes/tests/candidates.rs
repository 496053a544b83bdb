//! What can be tried on a worker: another file system, another instance type, a setting, nothing at all;
//! and what ends an experiment by itself.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::time::Duration;

use understudy_kubernetes_tests::{
    fixture::{Workers, condition},
    kubectl::{kubectl, until},
    scene::{Scene, experiment},
};

const LIMIT: Duration = Duration::from_secs(600);

fn node_label(workers: &Workers, pod: &str, label: &str) -> String {
    let node = workers.run(&["get", "pod", pod, "--output=jsonpath={.spec.nodeName}"]);
    let path = format!("--output=jsonpath={{.metadata.labels.{}}}", label.replace('.', "\\."));
    kubectl(&["get", "node", &node, &path]).expect("a node")
}

#[test]
fn a_smaller_instance_type_comes_out_worse() {
    let Some(Scene { workers, .. }) = Scene::new("understudy-instance") else { return };
    let asked = "
  candidates: [{ name: small, instance: { nodeSelector: { node.kubernetes.io/instance-type: small } } }]
  schedule: { warmUp: 3s, minimum: 10s, maximum: 8m }
  success: [{ class: Read, quantile: 0.9, regressBy: 10% }]";
    workers.apply(&experiment("smaller", asked)).expect("an experiment");
    workers.until_phase("smaller", &["Observing"], LIMIT);
    assert_eq!(node_label(&workers, "smaller-small", "node.kubernetes.io/instance-type"), "small");
    let concluded = workers.until_phase("smaller", &["Concluded"], LIMIT);
    let verdict = &concluded["status"]["verdict"];
    eprintln!("{verdict}");
    assert_eq!(verdict["outcome"], "Worse", "{}", concluded["status"]);
    assert_eq!(workers.check_ledger("events-2").errors, 0);
}

#[test]
fn another_file_system_is_observed_and_not_promoted() {
    let Some(Scene { workers, .. }) = Scene::new("understudy-storage") else { return };
    let asked = "
  candidates:
  - { name: btrfs, storage: { storageClassName: btrfs } }
  - { name: memory, parameters: { work_mem: 64MB } }
  schedule: { warmUp: 2s, minimum: 10s, maximum: 20s }";
    workers.apply(&experiment("file-system", asked)).expect("an experiment");
    workers.until_phase("file-system", &["Observing"], LIMIT);
    let volumes = "-o=jsonpath={range .items[*]}{.metadata.name}={.spec.storageClassName} {end}";
    let claimed = workers.run(&["get", "pvc", volumes]);
    assert!(claimed.contains("file-system-btrfs=btrfs"), "{claimed}");
    let concluded = workers.until_phase("file-system", &["Concluded"], LIMIT);
    let names: Vec<&str> =
        concluded["status"]["arms"].as_array().expect("arms").iter().filter_map(|arm| arm["name"].as_str()).collect();
    assert_eq!(names, ["baseline", "btrfs", "memory"], "two candidates at once");
    for arm in concluded["status"]["arms"].as_array().expect("arms") {
        assert_eq!(arm["exchanges"]["lost"], 0, "{arm}");
    }
    workers.run(&["annotate", "shadow", "file-system", "understudy.dev/promote=btrfs"]);
    until("the refusal", LIMIT, || {
        let promoted = condition(&workers.experiment("file-system"), "Promoted");
        let says = promoted["message"].as_str().is_some_and(|message| message.contains("storage"));
        if promoted["status"] == "False" && says { Ok(()) } else { Err(promoted.to_string()) }
    });
    assert_eq!(workers.check_ledger("events-2").errors, 0);
}

#[test]
fn an_experiment_without_a_candidate_measures_the_noise() {
    let Some(Scene { workers, .. }) = Scene::new("understudy-noise") else { return };
    let asked = "  schedule: { warmUp: 2s, minimum: 8s, maximum: 12s }";
    workers.apply(&experiment("noise", asked)).expect("an experiment");
    workers.run(&["wait", "--for=condition=Concluded", "shadow/noise", "--timeout=240s"]);
    let status = workers.experiment("noise")["status"].clone();
    assert_eq!(status["arms"].as_array().map(Vec::len), Some(1), "{status}");
    assert!(status["verdict"]["outcome"] != "Better" && status["verdict"]["outcome"] != "Worse", "{status}");
    assert_eq!(workers.check_ledger("events-2").errors, 0);
}

#[test]
fn a_guardrail_ends_an_experiment_with_its_numbers() {
    let Some(Scene { workers, direct }) = Scene::new("understudy-guardrail") else { return };
    // The arms live a second behind production, so this one can't be kept.
    let asked = "
  candidates: [{ name: setting, parameters: { random_page_cost: '1.1' } }]
  schedule: { warmUp: 5m, minimum: 10m, maximum: 1h }
  guardrails: { maxLag: 200ms }";
    workers.apply(&experiment("guarded", asked)).expect("an experiment");
    let concluded = workers.until_phase("guarded", &["Concluded"], LIMIT);
    let healthy = condition(&concluded, "Healthy");
    assert_eq!(healthy["reason"], "GuardrailTripped", "{concluded}");
    assert!(healthy["message"].as_str().is_some_and(|message| message.contains("200ms")), "{healthy}");
    until("production is direct", Duration::from_secs(10), || {
        let now = workers.selector("events-2");
        if now == direct { Ok(()) } else { Err(now.to_string()) }
    });
    assert_eq!(workers.check_ledger("events-2").errors, 0);
}

#[test]
fn an_arm_that_nobody_has_room_for_says_so_and_production_goes_on() {
    let Some(Scene { workers, .. }) = Scene::new("understudy-room") else { return };
    let asked = "
  candidates: [{ name: huge, instance: { resources: { requests: { cpu: '64' } } } }]
  schedule: { warmUp: 2s, minimum: 10s, maximum: 1m }";
    workers.apply(&experiment("room", asked)).expect("an experiment");
    until("the reason stands in the status", LIMIT, || {
        let found = workers.experiment("room");
        let conditions = found["status"]["conditions"].to_string();
        if conditions.contains("nsufficient cpu") { Ok(()) } else { Err(found["status"].to_string()) }
    });
    workers.run(&["delete", "shadow", "room", "--timeout=120s"]);
    assert_eq!(workers.check_ledger("events-2").errors, 0);
}
