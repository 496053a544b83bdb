//! A clone dies while it is observed: the clients do not notice, and the experiment says that what it
//! had measured may not be believed.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use understudy_crds::{
    condition::{ArmState, ConditionReason, ConditionType, Outcome, Phase, VerdictReason},
    labels::BASELINE,
};
use understudy_e2e::{
    application::{Application, create_tables, ledger},
    child::run,
    experiment::{Desk, manifest, report},
    traces::{expect_worker_state, worker_state},
    turn::take_turn,
};
use understudy_harness::Cluster;

const SESSIONS: usize = 8;
const SPEC: &str = "  candidates:
  - name: cheap-random
    parameters: { random_page_cost: \"1.1\" }
  schedule: { warmUp: 1s, minimum: 5m, maximum: 10m }
";

/// The first line of `postmaster.pid` of a clone.
fn postmaster(out: &std::path::Path, arm: &str) -> Pid {
    let mut found = Vec::new();
    for entry in fs::read_dir(out.join("servers")).expect("the clones").flatten() {
        let path = entry.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        for file in [path.join("postmaster.pid"), path.join("data/postmaster.pid")] {
            if name.contains(arm) && file.is_file() {
                let text = fs::read_to_string(file).expect("postmaster.pid");
                found.push(text.lines().next().and_then(|line| line.trim().parse().ok()).expect("a number"));
            }
        }
    }
    assert_eq!(found.len(), 1, "one server of {arm} in {}", out.display());
    found.first().copied().and_then(Pid::from_raw).expect("a process number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_baseline_is_lost_and_no_client_notices() {
    killed_arm(BASELINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_candidate_is_lost_and_no_client_notices() {
    killed_arm("cheap-random").await;
}

async fn killed_arm(arm: &str) {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    create_tables(&direct).await;
    let before = worker_state(&direct).await;
    let desk = Desk::new();
    let out = desk.out("arm-lost");
    let file = desk.write("arm-lost.yaml", &manifest("arm-lost", worker.port(), SPEC));
    let mut running = run(&file, &out, &[]);
    let application = Application::start(running.mirror().await, SESSIONS, Duration::from_millis(100)).await;
    running
        .status_until("observing", Duration::from_secs(60), |status| {
            status.phase == Phase::Observing && status.arms.iter().all(|arm| !arm.latency.is_empty())
        })
        .await;

    kill_process(postmaster(&out, arm), Signal::KILL).expect("killed");

    let ended = running.ended_within(Duration::from_secs(60)).await;
    let served = application.ended().await;
    ended.expect_code(0);
    ended.seen.expect_nothing_left(&out);
    // The run has ended with its arm, and the mirror took leave of every session, between two statements.
    assert_eq!(served.errors, Vec::<String>::new());
    assert_eq!(served.goodbyes, SESSIONS, "{served:?}");
    assert!(ledger(&direct).await >= served.writes, "every acknowledged write is there");
    assert!(served.reads > 0 && served.writes > 0, "{served:?}");

    let status = report(&out).status;
    let lost = status.arms.iter().find(|a| a.name == arm).expect("the arm");
    assert_eq!(lost.state, ArmState::Lost, "{lost:#?}");
    assert!(lost.message.as_ref().is_some_and(|message| message.len() > 10), "{lost:#?}");
    let other = status.arms.iter().find(|a| a.name != arm).expect("the other arm");
    assert_eq!((other.state, other.exchanges.lost), (ArmState::Live, 0), "{other:#?}");
    let verdict = status.verdict.expect("a verdict");
    assert_eq!((verdict.outcome, verdict.reason), (Outcome::Invalid, VerdictReason::ArmLost), "{}", verdict.message);
    let healthy = status.conditions.iter().find(|c| c.type_ == ConditionType::Healthy).expect("a condition");
    assert_eq!(healthy.reason, ConditionReason::ArmLost, "{healthy:?}");
    expect_worker_state(&direct, &before).await;
}
