//! The mirror goes away in good order, and its halt switch: transactions and statements may end, idle sessions are
//! told, nobody new is let in, and capture ends at once without a client noticing, whatever the arms are doing.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that can't have what it needs has failed; figures are printed, not judged"
)]

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
    raw::{Raw, startup},
    stage::{Servers, Stage, TOKEN},
    wire::{Wire, execute, kinds, message, query, sync},
};
use understudy_harness::{Paused, wait_until};
use understudy_mirror::shadow::log::disk::segments;

/// What the mirror gives its sessions, and a little.
const LIMIT: Duration = Duration::from_secs(15);
/// What a transaction is given to end, but for what a clock may be off.
const GIVEN: Duration = Duration::from_millis(9900);
/// Less than it gives those who have something to end.
const AT_ONCE: Duration = Duration::from_secs(5);

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
async fn nobody_is_waited_for_who_has_not_said_what_they_want() {
    let servers = Servers::start(0, TABLES).await;
    let stage = servers.mirror("64Mi", &[]).await;
    let mut silent = Vec::new();
    // Who looks whether the port is open, and who stops in the middle of a startup packet.
    for begun in [&[][..], &[0, 0, 0, 80, 0, 3]] {
        let mut stream = TcpStream::connect(stage.through).await.expect("a connection");
        stream.write_all(begun).await.expect("sent");
        silent.push(stream);
    }
    wait_until("they are served", || async { stage.metric("understudy_connections_total").await == 2 }).await;
    stage.mirror.signal(Signal::TERM);
    stage.mirror.ended_within(AT_ONCE).await.expect_code(0);
    for mut stream in silent {
        let mut said = Vec::new();
        let end = timeout(LIMIT, stream.read_to_end(&mut said)).await.expect("the end in time");
        assert!(said.is_empty() && end.is_ok_and(|read| read == 0), "as from a server that shuts down: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_waited_for_who_does_not_say_their_password() {
    let servers = Servers::start_asking("asked", 0, "CREATE ROLE asked LOGIN PASSWORD 'open sesame'").await;
    let stage = servers.mirror("64Mi", &[]).await;
    let mut asked = Raw::connect(stage.through).await;
    asked.send(&startup("asked")).await;
    asked.until(b'R').await;
    stage.mirror.signal(Signal::TERM);
    let words = asked.rest().await;
    assert!(said(&words, "SFATAL") && said(&words, "C57P01") && said(&words, "connect again"), "{words:?}");
    stage.mirror.ended_within(AT_ONCE).await.expect_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_does_not_end_is_told_and_closed() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let mut stubborn = Wire::connect(stage.through).await;
    stubborn.exchange(&query("BEGIN; INSERT INTO ledger VALUES (1, 1, '')"), 1).await;
    let began = Instant::now();
    stage.mirror.signal(Signal::TERM);
    let words = stubborn.last_words(&[]).await;
    println!("after {:?}: {}", began.elapsed(), String::from_utf8_lossy(&words));
    assert!(began.elapsed() > GIVEN, "it was given {:?}", began.elapsed());
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

/// To be told that the server shuts down means that nothing was done: who hears it does it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_does_not_end_is_cancelled_before_its_client_is_told_to_connect_again() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let worker = stage.servers.worker.connect().await;
    let holder = stage.servers.worker.connect().await;
    holder.batch_execute("BEGIN; UPDATE counters SET n = 1 WHERE id = 0").await.expect("a lock");
    let (mut simple, mut extended) = (Wire::connect(stage.through).await, Wire::connect(stage.through).await);
    let mut flushed = Wire::connect(stage.through).await;
    simple.send(&query("UPDATE counters SET n = n + 10 WHERE id = 0")).await;
    extended.send(&[execute("UPDATE counters SET n = n + 100 WHERE id = 0", &[]), sync()].concat()).await;
    // Its Sync has not come, and what it executes runs all the same.
    flushed.send(&[execute("UPDATE counters SET n = n + 1000 WHERE id = 0", &[]), message(b'H', &[])].concat()).await;
    wait_until("all of them wait for the lock", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        worker.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 3)
    })
    .await;
    let began = Instant::now();
    stage.mirror.signal(Signal::TERM);
    for session in [&mut simple, &mut extended, &mut flushed] {
        let words = session.last_words(&[]).await;
        let cancelled = words.windows(6).position(|code| code == b"C57014");
        let told = words.windows(6).position(|code| code == b"C57P01");
        assert!(cancelled.is_some() && cancelled < told, "{}", String::from_utf8_lossy(&words));
    }
    assert!(began.elapsed() > GIVEN, "they were given {:?}", began.elapsed());
    stage.mirror.ended_within(LIMIT).await.expect_code(0);
    holder.batch_execute("ROLLBACK").await.expect("the lock is free");
    let counted: i64 = worker.query_one("SELECT n FROM counters WHERE id = 0", &[]).await.expect("a row").get(0);
    assert_eq!(counted, 0, "what was cancelled is not done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_run_may_end_before_their_sessions_are_told() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let (mut sleeper, mut copier) = (Wire::connect(stage.through).await, Wire::connect(stage.through).await);
    copier.send(&query("COPY ledger FROM STDIN")).await;
    copier.until(b'G', 1).await;
    copier.send(&message(b'd', b"1\t1\tbefore\n")).await;
    sleeper.send(&query("SELECT pg_sleep(1)")).await;
    let worker = stage.servers.worker.connect().await;
    wait_until("it runs", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        worker.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
    stage.mirror.signal(Signal::TERM);
    wait_until("nobody new is let in", || async { !is_open(stage.through).await }).await;
    copier.send(&[message(b'd', b"1\t2\tafter\n"), message(b'c', b"")].concat()).await;
    let copied = copier.until_ready(1).await;
    assert_eq!(copied, [(b'C', b"COPY 2\0".to_vec()), (b'Z', b"I".to_vec())]);
    let slept = sleeper.until_ready(1).await;
    assert_eq!(kinds(&slept), "TDCZ", "{slept:?}");
    for (session, what) in [(&mut copier, "the copy"), (&mut sleeper, "the sleep")] {
        let words = session.last_words(&[]).await;
        assert!(said(&words, "SFATAL") && said(&words, "C57P01"), "{what} was told {words:?}");
    }
    stage.mirror.ended_within(LIMIT).await.expect_code(0);
    let rows: i64 = worker.query_one("SELECT count(*) FROM ledger", &[]).await.expect("rows").get(0);
    assert_eq!(rows, 2, "what was acknowledged is there");
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

    expect_off_at_once(&stage, || true).await;
    expect_production_goes_on(stage, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_halt_switch_lets_go_of_an_arm_that_hangs_and_of_a_log_on_disk() {
    let servers = Servers::start(2, TABLES).await;
    let log = servers.worker.directory().join("traffic-log");
    // More than what the log's thread leaves in memory while it waits for a processor.
    let told = format!("memory: 16Mi\ndisk: {{ directory: {}, size: 256Mi, keepFreePercent: 0 }}\n", log.display());
    let (worker, arms) = (([127, 0, 0, 1], servers.worker.port()).into(), servers.addresses());
    let stage = servers.mirror_with(worker, &told, &arms).await;
    let mut load = Load::start(stage.through, 6, Duration::from_millis(10)).await;
    stage.arm_until("candidate", "playing", |arm| arm.exchanges.played > 100).await;
    let paused = Paused::all_of(&stage.servers.arms[1]);
    wait_until("the log is on disk", || async { stage.metric("understudy_log_disk_bytes").await > 1 << 20 }).await;
    let arm = stage.arm("candidate").await;
    assert_eq!(arm.state, ArmState::Live, "{arm:#?}\n{}", stage.mirror.transcript());
    load.figures().expect_fair("beside an arm that hangs");
    assert!(!segments(&log).expect("the log's directory").is_empty());

    expect_off_at_once(&stage, || segments(&log).expect("the log's directory").is_empty()).await;
    expect_production_goes_on(stage, load).await;
    drop(paused);
}

/// Halts: within a second nothing is captured, played or kept.
async fn expect_off_at_once(stage: &Stage, disk_is_empty: impl Fn() -> bool) {
    let began = Instant::now();
    assert!(halt(&stage.admin, TOKEN).await.expect("an answer").contains("200"));
    let off = async {
        for name in ["baseline", "candidate"] {
            stage.arm_until(name, "removed", |arm| arm.state == ArmState::Removed).await;
        }
        // What was captured is let go of: nobody keeps it any more.
        wait_until("the log is empty", || async {
            stage.metric("understudy_log_bytes").await < 1 << 20 && disk_is_empty()
        })
        .await;
    };
    timeout(LIMIT, off).await.expect("in time");
    println!("capture is off after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
}

/// After the halt clients are served as before, and nothing more is captured of what they do.
async fn expect_production_goes_on(stage: Stage, mut load: Load) {
    let captured = stage.arm("candidate").await.exchanges.captured;
    load.figures().expect_fair("while it is halted");
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
