//! A table of whole connections, from the first byte to the end: each is held direct and through the mirror, and
//! what the client is told is compared message by message. What names a backend (its process, its key) is left
//! out of the comparison; everything else must be the same.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use understudy_e2e::{
    child::start,
    turn::take_turn,
    wire::{execute, message, query, sync},
};
use understudy_harness::Cluster;

const LIMIT: Duration = Duration::from_secs(30);
const V3_0: u32 = 3 << 16;
const V3_2: u32 = 3 << 16 | 2;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// How the client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It says goodbye.
    Terminate,
    /// It sends no more, and goes on reading.
    HalfClose,
    /// It waits for the server to end it.
    Server,
}
use End::{HalfClose, Server, Terminate};

struct Scenario {
    name: &'static str,
    /// What is sent, in pieces; each waits for so many bytes of the answer before it: the server must have said
    /// something first, as with an answer to a request for encryption.
    sent: Vec<(usize, Vec<u8>)>,
    end: End,
}

fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("short");
    [length.to_be_bytes().to_vec(), body].concat()
}

const WHO: [(&str, &str); 2] = [("user", "postgres"), ("database", "postgres")];

fn with(more: &[(&'static str, &'static str)]) -> Vec<u8> {
    startup(V3_0, &[&WHO, more].concat())
}

/// A connection that logs in and then says all of this at once.
fn session(name: &'static str, said: &[Vec<u8>], end: End) -> Scenario {
    Scenario { name, sent: vec![(0, [with(&[]), said.concat()].concat())], end }
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn fetch(portal: &str, rows: u8) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, rows]].concat())
}

fn describe(what: &str) -> Vec<u8> {
    message(b'D', format!("{what}\0").as_bytes())
}

fn close(what: &str) -> Vec<u8> {
    message(b'C', format!("{what}\0").as_bytes())
}

/// Calls `int4pl(20, 22)` by its number.
fn function_call() -> Vec<u8> {
    let mut body = 177_u32.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1, 0, 2]);
    for argument in [20_u32, 22] {
        body.extend([0, 0, 0, 4]);
        body.extend(argument.to_be_bytes());
    }
    body.extend([0, 1]);
    message(b'F', &body)
}

/// A startup packet of this length.
fn long(bytes: usize) -> Vec<u8> {
    let name = "x".repeat(bytes - with(&[("application_name", "")]).len());
    startup(V3_0, &[&WHO[..], &[("application_name", &name)]].concat())
}

/// A request for encryption, and what follows when there is none.
fn asked(name: &'static str, code: u32) -> Scenario {
    let request = [8_u32.to_be_bytes(), code.to_be_bytes()].concat();
    Scenario { name, sent: vec![(0, request), (1, with(&[]))], end: Terminate }
}

