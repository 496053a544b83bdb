//! What happens to production when an experiment ends in another way than it was meant to: its pods killed,
//! its SQL wrong. In each a client with a ledger of acknowledged writes is connected all the time.

use std::time::Duration;

use understudy_kubernetes_tests::{
    fixture::condition,
    kubectl::until,
    scene::{ENDLESS, LIMIT, Scene, experiment},
};

#[test]
fn a_mirror_that_dies_is_taken_out_of_the_path() {
    let Some(scene) = Scene::new("understudy-mirror") else { return };
    scene.running("mirrored", ENDLESS, "Observing");
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
    scene.running("armed", ENDLESS, "Observing");
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
fn a_candidate_whose_sql_fails_ends_the_experiment_and_says_why() {
    let Some(scene) = Scene::new("understudy-sql") else { return };
    let wrong = ENDLESS.replace("ON events (user_id, kind)", "ON no_such_table (x)");
    scene.workers.apply(&experiment("wrong", &wrong)).expect("an experiment");
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
    let good = experiment("refused", ENDLESS);
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
