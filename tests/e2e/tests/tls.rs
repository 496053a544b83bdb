//! TLS at both sides of the mirror, with libpq as the client: who is let in, over what, and with which
//! channel binding; certificates that are renewed; clients that speak TLS without asking.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Stdio, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::TlsConnector;
use understudy_e2e::{
    child::{Running, start},
    turn::{Turn, take_turn},
    wire::query,
};
use understudy_harness::{Cluster, server_account, wait_until};

/// One authority, and three certificates of it for `localhost`.
struct Papers {
    directory: TempDir,
}

impl Papers {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory for certificates");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("an authority");
        fs::write(directory.path().join("ca.crt"), ca.pem()).expect("its certificate");
        let issuer = Issuer::new(params, key);
        let papers = Self { directory };
        for name in ["worker", "mirror", "renewed", "ann"] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            fs::write(papers.path(&format!("{name}.crt")), certificate.pem()).expect("a certificate");
            fs::write(papers.path(&format!("{name}.key")), key.serialize_pem()).expect("a key");
            fs::set_permissions(papers.path(&format!("{name}.key")), fs::Permissions::from_mode(0o600)).expect("mode");
        }
        papers
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// TLS for clients, as the configuration document has it.
    fn clients(&self, certificate: &str, more: &str) -> String {
        let (certificate, key) = (self.path(&format!("{certificate}.crt")), self.path(&format!("{certificate}.key")));
        format!("clientTls: {{ certificate: {certificate}, key: {key}{more} }}\n")
    }
}

struct Stage {
    worker: Cluster,
    papers: Papers,
    _turn: Turn,
}

