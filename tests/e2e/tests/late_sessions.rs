//! Sessions that began before the arms did: what they hold is made again on the arms, or they are not mirrored and
//! counted as such; never half.

use std::time::Duration;

use understudy_crds::{
    condition::{ArmState, Phase, SkipReason},
    status::ShadowExperimentStatus,
};
use understudy_e2e::{
    application::connect,
    child::{Running, run, understudy_once},
    experiment::{Desk, manifest, report},
    raw::Raw,
    tables::{self, Rows, digests},
    turn::take_turn,
    wire,
};
use understudy_harness::{Cluster, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const SPEC: &str = "  candidates:
  - name: cheap-random
    parameters: { random_page_cost: \"1.1\" }
  schedule: { warmUp: 1s, minimum: 5m, maximum: 10m }
";
const TABLES: &str = "CREATE SCHEMA app; CREATE ROLE writer; GRANT USAGE ON SCHEMA app TO writer;
    CREATE TABLE app.noted (i int, who text DEFAULT current_user, how text DEFAULT current_setting('datestyle'));
    GRANT ALL ON app.noted TO writer";
const ROWS: [Rows; 1] = [("app.noted", "t::text")];

/// What the sessions hold must be there before there are arms.
async fn expect_no_arms_yet(running: &mut Running) {
    let before = |status: &ShadowExperimentStatus| matches!(status.phase, Phase::Pending | Phase::Cloning);
    running.status_until("still before the cut", Duration::from_secs(1), before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_holds_is_made_again_on_the_arms() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    direct.batch_execute(TABLES).await.expect("tables");
    let desk = Desk::new();
    let out = desk.out("late");
    let mut running = run(&desk.write("late.yaml", &manifest("late", worker.port(), SPEC)), &out, &[]);
    let through = running.mirror().await;
    let session = connect(through).await.expect("a session");
    let held = "SET search_path = app; SET ROLE writer; SET datestyle = 'German'; LISTEN news;
                PREPARE by_sql(int) AS INSERT INTO noted VALUES ($1)";
    for sql in held.split(';') {
        session.batch_execute(sql).await.expect(sql);
    }
    let prepared = session.prepare("INSERT INTO noted VALUES ($1)").await.expect("a prepared statement");
    expect_no_arms_yet(&mut running).await;
    let status = running.status_until("observing", LIMIT, |s| s.phase == Phase::Observing).await;
    session.execute(&prepared, &[&1]).await.expect("what was prepared by the protocol");
    session.batch_execute("EXECUTE by_sql(2)").await.expect("what was prepared by SQL");
    let wanted = digests(&direct, &ROWS).await;
    assert_eq!(wanted[0].1, 2);
    let level = |s: &ShadowExperimentStatus| s.arms.iter().all(|arm| arm.exchanges.played >= 2);
    for arm in running.status_until("level", LIMIT, level).await.arms {
        assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{arm:#?}");
        assert!(!arm.exchanges.skipped.contains_key(&SkipReason::UnknownSession), "{arm:#?}");
        assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
    }
    for arm in &status.arms {
        let looker = tables::connect(arm.endpoint.as_deref().expect("its endpoint")).await;
        wait_until("the arm has what was written", || async { digests(&looker, &ROWS).await == wanted }).await;
    }
    understudy_once(["halt", "--out", out.to_str().expect("a path")]).await.expect_code(0);
    running.ended_within(LIMIT).await.expect_code(0);
}

/// Played from its beginning, a transaction draws from its sequences once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_has_drawn_from_a_sequence_is_waited_for_and_counted_where_it_does_not_end() {
    const ROWS: [Rows; 1] = [("numbered", "t::text")];
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    direct.batch_execute("CREATE TABLE numbered (i serial, what text)").await.expect("a table");
    for ends in [true, false] {
        let desk = Desk::new();
        let out = desk.out("drawn");
        let mut running = run(&desk.write("drawn.yaml", &manifest("drawn", worker.port(), SPEC)), &out, &[]);
        let session = connect(running.mirror().await).await.expect("a session");
        session.batch_execute("BEGIN; INSERT INTO numbered (what) VALUES ('before')").await.expect("a row");
        expect_no_arms_yet(&mut running).await;
        if ends {
            let probed = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_current_wal_insert_lsn%'
                                                                      OR query LIKE '%FROM pg_sequences%'";
            wait_until("the cut is being made", || async {
                direct.query_one(probed, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) > 0)
            })
            .await;
            session.batch_execute("COMMIT").await.expect("committed");
        }
        let status = running.status_until("observing", LIMIT, |s| s.phase == Phase::Observing).await;
        for arm in &status.arms {
            let diverged: i64 = arm.divergence.values().sum();
            assert_eq!(diverged, i64::from(!ends), "{arm:#?}");
        }
        if ends {
            session.batch_execute("INSERT INTO numbered (what) VALUES ('behind')").await.expect("another row");
            let wanted = digests(&direct, &ROWS).await;
            for arm in &status.arms {
                let looker = tables::connect(arm.endpoint.as_deref().expect("its endpoint")).await;
                wait_until("the arm has the same numbers", || async { digests(&looker, &ROWS).await == wanted }).await;
            }
        }
        drop(session);
        understudy_once(["halt", "--out", out.to_str().expect("a path")]).await.expect_code(0);
        running.ended_within(LIMIT).await.expect_code(0);
    }
}

/// What some drivers do that the one used elsewhere here does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_drivers_send_in_parts_is_whole_on_the_arms() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    direct.batch_execute(TABLES).await.expect("tables");
    let desk = Desk::new();
    let out = desk.out("parts");
    let mut running = run(&desk.write("parts.yaml", &manifest("parts", worker.port(), SPEC)), &out, &[]);
    let through = running.mirror().await;
    // pgjdbc without autocommit: BEGIN goes along with what is set, COMMIT comes by itself.
    let mut setting = Raw::login(through).await;
    let set = [wire::execute("BEGIN", &[]), wire::execute("SET search_path = app", &[]), wire::sync()].concat();
    ask(&mut setting, &set).await;
    ask(&mut setting, &[wire::execute("COMMIT", &[]), wire::sync()].concat()).await;
    // lib/pq: a statement is prepared without a name, and bound by the next request.
    let mut binding = Raw::login(through).await;
    let insert = wire::message(b'P', b"\0INSERT INTO app.noted VALUES (2)\0\0\0");
    ask(&mut binding, &[insert, wire::sync()].concat()).await;
    expect_no_arms_yet(&mut running).await;
    let status = running.status_until("observing", LIMIT, |s| s.phase == Phase::Observing).await;
    ask(&mut setting, &wire::query("INSERT INTO noted VALUES (1)")).await;
    let bind = [wire::message(b'B', &[0; 8]), wire::message(b'E', &[0; 5]), wire::sync()].concat();
    ask(&mut binding, &bind).await;
    let wanted = digests(&direct, &ROWS).await;
    assert_eq!(wanted[0].1, 2);
    let level = |s: &ShadowExperimentStatus| s.arms.iter().all(|arm| arm.exchanges.played >= 2);
    for arm in running.status_until("level", LIMIT, level).await.arms {
        assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{arm:#?}");
        assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
    }
    for arm in &status.arms {
        let looker = tables::connect(arm.endpoint.as_deref().expect("its endpoint")).await;
        wait_until("the arm has what was written", || async { digests(&looker, &ROWS).await == wanted }).await;
    }
    understudy_once(["halt", "--out", out.to_str().expect("a path")]).await.expect_code(0);
    running.ended_within(LIMIT).await.expect_code(0);
}

/// Asks for something that succeeds.
async fn ask(raw: &mut Raw, request: &[u8]) {
    raw.send(request).await;
    let answer = raw.heard(b'Z').await;
    assert!(answer.iter().all(|(kind, _)| *kind != b'E'), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_cannot_be_made_again_is_counted_and_its_write_ends_the_arms() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    worker.connect().await.batch_execute(TABLES).await.expect("tables");
    let desk = Desk::new();
    let out = desk.out("bound");
    let mut running = run(&desk.write("bound.yaml", &manifest("bound", worker.port(), SPEC)), &out, &[]);
    let through = running.mirror().await;
    let (table, cursor) = (connect(through).await.expect("one"), connect(through).await.expect("another"));
    // To wait on the arm for a lock that others held on the worker might be to wait for ever.
    let lock = connect(through).await.expect("a third");
    lock.batch_execute("SELECT pg_advisory_lock(7)").await.expect("a lock of its own");
    table.batch_execute("CREATE TEMP TABLE own AS SELECT 7 AS i").await.expect("a table of its own");
    let declare = "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 10)";
    cursor.batch_execute(declare).await.expect("a cursor that stays");
    expect_no_arms_yet(&mut running).await;
    running.status_until("observing", LIMIT, |s| s.phase == Phase::Observing).await;
    table.simple_query("SELECT * FROM own").await.expect("its own table");
    cursor.simple_query("FETCH 3 FROM c").await.expect("its cursor");
    lock.simple_query("SELECT count(*) FROM app.noted").await.expect("a read beside its lock");
    let counted = |s: &ShadowExperimentStatus| {
        s.arms.iter().all(|arm| arm.exchanges.skipped.get(&SkipReason::UnknownSession).is_some_and(|n| *n == 3))
    };
    // Reads alone are left out, and said to be.
    let status = running.status_until("counted", LIMIT, counted).await;
    assert!(status.arms.iter().all(|arm| arm.state == ArmState::Live && arm.exchanges.lost == 0), "{status:#?}");
    table.batch_execute("INSERT INTO app.noted SELECT i FROM own").await.expect("a write from its own table");
    running.ended_within(LIMIT).await.expect_code(0);
    let lost = report(&out).status.arms.into_iter().filter(|arm| arm.state == ArmState::Lost);
    let said: Vec<_> = lost.filter_map(|arm| arm.message).collect();
    assert!(said.iter().any(|why| why.contains("could not be rebuilt has written")), "{said:?}");
}
