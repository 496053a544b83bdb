//! A COPY with TLS on both sides of the mirror that is more than it may keep: as in `large.rs`, with every byte encrypted
//! twice.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fmt::Write as _, net::SocketAddr};

use understudy_e2e::{
    talk::Talk,
    tls_worker::{TlsMirror, TlsWorker, agreed},
    wire::{kinds, message, query},
};

use crate::papers::{Encrypted, Papers};

const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
const TABLES: &str = "CREATE UNLOGGED TABLE copied (i int, t text)";
const COPIED_ROWS: usize = 66 << 10;
/// What a row of them holds, in SQL: with its number more than 64 MB are copied.
const ROW: &str = "repeat(lpad(i::text, 10, '0'), 100)";
/// A fraction of what passes.
const MOST_MORE_MIB: u64 = 16;

async fn set() -> (Papers, TlsWorker) {
    let papers = Papers::new();
    let worker = papers.worker(HBA, TABLES).await;
    (papers, worker)
}

fn both(papers: &Papers, memory: &str) -> String {
    format!("memory: {memory}\n{}workerTls: {{ mode: require }}\n", papers.clients("mirror", ""))
}

async fn encrypted(papers: &Papers, address: SocketAddr) -> Encrypted {
    papers.handshake(agreed(address).await, None).await.expect("TLS")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_64_mb_passes_whole_and_leaves_the_mirror_s_memory_alone() {
    let (papers, worker) = set().await;
    let mirror = worker.mirror_alone(&both(&papers, "16Mi")).await;
    let (before, after) = copied(&papers, &worker, &mirror).await;
    println!("the mirror's memory was {before} MiB before and at most {after} MiB");
    assert!(after < before + MOST_MORE_MIB, "{before} MiB, {after} MiB");
    drop(mirror);
    // Where there is memory to keep it, the arms are told every byte of it.
    worker.server.connect().await.batch_execute("TRUNCATE copied").await.expect("as on the arms");
    let mirror = worker.mirror(&both(&papers, "512Mi")).await;
    copied(&papers, &worker, &mirror).await;
    worker.expect_level(&mirror).await;
}

/// Copies it through the mirror, whole; the most memory that this had taken before and after, MiB.
async fn copied(papers: &Papers, worker: &TlsWorker, mirror: &TlsMirror) -> (u64, u64) {
    let (mut client, _) = Talk::login(encrypted(papers, mirror.through).await, "postgres").await;
    client.expect_alive().await;
    let before = mirror.most_mib();
    client.send(&query("COPY copied FROM STDIN")).await;
    client.heard(b'G').await;
    let (mut piece, mut bytes) = (String::new(), 0);
    for row in 1..=COPIED_ROWS {
        writeln!(piece, "{row}\t{}", format!("{row:010}").repeat(100)).expect("text");
        if row % 1024 == 0 {
            bytes += piece.len();
            client.send(&message(b'd', piece.as_bytes())).await;
            piece.clear();
        }
    }
    client.send(&message(b'c', &[])).await;
    assert_eq!(kinds(&client.heard(b'Z').await), "CZ");
    assert!(bytes > 64 << 20, "{bytes} bytes");
    let whole = format!("SELECT count(*), bool_and(t = {ROW}) FROM copied");
    let row = worker.server.connect().await.query_one(&whole, &[]).await.expect("what was copied");
    assert_eq!((usize::try_from(row.get::<_, i64>(0)).ok(), row.get::<_, bool>(1)), (Some(COPIED_ROWS), true));
    (before, mirror.most_mib())
}
