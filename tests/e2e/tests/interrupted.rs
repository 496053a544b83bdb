//! Ctrl-C at every stage is an orderly end: exit status 0, nothing left, the worker as it was.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::time::Duration;

use rustix::process::Signal;
use understudy_crds::condition::Phase;
use understudy_e2e::{
    application::{connect, create_tables},
    child::run,
    experiment::{Desk, manifest, report},
    traces::{expect_worker_state, worker_state},
    turn::take_turn,
};
use understudy_harness::Cluster;

const SPEC: &str = "  candidates:
  - name: with-index
    sql: { apply: [\"CREATE INDEX orders_by_customer ON orders (customer)\"], revert: [\"DROP INDEX orders_by_customer\"] }
  schedule: { warmUp: 1s, minimum: 5m, maximum: 10m }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_while_cloning_leaves_nothing() {
    interrupted_at(Phase::Cloning, Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_while_observing_leaves_nothing() {
    interrupted_at(Phase::Observing, Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_run_leaves_nothing() {
    interrupted_at(Phase::Observing, Signal::TERM).await;
}

async fn interrupted_at(phase: Phase, signal: Signal) {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    create_tables(&direct).await;
    let before = worker_state(&direct).await;
    let desk = Desk::new();
    let out = desk.out("interrupted");
    let file = desk.write("interrupted.yaml", &manifest("interrupted", worker.port(), SPEC));
    let mut running = run(&file, &out, &[]);
    let mirror = running.mirror().await;
    // One client is idle, one is in a transaction, when it ends.
    let idle = connect(mirror).await.expect("a session");
    idle.batch_execute("SELECT 1").await.expect("an answer");
    let busy = connect(mirror).await.expect("a session");
    running.status_until("there", Duration::from_secs(60), |status| status.phase == phase).await;
    busy.batch_execute("BEGIN; INSERT INTO ledger VALUES (1, 1)").await.expect("an open transaction");

    running.signal(signal);
    // A transaction that is open may end before the mirror goes.
    busy.batch_execute("COMMIT").await.expect("the open transaction commits");

    let ended = running.ended_within(Duration::from_secs(30)).await;
    ended.expect_code(0);
    ended.seen.expect_nothing_left(&out);
    assert_eq!(ended.stderr, "", "an end that was asked for is no error");
    assert_eq!(report(&out).status.phase, Phase::Halted);
    assert!(idle.batch_execute("SELECT 1").await.is_err(), "the mirror has gone");
    let rows: i64 = direct.query_one("SELECT count(*) FROM ledger", &[]).await.expect("the ledger").get(0);
    assert_eq!(rows, 1, "what was acknowledged is there");
    expect_worker_state(&direct, &before).await;
    assert!(connect(mirror).await.is_err(), "nobody listens any more");
}
