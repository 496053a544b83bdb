//! What the mirror says to a clone over the network, against a real clone behind its door: over mutual TLS,
//! or not at all.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

#[path = "arm_tls/certificates.rs"]
mod certificates;
#[path = "arm_tls/mirrored.rs"]
mod mirrored;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use certificates::{Certificates, client};
use rustls::CertificateError;
use tokio_postgres::Config;
use understudy_harness::{Cluster, arm_spec, worker};
use understudy_mirror::{
    capture::exchange::{Exchange, Outcome, SessionId, SessionInfo, StatementOutcome},
    shadow::{
        arm::address::ArmAddress,
        entry::{Budget, Entry},
        player::{PlayError, Player},
        statement::footprint::Footprint,
    },
    stream::Address,
    tls::{TlsClient, TlsError},
    wire::{encode, startup::Startup},
};
use understudy_operator::{
    controller::objects::tls,
    error::{ErrorKind, Side, UserError},
    platform::local::{
        account::Account,
        arm::Arm,
        binaries::{Binaries, Version},
        cut_probe::CutProber,
        door::{Door, check_tls},
        initdb::SUPERUSER,
        session::{self, Session},
    },
};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port()
}

fn over_tls(port: u16, tls: TlsClient) -> ArmAddress {
    ArmAddress::new(Address::new("127.0.0.1", port), Some(tls))
}

/// A clone that has left the WAL, as an arm pod's agent makes it.
async fn behind_its_door(cluster: &Cluster, certificates: &Certificates) -> Arm {
    let mut spec = arm_spec(cluster, "baseline", &[]).await;
    spec.identity.port = free_port();
    let mut arm = Arm::seed(spec, |_, _, _| Ok(()), |_| ()).await.expect("a clone");
    arm.wait_streaming().await.expect("streaming");
    arm.pause().await.expect("paused");
    let prober = CutProber::open(&worker(cluster), &["postgres".to_owned()]).await.expect("a prober");
    let probe = prober.probe().await.expect("a probe");
    let directory = cluster.socket_dir().join("tls");
    let own = certificates.identity(tls::ARM);
    let account = arm.spec().account.clone();
    let door = Door::make(Ipv4Addr::LOCALHOST.into(), &own, &directory, &account).expect("a door");
    assert_eq!(fs::metadata(directory.join("tls.key")).expect("a key").permissions().mode() & 0o777, 0o600);
    arm.admit(door);
    arm.recover_to(probe.lsn, &[], prober.session(), |_, _, _| Ok(())).await.expect("recovered");
    arm
}

fn somebody() -> SessionInfo {
    let parameters = vec![("user".to_owned(), SUPERUSER.to_owned()), ("database".to_owned(), "postgres".to_owned())];
    SessionInfo { id: SessionId(1), startup: Startup { protocol: 3 << 16, parameters }, backend_pid: 1 }
}

fn entry(request: Vec<u8>, production: Outcome) -> Entry {
    let exchange = Exchange {
        session: SessionId(1),
        sequence: 0,
        begun_ns: 0,
        request: request.into(),
        outcome: OnceLock::from(production),
    };
    Entry {
        id: 1,
        exchange: Arc::new(exchange),
        statements: Vec::new(),
        writes: true,
        touches: Footprint::Anything,
        publishes: Footprint::Anything,
        beginnings: false,
        skip: None,
        overlapped: AtomicBool::new(false),
        charge: Budget::new(0).charge(0),
        taken_in: OnceLock::new(),
    }
}

fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 4).expect("short").to_be_bytes();
    [&[tag][..], &length, payload].concat()
}

/// The first statement's outcome of a request that succeeds.
async fn played(player: &mut Player, request: Vec<u8>, copy_in: Vec<u8>) -> StatementOutcome {
    let production = Outcome { copy_in: copy_in.into(), ..Outcome::default() };
    let outcome = player.play(&entry(request, production)).await.expect("played");
    assert_eq!(outcome.error(), None);
    *outcome.statements.first().expect("a statement")
}

async fn refused(address: &ArmAddress) -> PlayError {
    Player::open(address, &somebody(), &[]).await.expect_err("it must not get in")
}

