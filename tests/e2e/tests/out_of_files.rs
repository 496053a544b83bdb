//! A mirror that may not have many files open: the last ones are production's, and the arms are let go of. Where none
//! are left, clients wait to be taken in, which is counted.

use tokio::net::TcpStream;
use understudy_crds::condition::ArmState;
use understudy_e2e::{application::connect, stage::Servers};
use understudy_harness::wait_until;

const TABLE: &str = "CREATE TABLE written (i int)";
/// Two hundred of them no arm takes.
const FILES: u64 = 300;
/// With two arms they would need 280 files, beside the mirror's own.
const SESSIONS: i32 = 70;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_files_are_short_the_arms_are_let_go_of_and_every_client_is_served() {
    let servers = Servers::start(2, TABLE).await;
    let arms = servers.addresses();
    let stage = servers.mirror("256Mi", &arms).await;
    stage.limit_files(FILES);
    let mut clients = Vec::new();
    for i in 0..SESSIONS {
        let client = connect(stage.through).await.expect("a session");
        client.batch_execute(&format!("INSERT INTO written VALUES ({i})")).await.expect("a row");
        clients.push(client);
    }
    for name in ["baseline", "candidate"] {
        let lost = stage.arm_until(name, "lost", |arm| arm.state == ArmState::Lost).await;
        assert!(lost.message.as_deref().is_some_and(|why| why.contains("the last ones are production's")), "{lost:#?}");
    }
    for client in &clients {
        client.batch_execute("INSERT INTO written VALUES (0)").await.expect("a row");
    }
    assert_eq!(stage.metric("understudy_sessions").await, i64::from(SESSIONS));
    assert_eq!(stage.metric("understudy_accept_failures_total").await, 0);

    let mut silent = Vec::new();
    for _ in 0..FILES {
        silent.push(TcpStream::connect(stage.through).await.expect("a connection"));
    }
    wait_until("no file is left", || async { stage.open_files() as u64 == FILES }).await;
    for client in &clients {
        client.batch_execute("INSERT INTO written VALUES (1)").await.expect("a row beside them");
    }
    drop(silent);
    let newcomer = connect(stage.through).await.expect("a session when there are files again");
    newcomer.batch_execute("INSERT INTO written VALUES (2)").await.expect("a row");
    assert!(stage.metric("understudy_accept_failures_total").await > 0);
    stage.end().await;
}
