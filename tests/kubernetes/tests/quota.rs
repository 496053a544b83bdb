//! A cluster that has no room by its own rules: a quota refuses a pod; that is said, tried again with growing
//! pauses, and goes on when the quota is lifted.

use std::time::{Duration, Instant};

use understudy_kubernetes_tests::{
    fixture::{OPERATOR, SYSTEM, Workers, condition, has_cluster},
    kubectl::{kubectl, until},
    scene::{LIMIT, experiment},
};

const NAMESPACE: &str = "understudy-quota";

/// Within this, pauses that double from one second leave room for three attempts, and the last news of the
/// clone's pod may bring two more; a loop without pauses would make dozens.
const WATCHED: Duration = Duration::from_secs(20);
const MOST_ATTEMPTS: usize = 5;

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
    // Until the clone's pod, which there was room for, runs, its news are a reason to look again.
    workers.run(&["wait", "--for=jsonpath={.status.phase}=Running", "pod/cramped-baseline", "--timeout=60s"]);
    let (before, began) = (attempts().expect("the operator's log"), Instant::now());
    let tried = until("it is tried again", WATCHED + LIMIT, || {
        let tried = attempts()?.saturating_sub(before);
        if began.elapsed() >= WATCHED && tried >= 1 { Ok(tried) } else { Err(format!("{tried} attempts")) }
    });
    eprintln!("{tried} attempts in {} s", began.elapsed().as_secs());
    assert!(tried <= MOST_ATTEMPTS, "it is tried again and again: {tried} attempts");
    assert_eq!(workers.selector("events-2"), direct, "production is direct all the time");

    workers.run(&["delete", "quota", "tight"]);
    let found = workers.until_phase("cramped", &["WarmingUp", "Observing"], LIMIT);
    assert_eq!(condition(&found, "Accepted")["status"], "True", "{found}");
    workers.run(&["delete", "shadow", "cramped", "--timeout=60s"]);
    assert_eq!(workers.selector("events-2"), direct);
}