fn startups() -> Vec<Scenario> {
    let alone = |name, bytes: Vec<u8>, end| Scenario { name, sent: vec![(0, bytes)], end };
    vec![
        asked("SSLRequest, then plain text", SSL_REQUEST),
        alone("protocol 3.2 is negotiated", startup(V3_2, &WHO), Terminate),
        alone("an unknown protocol option", startup(V3_0, &[&WHO[..], &[("_pq_.x", "1")]].concat()), Terminate),
        alone("protocol 2", startup(2 << 16, &[]), Server),
        alone("protocol 4", startup(4 << 16, &WHO), Server),
        alone("an unknown database", startup(V3_0, &[WHO[0], ("database", "nowhere")]), Server),
        alone("an unknown user", startup(V3_0, &[("user", "nobody"), WHO[1]]), Server),
        alone("no user", startup(V3_0, &[WHO[1]]), Server),
        alone("options", [with(&[("options", "-c work_mem=7MB")]), query("SHOW work_mem")].concat(), Terminate),
        alone("options that are none", with(&[("options", "-c no.such=1 --nor_this=2")]), Server),
        alone(
            "a setting",
            [with(&[("application_name", "ä'\"x")]), query("SHOW application_name")].concat(),
            Terminate,
        ),
        alone("an encoding", [with(&[("client_encoding", "LATIN1")]), query("SELECT 'ä'")].concat(), Terminate),
        alone("a bad setting", with(&[("datestyle", "none such")]), Server),
        alone(
            "a hello of TLS that nobody asked for",
            [b"\x16\x03\x01\x02\0\x01\0".to_vec(), vec![7; 500]].concat(),
            Server,
        ),
        alone("a request of HTTP", b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n".to_vec(), Server),
        alone("a startup packet of no length", vec![0; 8], Server),
        alone("a startup packet shorter than its version", vec![0, 0, 0, 7, 0, 3, 0], Server),
        alone("the longest startup packet", long(10_004), Terminate),
        alone("a startup packet too long by one byte", long(10_005), Server),
        alone("a startup packet without its end", vec![0, 0, 0, 40, 0, 3, 0, 0, b'u', b's'], HalfClose),
        alone("replication", [with(&[("replication", "true")]), query("SHOW wal_level")].concat(), Terminate),
        alone("logical replication", [with(&[("replication", "database")]), query("SELECT 1")].concat(), Terminate),
    ]
}

fn extended() -> Vec<Scenario> {
    let flush = message(b'H', &[]);
    let numbers = "SELECT generate_series(1, 10)";
    vec![
        session(
            "portals with a limit of rows, two at once",
            &[
                query("BEGIN"),
                parse("s", numbers),
                bind("a", "s"),
                bind("b", "s"),
                fetch("a", 3),
                fetch("b", 4),
                fetch("a", 3),
                describe("Pa"),
                close("Pa"),
                fetch("b", 0),
                sync(),
                query("COMMIT"),
            ],
            Terminate,
        ),
        session(
            "a limited portal without a transaction ends at Sync",
            &[parse("", numbers), bind("", ""), fetch("", 3), sync(), fetch("", 3), sync()],
            Terminate,
        ),
        session(
            "named statements: described, used twice, closed, used again",
            &[
                parse("s", "SELECT $1::int + 1"),
                describe("Ss"),
                sync(),
                parse("s", "SELECT 2"),
                sync(),
                close("Ss"),
                describe("Ss"),
                sync(),
            ],
            Terminate,
        ),
        session(
            "Flush, and an error up to Sync",
            &[
                execute("SELECT 1", &[]),
                flush.clone(),
                execute("SELECT 1/0", &[]),
                flush,
                execute("SELECT 2", &[]),
                sync(),
                execute("SELECT 3", &[]),
                sync(),
            ],
            Terminate,
        ),
        session("thousands of Syncs", &[sync().repeat(3000)], Terminate),
        session("a Bind that can't be read", &[parse("", "SELECT 1"), message(b'B', b"\0"), sync()], Terminate),
        session("a function is called by its number", &[function_call(), query("SELECT 1")], Terminate),
        session("a function is called that is none", &[message(b'F', &[0; 10]), query("SELECT 1")], Terminate),
    ]
}

fn simple() -> Vec<Scenario> {
    let notice = "DO $$ BEGIN RAISE NOTICE 'look: %', 1; END $$";
    vec![
        session("nothing asked", &[query(""), query(";;"), query("-- nothing")], Terminate),
        session(
            "several statements, one fails",
            &[query("SELECT 1; SELECT 1/0; SELECT 2"), query("TABLE x")],
            Terminate,
        ),
        session(
            "a transaction that failed",
            &[query("BEGIN"), query("nonsense"), query("SELECT 1"), query("COMMIT")],
            Terminate,
        ),
        session("a transaction that is left open", &[query("BEGIN; CREATE TABLE left_open ()")], Terminate),
        session("notices", &[query(notice), query("SET client_min_messages = debug1"), query(notice)], Terminate),
        session("settings that are reported", &[query("SET datestyle = 'German'; SET TIME ZONE 'UTC'")], Terminate),
        session("its own notification", &[query("LISTEN here"), query("NOTIFY here, 'said'")], Terminate),
        session(
            "COPY out, text and binary",
            &[query("COPY (SELECT 1, 'x') TO STDOUT"), query("COPY (SELECT 1) TO STDOUT (FORMAT binary)")],
            Terminate,
        ),
        session(
            "a query in the middle of COPY",
            &[query("CREATE TEMP TABLE c (i int)"), query("COPY c FROM STDIN"), query("SELECT 1"), query("TABLE c")],
            Terminate,
        ),
        session(
            "COPY data that nobody asked for",
            &[message(b'd', b"1\n"), message(b'c', b""), query("SELECT 1")],
            Terminate,
        ),
        session("a message of no type", &[query("SELECT 1"), message(b'y', b"abc")], Server),
        session("a query without an end", &[message(b'Q', b"SELECT 1"), query("SELECT 2")], Terminate),
        session("it sends no more, and reads the answer", &[query("SELECT 1")], HalfClose),
        session(
            "it sends no more in the middle of a message",
            &[query("SELECT 1"), vec![b'Q', 0, 0, 0, 99, b'S']],
            HalfClose,
        ),
        session(
            "it goes in the middle of COPY",
            &[query("CREATE TEMP TABLE c (i int)"), query("COPY c FROM STDIN"), message(b'd', b"1\n")],
            HalfClose,
        ),
    ]
}

/// Everything that the server says.
async fn held(address: SocketAddr, scenario: &Scenario) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let mut said = Vec::new();
    for (before, bytes) in &scenario.sent {
        while said.len() < *before {
            said.push(stream.read_u8().await.expect("an answer"));
        }
        stream.write_all(bytes).await.expect("sent");
    }
    match scenario.end {
        Terminate => stream.write_all(&message(b'X', &[])).await.expect("sent"),
        HalfClose => stream.shutdown().await.expect("sent"),
        Server => {}
    }
    match stream.read_to_end(&mut said).await {
        // Who is closed upon without a word may find out this way, when not all it sent was read.
        Err(error) if error.kind() == ErrorKind::ConnectionReset && said.is_empty() => {}
        heard => drop(heard.unwrap_or_else(|error| panic!("{}: {address}: {error}", scenario.name))),
    }
    said
}

