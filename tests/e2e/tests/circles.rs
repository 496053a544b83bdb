//! Locks that close a circle on an arm with what has to wait there for its turn: the arm goes on at once, and has the data
//! that production has.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that can't have what it needs has failed; figures are printed, not judged"
)]

use std::time::Duration;

use tokio::{join, time::Instant};
use tokio_postgres::Client;
use understudy_crds::{condition::DivergenceKind, status::ArmStatus};
use understudy_e2e::{
    application::connect,
    stage::{Servers, Stage},
};
use understudy_harness::wait_until;

const TABLE: &str = "CREATE TABLE t (id text PRIMARY KEY, n int); INSERT INTO t VALUES ('a', 0), ('b', 0)";
/// What a guess takes where the arm's server is not asked.
const SOON: Duration = Duration::from_secs(8);

async fn set() -> (Stage, Client) {
    let servers = Servers::start(1, TABLE).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let looker = stage.servers.worker.connect().await;
    (stage, looker)
}

async fn waiting(looker: &Client, count: i64) {
    wait_until("they wait for a lock", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        looker.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == count)
    })
    .await;
}

async fn run_in_block(client: &Client, sql: String) {
    run(client, &format!("BEGIN; {sql}")).await;
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.expect(sql);
}

/// The arm when it is through with everything, which it must be soon.
async fn expect_level(stage: &Stage) -> ArmStatus {
    let began = Instant::now();
    let arm = stage.expect_level("baseline", &[("t", "t.*::text")]).await;
    println!("level after {:?}: {:?}", began.elapsed(), arm.divergence);
    assert!(began.elapsed() < SOON, "the arm stood still for {:?}", began.elapsed());
    arm
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_has_the_same_victim_as_on_production() {
    let (stage, looker) = set().await;
    let (one, other) = (connect(stage.through).await.expect("one"), connect(stage.through).await.expect("other"));
    run(&one, "BEGIN; UPDATE t SET n = n + 1 WHERE id = 'a'").await;
    run(&other, "BEGIN; UPDATE t SET n = n + 10 WHERE id = 'b'").await;
    // Who has waited longest for as long as a server waits before it looks finds the deadlock, and is the victim.
    let (victim, ()) = join!(one.batch_execute("UPDATE t SET n = n + 1 WHERE id = 'b'"), async {
        waiting(&looker, 1).await;
        run(&other, "UPDATE t SET n = n + 10 WHERE id = 'a'").await;
    });
    let code = victim.expect_err("a deadlock").code().map(|code| code.code().to_owned());
    assert_eq!(code.as_deref(), Some("40P01"));
    join!(run(&one, "ROLLBACK"), run(&other, "COMMIT"));
    let arm = expect_level(&stage).await;
    assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
    stage.end().await;
}

/// They have nothing to do with one another, as far as their keys tell, and wait since the same moment: who the victim is
/// is chance, on each server its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlocks_by_chance_have_the_same_victims_as_on_production() {
    const PAIRS: i32 = 10;
    let table = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT g, 0 FROM generate_series(0, 19) g";
    let servers = Servers::start(1, table).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let pair = async |pair: i32| {
        let sessions = [connect(stage.through).await.expect("one"), connect(stage.through).await.expect("other")];
        let [one, other] = &sessions;
        let (first, second) = (2 * pair, 2 * pair + 1);
        let add = |n: i32, id: i32| format!("UPDATE t SET n = n + {n} WHERE id = {id}");
        join!(run_in_block(one, add(1, first)), run_in_block(other, add(10, second)));
        let (of_one, of_other) = (add(1, second), add(10, first));
        let (one_had, other_had) = join!(one.batch_execute(&of_one), other.batch_execute(&of_other));
        assert!(one_had.is_err() != other_had.is_err(), "{one_had:?} {other_had:?}");
        join!(run(one, "COMMIT"), run(other, "COMMIT"));
    };
    futures_util::future::join_all((0..PAIRS).map(pair)).await;
    let arm = expect_level(&stage).await;
    assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_were_queued_behind_a_change_of_their_table_do_not_hold_it_up() {
    let (stage, looker) = set().await;
    let (changer, holder) = (connect(stage.through).await.expect("a session"), stage.servers.worker.connect().await);
    let readers = [connect(stage.through).await.expect("one"), connect(stage.through).await.expect("other")];
    run(&holder, "BEGIN; SELECT n FROM t").await;
    let altered = async {
        run(&changer, "ALTER TABLE t ADD COLUMN x int").await;
    };
    let read = |reader| async move { run(reader, "BEGIN; SELECT n FROM t").await };
    join!(altered, async {
        waiting(&looker, 1).await;
        let [one, other] = &readers;
        join!(read(one), read(other), async {
            waiting(&looker, 3).await;
            // Longer than the arms live behind production: there the readers come first.
            wait_until("it has waited long", || async {
                let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                           AND clock_timestamp() - query_start > '1.5 s' AND query LIKE 'ALTER%'";
                looker.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
            })
            .await;
            run(&holder, "COMMIT").await;
        });
    });
    for reader in &readers {
        run(reader, "SELECT count(*) FROM t; COMMIT").await;
    }
    let arm = expect_level(&stage).await;
    let others = arm.divergence.iter().filter(|(kind, n)| **kind != DivergenceKind::Order && **n > 0);
    assert_eq!(others.count(), 0, "{arm:#?}");
    stage.end().await;
}
