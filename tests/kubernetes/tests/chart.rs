//! The chart: what it makes, and that installing, upgrading and uninstalling it never takes a worker down.

use std::time::Duration;

use understudy_kubernetes_tests::{
    fixture::{CHART, SYSTEM, has_cluster, helm, uninstall_operator},
    scene::Scene,
};

const RENDERED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart.yaml");
const ENDLESS: &str = "  schedule: { warmUp: 2s, minimum: 10m, maximum: 1h }";

#[test]
fn the_chart_is_well_formed_and_makes_what_was_agreed() {
    if !has_cluster() {
        return;
    }
    helm(&["lint", "--strict", CHART]);
    let arguments = ["template", "understudy", CHART, "--namespace", SYSTEM, "--kube-version", "1.34.0"];
    let rendered = helm(&arguments);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(RENDERED, &rendered).expect("the rendered chart");
    }
    let committed = std::fs::read_to_string(RENDERED).unwrap_or_default();
    let same = committed.lines().zip(rendered.lines()).take_while(|(a, b)| a == b).count();
    assert!(
        committed == rendered,
        "the chart makes something else than {RENDERED} says, first in line {}; make it anew with\n    \
         UPDATE=1 make e2e",
        same + 1
    );
}

#[test]
fn uninstalling_has_production_direct_and_takes_no_worker_down() {
    let Some(scene) = Scene::new("understudy-chart") else { return };
    let workers = &scene.workers;
    scene.running("outlived", ENDLESS, "Observing");
    let image = ["--reuse-values", "--set", "replicas=1", "--wait", "--timeout=120s"];
    helm(&[&["upgrade", "understudy", CHART, "--namespace", SYSTEM][..], &image].concat());
    workers.until_phase("outlived", &["Observing"], Duration::from_secs(60));

    uninstall_operator();
    scene.until_direct("production is direct", Duration::from_secs(10));
    let restarts = "--output=jsonpath={range .items[*]}{.status.containerStatuses[0].restartCount}{end}";
    assert_eq!(workers.run(&["get", "pods", "-l", "app=events", restarts]), "000");
    assert_eq!(workers.check_ledger("events-2").errors, 0);
    // The experiment can go although nobody looks after it any more.
    workers.run(&["delete", "shadow", "outlived", "--timeout=60s"]);
}