/// The messages of an answer, with what names a backend left out; a byte that answers a request for encryption
/// stands by itself.
fn comparable(scenario: &Scenario, said: &[u8]) -> Vec<String> {
    let single = scenario.sent.iter().map(|(before, _)| *before).max().unwrap_or(0);
    let (answer, mut rest) = said.split_at(single.min(said.len()));
    let mut messages = vec![format!("{answer:?}")];
    while let [kind, a, b, c, d, behind @ ..] = rest {
        let length = (u32::from_be_bytes([*a, *b, *c, *d]) as usize).saturating_sub(4).min(behind.len());
        let (body, next) = behind.split_at(length);
        let named = match kind {
            b'K' => body.len(),
            b'A' => 4,
            _ => 0,
        };
        let body = body.get(named..).unwrap_or_default();
        messages.push(format!("{} {}", char::from(*kind), String::from_utf8_lossy(body)));
        rest = next;
    }
    messages.push(format!("{rest:?}"));
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_the_same_through_the_mirror_and_direct() {
    let _turn = take_turn().await;
    let (worker, baseline, candidate) =
        (Cluster::builder().start().await, Cluster::builder().start().await, Cluster::builder().start().await);
    let address = |of: &Cluster| format!("127.0.0.1:{}", of.port());
    let (baseline, candidate) =
        (format!("baseline={}", address(&baseline)), format!("candidate={}", address(&candidate)));
    let sides = ["--worker", &address(&worker), "--arm", &baseline, "--arm", &candidate];
    let mut mirror = start("understudy-mirror", ["--listen", "127.0.0.1:0"].into_iter().chain(sides));
    let through = mirror.mirror().await;
    let direct: SocketAddr = ([127, 0, 0, 1], worker.port()).into();
    let mut wrong = Vec::new();
    for scenario in startups().into_iter().chain(extended()).chain(simple()) {
        let mut told = Vec::new();
        for side in [direct, through] {
            let said = timeout(LIMIT, held(side, &scenario)).await;
            let said = said.unwrap_or_else(|_| panic!("{}: {side} does not end", scenario.name));
            told.push(comparable(&scenario, &said));
        }
        println!("{}: {} messages", scenario.name, told.first().map_or(0, Vec::len));
        if told.first() != told.last() {
            wrong.push(format!("{}:\n  direct  {:?}\n  through {:?}", scenario.name, told.first(), told.last()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // PostgreSQL may offer GSSAPI's encryption, which the mirror could not look into: it says no, as to TLS here.
    let (gss, tls) = (asked("GSSENCRequest", GSSENC_REQUEST), asked("SSLRequest", SSL_REQUEST));
    let told = [held(through, &gss).await, held(through, &tls).await];
    assert_eq!(comparable(&gss, &told[0]), comparable(&tls, &told[1]));
    mirror.signal(Signal::TERM);
    mirror.ended_within(Duration::from_secs(20)).await.expect_code(0);
}
