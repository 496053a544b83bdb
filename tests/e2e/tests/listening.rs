//! Sessions that listen and ask for nothing: an arm's server gets rid of what it has to tell them.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use tokio_postgres::Client;
use understudy_e2e::{application::connect, stage::Servers};
use understudy_harness::wait_until;

const TABLE: &str = "CREATE TABLE counted (id int PRIMARY KEY, n int); INSERT INTO counted VALUES (1, 0)";
/// More than the network has room for on its way.
const MANY: &str = "SELECT count(pg_notify('news', g || repeat('x', 4000))) FROM generate_series(1, 5000) g";

async fn untold(server: &Client) -> f64 {
    server.query_one("SELECT pg_notification_queue_usage()", &[]).await.expect("how full it is").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_s_server_is_rid_of_what_it_tells_who_only_listens() {
    let servers = Servers::start(1, TABLE).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let listener = connect(stage.through).await.expect("a session");
    listener.batch_execute("LISTEN news").await.expect("it listens");
    let teller = connect(stage.through).await.expect("another");
    teller.query_one(MANY, &[]).await.expect("it tells");
    teller.batch_execute("UPDATE counted SET n = n + 1").await.expect("something to be seen");
    stage.expect_level("baseline", &[("counted", "t.*::text")]).await;
    let arm = stage.servers.arms.first().expect("the arm").connect().await;
    wait_until("nothing is left to be told", || async { untold(&arm).await == 0.0 }).await;
    // The session that listened goes on as any other.
    listener.batch_execute("UPDATE counted SET n = n + 1").await.expect("it writes");
    let told = stage.expect_level("baseline", &[("counted", "t.*::text")]).await;
    assert!(told.divergence.values().all(|n| *n == 0), "{told:#?}");
    stage.end().await;
}
