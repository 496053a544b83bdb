//! The mirror goes away in good order, and its halt switch: transactions may end, idle sessions are told, nobody new
//! is let in, and capture ends at once without a client noticing.

use std::{io, net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use understudy_crds::condition::ArmState;
use understudy_e2e::{
    application::connect,
    load::{Load, TABLES},
    stage::{Servers, TOKEN},
    wire::{Wire, query},
};
use understudy_harness::wait_until;

/// What the mirror gives its sessions, and a little.
const LIMIT: Duration = Duration::from_secs(15);

/// `POST /v1/halt`: the status line.
async fn halt(admin: &str, token: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request =
        format!("POST /v1/halt HTTP/1.0\r\nHost: test\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// Whether a new client is let in.
async fn is_open(address: SocketAddr) -> bool {
    connect(address).await.is_ok()
}

fn said(words: &[u8], what: &str) -> bool {
    words.windows(what.len()).any(|window| window == what.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_end_before_the_mirror_does_and_idle_sessions_are_told() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let (busy, mut idle) = (connect(stage.through).await.expect("a session"), Wire::connect(stage.through).await);
    busy.batch_execute("BEGIN; INSERT INTO ledger VALUES (1, 1, '')").await.expect("an open transaction");
    let began = Instant::now();
    stage.mirror.signal(Signal::TERM);
    let words = idle.last_words(&[]).await;
    assert!(said(&words, "SFATAL") && said(&words, "C57P01") && said(&words, "connect again"), "{words:?}");
    println!("an idle session is told after {:?}", began.elapsed());
    wait_until("nobody new is let in", || async { !is_open(stage.through).await }).await;
    busy.batch_execute("INSERT INTO ledger VALUES (1, 2, '')").await.expect("the transaction goes on");
    busy.batch_execute("COMMIT").await.expect("the transaction commits");
    let worker = stage.servers.worker.connect().await;
    let ended = stage.mirror.ended_within(LIMIT).await;
    println!("the mirror has ended after {:?}", began.elapsed());
    ended.expect_code(0);
    let rows: i64 = worker.query_one("SELECT count(*) FROM ledger", &[]).await.expect("rows").get(0);
    assert_eq!(rows, 2, "what was acknowledged is there");
    assert!(busy.batch_execute("SELECT 1").await.is_err(), "its session has ended with its transaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_does_not_end_is_told_and_closed() {
    let servers = Servers::start(0, TABLES).await;
    let stage = servers.mirror("64Mi", &[]).await;
    let mut stubborn = Wire::connect(stage.through).await;
    stubborn.exchange(&query("BEGIN; INSERT INTO ledger VALUES (1, 1, '')"), 1).await;
    let began = Instant::now();
    stage.mirror.signal(Signal::TERM);
    let words = stubborn.last_words(&[]).await;
    println!("after {:?}: {}", began.elapsed(), String::from_utf8_lossy(&words));
    let worker = stage.servers.worker.connect().await;
    stage.mirror.ended_within(LIMIT).await.expect_code(0);
    wait_until("its backend has ended", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        worker.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
    let rows: i64 = worker.query_one("SELECT count(*) FROM ledger", &[]).await.expect("rows").get(0);
    assert_eq!(rows, 0, "what was not committed is not there");
    assert!(said(&words, "SFATAL") && said(&words, "C57P01"), "it was told nothing: {words:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_halt_switch_ends_capture_at_once_and_no_client_notices() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let mut load = Load::start(stage.through, 6, Duration::from_millis(5)).await;
    stage.arm_until("candidate", "playing", |arm| arm.exchanges.played > 100).await;
    load.figures().expect_fair("before the halt");
    assert!(halt(&stage.admin, "guessed").await.expect("an answer").contains("403"));
    assert_eq!(stage.arm("candidate").await.state, ArmState::Live);

    let began = Instant::now();
    assert!(halt(&stage.admin, TOKEN).await.expect("an answer").contains("200"));
    let off = async {
        for name in ["baseline", "candidate"] {
            stage.arm_until(name, "removed", |arm| arm.state == ArmState::Removed).await;
        }
        // What was captured is let go of: nobody keeps it any more.
        wait_until("the log is empty", || async { stage.metric("understudy_log_bytes").await < 1 << 20 }).await;
    };
    timeout(LIMIT, off).await.expect("in time");
    println!("capture is off after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
    let captured = stage.arm("candidate").await.exchanges.captured;
    let before = load.figures();
    before.expect_fair("while it is halted");
    let worker = stage.servers.worker.connect().await;
    let steps = "SELECT count(*) FROM ledger";
    let then: i64 = worker.query_one(steps, &[]).await.expect("rows").get(0);
    wait_until("production goes on", || async {
        worker.query_one(steps, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) > then + 100)
    })
    .await;
    load.figures().expect_fair("after the halt");
    assert_eq!(stage.arm("candidate").await.exchanges.captured, captured, "nothing more is captured");
    load.expect_kept(&worker).await;
    stage.end().await;
}