fn config(port: u16) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(SUPERUSER).dbname("postgres");
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_behind_its_door_is_played_to_and_asked_over_mutual_tls_and_in_no_other_way() {
    let cluster = Cluster::start().await;
    cluster.connect().await.batch_execute("CREATE TABLE t (id int, word text)").await.expect("a table");
    let (ours, others) = (Certificates::new(), Certificates::new());
    let arm = behind_its_door(&cluster, &ours).await;
    let port = arm.spec().identity.port;
    let host = ours.names.arm_host("baseline");
    let address = over_tls(port, ours.mirror());

    plays(&address).await;
    asks(port, &ours.mirror()).await;

    let error = refused(&Address::new("127.0.0.1", port).into()).await;
    assert!(matches!(&error, PlayError::Refused(state) if state == "28000"), "in plain text: {error}");
    let error = refused(&over_tls(port, ours.nobody())).await;
    assert!(matches!(&error, PlayError::Refused(state) if state == "28000"), "without a certificate: {error}");
    let theirs = client(&others.trusting(&ours, tls::MIRROR), &host);
    let error = refused(&over_tls(port, theirs)).await;
    // Its last word may be lost when it closes the connection.
    assert!(matches!(&error, PlayError::Connection(_) | PlayError::Tls(_)), "a stranger's certificate: {error}");

    let wary = client(&ours.trusting(&others, tls::MIRROR), &host);
    // The other authority has the same name, and another key.
    assert_eq!(distrusts(&refused(&over_tls(port, wary)).await), Some(CertificateError::BadSignature));
    let elsewhere = client(&ours.identity(tls::MIRROR), "wide.elsewhere.test");
    let error = refused(&over_tls(port, elsewhere)).await;
    assert!(
        matches!(distrusts(&error), Some(CertificateError::NotValidForNameContext { .. })),
        "under another name: {error}"
    );
    assert!(error.to_string().starts_with("the arm: no TLS with it: "), "{error}");
}

fn distrusts(error: &PlayError) -> Option<CertificateError> {
    match error {
        PlayError::Tls(TlsError::Handshake(rustls::Error::InvalidCertificate(why))) => Some(why.clone()),
        _ => None,
    }
}

async fn plays(address: &ArmAddress) {
    let prologue = [Bytes::from(encode::query("SET application_name = 'rebuilt'"))];
    let mut player = Player::open(address, &somebody(), &prologue).await.expect("a session");
    let insert = encode::query("INSERT INTO t SELECT n, 'simple' FROM generate_series(1, 3) n");
    assert_eq!(played(&mut player, insert, Vec::new()).await.tag_rows, Some(3));
    let extended = [
        message(b'P', b"\0INSERT INTO t SELECT n, $1 FROM generate_series(1, 4) n\0\0\0"),
        message(b'B', b"\0\0\0\0\0\x01\0\0\0\x08extended\0\0"),
        message(b'E', b"\0\0\0\0\0"),
        encode::SYNC.to_vec(),
    ];
    assert_eq!(played(&mut player, extended.concat(), Vec::new()).await.tag_rows, Some(4));

    // More than any buffer on the way holds, both ways.
    let row = [&b"5\t"[..], &vec![b'x'; 100_000], b"\n"].concat();
    let data = [message(b'd', &row).repeat(100), message(b'c', b"")].concat();
    let copied = played(&mut player, encode::query("COPY t FROM STDIN"), data).await;
    assert_eq!(copied.tag_rows, Some(100));
    let copied = played(&mut player, encode::query("COPY t TO STDOUT"), Vec::new()).await;
    assert_eq!(copied.tag_rows, Some(107));
    let long = encode::query(&format!("SELECT '{}', word FROM t", "y".repeat(4 << 20)));
    assert_eq!(played(&mut player, long, Vec::new()).await.rows, 107);

    // What was cancelled on production is cancelled there, and the session goes on.
    let failed = StatementOutcome { error: Some(*b"57014"), ..StatementOutcome::default() };
    let production = Outcome { ended_ns: 200_000_000, statements: vec![failed], ..Outcome::default() };
    let began = Instant::now();
    let outcome = player.play(&entry(encode::query("SELECT pg_sleep(60)"), production)).await.expect("played");
    assert_eq!(outcome.error(), Some(*b"57014"));
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(played(&mut player, encode::query("SELECT 1"), Vec::new()).await.rows, 1);
    player.close().await;
}

