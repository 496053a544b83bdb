//! One server of a test: its own data, its own socket, its own port.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "a test that can't have its server has failed")]

use std::{
    fmt::Write as _,
    fs,
    future::Future,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};
use understudy_operator::{
    error::Side,
    platform::local::{
        account::Account,
        binaries::Binaries,
        initdb::{SUPERUSER, make_cluster},
        place::private_directory,
        server::{START_LIMIT, Server, ServerSpec},
    },
};

/// Settings that make a test server quick; nothing in a test survives a power cut anyway.
const QUICK: [(&str, &str); 8] = [
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "16MB"),
    ("max_wal_size", "256MB"),
    ("min_wal_size", "32MB"),
    ("autovacuum", "off"),
    ("listen_addresses", "127.0.0.1"),
    ("log_min_messages", "warning"),
];

/// A running server with an empty database `postgres`. Dropping it stops it and removes its files.
#[derive(Debug)]
pub struct Cluster {
    // Order matters: the server stops before its directory goes.
    server: Server,
    directory: TempDir,
}

/// How a server is set up before it starts.
#[derive(Debug, Default)]
pub struct ClusterBuilder {
    settings: Vec<(String, String)>,
    hba: Option<String>,
}

impl ClusterBuilder {
    /// Adds a setting; the last one of a name wins.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces `pg_hba.conf`. Without it everybody is trusted, replication included.
    #[must_use]
    pub fn hba(mut self, lines: &str) -> Self {
        self.hba = Some(lines.to_owned());
        self
    }

    /// Starts the server.
    pub async fn start(self) -> Cluster {
        let account = server_account();
        let binaries = Binaries::newest(&account).await.expect("PostgreSQL server binaries");
        let directory = tempfile::Builder::new()
            .prefix("understudy-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .expect("a directory for the server");
        let own = directory.path().join("server");
        private_directory(&own, &account).expect("a private directory");
        let (data_dir, socket_dir) = (own.join("data"), own.clone());
        make_cluster(&binaries, &account, &templates(&account), &data_dir).await.expect("a new cluster");

        let mut conf = String::new();
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in QUICK.into_iter().chain(given) {
            writeln!(conf, "{name} = '{}'", value.replace('\'', "''")).expect("text");
        }
        fs::write(data_dir.join("postgresql.conf"), conf).expect("postgresql.conf");
        let trust = "local all all trust\nhost all all 127.0.0.1/32 trust\n\
                     local replication all trust\nhost replication all 127.0.0.1/32 trust\n";
        fs::write(data_dir.join("pg_hba.conf"), self.hba.as_deref().unwrap_or(trust)).expect("pg_hba.conf");

        let mut last = None;
        for _ in 0..5 {
            let spec = ServerSpec {
                name: "test".into(),
                side: Side::Worker,
                binaries: binaries.clone(),
                account: account.clone(),
                data_dir: data_dir.clone(),
                socket_dir: socket_dir.clone(),
                port: free_port(),
                log_file: own.join("log"),
                settings: Vec::new(),
            };
            match Server::start(spec, START_LIMIT).await {
                Ok(server) => return Cluster { server, directory },
                // Somebody may have taken the port since we looked.
                Err(error) => last = Some(error),
            }
        }
        let log = fs::read_to_string(own.join("log")).unwrap_or_default();
        eprintln!("{log}");
        panic!("the test server does not start: {last:?}")
    }
}

impl Cluster {
    /// A server with default settings.
    pub async fn start() -> Self {
        ClusterBuilder::default().start().await
    }

    /// A server with settings or access rules of its own.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// A new connection to the database `postgres`, as superuser, through the socket.
    pub async fn connect(&self) -> Client {
        self.connect_to("postgres").await
    }

    /// A new connection to a database, as superuser, through the socket.
    pub async fn connect_to(&self, database: &str) -> Client {
        let config = self.server.config(SUPERUSER, database);
        let (client, connection) = config.connect(NoTls).await.expect("a connection to the test server");
        tokio::spawn(async move {
            // A test may stop its server on purpose; the client's next call fails then.
            let _ = connection.await;
        });
        client
    }

    /// How to reach it through TCP, for `libpq` and its kin.
    pub fn dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user={SUPERUSER} dbname=postgres", self.port())
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.spec().port
    }

    /// The directory of its socket.
    pub fn socket_dir(&self) -> &Path {
        &self.server.spec().socket_dir
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.server.spec().data_dir
    }

    /// A directory that goes with the server; other accounts may enter it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The server itself.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The server itself, to stop, restart or kill it.
    pub fn server_mut(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.server.spec().log_file).unwrap_or_default()
    }
}

/// The account that servers run under.
pub fn server_account() -> Account {
    Account::detect().expect("an account for the server")
}

/// Waits until a condition holds; panics with `what` when that takes longer than a minute.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    wait_until_within(Duration::from_secs(60), what, condition).await;
}

/// Waits until a condition holds; panics with `what` when that takes longer than `limit`. For what takes
/// long by its nature, such as an interval that has to be honest.
pub async fn wait_until_within<F: Future<Output = bool>>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let end = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < end, "waited {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// Where empty clusters are kept for copying: in the build directory, or below `/var/tmp` when the
/// server's account can't enter that.
fn templates(account: &Account) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let base = if account.blocked_at(&fs::canonicalize(&target).unwrap_or_default()).is_none() && target.is_dir() {
        target
    } else {
        PathBuf::from("/var/tmp")
    };
    let directory = base.join("understudy-test-clusters");
    private_directory(&directory, account).expect("a directory for templates");
    fs::canonicalize(directory).expect("its path")
}
