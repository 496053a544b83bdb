//! What is no TLS, said to a mirror that has TLS for clients: each such connection ends and is counted, a plain packet
//! that was slipped in before the handshake is never taken for what came inside it, and a neighbour notices nothing.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use understudy_e2e::{
    raw::startup,
    scenario::{GSSENC_REQUEST, SSL_REQUEST, request},
    talk::Talk,
    tls_worker::{TlsMirror, TlsWorker, agreed},
    wire::query,
};
use understudy_harness::wait_until;

use crate::papers::{Encrypted, Papers};

const LIMIT: Duration = Duration::from_secs(30);
const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
const TABLE: &str = "CREATE TABLE written (i int)";
/// A record of TLS that says why there is none.
const ALERT: u8 = 21;
const NO_TLS: &str = "connections_unencrypted_total{cause=\"record\"}";
const REFUSED: &str = "connections_refused_total{cause=\"protocol\"}";
const VANISHED: &str = "connections_refused_total{cause=\"vanished\"}";
const MALFORMED: &str = "connections_malformed_total";
/// Why connections may end before a session, and how many have TLS.
const COUNTERS: [&str; 6] =
    [NO_TLS, "connections_unencrypted_total", VANISHED, REFUSED, MALFORMED, "connections_encrypted_total"];
/// Under what is counted who has sent what is no TLS.
const UNENCRYPTED: &[&str] = &[NO_TLS, "connections_unencrypted_total"];

struct Stage {
    papers: Papers,
    worker: TlsWorker,
    mirror: TlsMirror,
    neighbour: Talk<Encrypted>,
}

impl Stage {
    async fn set(worker_tls: &str) -> Self {
        let papers = Papers::new();
        let worker = papers.worker(HBA, TABLE).await;
        let mirror = worker.mirror(&format!("{}{worker_tls}", papers.clients("mirror", ""))).await;
        let stream = papers.handshake(agreed(mirror.through).await, None).await.expect("TLS");
        let (neighbour, _) = Talk::login(stream, "postgres").await;
        Self { papers, worker, mirror, neighbour }
    }

    async fn counted(&self) -> Vec<i64> {
        let mut counts = Vec::new();
        for name in COUNTERS {
            counts.push(self.mirror.metric(name).await);
        }
        counts
    }

    /// One more was counted, each time under these names alone; the neighbour is as it was, and nobody else is there.
    async fn expect_counted(&mut self, before: &[i64], under: &[&str], name: &str) {
        let more = |name: &&str| i64::from(under.contains(name));
        let wanted: Vec<i64> = COUNTERS.iter().zip(before).map(|(name, before)| before + more(name)).collect();
        wait_until(&format!("{name}: {under:?} is counted"), || async { self.counted().await == wanted }).await;
        wait_until("nobody else is there", || async { self.mirror.metric("sessions").await == 1 }).await;
        self.neighbour.expect_alive().await;
    }
}

struct Garbage {
    name: &'static str,
    /// Comes first, and is answered.
    request: bool,
    /// What follows comes with it, not after its answer.
    at_once: bool,
    sent: Vec<u8>,
    /// The client closes its side.
    closes: bool,
}

/// The beginning of a ClientHello of 512 bytes.
fn hello() -> Vec<u8> {
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), vec![7; 100]].concat()
}

