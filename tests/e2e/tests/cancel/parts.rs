//! Requests that come in parts and are cancelled between two of them: a COPY either way, a pipeline, a transaction. What
//! they had done is undone on the arms as on the worker, and the session goes on there.

use understudy_e2e::{
    raw::Raw,
    stage::Servers,
    wire::{execute, kinds, message, query},
};

use super::{ROWS, TABLES, cancel, session, sleeping};

async fn expect(wire: &mut Raw, expected: &str, what: &str) {
    assert_eq!(kinds(&wire.heard(b'Z').await), expected, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_between_its_parts_is_undone_on_the_arms_too() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let worker = stage.servers.worker.connect().await;
    let (mut wire, key) = session(stage.through).await;

    wire.send(&query("COPY written FROM STDIN")).await;
    wire.heard(b'G').await;
    wire.send(&message(b'd', b"1\tcopied\n")).await;
    cancel(stage.through, &key).await;
    // A server that waits for data looks when there is some.
    wire.send(&[message(b'd', b"2\tcopied\n"), message(b'c', b"")].concat()).await;
    expect(&mut wire, "EZ", "COPY in").await;

    wire.send(&query("COPY (SELECT i, pg_sleep(0.01) FROM generate_series(1, 1000000) i) TO STDOUT")).await;
    wire.heard(b'd').await;
    cancel(stage.through, &key).await;
    let rest = kinds(&wire.heard(b'Z').await);
    assert_eq!(rest.trim_start_matches('d'), "EZ", "COPY out");

    let insert = |number| execute(&format!("INSERT INTO written VALUES ({number}, 'piped')"), &[]);
    let pipeline = [insert(3), execute("SELECT pg_sleep(600)", &[]), insert(4), message(b'S', b"")].concat();
    wire.send(&pipeline).await;
    sleeping(&worker, 1).await;
    cancel(stage.through, &key).await;
    expect(&mut wire, "12nC12TEZ", "a pipeline").await;

    wire.send(&query("BEGIN; INSERT INTO written VALUES (5, 'in a transaction')")).await;
    expect(&mut wire, "CCZ", "what it has done before").await;
    wire.send(&query("SELECT pg_sleep(600)")).await;
    sleeping(&worker, 1).await;
    cancel(stage.through, &key).await;
    expect(&mut wire, "TEZ", "in a transaction").await;
    wire.send(&query("COMMIT")).await;
    expect(&mut wire, "CZ", "ROLLBACK").await;

    wire.send(&query("INSERT INTO written VALUES (6, 'after')")).await;
    expect(&mut wire, "CZ", "after all").await;
    let rows = worker.query("SELECT i FROM written", &[]).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), [6]);
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &ROWS).await;
        assert!(arm.divergence.values().all(|n| *n == 0) && arm.exchanges.lost == 0, "{name}: {arm:#?}");
    }
    stage.end().await;
}
