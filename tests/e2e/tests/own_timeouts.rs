//! Timeouts that a client sets for its own session, by which a server ends one that says nothing for long. An arm may stand
//! still in the middle of a transaction: none of them strikes there, and all the client does is done.

use std::time::Duration;

use tokio::time::sleep;
use understudy_crds::condition::ArmState;
use understudy_e2e::{application::connect, stage::Servers};
use understudy_harness::{Paused, wait_until};

const TABLE: &str = "CREATE TABLE kept (i int)";
/// Longer than the client ever rests, and shorter than an arm stands still.
const SET: &str = "SET idle_in_transaction_session_timeout = '1500ms'";
const REST: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_that_a_client_sets_strikes_on_no_arm() {
    let servers = Servers::start(2, TABLE).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let client = connect(stage.through).await.expect("a session");
    client.batch_execute(SET).await.expect("a setting");
    client.batch_execute("BEGIN; INSERT INTO kept VALUES (1)").await.expect("an open transaction");
    let candidate = stage.servers.arms[1].connect().await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    wait_until("the arm's transaction is open", || async {
        candidate.query_one(open, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
    let paused = Paused::all_of(&stage.servers.arms[1]);
    for _ in 0..6 {
        sleep(REST).await;
        client.batch_execute("SELECT 1").await.expect("the session goes on");
    }
    drop(paused);
    client.batch_execute("INSERT INTO kept VALUES (2); COMMIT").await.expect("its end");
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &[("kept", "t.i::text")]).await;
        assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{arm:#?}");
    }
    stage.end().await;
}