impl Stage {
    /// A worker that takes SCRAM over TLS and without, and shows its certificate.
    async fn set() -> Self {
        let turn = take_turn().await;
        let worker = Cluster::builder()
            .hba("local all all trust\nhost all bob 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
            .setting("listen_addresses", "localhost")
            .start()
            .await;
        let papers = Papers::new();
        for name in ["worker.crt", "worker.key"] {
            let path = worker.data_dir().join(name);
            fs::copy(papers.path(name), &path).expect("a copy");
            server_account().take(&path).expect("the server's own");
        }
        let client = worker.connect().await;
        let statements = [
            "ALTER SYSTEM SET ssl_cert_file = 'worker.crt'",
            "ALTER SYSTEM SET ssl_key_file = 'worker.key'",
            "ALTER SYSTEM SET ssl = on",
            "SELECT pg_reload_conf()",
            "CREATE ROLE ann LOGIN PASSWORD 'secret'",
            "CREATE ROLE bob LOGIN",
        ];
        for statement in statements {
            client.batch_execute(statement).await.expect(statement);
        }
        let stage = Self { worker, papers, _turn: turn };
        let port = stage.worker.port();
        wait_until("the worker speaks TLS", || async { stage.psql(port, "sslmode=require").await.is_ok() }).await;
        stage
    }

    /// A mirror in front of it; `tls` goes into its configuration document.
    async fn mirror(&self, tls: &str) -> (Running, SocketAddr) {
        let file = self.papers.path("mirror.yaml");
        fs::write(&file, format!("listen: 127.0.0.1:0\nworker: localhost:{}\n{tls}", self.worker.port()))
            .expect("a document");
        let mut mirror = start("understudy-mirror", ["--config", &file]);
        let address = mirror.mirror().await;
        (mirror, address)
    }

    /// What psql gets, or says.
    async fn psql(&self, port: u16, how: &str) -> Result<String, String> {
        let dsn = format!("host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres user=ann {how}");
        let done = Command::new(self.worker.server().spec().binaries.program("psql"))
            .args(["-X", "-At", "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &dsn])
            .env("PGPASSWORD", "secret")
            .stdin(Stdio::null())
            .output()
            .await
            .expect("psql");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }
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
    let stage = Stage::set().await;
    let encrypted = "workerTls: { mode: require }\n";
    let (own, same) = (stage.papers.clients("mirror", ""), stage.papers.clients("worker", ""));
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
    for (what, document, sslmode, expected) in cases {
        let (mirror, address) = stage.mirror(&document).await;
        for (binding, expected) in ["disable", "prefer", "require"].into_iter().zip(expected) {
            let got = stage.psql(address.port(), &format!("sslmode={sslmode} channel_binding={binding}")).await;
            let as_expected = match (&got, expected) {
                (Ok(got), Ok(expected)) => got == expected,
                (Err(got), Err(expected)) => got.contains(expected),
                _ => false,
            };
            assert!(as_expected, "TLS: {what}; sslmode={sslmode} channel_binding={binding}: {got:?}, not {expected:?}");
        }
        drop(mirror);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_held_to_what_is_asked_of_them() {
    let stage = Stage::set().await;
    let papers = &stage.papers;
    let shows = format!("sslcert={} sslkey={}", papers.path("ann.crt"), papers.path("ann.key"));
    let authorities = format!(", authorities: {}", papers.path("ca.crt"));
    let cases = [
        (", required: true", "sslmode=disable", Err("clients have to use TLS here")),
        (", required: true", "sslmode=require", Ok(())),
        (", minimum: \"1.3\"", "sslmode=require ssl_max_protocol_version=TLSv1.2", Err("protocol version")),
        (", minimum: \"1.3\"", "sslmode=require", Ok(())),
        ("", "sslmode=require ssl_max_protocol_version=TLSv1.2", Ok(())),
        (
            &format!("{authorities}, certificateRequired: true"),
            "sslmode=require sslcert=none",
            Err("certificate required"),
        ),
        (&format!("{authorities}, certificateRequired: true"), &format!("sslmode=require {shows}"), Ok(())),
        (&authorities, "sslmode=require sslcert=none", Ok(())),
        ("", &format!("sslmode=verify-full sslrootcert={}", papers.path("ca.crt")), Ok(())),
    ];
    for (more, how, expected) in cases {
        let (mirror, address) = stage.mirror(&papers.clients("mirror", more)).await;
        let got = stage.psql(address.port(), how).await;
        let as_expected = match (&got, expected) {
            (Ok(_), Ok(())) => true,
            (Err(got), Err(expected)) => got.contains(expected),
            _ => false,
        };
        assert!(as_expected, "clientTls{more}; {how}: {got:?}, not {expected:?}");
        drop(mirror);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_is_held_to_its_mode() {
    let stage = Stage::set().await;
    let ca = stage.papers.path("ca.crt");
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
        let port = stage.worker.port();
        let document = format!("workerTls: {{ mode: {mode} }}\n");
        let file = stage.papers.path("named.yaml");
        fs::write(&file, format!("listen: 127.0.0.1:0\nworker: {host}:{port}\n{document}")).expect("a document");
        let mut mirror = start("understudy-mirror", ["--config", &file]);
        let address = mirror.mirror().await;
        let got = stage.psql(address.port(), "sslmode=disable").await;
        let as_expected = match (&got, expected) {
            (Ok(got), Ok(expected)) => got == expected,
            (Err(got), Err(expected)) => got.contains(expected),
            _ => false,
        };
        assert!(as_expected, "{mode} of {host}: {got:?}, not {expected:?}");
    }
    // A worker without TLS: the modes that insist do not go on in plain text.
    stage.worker.connect().await.batch_execute("ALTER SYSTEM SET ssl = off").await.expect("a setting");
    stage.worker.connect().await.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    let port = stage.worker.port();
    wait_until("it speaks none", || async { stage.psql(port, "sslmode=require").await.is_err() }).await;
    for (mode, expected) in [("prefer", true), ("require", false)] {
        let (_mirror, address) = stage.mirror(&format!("workerTls: {{ mode: {mode} }}\n")).await;
        let got = stage.psql(address.port(), "sslmode=disable").await;
        assert_eq!(got.is_ok(), expected, "{mode}: {got:?}");
    }
}

/// A TLS client of our own: it sees the certificate, and need not ask before it begins.
async fn handshake(papers: &Papers, stream: TcpStream, protocol: Option<&[u8]>) -> std::io::Result<Encrypted> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(papers.path("ca.crt")).expect("an authority");
    roots.add(ca).expect("an authority");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocol.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").expect("a name"), stream).await
}

type Encrypted = tokio_rustls::client::TlsStream<TcpStream>;

const STARTUP: &[u8] = b"\0\0\0\x24\0\x03\0\0user\0bob\0database\0postgres\0\0";
const LARGE_BYTES: usize = 64 << 20;
/// More than the sockets between hold.
const SLOW_BYTES: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_speak_tls_without_asking_when_it_names_the_protocol() {
    let stage = Stage::set().await;
    let (_mirror, address) = stage.mirror(&stage.papers.clients("mirror", "")).await;
    for (protocol, expected) in [(Some(&b"postgresql"[..]), true), (None, false), (Some(b"http/1.1"), false)] {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let answered = async {
            let mut stream = handshake(&stage.papers, stream, protocol).await?;
            stream.write_all(STARTUP).await?;
            stream.read_u8().await
        };
        let answer = answered.await;
        assert_eq!(answer.as_ref().is_ok_and(|tag| *tag == b'R'), expected, "{protocol:?}: {answer:?}");
    }
    // And where there is no TLS, the connection ends; nobody else notices.
    let (_plain, address) = stage.mirror("").await;
    let stream = TcpStream::connect(address).await.expect("a connection");
    assert!(handshake(&stage.papers, stream, Some(b"postgresql")).await.is_err());
    stage.psql(address.port(), "sslmode=disable").await.expect("a session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_to_new_clients_and_a_broken_one_to_nobody() {
    let stage = Stage::set().await;
    let papers = &stage.papers;
    let (mirror, address) = stage.mirror(&papers.clients("mirror", "")).await;
    let shown = || async {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let stream = handshake(papers, stream, Some(b"postgresql")).await.expect("TLS");
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned()).expect("a certificate")
    };
    let of = |name: &str| CertificateDer::from_pem_file(papers.path(name)).expect("a certificate");
    let first = of("mirror.crt");
    assert_eq!(shown().await, first);
    // The certificate comes before its key: for a moment they do not fit, and the old ones are shown.
    replace(&papers.path("renewed.crt"), &papers.path("mirror.crt"));
    wait_until("it is noticed", || async { mirror.transcript().contains("clients are shown the old one") }).await;
    assert_eq!(shown().await, first, "a certificate without its key");
    replace(&papers.path("renewed.key"), &papers.path("mirror.key"));
    wait_until("the new one is shown", || async { shown().await == of("renewed.crt") }).await;
    stage.psql(address.port(), "sslmode=require").await.expect("a session");
}

fn replace(from: &str, to: &str) {
    let beside = format!("{to}.new");
    fs::copy(from, &beside).expect("a copy");
    fs::rename(beside, Path::new(to)).expect("in its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_the_last_words_of_a_server_that_has_closed_the_connection() {
    let stage = Stage::set().await;
    let both = format!("{}workerTls: {{ mode: require }}\n", stage.papers.clients("mirror", ""));
    let (mirror, address) = stage.mirror(&both).await;
    let stream = TcpStream::connect(address).await.expect("a connection");
    let mut stream = handshake(&stage.papers, stream, Some(b"postgresql")).await.expect("TLS");
    stream.write_all(STARTUP).await.expect("a startup packet");
    let large = query(&format!("SELECT repeat('y', {LARGE_BYTES})"));
    let end = query("SELECT pg_terminate_backend(pg_backend_pid())");
    stream.write_all(&[large, end].concat()).await.expect("two requests");
    let client = stage.worker.connect().await;
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
