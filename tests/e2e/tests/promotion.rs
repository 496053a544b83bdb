//! From a slow query to an index on the worker: a verdict that is true, a promotion that is what was
//! tested, and a report that can be made again. And a change that does nothing is not called better.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use understudy_crds::{
    condition::{ArmState, Outcome, Phase},
    status::ShadowExperimentStatus,
};
use understudy_e2e::{
    application::{Application, create_tables, ledger},
    child::{Ended, run, understudy_once},
    experiment::{Desk, manifest, report},
    traces::{expect_worker_state, worker_state},
    turn::take_turn,
};
use understudy_harness::Cluster;

const SESSIONS: usize = 10;
const PERIOD: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(500);

const INDEX: &str = "  candidates:
  - name: customer-index
    parameters: { random_page_cost: \"1.1\" }
    sql:
      apply: [\"CREATE INDEX CONCURRENTLY orders_by_customer ON orders (customer)\"]
      revert: [\"DROP INDEX CONCURRENTLY IF EXISTS orders_by_customer\"]
  schedule: { warmUp: 1s, minimum: 5s, maximum: 6m }
  success:
  - { class: Read, quantile: 0.5, improveBy: 15% }
";
const NOTHING: &str = "  candidates:
  - name: nothing
    parameters: { deadlock_timeout: 1100ms }
  schedule: { warmUp: 1s, minimum: 5s, maximum: 15s }
  success:
  - { class: Read, quantile: 0.5, improveBy: 15% }
";

struct Stage {
    worker: Cluster,
    desk: Desk,
}

impl Stage {
    async fn set() -> Self {
        let worker = Cluster::start().await;
        create_tables(&worker.connect().await).await;
        Self { worker, desk: Desk::new() }
    }

    /// Runs an experiment under load to its end.
    async fn play(&self, name: &str, spec: &str, more: &[&str]) -> Ended {
        let out = self.desk.out(name);
        let file = self.desk.write(&format!("{name}.yaml"), &manifest(name, self.worker.port(), spec));
        let mut running = run(&file, &out, more);
        let application = Application::start(running.mirror().await, SESSIONS, PERIOD).await;
        running.status_until("observing", Duration::from_secs(60), |s| s.phase == Phase::Observing).await;
        watched(name, &out).await;
        let ended = running.ended_within(LIMIT).await;
        let served = application.stop().await;
        assert_eq!(served.errors, Vec::<String>::new(), "{}", ended.transcript());
        assert!(served.reads > 0 && served.writes > 0, "{served:?}");
        let direct = self.worker.connect().await;
        assert!(ledger(&direct).await >= served.writes, "every acknowledged write is there");
        ended.seen.expect_nothing_left(&out);
        ended
    }

    /// Whether the worker has the change: the index (and that it is valid), and the parameter.
    async fn has_change(&self) -> (Option<bool>, bool) {
        let client = self.worker.connect().await;
        let sql = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('orders_by_customer')";
        let valid = client.query_opt(sql, &[]).await.expect("the index").map(|row| row.get(0));
        let setting: String = client.query_one("SHOW random_page_cost", &[]).await.expect("the setting").get(0);
        (valid, setting == "1.1")
    }
}

/// `watch --once` shows a running experiment, to people and to programs.
async fn watched(name: &str, out: &Path) {
    let directory = out.to_str().expect("a path");
    let shown = understudy_once(["watch", "--once", "--out", directory]).await;
    shown.expect_code(0);
    for word in [name, "baseline", "production"] {
        assert!(shown.stdout.contains(word), "`{word}` is not shown\n{}", shown.transcript());
    }
    let printed = understudy_once(["watch", "--once", "--output", "json", "--out", directory]).await;
    printed.expect_code(0);
    let status: ShadowExperimentStatus = serde_json::from_str(&printed.stdout).expect("a status");
    assert_eq!(status.arms.len(), 2, "{status:?}");
}

fn outcome(out: &Path) -> (Outcome, String) {
    let verdict = report(out).status.verdict.expect("a verdict");
    (verdict.outcome, verdict.message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_helps_is_found_better_promoted_verified_and_reported() {
    let _turn = take_turn().await;
    let stage = Stage::set().await;
    let out = stage.desk.out("customer-index");
    let ended = stage.play("customer-index", INDEX, &["--promote", "--verify"]).await;
    ended.expect_code(0);
    let (found, message) = outcome(&out);
    assert_eq!(found, Outcome::Better, "{message}");
    assert_eq!(stage.has_change().await, (Some(true), true), "the worker has the index and the setting");

    let report = report(&out);
    assert_eq!(report.status.phase, Phase::Promoted);
    assert!(report.status.arms.iter().all(|a| a.state == ArmState::Live && a.exchanges.lost == 0), "{report:#?}");
    let read = report.status.outcomes.iter().find(|outcome| (outcome.quantile - 0.5).abs() < 1e-9);
    let read = read.expect("what became of what was judged");
    assert!(read.predicted.high < -0.15, "{read:?}");
    assert!(read.observed.delta < 0.0 && read.after_us < read.before_us, "{read:?}");
    let verified = report.timeline.iter().find(|event| event.step == "verified").expect("the tables were compared");
    assert!(verified.message.contains("hold the same rows"), "{verified:?}");

    // The report is made again from the store, and is the same.
    let directory = out.to_str().expect("a path");
    let first = fs::read_to_string(out.join("report.json")).expect("the report");
    fs::remove_file(out.join("report.json")).expect("removed");
    fs::remove_file(out.join("report.html")).expect("removed");
    let gate = understudy_once(["report", "customer-index", "--out", directory, "--gate"]).await;
    gate.expect_code(0);
    let second = fs::read_to_string(out.join("report.json")).expect("the report again");
    assert!(out.join("report.html").is_file());
    assert_same(&first, &second);
}

/// Says which part differs rather than printing both.
fn assert_same(first: &str, second: &str) {
    let (first, second): (Value, Value) =
        (serde_json::from_str(first).expect("JSON"), serde_json::from_str(second).expect("JSON"));
    for part in ["experiment", "status", "environment", "fingerprints", "curves", "series", "timeline"] {
        assert_eq!(first.get(part), second.get(part), "`{part}` is not the same");
    }
    assert!(first == second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_waits_for_a_person_is_promoted_by_command() {
    let _turn = take_turn().await;
    let stage = Stage::set().await;
    let direct = stage.worker.connect().await;
    let before = worker_state(&direct).await;
    let out = stage.desk.out("customer-index");
    let ended = stage.play("customer-index", INDEX, &[]).await;
    ended.expect_code(0);
    let (found, message) = outcome(&out);
    assert_eq!(found, Outcome::Better, "{message}");
    assert_eq!(report(&out).status.phase, Phase::Concluded);
    expect_worker_state(&direct, &before).await;

    let directory = out.to_str().expect("a path");
    let promoted = understudy_once(["promote", "customer-index", "--out", directory]).await;
    promoted.expect_code(0);
    assert_eq!(stage.has_change().await, (Some(true), true), "{}", promoted.transcript());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_effect_is_not_better_and_the_gate_stays_closed() {
    let _turn = take_turn().await;
    let stage = Stage::set().await;
    let direct = stage.worker.connect().await;
    let before = worker_state(&direct).await;
    let out = stage.desk.out("nothing");
    let ended = stage.play("nothing", NOTHING, &["--promote"]).await;
    ended.expect_code(0);
    let (found, message) = outcome(&out);
    assert_ne!(found, Outcome::Better, "{message}");
    expect_worker_state(&direct, &before).await;

    let directory = out.to_str().expect("a path");
    let gate = understudy_once(["report", "nothing", "--out", directory, "--gate"]).await;
    gate.expect_code(3);
    let promote = understudy_once(["promote", "nothing", "--out", directory]).await;
    promote.expect_code(1);
    assert!(promote.stderr.starts_with("error: ") && promote.stderr.contains("--force"), "{}", promote.transcript());
    expect_worker_state(&direct, &before).await;
}
