//! What is no message inside TLS, and no TLS in the middle of a session, from either side: as in `malformed.rs`, that
//! connection ends with the right words or without any, it is counted by its cause, and a neighbour notices nothing.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{io::Write as _, net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::spawn,
    time::timeout,
};
use understudy_e2e::{
    counted::Counted,
    raw::startup,
    talk::Talk,
    tls_worker::{TlsMirror, TlsWorker, agreed},
    wire::{message, query},
};

use understudy_harness::wait_until;

use crate::papers::{Encrypted, Papers};

const LIMIT: Duration = Duration::from_secs(30);
const HBA: &str = "local all all trust\nhost all asked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
const ROLES: &str = "CREATE ROLE asked LOGIN PASSWORD 'open sesame'; CREATE TABLE written (i int)";
const REQUIRE: &str = "workerTls: { mode: require }\n";

async fn set() -> (Papers, TlsWorker) {
    let papers = Papers::new();
    let worker = papers.worker(HBA, ROLES).await;
    (papers, worker)
}

async fn encrypted(papers: &Papers, address: SocketAddr) -> Encrypted {
    timeout(LIMIT, papers.handshake(agreed(address).await, None)).await.expect("in time").expect("TLS")
}

fn malformed(side: &str, cause: &str) -> String {
    format!("connections_malformed{{side=\"{side}\",cause=\"{cause}\"}}")
}

/// Waits until a connection over TLS, and that, were counted and nothing else was.
async fn expect_counted(before: &Counted, mirror: &TlsMirror, name: &str, cause: &str) -> Counted {
    let grown = [("connections", 1), ("connections_encrypted", 1), (cause, 1)];
    before.expect_grown(&mirror.admin, name, &grown).await
}

/// What a client says inside TLS.
struct Case {
    name: &'static str,
    /// Who logs in, and the type of the answer that is waited for.
    begins: (&'static str, u8),
    sends: Vec<u8>,
    /// It says goodbye in TLS's way then.
    ends: bool,
    /// The mirror says it, and not the worker.
    sqlstate: Option<&'static str>,
    cause: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |name, user, sends: &[u8], sqlstate, cause| {
        let begins = (user, if user == "asked" { b'R' } else { b'Z' });
        Case { name, begins, sends: sends.to_vec(), ends: false, sqlstate, cause }
    };
    let ends = |case: Case| Case { ends: true, ..case };
    let (own, too_long) = (Some("C08P01"), b"Q\x7f\xff\xff\xff");
    vec![
        case("a query of 2 GiB", "postgres", too_long, own, "length"),
        case("a query of length 3", "postgres", b"Q\0\0\0\x03", own, "length"),
        case("a message of no type", "postgres", &message(1, b"hello"), None, "protocol"),
        ends(case("half of a query", "postgres", b"Q\0\0\0\x09S", None, "truncated")),
        case("a query of 2 GiB for a password", "asked", too_long, own, "length"),
        case("a query for a password", "asked", &query("SELECT 1"), None, "protocol"),
        ends(case("half of a password", "asked", b"p\0\0\0\x10open", None, "truncated")),
    ]
}

async fn hear(papers: &Papers, at: SocketAddr, case: &Case) -> Vec<u8> {
    let mut talk = Talk { stream: encrypted(papers, at).await };
    talk.send(&startup(case.begins.0)).await;
    talk.heard(case.begins.1).await;
    talk.send(&case.sends).await;
    if case.ends {
        // The worker may be quicker.
        let _ = talk.stream.shutdown().await;
    }
    talk.end().await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_inside_tls_ends_as_it_does_without() {
    let (papers, worker) = set().await;
    // With a certificate that is not the worker's, the mirror follows the login; without TLS behind it, it does not.
    for to_worker in [REQUIRE, ""] {
        let mirror = worker.mirror(&format!("{}{to_worker}", papers.clients("mirror", ""))).await;
        let (mut neighbour, _) = Talk::login(encrypted(&papers, mirror.through).await, "postgres").await;
        let mut counted = Counted::now(&mirror.admin).await;
        for case in cases() {
            let name = case.name;
            let through = hear(&papers, mirror.through, &case).await;
            if let Some(sqlstate) = case.sqlstate {
                let text = through.escape_ascii().to_string();
                assert!(text.starts_with('E') && text.contains(sqlstate), "{name}, {to_worker}: {text}");
            } else {
                let direct = hear(&papers, worker.address(), &case).await;
                let [through, direct] = [&through, &direct].map(|said| said.escape_ascii().to_string());
                assert_eq!(through, direct, "{name}, {to_worker}");
            }
            counted = expect_counted(&counted, &mirror, name, &malformed("client", case.cause)).await;
            neighbour.expect_alive().await;
        }
        worker.expect_level(&mirror).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_tls_breaks_in_the_middle_of_a_session_is_counted_and_leaves_nothing() {
    let (papers, worker) = set().await;
    let mirror = worker.mirror(&format!("{}{REQUIRE}", papers.clients("mirror", ""))).await;
    let (mut neighbour, _) = Talk::login(encrypted(&papers, mirror.through).await, "postgres").await;
    let mut counted = Counted::now(&mirror.admin).await;
    let record = [b"\x17\x03\x03\x00\x20".as_slice(), &[7; 32]].concat();
    for (name, broken) in [("a record of another key", record.as_slice()), ("plain text", b"GET / HTTP/1.1\r\n\r\n")] {
        let (mut talk, _) = Talk::login(encrypted(&papers, mirror.through).await, "postgres").await;
        talk.send(&query("CREATE TEMPORARY TABLE gone (i int); BEGIN; LOCK pg_class")).await;
        talk.heard(b'Z').await;
        talk.stream.get_mut().0.write_all(broken).await.expect("sent");
        // It is told in TLS's own words, or in none.
        let (said, _) = talk.end().await;
        assert!(said.is_empty(), "{name}: {}", said.escape_ascii());
        counted = expect_counted(&counted, &mirror, name, &malformed("client", "record")).await;
        // Its lock has gone with it.
        neighbour.send(&query("BEGIN; LOCK pg_class; ROLLBACK")).await;
        neighbour.heard(b'Z').await;
    }
    worker.expect_level(&mirror).await;
}

/// In one segment with what breaks it, as little as there is between the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_a_broken_record_is_done() {
    let (papers, worker) = set().await;
    let mirror = worker.mirror(&format!("{}{REQUIRE}", papers.clients("mirror", ""))).await;
    let looker = worker.server.connect().await;
    for at in [worker.address(), mirror.through] {
        looker.batch_execute("TRUNCATE written").await.expect("as on the arms");
        let (mut talk, _) = Talk::login(encrypted(&papers, at).await, "postgres").await;
        let (network, tls) = talk.stream.get_mut();
        tls.writer().write_all(&query("INSERT INTO written VALUES (1)")).expect("taken");
        let mut bytes = Vec::new();
        tls.write_tls(&mut bytes).expect("encrypted");
        bytes.extend_from_slice(b"\x17\x03\x03\x00\x08hello123");
        network.write_all(&bytes).await.expect("sent");
        wait_until("it is written", || async {
            let count = looker.query_one("SELECT count(*) FROM written", &[]).await.expect("a count");
            count.get::<_, i64>(0) == 1
        })
        .await;
    }
    worker.expect_level(&mirror).await;
}

/// Stands before the worker and hands everything on, until it is told to do something else to one connection.
struct Front {
    address: SocketAddr,
    does: watch::Sender<&'static [u8]>,
}

impl Front {
    /// What it says then to whom it stands before; nothing: it ends the connection at once.
    async fn before(worker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let (does, told) = watch::channel(&b"x"[..]);
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut told = told.clone();
                told.mark_unchanged();
                spawn(async move {
                    let mut client = client;
                    let mut server = TcpStream::connect(worker).await?;
                    select! {
                        copied = tokio::io::copy_bidirectional(&mut client, &mut server) => copied.map(|_| ()),
                        _ = told.changed() => {
                            let words = *told.borrow();
                            client.write_all(words).await
                        }
                    }
                });
            }
        });
        Self { address, does }
    }
}

