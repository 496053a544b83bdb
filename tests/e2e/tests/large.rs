//! What is larger than all that the mirror may keep passes whole and leaves its memory alone: messages near
//! PostgreSQL's limit of a gigabyte, COPY of any length, and results that a client takes its time to read.

#![expect(clippy::print_stdout, reason = "figures are printed, not judged")]

use std::{fmt::Write as _, time::Duration};

use tokio::time::{Instant, sleep};
use understudy_crds::{condition::ArmState, status::ArmStatus};
use understudy_e2e::{
    load::{Load, ROWS, TABLES},
    raw::Raw,
    stage::{Servers, Stage},
    wire::{message, query, sync},
};
use understudy_harness::wait_until;

const MEMORY: &str = "16Mi";
/// The same as in `isolation.rs`, and a fraction of what passes.
const MOST_MIB: u64 = 160;
const MIB: usize = 1 << 20;
const COPIED: &str = "CREATE UNLOGGED TABLE copied (i int, t text)";
/// What a row of it holds, in SQL.
const ROW: &str = "repeat(lpad(i::text, 10, '0'), 100)";
const COPIED_ROWS: usize = 300_000;

fn is_live(arm: &ArmStatus) -> bool {
    arm.state == ArmState::Live
}

/// The mirror was never larger than it may be.
fn expect_small(stage: &Stage, after: &str) {
    let (now, most) = stage.memory_mib();
    println!("after {after}: the mirror's memory is {now} MiB, at most {most} MiB");
    assert!(most < MOST_MIB, "{most} MiB after {after}");
}

