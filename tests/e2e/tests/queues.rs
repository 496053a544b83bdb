//! A queue of jobs in a table, as many applications have one: each session takes the first job that no other has, and an
//! arm's sessions take the same ones.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use tokio::join;
use tokio_postgres::Client;
use understudy_e2e::{application::connect, stage::Servers};
use understudy_harness::wait_until;

const TABLES: &str = "CREATE TABLE jobs (id int PRIMARY KEY, status text NOT NULL);
    INSERT INTO jobs SELECT g, 'pending' FROM generate_series(1, 10000) g;
    ANALYZE jobs;
    CREATE TABLE done (id int, session int)";
/// It looks at each job for a while before it tries to lock it.
const PICK: &str = "SELECT id, pg_sleep(0.2) FROM jobs WHERE status = 'pending' ORDER BY id LIMIT 1
    FOR UPDATE SKIP LOCKED";

async fn pick(client: &Client) -> i32 {
    client.batch_execute("BEGIN").await.expect("a transaction");
    client.query_one(PICK, &[]).await.expect("a job").get(0)
}

async fn done(client: &Client, session: i32, job: i32) {
    let sql = format!("DELETE FROM jobs WHERE id = {job}; INSERT INTO done VALUES ({job}, {session}); COMMIT");
    client.batch_execute(&sql).await.expect("a job that is done");
}

/// Until somebody is in the middle of picking.
async fn picks(looker: &Client) {
    wait_until("one picks", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        looker.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_picks_while_another_does_gets_the_next_job_on_an_arm_too() {
    let servers = Servers::start(1, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let looker = stage.servers.worker.connect().await;
    let (one, other) = (connect(stage.through).await.expect("one"), connect(stage.through).await.expect("other"));
    for round in 0..3 {
        let (first, second) = join!(pick(&one), async {
            picks(&looker).await;
            pick(&other).await
        });
        assert_eq!((first, second), (2 * round + 1, 2 * round + 2));
        done(&one, 1, first).await;
        done(&other, 2, second).await;
    }
    let arm = stage.expect_level("baseline", &[("jobs", "t.*::text"), ("done", "t.*::text")]).await;
    assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
    stage.end().await;
}
