//! An answer that arrives late (another network queue, a busy core) is no commit that came late: the arms go on.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use understudy_e2e::{application::connect, stage::Servers};
use understudy_harness::wait_until;

/// What the answers of a session named `late` take longer than others'.
const LATE: Duration = Duration::from_millis(300);

/// A relay in front of the worker that is late with the answers of the sessions that say `late` in their requests.
async fn late_relay(worker: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its number");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(worker).await.expect("the worker");
            tokio::spawn(async move {
                let (mut asked, mut answered, mut late) = (vec![0; 1 << 16], vec![0; 1 << 16], false);
                loop {
                    tokio::select! {
                        read = client.read(&mut asked) => {
                            let bytes = asked.get(..read.unwrap_or(0)).unwrap_or_default();
                            late |= bytes.windows(4).any(|w| w == b"late");
                            if bytes.is_empty() || server.write_all(bytes).await.is_err() { return }
                        }
                        read = server.read(&mut answered) => {
                            let bytes = answered.get(..read.unwrap_or(0)).unwrap_or_default();
                            if late { sleep(LATE).await }
                            if bytes.is_empty() || client.write_all(bytes).await.is_err() { return }
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_overtaken_by_the_next_holder_of_its_lock_does_not_stop_the_arms() {
    let servers = Servers::start(1, "CREATE TABLE c (id int PRIMARY KEY, n int); INSERT INTO c VALUES (1, 0)").await;
    let relay = late_relay(([127, 0, 0, 1], servers.worker.port()).into()).await;
    let arms = servers.addresses();
    let stage = servers.mirror_to(relay, "64Mi", &arms).await;
    let (late, next) = (connect(stage.through).await.expect("one"), connect(stage.through).await.expect("other"));
    let direct = stage.servers.worker.connect().await;
    // The late one commits; before its answer arrives the next one has changed the row and keeps it locked.
    let (answered, ()) = tokio::join!(late.batch_execute("UPDATE c SET n = 1 WHERE id = 1 /* late */"), async {
        wait_until("committed", || async {
            direct.query_one("SELECT n FROM c", &[]).await.is_ok_and(|row| row.get::<_, i32>(0) == 1)
        })
        .await;
        next.batch_execute("BEGIN; UPDATE c SET n = 2 WHERE id = 1").await.expect("the next");
    });
    answered.expect("the late answer");
    // Production goes on.
    next.batch_execute("COMMIT").await.expect("a commit");
    let began = Instant::now();
    let arm = stage.arm_until("baseline", "through with it", |arm| arm.exchanges.played >= 3).await;
    println!("played after {:?}: {:?}", began.elapsed(), arm.divergence);
    assert!(began.elapsed() < Duration::from_secs(5), "the arm stood still for {:?}", began.elapsed());
    assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
    let n: i32 = stage.servers.arms[0].connect().await.query_one("SELECT n FROM c", &[]).await.expect("n").get(0);
    assert_eq!(n, 2, "production's order");
    stage.end().await;
}