async fn asks(port: u16, mirror: &TlsClient) {
    let open = async |tls| match tls {
        None => Session::open(&config(port), Side::Arm, "baseline", session::Names::System).await,
        Some(tls) => Session::open_over_tls(&config(port), tls, Side::Arm, "baseline", session::Names::System).await,
    };
    let session = open(Some(mirror)).await.expect("a session");
    let encrypted = "SELECT ssl AND version LIKE 'TLSv1._' FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(session.value::<bool>(encrypted, &[]).await.expect("an answer"), Some(true));
    // What takes too long is cancelled, over TLS as well.
    let slow = session.within(Duration::from_millis(200), session.client().batch_execute("SELECT pg_sleep(60)")).await;
    assert_eq!(slow.expect_err("too slow").kind, ErrorKind::TimedOut);
    assert_eq!(session.value::<i32>("SELECT 1", &[]).await.expect("an answer after that"), Some(1));
    let error = open(None).await.expect_err("plain text");
    assert_eq!((error.kind, error.side), (ErrorKind::Refused, Side::Arm), "{error}");
    assert!(error.to_string().contains("nobody but the mirror"), "{error}");
}

#[tokio::test]
async fn a_server_that_offers_no_tls_gets_no_plain_text() {
    let cluster = Cluster::start().await;
    let mirror = Certificates::new().mirror();
    let error = refused(&over_tls(cluster.port(), mirror.clone())).await;
    assert!(matches!(error, PlayError::Tls(TlsError::NotOffered)), "{error}");
    assert_eq!(error.to_string(), "the arm: it offers no TLS; nothing is said to it in plain text");
    let opened =
        Session::open_over_tls(&config(cluster.port()), &mirror, Side::Arm, "baseline", session::Names::System).await;
    let error: UserError = opened.expect_err("no TLS");
    assert_eq!((error.kind, error.side), (ErrorKind::Unreachable, Side::Arm));
    assert!(error.to_string().contains("server does not support TLS"), "{error}");
}

/// A server that reads what comes and says this once.
fn says(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(answer).expect("said");
        let mut heard = [0; 1024];
        while stream.read(&mut heard).is_ok_and(|read| read > 0) {}
    });
    port
}

#[tokio::test]
async fn a_server_that_is_silent_or_talks_nonsense_is_waited_for_no_longer_than_the_limit() {
    const LIMIT: Duration = Duration::from_millis(300);
    let mirror = Certificates::new().mirror();
    for (answer, expected) in [
        (&b""[..], "timed out"),
        (b"S", "timed out"),
        (b"E", "it answers a request for TLS with the byte 0x45"),
        // Plain text behind the consent is no part of what is encrypted.
        (b"SR\0\0\0\x08\0\0\0\0", "no TLS with it: "),
    ] {
        let began = Instant::now();
        let opened = over_tls(says(answer), mirror.clone()).connect(LIMIT).await;
        let error = opened.expect_err("no TLS").to_string();
        assert!(error.starts_with(expected), "{answer:?}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{answer:?}");
    }
}

#[tokio::test]
async fn programs_without_tls_are_told_before_anything_is_copied() {
    let account = Account::detect().expect("an account");
    let real = Binaries::newest(&account).await.expect("server binaries");
    let directory = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o777)).tempdir().expect("dir");
    let scratch = directory.path().join("check");
    check_tls(&real, &account, &scratch).await.expect("it can");
    assert!(!scratch.exists());

    // What PostgreSQL says that was built without it.
    let program = directory.path().join("postgres");
    let refusal = "echo '2026-01-01 10:00:00.000 UTC [7] FATAL:  SSL is not supported by this build' >&2; exit 1";
    fs::write(&program, format!("#!/bin/sh\n{refusal}\n")).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("permissions");
    let without = Binaries { directory: directory.path().to_owned(), version: Version { major: 15, minor: 0 } };
    let error = check_tls(&without, &account, &scratch).await.expect_err("it can't");
    assert_eq!((error.kind, error.side), (ErrorKind::Missing, Side::Arm));
    let text = error.to_string();
    assert!(text.contains("can't speak TLS") && text.contains("SSL is not supported by this build"), "{text}");
    assert!(!scratch.exists());
}
