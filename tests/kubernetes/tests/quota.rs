//! A cluster that has no room by its own rules: a quota refuses a pod; that is said, tried again with growing
//! pauses, and goes on when the quota is lifted.

use std::time::{Duration, Instant};

use understudy_kubernetes_tests::{
    fixture::{OPERATOR, SYSTEM, Workers, condition, has_cluster},
    kubectl::{kubectl, until},
    scene::{LIMIT, experiment},
};

const NAMESPACE: &str = "understudy-quota";

/// Within this, attempts whose pauses double from one second are five; a loop without pauses would make dozens.
const WATCHED: Duration = Duration::from_secs(20);

/// How often the operator has failed at it so far, as its log tells.
fn attempts() -> Result<usize, String> {
    let log = kubectl(&["-n", SYSTEM, "logs", "-l", OPERATOR, "--tail=-1"])?;
    Ok(log.lines().filter(|line| line.contains("tried again later") && line.contains(NAMESPACE)).count())
}

#[test]
fn a_quota_is_told_and_waited_for_and_goes_on_when_it_is_lifted() {
    if !has_cluster() {
        return;
    }
    let workers = Workers::start(NAMESPACE);
    let direct = workers.selector("events-2");
    // The three workers and one more: the clone, or the mirror.
    workers.run(&["create", "quota", "tight", "--hard=pods=4"]);
    let asked = "  schedule: { warmUp: 1s, minimum: 10m, maximum: 1h }";
    workers.apply(&experiment("cramped", asked)).expect("an experiment");
    until("the reason stands in the status", LIMIT, || {
        let found = workers.experiment("cramped");
        let accepted = condition(&found, "Accepted");
        let says = accepted["message"].as_str().is_some_and(|message| message.contains("exceeded quota: tight"));
        let right = accepted["status"] == "False" && accepted["reason"] == "ClusterRefused" && says;
        if right { Ok(()) } else { Err(found["status"].to_string()) }
    });
    let began = Instant::now();
    let tried = until("it is tried again", WATCHED + LIMIT, || {
        let tried = attempts()?;
        if began.elapsed() >= WATCHED && tried >= 3 { Ok(tried) } else { Err(format!("{tried} attempts")) }
    });
    eprintln!("{tried} attempts");
    assert!(tried <= 10, "it is tried again and again: {tried} attempts");
    assert_eq!(workers.selector("events-2"), direct, "production is direct all the time");

    workers.run(&["delete", "quota", "tight"]);
    let found = workers.until_phase("cramped", &["WarmingUp", "Observing"], LIMIT);
    assert_eq!(condition(&found, "Accepted")["status"], "True", "{found}");
    workers.run(&["delete", "shadow", "cramped", "--timeout=60s"]);
    assert_eq!(workers.selector("events-2"), direct);
}
