//! Requests that come along with the password, as some clients send them: what is asked is answered as it is direct, and
//! the arms play it, whichever side of the mirror has TLS.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::fmt::Write as _;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_postgres::Client;
use understudy_e2e::{
    raw::startup,
    talk::Talk,
    tls_worker::agreed,
    wire::{message, query},
};
use understudy_harness::{Cluster, wait_until};
use understudy_mirror::wire::frame::messages;

use crate::papers::Papers;

const HBA: &str = "local all all trust\nhost all plain 127.0.0.1/32 password\nhost all all 127.0.0.1/32 trust\n";
const TABLE: &str = "CREATE ROLE plain LOGIN PASSWORD 'open sesame';
    CREATE TABLE written (what text);
    GRANT INSERT ON written TO PUBLIC";
const ENCRYPTED: &str = "workerTls: { mode: require }\n";
/// More than any message of a login.
const LONG_BYTES: usize = 100_000;

/// Logs in and says the rest in one piece with the password; the types of all that is answered.
async fn along(stream: impl AsyncRead + AsyncWrite + Unpin, requests: &[u8]) -> String {
    let mut talk = Talk { stream };
    talk.send(&startup("plain")).await;
    talk.heard(b'R').await;
    talk.send(&[message(b'p', b"open sesame\0"), requests.to_vec(), message(b'X', b"")].concat()).await;
    let (said, _) = talk.end().await;
    messages(&said).map(|message| char::from(message.tag)).collect()
}

async fn written(on: &Client) -> Option<String> {
    let sql = "SELECT string_agg(left(what, 10), ' ' ORDER BY what) FROM written WHERE what LIKE 'through%'";
    on.query_one(sql, &[]).await.expect("a look").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_along_with_the_password_is_answered_and_played_like_anything_else() {
    let papers = Papers::new();
    let worker = papers.worker(HBA, TABLE).await;
    let looker = worker.server.connect().await;
    let own = papers.clients("mirror", "");
    let pairs = [("", false), (ENCRYPTED, false), (&format!("{own}{ENCRYPTED}"), true)];
    let mut wrong = Vec::new();
    for (tls, client_has_it) in pairs {
        let arms = [Cluster::start().await, Cluster::start().await];
        let mut document = format!("{tls}arms:\n");
        for (name, arm) in ["baseline", "candidate"].into_iter().zip(&arms) {
            arm.connect().await.batch_execute(TABLE).await.expect("a prepared arm");
            writeln!(document, "- {{ name: {name}, address: \"127.0.0.1:{}\" }}", arm.port()).expect("a longer text");
        }
        let mirror = worker.mirror_alone(&document).await;
        looker.batch_execute("TRUNCATE written").await.expect("a fresh start");
        for requests in [1, 2, LONG_BYTES] {
            let insert = |side: &str| match requests {
                1 | 2 => query(&format!("INSERT INTO written VALUES ('{side} {requests}')")).repeat(requests),
                long => query(&format!("INSERT INTO written VALUES ('{side} {}')", "x".repeat(long))),
            };
            let direct = papers.handshake(agreed(worker.address()).await, None).await.expect("TLS");
            let direct = along(direct, &insert("direct")).await;
            let through = if client_has_it {
                let stream = papers.handshake(agreed(mirror.through).await, None).await.expect("TLS");
                along(stream, &insert("through")).await
            } else {
                along(TcpStream::connect(mirror.through).await.expect("a connection"), &insert("through")).await
            };
            if through != direct {
                wrong.push(format!("{tls}{requests}: {through}, direct {direct}"));
            }
        }
        let wanted = written(&looker).await;
        for arm in &arms {
            let arm = arm.connect().await;
            wait_until(&format!("the arm has {wanted:?}, with\n{tls}{wrong:?}"), || async {
                written(&arm).await == wanted
            })
            .await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
