//! An experiment that is halted, deleted, or whose namespace goes, in every phase of its life: production is
//! direct, nothing is left, and the client with the ledger sees none of it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that can't have what it needs has failed"
)]

use std::time::{Duration, Instant};

use serde_json::Value;
use understudy_kubernetes_tests::{
    fixture::condition,
    kubectl::{kubectl, object, until},
    scene::{DIRECT, ENDLESS, LIMIT, Scene, experiment},
};

/// The phases that an experiment goes through by itself and can be met in.
const PHASES: [&str; 4] = ["Cloning", "WarmingUp", "Observing", "Concluded"];

/// What is asked of an experiment that stays in a phase; Cloning ends by itself.
fn staying_in(phase: &str) -> &'static str {
    match phase {
        "WarmingUp" => "  schedule: { warmUp: 1h, minimum: 10m, maximum: 1h }",
        "Concluded" => "  schedule: { warmUp: 1s, minimum: 2s, maximum: 3s }",
        _ => "  schedule: { warmUp: 1s, minimum: 10m, maximum: 1h }",
    }
}

#[test]
fn in_each_phase_an_experiment_can_be_halted_and_deleted_and_it_goes_with_its_namespace() {
    let Some(scene) = Scene::new("understudy-phases") else { return };
    refused_and_deleted(&scene);
    for phase in PHASES {
        halted(&scene, phase);
        deleted(&scene, phase);
    }
    scene.until_served(0);
    gone_with_its_namespace(&scene);
}

fn refused_and_deleted(scene: &Scene) {
    let refused = experiment("refused", staying_in("Observing")).replace("service: events-2", "service: nowhere");
    scene.workers.apply(&refused).expect("taken");
    until("it is refused", LIMIT, || {
        let accepted = condition(&scene.workers.experiment("refused"), "Accepted");
        if accepted["status"] == "False" { Ok(()) } else { Err(accepted.to_string()) }
    });
    assert_eq!(scene.workers.experiment("refused")["status"]["phase"], "Pending");
    scene.delete("refused");
}

fn halted(scene: &Scene, phase: &str) {
    let (name, began) = (format!("halted-{}", phase.to_lowercase()), Instant::now());
    scene.running(&name, staying_in(phase), phase);
    if phase == "Observing" {
        assert_ne!(scene.workers.selector("events-2"), scene.direct, "the mirror is in the path");
    }
    scene.halt(&name);
    let took = scene.until_direct(&format!("production is direct after a halt in {phase}"), DIRECT);
    let halted = scene.workers.until_phase(&name, &["Halted"], LIMIT);
    let mirroring = condition(&halted, "Mirroring");
    assert_eq!((&mirroring["status"], &mirroring["reason"]), (&"False".into(), &"HaltedByUser".into()), "{halted}");
    until("the clones are gone, and the Service stays direct", LIMIT, || {
        let label = format!("understudy.dev/experiment={name},understudy.dev/component=arm");
        let left = scene.workers.kubectl(&["get", "pods,persistentvolumeclaims", "-l", &label, "--output=name"])?;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
    assert_eq!(scene.workers.selector("events-2"), scene.direct, "after a halt in {phase}");
    // In the phase Halted it is deleted, too.
    scene.delete(&name);
    eprintln!("halted in {phase}: direct after {} ms, all after {} s", took.as_millis(), began.elapsed().as_secs());
}

fn deleted(scene: &Scene, phase: &str) {
    let (name, began) = (format!("deleted-{}", phase.to_lowercase()), Instant::now());
    scene.running(&name, staying_in(phase), phase);
    scene.delete(&name);
    assert_eq!(scene.workers.selector("events-2"), scene.direct, "direct before it is gone: {phase}");
    eprintln!("deleted in {phase}: {} s", began.elapsed().as_secs());
}

fn gone_with_its_namespace(scene: &Scene) {
    scene.running("buried", ENDLESS, "Observing");
    let namespace = scene.workers.namespace.clone();
    let began = Instant::now();
    kubectl(&["delete", "namespace", &namespace, "--wait=false"]).expect("the namespace is to go");
    until("the namespace is gone", Duration::from_secs(60), || {
        let found = object("default", "namespace", &namespace);
        if found == Value::Null { Ok(()) } else { Err(found["status"].to_string()) }
    });
    eprintln!("gone after {} s", began.elapsed().as_secs());
    until("no volume is bound to it any more", Duration::from_secs(30), || {
        let volumes: Value = serde_json::from_str(&kubectl(&["get", "persistentvolumes", "--output=json"])?)
            .map_err(|error| error.to_string())?;
        let all = volumes["items"].as_array().cloned().unwrap_or_default();
        let bound = all.iter().filter(|volume| {
            volume["spec"]["claimRef"]["namespace"] == namespace.as_str() && volume["status"]["phase"] == "Bound"
        });
        match bound.count() {
            0 => Ok(()),
            some => Err(format!("{some} volumes")),
        }
    });
}
