//! What is no PostgreSQL, from either side: that connection ends with the right words, or without any where the
//! server has none either; it is counted once, by its cause; and a session beside it does not notice. What a server
//! alone decides is held against the words of the same server without a mirror.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, spawn},
    time::timeout,
};
use tokio_postgres::{Client, Config, NoTls};
use tokio_rustls::TlsConnector;
use understudy_crds::condition::ArmState;
use understudy_e2e::{
    application::connect,
    counted::Counted,
    raw::{Raw, startup},
    stage::Servers,
    wire::{message, query},
};
use understudy_mirror::wire::frame::messages;

const LIMIT: Duration = Duration::from_secs(20);
/// Everything is done so often: what is not given back shows.
const ROUNDS: u64 = 12;
/// What the mirror's memory may have grown by after the second round, MiB.
const GROWTH_MIB: u64 = 8;
/// No message and no packet is that long.
const TOO_LONG: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];
/// `asked` is asked for a password; the others are users of [`Front`].
const ROLES: &str = "CREATE ROLE asked LOGIN PASSWORD 'open sesame'; CREATE ROLE long_answer LOGIN; \
                     CREATE ROLE short_answer LOGIN; CREATE ROLE strange_login LOGIN; CREATE ROLE half_answer LOGIN; \
                     CREATE ROLE unable LOGIN; CREATE ROLE out_of_turn LOGIN; CREATE TABLE written (i int)";

/// What a client does, and what has to come of it.
struct Case {
    name: &'static str,
    /// The packet with which its session begins, and the type of the answer that it waits for.
    begins: Option<(Vec<u8>, u8)>,
    /// What it sends then.
    sends: Vec<u8>,
    /// It says that it sends no more.
    ends: bool,
    told: Told,
    /// What is counted beside the connection.
    counted: Option<&'static str>,
}

