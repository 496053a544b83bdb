//! TLS at both sides of the mirror, with libpq as the client: who is let in, over what, and with which
//! channel binding; clients that speak TLS without asking. Certificates are in `tls_certificates.rs`.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use understudy_e2e::{
    counted::Counted,
    http,
    scenario::{GSSENC_REQUEST, SSL_REQUEST, request},
    talk::Talk,
    tls_worker::{TlsWorker, agreed},
    wire::query,
};
use understudy_harness::wait_until;

use crate::papers::Papers;

/// A worker that takes SCRAM over TLS and without, and shows its certificate.
const HBA: &str = "local all all trust\nhost all bob 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
const ROLES: &str = "CREATE ROLE ann LOGIN PASSWORD 'secret'; CREATE ROLE bob LOGIN";

async fn set() -> (Papers, TlsWorker) {
    let papers = Papers::new();
    let worker = papers.worker(HBA, ROLES).await;
    (papers, worker)
}

/// What a client gets, or says.
type Said = Result<&'static str, &'static str>;
/// What a client says that can't do what it must.
const NO_TLS: &str = "server does not support SSL";
const NOT_BOUND: &str = "channel binding is required, but server did not offer";
const NO_CHANNEL: &str = "channel binding required";
const DOWNGRADE: &str = "this client would bind its channel";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_binding_holds_or_is_refused_in_clear_words_over_each_pair_of_connections() {
    let (papers, worker) = set().await;
    let encrypted = "workerTls: { mode: require }\n";
    let (own, same) = (papers.clients("mirror", ""), papers.clients("worker", ""));
    // The mirror's TLS; the client's; what comes of channel_binding = disable, prefer, require.
    let (plain, tls) = (Ok("f"), Ok("t"));
    let cases: [(_, _, _, [Said; 3]); 11] = [
        ("none", String::new(), "disable", [plain, plain, Err(NO_CHANNEL)]),
        ("none", String::new(), "require", [Err(NO_TLS); 3]),
        ("none", String::new(), "prefer", [plain, plain, Err(NO_CHANNEL)]),
        ("to the worker", encrypted.to_owned(), "disable", [tls, tls, Err(NO_CHANNEL)]),
        ("to clients", own.clone(), "require", [plain, plain, Err(NOT_BOUND)]),
        ("to clients", own.clone(), "disable", [plain, plain, Err(NO_CHANNEL)]),
        ("both", format!("{own}{encrypted}"), "disable", [tls, tls, Err(NO_CHANNEL)]),
        ("both", format!("{own}{encrypted}"), "require", [tls, Err(DOWNGRADE), Err(NOT_BOUND)]),
        ("both, the worker's certificate", format!("{same}{encrypted}"), "require", [tls, tls, tls]),
        ("both, the worker's certificate", format!("{same}{encrypted}"), "disable", [tls, tls, Err(NO_CHANNEL)]),
        ("to clients, the worker's certificate", same.clone(), "require", [plain, plain, Err(NOT_BOUND)]),
    ];
    for (what, document, sslmode, expected_of) in cases {
        let mirror = worker.mirror(&document).await;
        for (binding, expected) in ["disable", "prefer", "require"].into_iter().zip(expected_of) {
            let got = worker.psql(mirror.through, &format!("sslmode={sslmode} channel_binding={binding}")).await;
            let as_expected = match (&got, expected) {
                (Ok(got), Ok(expected)) => got == expected,
                (Err(got), Err(expected)) => got.contains(expected),
                _ => false,
            };
            assert!(as_expected, "TLS: {what}; sslmode={sslmode} channel_binding={binding}: {got:?}, not {expected:?}");
        }
        worker.expect_level(&mirror).await;
        let unbound = i64::from(expected_of.contains(&Err(DOWNGRADE)));
        assert_eq!(mirror.metric("logins_unbound_total").await, unbound, "TLS: {what}; sslmode={sslmode}");
        drop(mirror);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_held_to_what_is_asked_of_them() {
    let (papers, worker) = set().await;
    let stranger = Papers::new();
    let shows = format!("sslcert={} sslkey={}", papers.path("ann.crt"), papers.path("ann.key"));
    let authorities = format!(", authorities: {}", papers.path("ca.crt"));
    let cases = [
        (", required: true", "sslmode=disable", Err("clients have to use TLS here"), "plain"),
        (", required: true", "sslmode=require", Ok(()), ""),
        (", minimum: \"1.3\"", "sslmode=require ssl_max_protocol_version=TLSv1.2", Err("protocol version"), "version"),
        (", minimum: \"1.3\"", "sslmode=require", Ok(()), ""),
        ("", "sslmode=require ssl_max_protocol_version=TLSv1.2", Ok(()), ""),
        (
            &format!("{authorities}, certificateRequired: true"),
            "sslmode=require sslcert=none",
            Err("certificate required"),
            "certificate",
        ),
        (&format!("{authorities}, certificateRequired: true"), &format!("sslmode=require {shows}"), Ok(()), ""),
        (&authorities, "sslmode=require sslcert=none", Ok(()), ""),
        ("", &format!("sslmode=verify-full sslrootcert={}", papers.path("ca.crt")), Ok(()), ""),
        // It trusts somebody else.
        ("", &format!("sslmode=verify-full sslrootcert={}", stranger.path("ca.crt")), Err("SSL error"), "alert"),
    ];
    for (more, how, expected, why) in cases {
        let mirror = worker.mirror(&papers.clients("mirror", more)).await;
        let got = worker.psql(mirror.through, how).await;
        let as_expected = match (&got, expected) {
            (Ok(_), Ok(())) => true,
            (Err(got), Err(expected)) => got.contains(expected),
            _ => false,
        };
        assert!(as_expected, "clientTls{more}; {how}: {got:?}, not {expected:?}");
        let text = http::get(&mirror.admin, "/metrics").await.expect("metrics");
        for cause in ["plain", "version", "certificate", "alert", "record"] {
            let wanted = u32::from(cause == why);
            let line = format!("understudy_connections_unencrypted_total{{cause=\"{cause}\"}} {wanted}\n");
            assert!(text.contains(&line), "clientTls{more}; {how}: no {line}in\n{text}");
        }
        drop(mirror);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_is_held_to_its_mode() {
    let (papers, worker) = set().await;
    let ca = papers.path("ca.crt");
    let stranger = Papers::new();
    let other = stranger.path("ca.crt");
    let cases = [
        ("prefer".to_owned(), "localhost", Ok("t")),
        ("require".to_owned(), "localhost", Ok("t")),
        (format!("verify-ca, authorities: {ca}"), "127.0.0.1", Ok("t")),
        (format!("verify-full, authorities: {ca}"), "localhost", Ok("t")),
        (format!("verify-full, authorities: {ca}"), "127.0.0.1", Err("can't be reached")),
        (format!("verify-ca, authorities: {other}"), "localhost", Err("can't be reached")),
        (format!("require, authorities: {other}"), "localhost", Err("can't be reached")),
    ];
    for (mode, host, expected) in cases {
        let mirror = worker.mirror_to(host, &format!("workerTls: {{ mode: {mode} }}\n")).await;
        let got = worker.psql(mirror.through, "sslmode=disable").await;
        let as_expected = match (&got, expected) {
            (Ok(got), Ok(expected)) => got == expected,
            (Err(got), Err(expected)) => got.contains(expected),
            _ => false,
        };
        assert!(as_expected, "{mode} of {host}: {got:?}, not {expected:?}");
    }
    // One that has TLS of no version that is taken today: `prefer` goes on as it would without any.
    for statement in ["ssl_min_protocol_version = 'TLSv1'", "ssl_max_protocol_version = 'TLSv1.1'"] {
        worker.server.connect().await.batch_execute(&format!("ALTER SYSTEM SET {statement}")).await.expect(statement);
    }
    worker.server.connect().await.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    let direct = worker.address();
    wait_until("nobody agrees with it", || async { worker.psql(direct, "sslmode=require").await.is_err() }).await;
    for (mode, expected) in [("prefer", Ok("f")), ("require", Err("can't be reached"))] {
        let mirror = worker.mirror(&format!("workerTls: {{ mode: {mode} }}\n")).await;
        let got = worker.psql(mirror.through, "sslmode=disable").await;
        let as_expected = match (&got, expected) {
            (Ok(got), Ok(expected)) => got == expected,
            (Err(got), Err(expected)) => got.contains(expected),
            _ => false,
        };
        assert!(as_expected, "{mode}, TLS 1.1: {got:?}, not {expected:?}");
    }
    // A worker without TLS: the modes that insist do not go on in plain text.
    worker.server.connect().await.batch_execute("ALTER SYSTEM SET ssl = off").await.expect("a setting");
    worker.server.connect().await.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    wait_until("it speaks none", || async { worker.psql(direct, "sslmode=require").await.is_err() }).await;
    for (mode, expected) in [("prefer", true), ("require", false)] {
        let mirror = worker.mirror(&format!("workerTls: {{ mode: {mode} }}\n")).await;
        let got = worker.psql(mirror.through, "sslmode=disable").await;
        assert_eq!(got.is_ok(), expected, "{mode}: {got:?}");
    }
}

const STARTUP: &[u8] = b"\0\0\0\x24\0\x03\0\0user\0bob\0database\0postgres\0\0";
const LARGE_BYTES: usize = 64 << 20;
/// More than the sockets between hold.
const SLOW_BYTES: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_speak_tls_without_asking_when_it_names_the_protocol() {
    let (papers, worker) = set().await;
    let mirror = worker.mirror(&papers.clients("mirror", "")).await;
    let (version, unasked) = ("connections_unencrypted{cause=\"version\"}", "connections_refused{cause=\"unasked\"}");
    let encrypted = ("connections_encrypted", 1);
    let mut counted = Counted::now(&mirror.admin).await;
    for (asks, protocol, grown) in [
        (false, Some(&b"postgresql"[..]), encrypted),
        (false, None, (unasked, 1)),
        (false, Some(b"http/1.1"), (version, 1)),
        // Who has asked need not name it, and may name no other.
        (true, Some(b"postgresql"), encrypted),
        (true, None, encrypted),
        (true, Some(b"http/1.1"), (version, 1)),
    ] {
        let connect = async {
            if asks { agreed(mirror.through).await } else { TcpStream::connect(mirror.through).await.expect("there") }
        };
        let stream = connect.await;
        let answered = async {
            let mut stream = papers.handshake(stream, protocol).await?;
            stream.write_all(STARTUP).await?;
            stream.read_u8().await
        };
        let answer = answered.await;
        let what = format!("{protocol:?}, asked: {asks}");
        assert_eq!(answer.as_ref().is_ok_and(|tag| *tag == b'R'), grown == encrypted, "{what}: {answer:?}");
        counted = counted.expect_grown(&mirror.admin, &what, &[("connections", 1), grown]).await;
    }
    // And where there is no TLS, the connection ends; nobody else notices.
    let mirror = worker.mirror("").await;
    let stream = TcpStream::connect(mirror.through).await.expect("a connection");
    assert!(papers.handshake(stream, Some(b"postgresql")).await.is_err());
    worker.psql(mirror.through, "sslmode=disable").await.expect("a session");
}

/// As libpq does that has Kerberos credentials.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_gssapi_may_ask_for_tls_and_the_other_way_about() {
    let (papers, worker) = set().await;
    for (document, asked) in
        [(papers.clients("mirror", ""), [GSSENC_REQUEST, SSL_REQUEST]), (String::new(), [SSL_REQUEST, GSSENC_REQUEST])]
    {
        let mirror = worker.mirror(&document).await;
        let mut stream = TcpStream::connect(mirror.through).await.expect("a connection");
        let mut answers = Vec::new();
        for packet in asked {
            stream.write_all(&request(packet)).await.expect("a request");
            answers.push(stream.read_u8().await.expect("an answer"));
        }
        if document.is_empty() {
            assert_eq!(answers, b"NN");
            Talk::login(stream, "bob").await;
        } else {
            assert_eq!(answers, b"NS");
            Talk::login(papers.handshake(stream, None).await.expect("TLS"), "bob").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_the_last_words_of_a_server_that_has_closed_the_connection() {
    let (papers, worker) = set().await;
    let both = format!("{}workerTls: {{ mode: require }}\n", papers.clients("mirror", ""));
    let mirror = worker.mirror(&both).await;
    let stream = TcpStream::connect(mirror.through).await.expect("a connection");
    let mut stream = papers.handshake(stream, Some(b"postgresql")).await.expect("TLS");
    stream.write_all(STARTUP).await.expect("a startup packet");
    let large = query(&format!("SELECT repeat('y', {LARGE_BYTES})"));
    let end = query("SELECT pg_terminate_backend(pg_backend_pid())");
    stream.write_all(&[large, end].concat()).await.expect("two requests");
    let client = worker.server.connect().await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'bob' AND wait_event = 'ClientWrite'";
    // Its server waits for it: all that lies between is full.
    wait_until("nobody reads", || async {
        client.query_one(sessions, &[]).await.expect("a count").get::<_, i64>(0) == 1
    })
    .await;
    let mut said = Vec::new();
    let mut buffer = vec![0; 1 << 14];
    // The connection may end without a goodbye of TLS; what came before counts.
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        said.extend_from_slice(buffer.split_at(read).0);
        // Slower than the mirror all along the last stretch, so that its last words find no room.
        if said.len() > LARGE_BYTES - SLOW_BYTES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(said.len() > LARGE_BYTES, "{} bytes came", said.len());
    let last = said.split_at(said.len().saturating_sub(400)).1;
    assert!(last.windows(5).any(|code| code == b"57P01"), "{}", String::from_utf8_lossy(last));
    drop(mirror);
}
