//! Clients that vanish with TLS on both sides of the mirror, without a goodbye of TLS: as in `vanish.rs`, with every byte
//! encrypted twice.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;
use tokio_postgres::Client;
use understudy_e2e::{
    talk::Talk,
    tls_worker::{TlsWorker, agreed},
    wire::{message, query},
};
use understudy_harness::wait_until;

use crate::papers::{Encrypted, Papers};

const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
const TABLES: &str = "CREATE UNLOGGED TABLE copied (i int, t text);
    CREATE TABLE written (with_reset boolean PRIMARY KEY, n int); INSERT INTO written VALUES (true, 0), (false, 0)";
/// How much longer than direct a backend may stay.
const LATER: Duration = Duration::from_secs(2);

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

/// Where the client was when it vanished.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Message,
    Write,
    CopyIn,
    CopyOut,
}

impl Moment {
    /// What is said after the login, and what is waited for before the client goes.
    fn said(self, with_reset: bool) -> (Vec<u8>, Option<u8>) {
        match self {
            Self::Message => (vec![b'Q', 0, 0, 1, 0, b'S', b'E'], None),
            // As in `vanish.rs`.
            Self::Write => {
                let sql = format!("UPDATE written SET n = 1 FROM pg_sleep(1.5) WHERE with_reset = {with_reset}");
                (query(&sql), None)
            }
            Self::CopyIn => {
                ([query("BEGIN; COPY copied FROM STDIN"), message(b'd', b"1\tx\n2\t")].concat(), Some(b'G'))
            }
            // More than all that lies between can hold: the mirror has some of it, encrypted and unsent.
            Self::CopyOut => {
                (query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"), Some(b'd'))
            }
        }
    }
}

/// Backends that clients have, and locks of the table that they hold, but for the looker's.
async fn left(looker: &Client) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
                           AND pid <> pg_backend_pid())
                    + (SELECT count(*) FROM pg_locks WHERE relation = 'copied'::regclass)";
    looker.query_one(sql, &[]).await.expect("a look").get(0)
}

async fn sleeping(looker: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    looker.query_one(sql, &[]).await.expect("a look").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_client_that_vanished() {
    let (papers, worker) = set().await;
    let mirror = worker.mirror(&both(&papers)).await;
    let looker = worker.server.connect().await;
    let (mut neighbour, _) = Talk::login(encrypted(&papers, mirror.through).await, "postgres").await;
    for moment in [Moment::Message, Moment::Write, Moment::CopyIn, Moment::CopyOut] {
        for with_reset in [true, false] {
            let mut took = Vec::new();
            for address in [worker.address(), mirror.through] {
                let (mut client, _) = Talk::login(encrypted(&papers, address).await, "postgres").await;
                let (said, heard) = moment.said(with_reset);
                client.send(&said).await;
                if let Some(kind) = heard {
                    client.heard(kind).await;
                }
                if matches!(moment, Moment::Write) {
                    wait_until("it runs", || async { sleeping(&looker).await == 1 }).await;
                }
                if with_reset {
                    client.stream.get_ref().0.set_zero_linger().expect("no lingering");
                }
                // Without a goodbye of TLS.
                drop(client);
                let began = Instant::now();
                wait_until(&format!("{moment:?}: its backend and its locks are gone"), || async {
                    left(&looker).await == 1
                })
                .await;
                took.push(began.elapsed());
            }
            println!("{moment:?}, reset: {with_reset}: gone after {:?} direct, {:?} through", took[0], took[1]);
            assert!(took[1] < took[0] + LATER, "{moment:?}, reset: {with_reset}: {took:?}");
            wait_until(&format!("{moment:?}: the mirror has forgotten it"), || async {
                mirror.metric("sessions").await == 1
            })
            .await;
            neighbour.expect_alive().await;
        }
    }
    let rows: i64 = looker.query_one("SELECT count(*) FROM copied", &[]).await.expect("a count").get(0);
    assert_eq!(rows, 0, "a COPY that was not ended is undone");
    worker.expect_level(&mirror).await;
}