fn garbage() -> Vec<Garbage> {
    let after = |name, sent, closes| Garbage { name, request: true, at_once: false, sent, closes };
    let http = b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n".to_vec();
    let session = [startup("postgres"), query("INSERT INTO written VALUES (1)")].concat();
    vec![
        after("a request of HTTP", http.clone(), false),
        after("a record that holds no hello", b"\x16\x03\x01\x00\x05\x01\x02\x03\x04\x05".to_vec(), false),
        after("a record of data", b"\x17\x03\x03\x00\x05hello".to_vec(), false),
        after("zeros", vec![0; 1000], false),
        after("another request for TLS", request(SSL_REQUEST), false),
        after("a session in plain text", session.clone(), false),
        after("half a hello, and the end", hello(), true),
        after("a byte of a hello, and the end", vec![0x16], true),
        after("the end", Vec::new(), true),
        Garbage { name: "half a hello without asking", request: false, at_once: false, sent: hello(), closes: true },
        Garbage {
            name: "a session along with the request",
            request: true,
            at_once: true,
            sent: session,
            closes: false,
        },
        Garbage { name: "HTTP along with the request", request: true, at_once: true, sent: http, closes: false },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_handshake_ends_its_own_connection_and_is_counted() {
    let mut stage = Stage::set("").await;
    for Garbage { name, request: asks, at_once, sent, closes } in garbage() {
        let before = stage.counted().await;
        let mut stream = TcpStream::connect(stage.mirror.through).await.expect("a connection");
        let mut first = if asks { request(SSL_REQUEST) } else { Vec::new() };
        if at_once {
            first.extend_from_slice(&sent);
        }
        stream.write_all(&first).await.expect("sent");
        if asks {
            let answer = timeout(LIMIT, stream.read_u8()).await.expect("in time").expect("an answer");
            assert_eq!(char::from(answer), 'S', "{name}");
        }
        if !at_once {
            stream.write_all(&sent).await.expect("sent");
        }
        if closes {
            stream.shutdown().await.expect("closed");
        }
        // A reset is an end as well: not all it sent was read.
        let (said, _) = Talk { stream }.end().await;
        assert!(matches!(said.first(), None | Some(&ALERT)), "{name}: {}", said.escape_ascii());
        // Who goes away in the middle of a handshake has disagreed about nothing.
        let cause = if closes { &[VANISHED] } else { UNENCRYPTED };
        stage.expect_counted(&before, cause, name).await;
    }
    let written = "SELECT count(*) FROM written";
    let rows: i64 = stage.worker.server.connect().await.query_one(written, &[]).await.expect("a look").get(0);
    assert_eq!(rows, 0);
    stage.worker.expect_level(&stage.mirror).await;
}

/// Who sits between could slip a packet in before the handshake of a client that does it right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_packet_before_a_handshake_is_not_taken_for_what_came_inside_it() {
    let mut stage = Stage::set("workerTls: { mode: require }\n").await;
    let insert = query("INSERT INTO written VALUES (1)");
    for slipped_in in [startup("postgres"), [startup("postgres"), insert].concat(), request(GSSENC_REQUEST)] {
        let before = stage.counted().await;
        let mut stream = TcpStream::connect(stage.mirror.through).await.expect("a connection");
        stream.write_all(&[request(SSL_REQUEST), slipped_in.clone()].concat()).await.expect("sent");
        let answer = timeout(LIMIT, stream.read_u8()).await.expect("in time").expect("an answer");
        assert_eq!(char::from(answer), 'S');
        let agreed = timeout(LIMIT, stage.papers.handshake(stream, None)).await.expect("in time");
        assert!(agreed.is_err(), "{}", slipped_in.escape_ascii());
        stage.expect_counted(&before, UNENCRYPTED, "slipped in").await;
    }
    let written = "SELECT count(*) FROM written";
    let rows: i64 = stage.worker.server.connect().await.query_one(written, &[]).await.expect("a look").get(0);
    assert_eq!(rows, 0);
    stage.worker.expect_level(&stage.mirror).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_with_tls_and_says_no_more_is_ended_in_time_and_counted() {
    const SPEAK_LIMIT: Duration = Duration::from_secs(2);
    const SILENT: &str = "connections_refused_total{cause=\"silent\"}";
    let mut stage = Stage::set("firstPacketLimit: 2s\n").await;
    let at = stage.mirror.through;
    let connect = || async { TcpStream::connect(at).await.expect("a connection") };
    for name in ["half a hello", "TLS that was asked for and never begun", "TLS and nothing inside"] {
        let (began, before) = (Instant::now(), stage.mirror.metric(SILENT).await);
        let mut heard = Vec::new();
        let ended = async {
            match name {
                "half a hello" => {
                    let mut stream = connect().await;
                    stream.write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc").await.expect("sent");
                    stream.read_to_end(&mut heard).await
                }
                "TLS and nothing inside" => {
                    let agreed = stage.papers.handshake(connect().await, Some(b"postgresql")).await;
                    agreed.expect("TLS").read_to_end(&mut heard).await
                }
                _ => agreed(at).await.read_to_end(&mut heard).await,
            }
        };
        // How a connection ends with bytes that nobody has read is chance.
        let _ = timeout(LIMIT, ended).await.unwrap_or_else(|_| panic!("{name}: it does not end"));
        assert!(began.elapsed() >= SPEAK_LIMIT, "{name}: ended after {:?}", began.elapsed());
        assert!(!heard.contains(&b'E'), "{name}: it gets no word, {heard:?}");
        wait_until("it is counted", || async { stage.mirror.metric(SILENT).await == before + 1 }).await;
        stage.neighbour.expect_alive().await;
    }
    stage.worker.expect_level(&stage.mirror).await;
}
