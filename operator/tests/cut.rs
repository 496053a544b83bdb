//! The cut against real servers: what was committed before it is on the clone, nothing else is.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use understudy_harness::{Cluster, arm_spec, seed_arm, wait_until, worker};
use understudy_operator::platform::local::{
    arm::Arm,
    cut::{CutDecision, Fate, RetryReason, SequenceValue, decide},
    cut_probe::CutProber,
    direct::{direct_sessions, terminate},
    lsn::Lsn,
    session::Names,
    wal_hold::{RunTag, WalHold},
};

/// Writers that insert one row after the other and remember which ones were answered.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI64>,
    tasks: JoinSet<()>,
}

impl Writers {
    async fn start(cluster: &Cluster, count: usize) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let client = cluster.connect().await;
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            tasks.spawn(async move {
                let insert =
                    client.prepare("INSERT INTO t (lsn) VALUES (pg_current_wal_insert_lsn())").await.expect("prepared");
                while !stop.load(Ordering::Relaxed) {
                    client.execute(&insert, &[]).await.expect("a row");
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { stop, written, tasks }
    }

    async fn until(&self, rows: i64) {
        let target = self.written.load(Ordering::Relaxed) + rows;
        wait_until("writers write", || async { self.written.load(Ordering::Relaxed) >= target }).await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

async fn worker_with_table() -> Cluster {
    let cluster = Cluster::start().await;
    cluster
        .connect()
        .await
        .batch_execute(
            "CREATE TABLE t (id serial PRIMARY KEY, lsn pg_lsn NOT NULL);
             INSERT INTO t (lsn) SELECT '0/0' FROM generate_series(1, 1000)",
        )
        .await
        .expect("a table");
    cluster
}

async fn ids(client: &tokio_postgres::Client) -> BTreeSet<i32> {
    let rows = client.query("SELECT id FROM public.t", &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_before_the_cut_is_on_the_clone_and_nothing_else() {
    const TRIALS: u16 = 4;
    let cluster = worker_with_table().await;
    let writers = Writers::start(&cluster, 4).await;
    writers.until(200).await;
    let hold =
        WalHold::take(&worker(&cluster), &RunTag::of_this_process(), TRIALS.into(), 1 << 30).await.expect("held WAL");
    let prober = CutProber::open(&worker(&cluster), &["postgres".to_owned()]).await.expect("a prober");
    let mut cuts = Vec::new();
    for trial in 0..TRIALS {
        let mut spec = arm_spec(&cluster, &format!("trial-{trial}"), &[]).await;
        spec.identity.port = 5433 + trial;
        let arm = Arm::seed(spec, |_, _, _| Ok(()), |_| ()).await.expect("a clone under load");
        arm.wait_streaming().await.expect("streaming");
        let paused = arm.pause().await.expect("paused");
        writers.until(50).await;
        let probe = prober.probe().await.expect("a probe");
        assert!(paused <= probe.lsn);
        cuts.push((arm, probe));
    }
    writers.until(200).await;
    let mut trials = Vec::new();
    for (mut arm, probe) in cuts {
        // No gate here: a backend may be anywhere, and every transaction with a number can be asked for.
        let ask: Vec<u64> = probe.before.iter().chain(&probe.after).filter_map(|a| a.xid).collect();
        let recovered = arm.recover_to(probe.lsn, &ask, prober.session(), |_, _, _| Ok(())).await.expect("recovered");
        let session = arm.connect().await.expect("a session");
        trials.push((probe.lsn, recovered, ids(session.client()).await));
    }
    writers.stop().await;

    let production = cluster.connect().await;
    let all = production.query("SELECT id, xmin::text::bigint FROM t", &[]).await.expect("rows");
    for (cut, recovered, clone) in trials {
        // The truth, from the worker's own WAL: rows whose commit record begins before the cut.
        let before = committed_before(&cluster, cut).await;
        let expected: BTreeSet<i32> =
            all.iter().filter(|row| before.contains(&row.get::<_, i64>(1))).map(|row| row.get(0)).collect();
        assert!(expected.len() < all.len(), "rows came after the cut");
        assert_eq!(clone, expected, "{cut}");
        for (xid, committed) in recovered.committed {
            let xid = i64::try_from(xid).expect("small");
            assert_eq!(committed, before.contains(&xid), "{cut}: transaction {xid}");
        }
    }
    let slot = hold.slot().to_owned();
    drop(hold);
    wait_until("the worker holds no WAL for us any more", || async {
        let slots = production.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = $1", &[&slot]).await;
        slots.expect("slots").is_empty()
    })
    .await;
}

/// Transactions that were committed before a position, read from the WAL with `pg_waldump`.
async fn committed_before(cluster: &Cluster, lsn: Lsn) -> BTreeSet<i64> {
    let client = cluster.connect().await;
    client.batch_execute("SELECT pg_switch_wal()").await.expect("flushed");
    let all = client.query("SELECT DISTINCT xmin::text::bigint FROM t", &[]).await.expect("rows");
    let mut before: BTreeSet<i64> = all.iter().map(|row| row.get(0)).collect();
    let spec = cluster.server().spec();
    let end: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.expect("end").get(0);
    let output = std::process::Command::new(spec.binaries.program("pg_waldump"))
        .args(["--rmgr=Transaction", "--start", &lsn.to_string(), "--end", &end])
        .arg("--path")
        .arg(spec.data_dir.join("pg_wal"))
        .output()
        .expect("pg_waldump");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("COMMIT"), "{}", String::from_utf8_lossy(&output.stderr));
    for line in text.lines().filter(|line| line.contains("COMMIT")) {
        let xid = line.split("tx:").nth(1).and_then(|rest| rest.split(',').next()).expect("a transaction");
        before.remove(&xid.trim().parse().expect("a number"));
    }
    before
}

#[tokio::test]
async fn a_row_just_before_the_cut_is_there_and_one_just_after_is_not() {
    let cluster = worker_with_table().await;
    let client = cluster.connect().await;
    let prober = CutProber::open(&worker(&cluster), &["postgres".to_owned()]).await.expect("a prober");
    let mut arm = seed_arm(&cluster, "baseline", &[]).await.expect("a clone");
    arm.pause().await.expect("paused");
    client.execute("INSERT INTO t (lsn) VALUES ('0/1')", &[]).await.expect("before");
    let probe = prober.probe().await.expect("a probe");
    client.execute("INSERT INTO t (lsn) VALUES ('0/2')", &[]).await.expect("after");
    arm.recover_to(probe.lsn, &[], prober.session(), |_, _, _| Ok(())).await.expect("recovered");
    let session = arm.connect().await.expect("a session");
    let found: Vec<String> = session
        .rows("SELECT lsn::text FROM public.t WHERE lsn <> '0/0' ORDER BY lsn", &[])
        .await
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(found, ["0/1"]);
}

#[tokio::test]
async fn a_quiet_worker_is_nudged_so_that_the_clone_reaches_the_cut() {
    let cluster = worker_with_table().await;
    let prober = CutProber::open(&worker(&cluster), &["postgres".to_owned()]).await.expect("a prober");
    let mut arm = seed_arm(&cluster, "baseline", &[]).await.expect("a clone");
    arm.pause().await.expect("paused");
    let probe = prober.probe().await.expect("a probe");
    let recovered = arm.recover_to(probe.lsn, &[], prober.session(), |_, _, _| Ok(())).await.expect("recovered");
    assert!(recovered.replayed <= probe.lsn);
    let session = arm.connect().await.expect("a session");
    let in_recovery: Option<bool> = session.value("SELECT pg_is_in_recovery()", &[]).await.expect("an answer");
    assert_eq!(in_recovery, Some(false));
    session.run("INSERT INTO public.t (lsn) VALUES ('0/3')", Duration::from_secs(5)).await.expect("a life of its own");
}

#[tokio::test]
async fn transactions_in_flight_are_settled_by_the_clone() {
    let cluster = worker_with_table().await;
    let prober = CutProber::open(&worker(&cluster), &["postgres".to_owned()]).await.expect("a prober");
    let mut arm = seed_arm(&cluster, "baseline", &[]).await.expect("a clone");
    arm.pause().await.expect("paused");

    // One transaction that wrote and waits, one that only read, one that has not begun.
    let (writing, reading, idle) = tokio::join!(cluster.connect(), cluster.connect(), cluster.connect());
    writing.batch_execute("BEGIN; INSERT INTO t (lsn) VALUES ('0/7')").await.expect("open");
    reading.batch_execute("BEGIN; SELECT count(*) FROM t").await.expect("open");
    let mut pids = Vec::new();
    for client in [&writing, &reading, &idle] {
        pids.push(client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a number").get::<_, i32>(0));
    }
    let probe = prober.probe().await.expect("a probe");
    let CutDecision::Holds(fates) = decide(&pids[..2], &probe.before, &probe.after, false) else {
        panic!("the cut must hold");
    };
    let Some(Fate::Ask(xid)) = fates.get(&pids[0]).copied() else { panic!("a transaction that wrote: {fates:?}") };
    assert_eq!(fates.get(&pids[1]), Some(&Fate::NotCommitted));
    assert_eq!(
        decide(&pids, &probe.before, &probe.after, false),
        CutDecision::Retry(RetryReason::BetweenTransactions(pids[2]))
    );

    writing.batch_execute("COMMIT").await.expect("committed after the cut");
    // A number that the clone has never heard of was not committed before the cut either.
    let asked = [xid, xid + 1_000_000];
    let recovered = arm.recover_to(probe.lsn, &asked, prober.session(), |_, _, _| Ok(())).await.expect("recovered");
    assert_eq!(recovered.committed.values().copied().collect::<Vec<_>>(), [false, false]);
    let session = arm.connect().await.expect("a session");
    assert!(session.rows("SELECT 1 FROM public.t WHERE lsn = '0/7'", &[]).await.expect("rows").is_empty());
}

async fn next(arm: &Arm, database: &str, sequence: &str) -> Option<i64> {
    let session = arm.connect_to(database, Names::User).await.expect("a session");
    session.value(&format!("SELECT nextval('{sequence}')"), &[]).await.expect("a value")
}

#[tokio::test]
async fn sequences_of_every_database_go_on_where_the_workers_stood() {
    let cluster = worker_with_table().await;
    let client = cluster.connect().await;
    client.batch_execute("CREATE DATABASE \"other db\"").await.expect("a database");
    client
        .batch_execute("CREATE SCHEMA \"We ird\"; CREATE SEQUENCE \"We ird\".\"s'q\" INCREMENT -3")
        .await
        .expect("a sequence");
    let other = cluster.connect_to("other db").await;
    other.batch_execute("CREATE SEQUENCE s; CREATE SEQUENCE never_used START 5").await.expect("sequences");
    let mut arm = seed_arm(&cluster, "baseline", &[]).await.expect("a clone");
    for _ in 0..6 {
        client.query_one("SELECT nextval('\"We ird\".\"s''q\"')", &[]).await.expect("a value");
        other.query_one("SELECT nextval('s')", &[]).await.expect("a value");
    }
    let databases = ["postgres", "other db"].map(str::to_owned);
    let prober = CutProber::open(&worker(&cluster), &databases).await.expect("a prober");
    arm.pause().await.expect("paused");
    let probe = prober.probe().await.expect("a probe");
    let value = |database: &str, schema: &str, name: &str, last_value| SequenceValue {
        database: database.into(),
        schema: schema.into(),
        name: name.into(),
        last_value,
    };
    assert_eq!(
        probe.sequences,
        [
            value("other db", "public", "s", 6),
            value("postgres", "We ird", "s'q", -16),
            value("postgres", "public", "t_id_seq", 1000)
        ]
    );
    arm.recover_to(probe.lsn, &[], prober.session(), |_, _, _| Ok(())).await.expect("recovered");
    assert_eq!(arm.quarantine(&probe.sequences).await.expect("quarantined").sequences, 3);

    assert_eq!(next(&arm, "postgres", "t_id_seq").await, Some(1001));
    assert_eq!(next(&arm, "postgres", "\"We ird\".\"s''q\"").await, Some(-19));
    assert_eq!(next(&arm, "other db", "s").await, Some(7));
    assert_eq!(next(&arm, "other db", "never_used").await, Some(5));
}

#[tokio::test]
async fn sessions_around_the_mirror_are_found_and_ended() {
    let cluster = worker_with_table().await;
    let control = worker(&cluster).connect().await.expect("a session");
    let (mirrored, direct) = tokio::join!(cluster.connect(), cluster.connect());
    let pid = |row: tokio_postgres::Row| row.get::<_, i32>(0);
    let mirrored = pid(mirrored.query_one("SELECT pg_backend_pid()", &[]).await.expect("a number"));
    direct.batch_execute("BEGIN; INSERT INTO t (lsn) VALUES ('0/9')").await.expect("a write");
    let found = direct_sessions(&control, &BTreeSet::from([mirrored])).await.expect("sessions");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].writing && found[0].in_transaction && found[0].kind == "client backend");
    assert_eq!(terminate(&control, &found).await.expect("ended"), 1);
    wait_until("the direct session is gone", || async {
        direct_sessions(&control, &BTreeSet::from([mirrored])).await.expect("sessions").is_empty()
    })
    .await;
}
