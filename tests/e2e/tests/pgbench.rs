//! pgbench, in every way in which it can send a statement, while the worker is cloned, cut and
//! mirrored: no client notices, no write is lost or doubled.

use std::time::{Duration, Instant};

use understudy_crds::condition::{ArmState, Phase};
use understudy_e2e::{
    child::{run, understudy_once},
    experiment::{Desk, manifest, report},
    pgbench::{self, Load},
    tables::{PGBENCH, connect, digests},
    traces::{expect_worker_state, worker_state},
    turn::take_turn,
};
use understudy_harness::Cluster;

const SPEC: &str = "  candidates:
  - name: more-memory
    parameters: { work_mem: 8MB }
  schedule: { warmUp: 1s, minimum: 2m, maximum: 20m }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_hold_the_same_rows_as_the_worker_after_pgbench_in_every_mode() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    pgbench::initialise(&worker, 2).await;
    let direct = worker.connect().await;
    let before = worker_state(&direct).await;
    let desk = Desk::new();
    let out = desk.out("pgbench");
    let file = desk.write("pgbench.yaml", &manifest("pgbench", worker.port(), SPEC));

    let mut running = run(&file, &out, &[]);
    let mirror = running.mirror().await;
    // While the worker is cloned and cut …
    let bench = pgbench::start(&worker, mirror, "simple", Load::Full, 30).await.expect("pgbench");
    bench.expect_clean();
    let mut transactions = bench.transactions;
    running.status_until("observing", Duration::from_secs(60), |status| status.phase == Phase::Observing).await;
    // … and while it is observed: not at more than two clones on the same processors can play in that time.
    for mode in ["extended", "prepared"] {
        let bench = pgbench::start(&worker, mirror, mode, Load::PerSecond(300), 30).await.expect("pgbench");
        bench.expect_clean();
        transactions += bench.transactions;
    }

    let quiet_since = Instant::now();
    let status = running
        .status_until("level", Duration::from_secs(60), |status| {
            status.phase == Phase::Observing
                && status.arms.iter().all(|arm| arm.state != ArmState::Live || arm.lag.exchanges == 0)
        })
        .await;
    println!("{transactions} transactions; the arms were level {:.1?} after the last", quiet_since.elapsed());
    for arm in &status.arms {
        assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{}: {arm:#?}", arm.name);
        assert!(arm.exchanges.played > 0, "{arm:#?}");
        assert!(arm.cut.as_ref().is_some_and(|cut| cut.pause_ms <= 50.0), "{arm:#?}");
    }
    assert_eq!(status.production.leaks, 0);
    let expected = digests(&direct, &PGBENCH).await;
    assert_eq!(expected.last().map(|history| history.1), i64::try_from(transactions).ok(), "a transaction, a row");
    for arm in &status.arms {
        let client = connect(arm.endpoint.as_deref().expect("an endpoint")).await;
        assert_eq!(digests(&client, &PGBENCH).await, expected, "the tables of {}: {arm:#?}", arm.name);
    }

    understudy_once(["halt", "--out", out.to_str().expect("a path")]).await.expect_code(0);
    let ended = running.ended_within(Duration::from_secs(30)).await;
    ended.expect_code(0);
    assert!(ended.seen.processes.len() >= 2, "the journal knew the servers: {:?}", ended.seen);
    ended.seen.expect_nothing_left(&out);
    expect_worker_state(&direct, &before).await;
    let report = report(&out);
    assert_eq!(report.status.phase, Phase::Halted);
    for file in [
        "report.html",
        "production-read.hlog",
        "baseline-read.hlog",
        "more-memory-read.hlog",
        "production-write.hlog",
        "baseline-write.hlog",
        "more-memory-write.hlog",
        "production-commit.hlog",
    ] {
        let size = std::fs::metadata(out.join(file)).map(|m| m.len()).unwrap_or_default();
        assert!(size > 0, "{file}: {:?}", std::fs::read_dir(&out).expect("results").collect::<Vec<_>>());
    }
}