/// A goodbye that is missing is what tells a client that more may have been meant to come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_tls_breaks_or_ends_without_a_goodbye_looks_the_same_to_its_client() {
    let (papers, worker) = set().await;
    let front = Front::before(worker.address()).await;
    let (host, port) = ("localhost", front.address.port());
    let mirror = worker.mirror_at(host, port, &format!("{}{REQUIRE}", papers.clients("mirror", ""))).await;
    let mut counted = Counted::now(&mirror.admin).await;
    for (name, words, cause) in [
        ("it ends without a goodbye", &b""[..], None),
        ("a record of another key", b"\x17\x03\x03\x00\x08hello123", Some(malformed("worker", "record"))),
    ] {
        let (mut talk, _) = Talk::login(encrypted(&papers, mirror.through).await, "postgres").await;
        talk.expect_alive().await;
        front.does.send_replace(words);
        let (said, end) = talk.end().await;
        assert!(said.is_empty(), "{name}: {}", said.escape_ascii());
        let kind = end.expect_err("no proper end").kind();
        assert_eq!(kind, std::io::ErrorKind::UnexpectedEof, "{name}");
        let mut grown = vec![("connections", 1), ("connections_encrypted", 1)];
        grown.extend(cause.as_deref().map(|cause| (cause, 1)));
        counted = counted.expect_grown(&mirror.admin, name, &grown).await;
    }
    // One that says goodbye does so through the mirror as well.
    let (mut talk, _) = Talk::login(encrypted(&papers, mirror.through).await, "postgres").await;
    talk.send(&message(b'X', b"")).await;
    let (said, end) = talk.end().await;
    assert!(said.is_empty() && end.is_ok(), "{end:?}: {}", said.escape_ascii());
    worker.expect_level(&mirror).await;
}
