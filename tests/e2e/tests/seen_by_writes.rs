//! What a write reads: it sees what was there when it began, whoever changes that beside it, on an arm as on production.
//! Where both were at it at once no answer is held against an arm, and that is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};
use understudy_e2e::{application::connect, stage::Servers};

const TABLES: &str = "CREATE TABLE counted (id int PRIMARY KEY, n int);
    INSERT INTO counted SELECT i, 0 FROM generate_series(1, 20) i;
    CREATE TABLE sums (session int, entry int, n bigint)";
const SECONDS: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_reads_what_others_change_is_not_said_to_differ() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let (stop, mut at_work) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for session in 0..4 {
        let (client, stop) = (connect(stage.through).await.expect("a session"), Arc::clone(&stop));
        at_work.spawn(async move {
            for entry in 0.. {
                let sql = if session < 2 {
                    format!("INSERT INTO sums SELECT {session}, {entry}, sum(n) FROM counted RETURNING n")
                } else {
                    format!("UPDATE counted SET n = n + 1 WHERE id = {}", entry % 20 + 1)
                };
                client.simple_query(&sql).await.expect("an answer");
                if stop.load(Ordering::Relaxed) {
                    return entry;
                }
                sleep(Duration::from_millis(2)).await;
            }
            0
        });
    }
    sleep(SECONDS).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = at_work.join_next().await {
        assert!(done.expect("a session that went well") > 100);
    }
    let rows = "SELECT session, entry, n FROM sums ORDER BY 1, 2";
    let direct = stage.servers.worker.connect().await.query(rows, &[]).await.expect("rows");
    for (name, server) in ["baseline", "candidate"].into_iter().zip(&stage.servers.arms) {
        let arm = stage.expect_level(name, &[("counted", "t.id::text || '=' || t.n::text")]).await;
        let here = server.connect().await.query(rows, &[]).await.expect("rows");
        let of = |row: &tokio_postgres::Row| (row.get::<_, i32>(0), row.get::<_, i32>(1), row.get::<_, i64>(2));
        let differ = direct.iter().zip(&here).filter(|(theirs, ours)| of(theirs) != of(ours)).count();
        println!("{name}: {differ} of {} sums differ, {} of {} ambiguous", here.len(), arm.ambiguous, arm.compared);
        assert_eq!(here.len(), direct.len(), "{name}");
        assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
        assert!(
            i64::try_from(differ).is_ok_and(|differ| differ <= arm.ambiguous),
            "whatever differs was said: {arm:#?}"
        );
    }
    stage.end().await;
}
