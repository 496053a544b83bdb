//! `kill -9` of a run: its servers end with it, and the next run with the same directory clears up.

use std::time::Duration;

use rustix::process::Signal;
use understudy_crds::condition::Phase;
use understudy_e2e::{
    application::{Application, create_tables, ledger},
    child::{run, understudy_once},
    experiment::{Desk, manifest},
    traces::{expect_worker_state, worker_state},
    turn::take_turn,
};
use understudy_harness::Cluster;

const SPEC: &str = "  candidates:
  - name: cheap-random
    parameters: { random_page_cost: \"1.1\" }
  schedule: { warmUp: 1s, minimum: 5m, maximum: 10m }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_run_leaves_no_server_and_the_next_one_clears_up_and_works() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    create_tables(&direct).await;
    let before = worker_state(&direct).await;
    let desk = Desk::new();
    let out = desk.out("killed");
    let file = desk.write("killed.yaml", &manifest("killed", worker.port(), SPEC));

    let mut running = run(&file, &out, &[]);
    let application = Application::start(running.mirror().await, 4, Duration::from_millis(100)).await;
    running.status_until("observing", Duration::from_secs(60), |s| s.phase == Phase::Observing).await;
    running.signal(Signal::KILL);
    let killed = running.ended_within(Duration::from_secs(10)).await;
    assert_eq!(killed.code(), None, "it was killed");
    killed.seen.expect_no_processes(&out);
    assert!(killed.seen.processes.len() >= 2, "the journal knew the servers: {:?}", killed.seen);
    let served = application.stop().await;
    assert!(ledger(&direct).await >= served.writes, "every acknowledged write is there");

    // Nobody is there to be halted; that is said, and nothing is waited for.
    let nobody = understudy_once(["halt", "--out", out.to_str().expect("a path")]).await;
    nobody.expect_code(1);
    assert!(nobody.stderr.contains("no experiment runs here"), "{}", nobody.transcript());

    direct.batch_execute("TRUNCATE ledger").await.expect("a new ledger");
    let mut again = run(&file, &out, &[]);
    let application = Application::start(again.mirror().await, 4, Duration::from_millis(100)).await;
    again.status_until("observing", Duration::from_secs(60), |s| s.phase == Phase::Observing).await;
    let transcript = again.transcript();
    assert!(transcript.contains("an earlier run had left something: removed"), "{transcript}");
    let left: Vec<_> = killed.seen.directories.iter().filter(|d| !d.starts_with(&out) && d.exists()).collect();
    assert!(left.is_empty(), "the killed run's directories are left: {left:?}");
    let served = application.stop().await;
    assert_eq!(served.errors, Vec::<String>::new());
    understudy_once(["halt", "--out", out.to_str().expect("a path")]).await.expect_code(0);
    let ended = again.ended_within(Duration::from_secs(30)).await;
    ended.expect_code(0);
    ended.seen.expect_nothing_left(&out);
    killed.seen.expect_nothing_left(&out);
    expect_worker_state(&direct, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_in_the_same_directory_is_refused_and_the_first_goes_on() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let desk = Desk::new();
    let out = desk.out("twice");
    let file = desk.write("twice.yaml", &manifest("twice", worker.port(), SPEC));
    let mut first = run(&file, &out, &[]);
    first.mirror().await;
    let second = run(&file, &out, &[]).ended_within(Duration::from_secs(30)).await;
    second.expect_code(1);
    assert!(second.stderr.contains("another run uses this directory"), "{}", second.transcript());
    understudy_once(["halt", "--out", out.to_str().expect("a path")]).await.expect_code(0);
    let ended = first.ended_within(Duration::from_secs(30)).await;
    ended.expect_code(0);
    ended.seen.expect_nothing_left(&out);
}