/// What was not captured was not captured for this reason, and no arm goes on as if it had been.
async fn expect_capture_ended(stage: &Stage) {
    for name in ["baseline", "candidate"] {
        let arm = stage.arm_until(name, "lost", |arm| arm.state == ArmState::Lost).await;
        let message = arm.message.unwrap_or_default();
        assert!(message.contains("outgrown the memory limit"), "{name}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_300_mb_passes_both_ways() {
    let servers = Servers::start(2, &format!("{TABLES}; {COPIED}")).await;
    let arms = servers.addresses();
    let stage = servers.mirror(MEMORY, &arms).await;
    let mut load = Load::start(stage.through, 2, Duration::from_millis(20)).await;
    let mut client = Raw::login(stage.through).await;

    // Out: an arm throws it away as it comes.
    let out = query(&format!("COPY (SELECT i, {ROW} FROM generate_series(1, {COPIED_ROWS}) i) TO STDOUT"));
    let mut answers = Vec::new();
    for address in [stage.direct, stage.through] {
        let mut client = Raw::login(address).await;
        client.send(&out).await;
        answers.push(client.until(b'Z').await);
        client.leave().await;
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[1].0 > 300_000_000);
    for name in ["baseline", "candidate"] {
        let arm = stage.arm_until(name, "through with it", |arm| arm.lag.seconds < 2.0 || !is_live(arm)).await;
        assert!(is_live(&arm), "{arm:#?}");
    }
    expect_small(&stage, "COPY out");

    // In: what an arm would have to be given is more than may be kept.
    client.send(&query("COPY copied FROM STDIN")).await;
    client.until(b'G').await;
    let mut piece = String::new();
    for row in 1..=COPIED_ROWS {
        writeln!(piece, "{row}\t{}", format!("{row:010}").repeat(100)).expect("text");
        if row % 1000 == 0 {
            client.send(&message(b'd', piece.as_bytes())).await;
            piece.clear();
        }
    }
    client.send(&message(b'c', &[])).await;
    client.until(b'Z').await;
    let direct = stage.servers.worker.connect().await;
    let whole = format!("SELECT count(*), bool_and(t = {ROW}) FROM copied");
    let row = direct.query_one(&whole, &[]).await.expect("what was copied");
    assert_eq!((usize::try_from(row.get::<_, i64>(0)).ok(), row.get::<_, bool>(1)), (Some(COPIED_ROWS), true));
    expect_small(&stage, "COPY in");
    expect_capture_ended(&stage).await;
    load.figures().expect_fair("while 900 MB are copied");
    load.expect_kept(&direct).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_near_the_limit_pass_whole() {
    let servers = Servers::start(2, &format!("{TABLES}; {COPIED}")).await;
    let arms = servers.addresses();
    let stage = servers.mirror(MEMORY, &arms).await;
    let mut client = Raw::login(stage.through).await;
    let mut direct = Raw::login(stage.direct).await;

    // A value, while its exchange is captured: only the request is kept, and the arms make it themselves.
    for (mib, why) in [(128, "a value, captured"), (1000, "a long value, captured"), (128, "a value")] {
        if why == "a value" {
            for name in ["baseline", "candidate"] {
                let arm =
                    stage.arm_until(name, "through with them", |arm| !is_live(arm) || arm.exchanges.played == 2).await;
                assert!(is_live(&arm) && arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
            }
            // What makes the arms give up: this request is kept until it is too long.
            for client in [&mut direct, &mut client] {
                client.send_long(b'Q', b"SELECT 1 /*", &vec![b'x'; MIB], 500, b"*/\0").await;
            }
            assert_eq!(direct.until(b'Z').await, client.until(b'Z').await);
            expect_small(&stage, "a query of 500 MB");
            expect_capture_ended(&stage).await;
        }
        let value = query(&format!("SELECT repeat('x', {})", mib * MIB));
        for client in [&mut direct, &mut client] {
            client.send(&value).await;
        }
        let (through, direct) = tokio::join!(client.until(b'Z'), direct.until(b'Z'));
        assert_eq!(through, direct, "{why}");
        assert!(through.0 > (mib * MIB) as u64);
        expect_small(&stage, why);
    }

    // A parameter, and the data of a COPY.
    let parse = message(b'P', b"\0SELECT length($1::text), hashtext($1::text)\0\0\0");
    let length = u32::try_from(256 * MIB).expect("a length").to_be_bytes();
    let before = [&[0, 0, 0, 0, 0, 1], length.as_slice()].concat();
    let mut answers = Vec::new();
    for client in [&mut direct, &mut client] {
        client.send(&parse).await;
        client.send_long(b'B', &before, &vec![b'y'; MIB], 256, &[0, 0]).await;
        client.send(&[message(b'E', &[0; 5]), sync()].concat()).await;
        answers.push(client.until(b'Z').await);
    }
    assert_eq!(answers[0], answers[1]);
    expect_small(&stage, "a parameter of 256 MB");
    client.send(&query("COPY copied FROM STDIN")).await;
    client.until(b'G').await;
    client.send_long(b'd', b"", "7\tseven\n".repeat(MIB / 8).as_bytes(), 128, b"").await;
    client.send(&message(b'c', &[])).await;
    client.until(b'Z').await;
    let count = "SELECT count(*) FROM copied WHERE t = 'seven'";
    let rows: i64 = stage.servers.worker.connect().await.query_one(count, &[]).await.expect("rows").get(0);
    assert_eq!(usize::try_from(rows).ok(), Some(128 * MIB / 8));
    expect_small(&stage, "COPY data of 128 MB in one message");

    // As long as a message may be, but for its header and the rest of a MiB.
    client.send(&query("COPY copied FROM STDIN WHERE false")).await;
    client.until(b'G').await;
    let line = format!("7\t{}\n", "y".repeat(MIB - 3));
    client.send_long(b'd', b"", line.as_bytes(), 1023, b"").await;
    client.send(&message(b'c', &[])).await;
    let mut expected = Raw::login(stage.direct).await;
    expected.send(&query("COPY copied FROM '/dev/null'")).await;
    assert_eq!(client.until(b'Z').await, expected.until(b'Z').await, "it was taken, and no row of it kept");
    expect_small(&stage, "COPY data of 1 GB in one message");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_up_the_worker_and_nobody_else() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror(MEMORY, &arms).await;
    let mut load = Load::start(stage.through, 2, Duration::from_millis(20)).await;
    let direct = stage.servers.worker.connect().await;
    let rows = query(&format!("SELECT {ROW} FROM generate_series(1, 300000) i"));
    let mut quick = Raw::login(stage.direct).await;
    quick.send(&rows).await;
    let (bytes, _) = quick.until(b'Z').await;
    quick.leave().await;
    let mut client = Raw::login(stage.through).await;
    client.send(&rows).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    let (began, mut sipped) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(3) {
        client.sip(1000).await;
        sipped += 1000;
        sleep(Duration::from_millis(10)).await;
    }
    wait_until("the worker waits for the reader", || async {
        direct.query_one(waits, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
    expect_small(&stage, "a slow reader's sips");
    load.figures().expect_fair("beside a slow reader");
    // The rest it takes at once, and it is all there: the next answer begins where it should.
    client.sip(usize::try_from(bytes).expect("a length") - sipped).await;
    client.send(&query("SELECT 1")).await;
    client.until(b'Z').await;
    // One that never comes back holds nobody up either: its backend ends.
    client.send(&rows).await;
    client.sip(1000).await;
    client.vanish(false);
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%300000%' AND pid <> pg_backend_pid()";
    wait_until("its backend is gone", || async {
        direct.query_one(backends, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 0)
    })
    .await;
    load.expect_kept(&direct).await;
    expect_small(&stage, "a reader that went away");
    for name in ["baseline", "candidate"] {
        stage.expect_level(name, &ROWS).await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_slowly_behind_much_is_passed_on_as_it_comes() {
    const KEY: u32 = 4711;
    let servers = Servers::start(0, TABLES).await;
    let stage = servers.mirror(MEMORY, &[]).await;
    let direct = stage.servers.worker.connect().await;
    direct.execute(&format!("SELECT pg_advisory_lock({KEY})"), &[]).await.expect("a lock");
    // The description of the one column, `repeat`; a row's header, the length of its column, and that. Of the last but one
    // goes out what fills the worker's buffer.
    let (described_bytes, rows, row_bytes, slow_bytes, sent_bytes) = (32, 40_000, 1_000 + 11, 20_000 + 11, 8_192);
    let much = format!("SELECT repeat('x', 1000) FROM generate_series(1, {rows})");
    let waits = format!("SELECT pg_advisory_lock({KEY})::text");
    let mut client = Raw::login(stage.through).await;
    let began = Instant::now();
    client.send(&query(&format!("{much} UNION ALL SELECT repeat('y', 20000) UNION ALL {waits}"))).await;
    client.sip(described_bytes + rows * row_bytes + sent_bytes).await;
    println!("40 MB and the beginning of what comes slowly behind it: {:?}", began.elapsed());
    direct.execute(&format!("SELECT pg_advisory_unlock({KEY})"), &[]).await.expect("an unlock");
    client.sip(slow_bytes - sent_bytes).await;
    client.until(b'Z').await;
    // The next answer is a small one again.
    client.send(&query("SELECT 1")).await;
    client.until(b'Z').await;
    stage.end().await;
}
