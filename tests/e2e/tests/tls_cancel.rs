//! A cancel request inside TLS: it reaches the right session, and ends as it does direct, with a goodbye.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{io::ErrorKind, net::SocketAddr};

use tokio_postgres::Client;
use understudy_e2e::{
    talk::Talk,
    tls_worker::{TlsWorker, agreed},
    wire::{kinds, query},
};
use understudy_harness::wait_until;

use crate::papers::{Encrypted, Papers};

const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
const TABLES: &str = "CREATE UNLOGGED TABLE copied (i int, t text)";

async fn set() -> (Papers, TlsWorker) {
    let papers = Papers::new();
    let worker = papers.worker(HBA, TABLES).await;
    (papers, worker)
}

fn both(papers: &Papers) -> String {
    format!("memory: 16Mi\n{}workerTls: {{ mode: require }}\n", papers.clients("mirror", ""))
}

async fn encrypted(papers: &Papers, address: SocketAddr) -> Encrypted {
    papers.handshake(agreed(address).await, None).await.expect("TLS")
}

async fn sleeping(worker: &Client, count: i64) {
    wait_until("they sleep", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        worker.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_inside_tls_reaches_the_right_session_and_ends_as_it_does_direct() {
    let (papers, worker) = set().await;
    let mirror = worker.mirror(&both(&papers)).await;
    let looker = worker.server.connect().await;
    let mut ends = Vec::new();
    for address in [worker.address(), mirror.through] {
        let (mut one, key) = Talk::login(encrypted(&papers, address).await, "postgres").await;
        let (mut other, _) = Talk::login(encrypted(&papers, address).await, "postgres").await;
        one.send(&query("SELECT pg_sleep(600)")).await;
        other.send(&query("SELECT pg_sleep(2)")).await;
        sleeping(&looker, 2).await;
        let mut cancel = Talk { stream: encrypted(&papers, address).await };
        let length = u32::try_from(8 + key.len()).expect("short").to_be_bytes();
        cancel.send(&[length.as_slice(), &80_877_102_u32.to_be_bytes(), &key].concat()).await;
        let (said, end) = cancel.end().await;
        ends.push((said, end.err().map(|error| error.kind())));
        let answer = one.heard(b'Z').await;
        assert_eq!(kinds(&answer), "TEZ", "{address}");
        let error = &answer.get(1).expect("an error").1;
        assert!(error.windows(6).any(|code| code == b"C57014"), "{}", String::from_utf8_lossy(error));
        assert_eq!(kinds(&other.heard(b'Z').await), "TDCZ", "{address}: the other session is left alone");
        one.expect_alive().await;
    }
    assert_eq!(mirror.metric("cancel_requests_total").await, 1);
    let [direct, through] = ends.try_into().expect("two");
    assert_eq!(direct, (Vec::new(), None::<ErrorKind>));
    assert_eq!(through, direct);
    worker.expect_level(&mirror).await;
}