/// What the client hears before its connection ends.
#[derive(Clone, Copy)]
enum Told {
    /// The same as without a mirror, with these words in it; empty: nothing at all.
    Directly(&'static str),
    /// One error of this SQLSTATE.
    ByMirror(&'static str),
    /// These bytes.
    Bytes(&'static [u8]),
}

const MALFORMED: Option<&str> = Some("connections_malformed{side=\"client\",cause=\"length\"}");
const TRUNCATED: Option<&str> = Some("connections_malformed{side=\"client\",cause=\"truncated\"}");
const OUT_OF_TURN: Option<&str> = Some("connections_malformed{side=\"client\",cause=\"protocol\"}");
const WORKER_MALFORMED: Option<&str> = Some("connections_malformed{side=\"worker\",cause=\"length\"}");
const WORKER_TRUNCATED: Option<&str> = Some("connections_malformed{side=\"worker\",cause=\"truncated\"}");
const VANISHED: Option<&str> = Some("connections_refused{cause=\"vanished\"}");
const LENGTH: Option<&str> = Some("connections_refused{cause=\"length\"}");
const UNASKED: Option<&str> = Some("connections_refused{cause=\"unasked\"}");
const PROTOCOL: Option<&str> = Some("connections_refused{cause=\"protocol\"}");

/// A first packet.
fn packet(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&length.to_be_bytes(), body].concat()
}

/// As long as a first packet may be: 10,000 bytes behind its length.
fn longest_startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0application_name\0";
    let name = vec![b'n'; 10_000 - body.len() - 2];
    packet(&[body, name.as_slice(), b"\0\0"].concat())
}

fn cases() -> Vec<Case> {
    use Told::{ByMirror, Bytes, Directly};
    let before = |name, sends: &[u8], told, counted| {
        let sends = sends.to_vec();
        Case { name, begins: None, sends, ends: false, told, counted }
    };
    let leaves = |name, sends: &[u8]| Case { ends: true, ..before(name, sends, Directly(""), VANISHED) };
    let asked = |name, sends: Vec<u8>, told, counted| {
        let begins = Some((startup("asked"), b'R'));
        Case { name, begins, sends, ends: false, told, counted }
    };
    let after = |name, user, sends: Vec<u8>, told, counted| {
        let begins = Some((startup(user), b'Z'));
        Case { name, begins, sends, ends: false, told, counted }
    };
    let halves = |name, sends| Case { ends: true, ..after(name, "postgres", sends, Directly(""), TRUNCATED) };
    let long = [b"Q".as_slice(), &TOO_LONG].concat();
    vec![
        before("a first packet of no length", &[0; 4], Directly(""), LENGTH),
        before("a first packet of length 3", &[0, 0, 0, 3], Directly(""), LENGTH),
        before("a first packet of 2 GiB", &TOO_LONG, Directly(""), LENGTH),
        before("a first packet that is a byte too long", &10_005_u32.to_be_bytes(), Directly(""), LENGTH),
        before("words of HTTP", b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n", Directly(""), LENGTH),
        before("TLS that nobody offered", &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3], Directly(""), UNASKED),
        leaves("a client that says nothing", b""),
        leaves("half of a length", &[0, 0]),
        leaves("half of a first packet", startup("postgres").get(..20).expect("more")),
        before("protocol 2", &packet(&[0, 2, 0, 0, 0]), Directly("unsupported frontend protocol 2.0"), PROTOCOL),
        before("no protocol", &packet(b"hello"), Directly("unsupported frontend protocol"), PROTOCOL),
        before("no layout", &packet(b"\0\x03\0\0user\0"), Directly("invalid startup packet layout"), PROTOCOL),
        asked("a query for a password", query("SELECT 1"), Directly("got message type 81"), OUT_OF_TURN),
        asked(
            "a password of 1 MiB",
            [b"p\0\x10\0\0".as_slice(), &[b'x'; 999]].concat(),
            Directly(NO_PASSWORD),
            OUT_OF_TURN,
        ),
        Case {
            ends: true,
            ..asked("half of a password", b"p\0\0\0\x10open".to_vec(), Directly(NO_PASSWORD), TRUNCATED)
        },
        asked("a query of 2 GiB for a password", long.clone(), ByMirror("08P01"), MALFORMED),
        asked("a message of length 3 for a password", vec![b'p', 0, 0, 0, 3], ByMirror("08P01"), MALFORMED),
        after("a query of 2 GiB", "postgres", long, ByMirror("08P01"), MALFORMED),
        after("a query of length 3", "postgres", vec![b'Q', 0, 0, 0, 3], ByMirror("08P01"), MALFORMED),
        after("a query of no length", "postgres", vec![b'Q', 0, 0, 0, 0], ByMirror("08P01"), MALFORMED),
        after(
            "a password after the login",
            "postgres",
            message(b'p', b"open sesame\0"),
            Directly("invalid frontend message type 112"),
            OUT_OF_TURN,
        ),
        after(
            "a message of no type",
            "postgres",
            message(1, b"hello"),
            Directly("invalid frontend message type 1"),
            OUT_OF_TURN,
        ),
        // What the server has words for and goes on after ends nothing and is not counted.
        Case {
            ends: true,
            ..after("a Bind of no layout", "postgres", no_layout(), Directly("insufficient data left in message"), None)
        },
        halves("half of a header", vec![b'Q', 0]),
        halves("half of a query", vec![b'Q', 0, 0, 0, 9, b'S']),
        halves("a query, and half of one", [query("SELECT 1"), vec![b'Q', 0, 0, 0, 9, b'S']].concat()),
        halves("half of what a COPY takes in", [query(COPY), vec![b'd', 0, 0, 0, 9, b'1']].concat()),
        Case {
            begins: Some((longest_startup(), b'Z')),
            ..after("a first packet as long as it may be", "", message(b'X', b""), Directly(""), None)
        },
        after("an answer of 2 GiB", "long_answer", query("SELECT 1"), ByMirror("08P01"), WORKER_MALFORMED),
        after("an answer of length 3", "short_answer", query("SELECT 1"), ByMirror("08P01"), WORKER_MALFORMED),
        after("half of an answer", "half_answer", query("SELECT 1"), Bytes(HALF), WORKER_TRUNCATED),
        // What is a message is passed on, and what to make of it is its client's to decide.
        after("answers that nobody asked for", "out_of_turn", query("SELECT 1"), Bytes(OUT_OF_TURN_ANSWERS), None),
        before("a worker that has no process for it", &startup("unable"), Bytes(UNABLE), WORKER_MALFORMED),
        before(
            "a worker that does not speak the protocol",
            &startup("strange_login"),
            ByMirror("08P01"),
            WORKER_MALFORMED,
        ),
    ]
}

/// What a server makes of a password that does not come.
const NO_PASSWORD: &str = "password authentication failed";
const COPY: &str = "CREATE TEMPORARY TABLE copied (i int); COPY copied FROM STDIN";

/// A Bind that ends before it should, and the Sync behind it.
fn no_layout() -> Vec<u8> {
    [message(b'P', b"\0SELECT 1\0\0\0"), message(b'B', b"\0\0\0\x05"), message(b'S', b"")].concat()
}

const LOGIN: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07\0\0\0\x07Z\0\0\0\x05I";
/// What a user of [`Front`] gets for a query.
const ANSWERS: [(&str, &[u8]); 4] = [
    ("long_answer", b"D\x7f\xff\xff\xff"),
    ("short_answer", b"D\0\0\0\x03"),
    ("half_answer", HALF),
    ("out_of_turn", OUT_OF_TURN_ANSWERS),
];
/// A row of no description, a login that is over already, the data of no COPY, a message of no type that there is, three times
/// that all is done, and a request for data behind it.
const OUT_OF_TURN_ANSWERS: &[u8] =
    b"D\0\0\0\x06\0\0R\0\0\0\x08\0\0\0\0d\0\0\0\x04~\0\0\0\x05!Z\0\0\0\x05IZ\0\0\0\x05IZ\0\0\0\x05IG\0\0\0\x07\0\0\0";
const HALF: &[u8] = b"D\0\0\0\x40\0\x01";
/// What PostgreSQL says when it can't make a process for a client, as it did before protocol 3.
const UNABLE: &[u8] = b"Ecould not fork new process for connection: Cannot allocate memory\n\0";

/// Stands before the worker and hands everything on, but for a few users, whom it serves badly.
struct Front {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Front {
    async fn of(worker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let accept = async move {
            while let Ok((client, _)) = listener.accept().await {
                spawn(serve(client, worker));
            }
        };
        Self { address, accepting: spawn(accept).abort_handle() }
    }
}

async fn serve(mut client: TcpStream, worker: SocketAddr) -> std::io::Result<()> {
    let mut first = vec![0; 16 << 10];
    let read = client.read(&mut first).await?;
    first.truncate(read);
    let is_of = |user: &str| first.get(8..).is_some_and(|rest| rest.starts_with(format!("user\0{user}\0").as_bytes()));
    if is_of("strange_login") {
        client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
        return client.read(&mut first).await.map(|_| ());
    }
    if is_of("unable") {
        return client.write_all(UNABLE).await;
    }
    if let Some((_, answer)) = ANSWERS.iter().find(|(user, _)| is_of(user)) {
        client.write_all(LOGIN).await?;
        let _ = client.read(&mut first).await?;
        return client.write_all(answer).await;
    }
    let mut server = TcpStream::connect(worker).await?;
    server.write_all(&first).await?;
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}

async fn hear(at: SocketAddr, case: &Case) -> Vec<u8> {
    let mut client = Raw::connect(at).await;
    if let Some((packet, until)) = &case.begins {
        client.send(packet).await;
        client.until(*until).await;
    }
    client.send(&case.sends).await;
    if case.ends {
        client.send_no_more().await;
    }
    client.rest().await
}

/// A session beside all this, asked in the middle of it.
async fn expect_served(neighbour: &Client) {
    let answer = timeout(LIMIT, neighbour.query_one("SELECT 42", &[])).await.expect("in time").expect("an answer");
    assert_eq!(answer.get::<_, i32>(0), 42);
}

fn expect_error(name: &str, heard: &[u8], sqlstate: &str) {
    let said: Vec<_> = messages(heard).collect();
    let text = String::from_utf8_lossy(heard);
    assert!(said.len() == 1 && said.iter().all(|message| message.tag == b'E'), "{name}: {text}");
    assert!(text.contains(&format!("SFATAL\0VFATAL\0C{sqlstate}\0M")), "{name}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_ends_its_own_connection_by_its_cause_and_nobody_else_notices() {
    let servers = Servers::start_asking("asked", 2, ROLES).await;
    let direct: SocketAddr = ([127, 0, 0, 1], servers.worker.port()).into();
    let front = Front::of(direct).await;
    let arms = servers.addresses();
    let stage = servers.mirror_to(front.address, "64Mi", &arms).await;
    let neighbour = connect(stage.through).await.expect("a session");
    let cases = cases();
    let first = Counted::now(&stage.admin).await;
    let mut counted = first.clone();
    for case in &cases {
        let (heard, ()) = tokio::join!(hear(stage.through, case), expect_served(&neighbour));
        let name = case.name;
        match case.told {
            Told::Directly(words) => {
                let directly = hear(direct, case).await;
                let [through, directly] = [&heard, &directly].map(|heard| String::from_utf8_lossy(heard));
                assert_eq!(through, directly, "{name}");
                let is_quiet = case.counted == TRUNCATED || through.is_empty();
                assert!(through.contains(words) && (!words.is_empty() || is_quiet), "{name}: {through}");
            }
            Told::ByMirror(sqlstate) => expect_error(name, &heard, sqlstate),
            Told::Bytes(bytes) => assert_eq!(heard, bytes, "{name}"),
        }
        let grown = [Some("connections"), case.counted].into_iter().flatten().map(|name| (name, 1));
        counted = counted.expect_grown(&stage.admin, name, &grown.collect::<Vec<_>>()).await;
    }

    let mut settled_mib = 0;
    for round in 2..=ROUNDS {
        for case in &cases {
            tokio::join!(hear(stage.through, case), expect_served(&neighbour));
        }
        if round == 2 {
            settled_mib = stage.memory_mib().0;
        }
    }
    let (memory_mib, _) = stage.memory_mib();
    println!("{memory_mib} MiB, after the second of {ROUNDS} rounds {settled_mib}");
    assert!(memory_mib <= settled_mib + GROWTH_MIB, "{memory_mib} MiB, and {settled_mib} after the second round");
    // Nothing was counted twice, or late.
    let mut all = vec![("connections", cases.len() as u64 * ROUNDS)];
    for case in &cases {
        if let Some(name) = case.counted {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, times)) => *times += ROUNDS,
                None => all.push((name, ROUNDS)),
            }
        }
    }
    counted = first.expect_grown(&stage.admin, "all rounds", &all).await;

