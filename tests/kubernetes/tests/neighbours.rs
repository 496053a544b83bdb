//! Several experiments at a time: on different workers of one set side by side, on the same worker one after
//! the other.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test that can't have what it needs has failed")]

use std::time::Duration;

use understudy_kubernetes_tests::{
    fixture::condition,
    kubectl::until,
    scene::{LIMIT, Scene, experiment, experiment_on},
};

const ENDLESS: &str = "  schedule: { warmUp: 1s, minimum: 10m, maximum: 1h }";

/// An experiment on the last worker that another one is in the way of: it says so, and nothing is made for it.
fn refused(scene: &Scene, name: &str, rival: &str) {
    scene.workers.apply(&experiment(name, ENDLESS)).expect("taken");
    until("it is refused", Duration::from_secs(30), || {
        let found = scene.workers.experiment(name);
        let accepted = condition(&found, "Accepted");
        let says = accepted["message"].as_str().is_some_and(|message| message.contains(rival));
        let right = accepted["status"] == "False" && accepted["reason"] == "WorkerTaken" && says;
        if right && found["status"]["phase"] == "Pending" { Ok(()) } else { Err(found["status"].to_string()) }
    });
    let label = format!("understudy.dev/experiment={name}");
    let made = scene.workers.run(&["get", "pods,persistentvolumeclaims,services", "-l", &label, "--output=name"]);
    assert_eq!(made.trim(), "", "nothing is made");
}

#[test]
fn a_worker_has_one_experiment_at_a_time_and_a_set_one_for_each_worker() {
    let Some(scene) = Scene::new("understudy-neighbours") else { return };
    let workers = &scene.workers;
    let beside = workers.selector("events-1");
    workers.start_workload("events-1");
    workers.apply(&experiment_on(1, "left", ENDLESS)).expect("an experiment");
    workers.apply(&experiment("right", ENDLESS)).expect("an experiment");
    for name in ["left", "right"] {
        let found = workers.until_phase(name, &["Observing"], LIMIT);
        assert_eq!(condition(&found, "Accepted")["status"], "True", "{found}");
    }
    let mirrors = (workers.selector("events-1"), workers.selector("events-2"));
    assert!(mirrors.0 != beside && mirrors.1 != scene.direct && mirrors.0 != mirrors.1, "{mirrors:?}");

    refused(&scene, "second", "right");
    scene.halt("right");
    scene.until_direct("production is direct", Duration::from_secs(5));
    let second = workers.until_phase("second", &["Observing"], LIMIT);
    assert_eq!(condition(&second, "Accepted")["status"], "True", "{second}");
    assert_ne!(workers.selector("events-2"), scene.direct, "its mirror is in the path");

    refused(&scene, "third", "second");
    scene.delete("second");
    workers.until_phase("third", &["Cloning", "CatchingUp", "WarmingUp", "Observing"], LIMIT);

    // Whatever happened beside it, the other worker's goes on.
    assert_eq!(workers.experiment("left")["status"]["phase"], "Observing");
    assert_eq!(workers.selector("events-1"), mirrors.0);
    assert_eq!(workers.check_ledger("events-1").errors, 0);
    scene.until_served(0);
}
