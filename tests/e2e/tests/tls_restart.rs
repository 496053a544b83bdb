//! The mirror goes away in good order with TLS on both sides: as in `restart.rs`, and whoever is told so hears TLS's own
//! goodbye behind it, without which a client has to take it that more was to come.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use understudy_e2e::{
    raw::startup,
    talk::Talk,
    tls_worker::agreed,
    wire::{kinds, query},
};

use crate::papers::{Encrypted, Papers};

/// What the mirror gives its sessions, and a little.
const LIMIT: Duration = Duration::from_secs(15);
const HBA: &str = "local all all trust\nhost all asked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
const PREPARED: &str = "CREATE ROLE asked LOGIN PASSWORD 'open sesame'; CREATE TABLE written (i int)";

async fn encrypted(papers: &Papers, address: SocketAddr) -> Talk<Encrypted> {
    Talk { stream: papers.handshake(agreed(address).await, None).await.expect("TLS") }
}

async fn expect_told(who: &str, client: Talk<Encrypted>) {
    let (said, end) = client.end().await;
    let words = said.escape_ascii().to_string();
    let told = ["SFATAL", "C57P01", "connect again"].iter().all(|part| words.contains(part));
    assert!(told && end.is_ok(), "{who}: {end:?}, {words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_told_to_connect_again_hears_a_proper_end_of_tls() {
    let papers = Papers::new();
    let worker = papers.worker(HBA, PREPARED).await;
    // With a certificate that is not the worker's, and TLS behind it, the mirror is in the login itself.
    for worker_tls in ["", "workerTls: { mode: require }\n"] {
        let mirror = worker.mirror(&format!("{}{worker_tls}", papers.clients("mirror", ""))).await;
        let (idle, _) = Talk::login(encrypted(&papers, mirror.through).await.stream, "postgres").await;
        let (mut busy, _) = Talk::login(encrypted(&papers, mirror.through).await.stream, "postgres").await;
        let mut asked = encrypted(&papers, mirror.through).await;
        asked.send(&startup("asked")).await;
        asked.heard(b'R').await;
        busy.send(&query("BEGIN; INSERT INTO written VALUES (1)")).await;
        assert_eq!(kinds(&busy.heard(b'Z').await), "CCZ");

        mirror.running.signal(Signal::TERM);
        expect_told("an idle session", idle).await;
        expect_told("who is asked for a password", asked).await;
        busy.send(&query("COMMIT")).await;
        assert_eq!(kinds(&busy.heard(b'Z').await), "CZ");
        expect_told("whose transaction has ended", busy).await;
        mirror.running.ended_within(LIMIT).await.expect_code(0);
    }
    let count = "SELECT count(*) FROM written";
    let rows: i64 = worker.server.connect().await.query_one(count, &[]).await.expect("rows").get(0);
    assert_eq!(rows, 2, "what was acknowledged is there");
}