    // The worker is gone for new clients.
    front.accepting.abort();
    let refused = || async { TcpStream::connect(front.address).await.is_err() };
    understudy_harness::wait_until("nobody listens where the worker was", refused).await;
    let mut client = Raw::connect(stage.through).await;
    client.send(&startup("postgres")).await;
    expect_error("no worker", &client.rest().await, "57P03");
    counted.expect_grown(&stage.admin, "no worker", &[("connections", 1), ("worker_unreachable", 1)]).await;
    expect_served(&neighbour).await;

    neighbour.batch_execute("INSERT INTO written VALUES (1)").await.expect("a row");
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &[("written", "t.i::text")]).await;
        assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{arm:#?}");
    }
    drop(neighbour);
    stage.end().await;
}

/// A session over TLS that trusts one certificate.
async fn encrypted(at: SocketAddr, trusted: rustls::pki_types::CertificateDer<'static>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut stream = TcpStream::connect(at).await.expect("a connection");
    stream.write_all(&packet(&[4, 210, 22, 47])).await.expect("asked for TLS");
    assert_eq!(stream.read_u8().await.expect("an answer"), b'S');
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let (client, connection) =
        Config::new().user("postgres").dbname("postgres").connect_raw(stream, NoTls).await.expect("a session");
    spawn(connection);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_tls_is_told_where_it_is_needed_and_counted() {
    let servers = Servers::start(0, "SELECT 1").await;
    let direct: SocketAddr = ([127, 0, 0, 1], servers.worker.port()).into();
    let papers = tempfile::tempdir().expect("a directory");
    let [certificate, key] = ["mirror.crt", "mirror.key"].map(|name| papers.path().join(name));
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(&certificate, own.cert.pem()).expect("written");
    fs::write(&key, own.signing_key.serialize_pem()).expect("written");
    let (certificate, key) = (certificate.display(), key.display());
    let tls = format!("clientTls: {{ certificate: {certificate}, key: {key}, required: true }}\n");
    let stage = servers.mirror_with(direct, &tls, &[]).await;
    let neighbour = encrypted(stage.through, own.cert.der().clone()).await;
    let before = Counted::now(&stage.admin).await;
    let mut client = Raw::connect(stage.through).await;
    client.send(&startup("postgres")).await;
    let (heard, ()) = tokio::join!(client.rest(), expect_served(&neighbour));
    expect_error("no TLS", &heard, "28000");
    before
        .expect_grown(&stage.admin, "no TLS", &[("connections", 1), ("connections_unencrypted{cause=\"plain\"}", 1)])
        .await;
    expect_served(&neighbour).await;
    drop(neighbour);
    stage.end().await;
}

/// What a worker says to a request for TLS.
const NO_ANSWERS: [&[u8]; 4] = [b"", b"x", b"E\0\0\0\x05\0", b"SHTTP/1.1 400 Bad Request\r\n\r\n"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_answers_a_request_for_tls_with_nonsense_can_not_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let front = listener.local_addr().expect("its number");
    let accepting = spawn(async move {
        for answer in NO_ANSWERS.iter().cycle() {
            let Ok((mut client, _)) = listener.accept().await else { return };
            let mut request = [0; 8];
            // It may have gone; what it says then nobody waits for.
            let _ = client.read_exact(&mut request).await;
            let _ = client.write_all(answer).await;
        }
    });
    let stage = Servers::start(0, "SELECT 1").await.mirror_with(front, "workerTls: { mode: require }\n", &[]).await;
    let mut counted = Counted::now(&stage.admin).await;
    for answer in NO_ANSWERS {
        let name = String::from_utf8_lossy(answer);
        let mut client = Raw::connect(stage.through).await;
        client.send(&startup("postgres")).await;
        expect_error(&name, &client.rest().await, "57P03");
        let grown = [("connections", 1), ("worker_unreachable", 1)];
        counted = counted.expect_grown(&stage.admin, &name, &grown).await;
    }
    accepting.abort();
    stage.end().await;
}
