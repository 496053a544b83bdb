//! A worker that shows a certificate, mirrors in front of it with two arms, and libpq as their client.

use std::{fs, net::SocketAddr, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use understudy_crds::{condition::ArmState, status::ArmStatus};
use understudy_harness::{Cluster, server_account, wait_until};

use crate::{
    child::{Running, start},
    experiment::Desk,
    http,
    scenario::{SSL_REQUEST, request},
    turn::{Turn, take_turn},
    twins::contents,
};

const LIMIT: Duration = Duration::from_secs(60);
const ENCRYPTED: [&str; 4] = [
    "ALTER SYSTEM SET ssl_cert_file = 'worker.crt'",
    "ALTER SYSTEM SET ssl_key_file = 'worker.key'",
    "ALTER SYSTEM SET ssl = on",
    "SELECT pg_reload_conf()",
];

/// The worker.
#[derive(Debug)]
pub struct TlsWorker {
    /// The server.
    pub server: Cluster,
    /// `baseline` and `candidate`, which let everybody in.
    arms: [Cluster; 2],
    desk: Desk,
    _turn: Turn,
}

impl TlsWorker {
    /// Waits for its turn and starts a worker with this certificate and its key; it speaks plain text as well.
    pub async fn start(certificate: &str, key: &str, hba: &str, prepared: &str) -> Self {
        let turn = take_turn().await;
        let worker = Cluster::builder().hba(hba).setting("listen_addresses", "localhost").start();
        let (server, baseline, candidate) = tokio::join!(worker, Cluster::start(), Cluster::start());
        encrypt(&server, certificate, key).await;
        for server in [&server, &baseline, &candidate] {
            server.connect().await.batch_execute(prepared).await.expect("a prepared server");
        }
        Self { server, arms: [baseline, candidate], desk: Desk::new(), _turn: turn }
    }

    /// Holds clients that must show a certificate to this authority, and waits until it does.
    pub async fn trust(&self, authority: &str) {
        let path = self.server.data_dir().join("ca.crt");
        fs::copy(authority, &path).expect("a copy");
        server_account().take(&path).expect("the server's own");
        let client = self.server.connect().await;
        for statement in ["ALTER SYSTEM SET ssl_ca_file = 'ca.crt'", "SELECT pg_reload_conf()"] {
            client.batch_execute(statement).await.expect(statement);
        }
        wait_until("it has an authority", || async {
            let set = self.server.connect().await.query_one("SHOW ssl_ca_file", &[]).await.expect("a setting");
            set.get::<_, String>(0) == "ca.crt"
        })
        .await;
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.server.port()).into()
    }

    /// A mirror in front of it, with both arms; `more` goes into its configuration document.
    pub async fn mirror(&self, more: &str) -> TlsMirror {
        self.mirror_to("localhost", more).await
    }

    /// The same, without these arms: nothing is captured, unless `more` names others.
    pub async fn mirror_alone(&self, more: &str) -> TlsMirror {
        self.start_mirror("localhost", self.server.port(), more).await
    }

    /// The same, with a name for the worker's host.
    pub async fn mirror_to(&self, host: &str, more: &str) -> TlsMirror {
        self.mirror_at(host, self.server.port(), more).await
    }

    /// The same, with what stands before the worker.
    pub async fn mirror_at(&self, host: &str, port: u16, more: &str) -> TlsMirror {
        let [baseline, candidate] = &self.arms;
        let arm = |name: &str, arm: &Cluster| format!("- {{ name: {name}, address: \"127.0.0.1:{}\" }}\n", arm.port());
        let arms = format!("arms:\n{}{}", arm("baseline", baseline), arm("candidate", candidate));
        self.start_mirror(host, port, &format!("{more}{arms}")).await
    }

    async fn start_mirror(&self, host: &str, port: u16, more: &str) -> TlsMirror {
        let worker = format!("{host}:{port}");
        let document = format!("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworker: {worker}\n{more}");
        let config = self.desk.write("mirror.yaml", &document).to_string_lossy().into_owned();
        let mut running = start("understudy-mirror", ["--config", &config]);
        let (through, admin) = (running.mirror().await, running.admin().await);
        TlsMirror { running, through, admin, config }
    }

    /// Waits until both arms have played all that this mirror has captured, and alike, and holds their contents against the
    /// worker's.
    pub async fn expect_level(&self, mirror: &TlsMirror) {
        wait_until("the arms have played everything", || async {
            let settled = |arm: &ArmStatus| {
                let counts = &arm.exchanges;
                arm.lag.exchanges == 0 && counts.played + counts.skipped.values().sum::<i64>() == counts.captured
            };
            mirror.arms().await.iter().all(|arm| arm.state != ArmState::Live || settled(arm))
        })
        .await;
        for arm in mirror.arms().await {
            assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{arm:#?}");
            assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
        }
        let wanted = contents(&self.server.connect().await, &[]).await;
        for arm in &self.arms {
            // What is committed last may not have been captured when the arms were looked at.
            wait_until("the arm holds what the worker does", || async {
                contents(&arm.connect().await, &[]).await == wanted
            })
            .await;
        }
    }

    /// Whether psql's connection to its server is encrypted, or what it says. It is `ann` unless told otherwise.
    pub async fn psql(&self, at: SocketAddr, how: &str) -> Result<String, String> {
        self.psql_of("localhost", at, how).await
    }

    /// The same, of a server that is known by this name.
    pub async fn psql_of(&self, host: &str, at: SocketAddr, how: &str) -> Result<String, String> {
        let who = "dbname=postgres user=ann password=secret";
        let dsn = format!("host={host} hostaddr={} port={} {who} {how}", at.ip(), at.port());
        let psql = Command::new(self.server.server().spec().binaries.program("psql"))
            .args(["-X", "-w", "-At", "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &dsn])
            .env("PGPASSFILE", "/dev/null")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let done = timeout(LIMIT, psql).await.expect("an answer in time").expect("psql");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }
}

/// A mirror in front of it.
#[derive(Debug)]
pub struct TlsMirror {
    /// Its process.
    pub running: Running,
    /// Where it listens.
    pub through: SocketAddr,
    /// Its admin HTTP.
    pub admin: String,
    config: String,
}

impl TlsMirror {
    /// What it says of its arms.
    pub async fn arms(&self) -> Vec<ArmStatus> {
        http::status(&self.admin).await.unwrap_or_else(|e| panic!("{e}\n{}", self.running.transcript())).arms
    }

    /// A number of its metrics, over all labels that it has.
    pub async fn metric(&self, name: &str) -> i64 {
        let text = http::get(&self.admin, "/metrics").await.expect("metrics");
        let value = |line: &str| -> Option<i64> {
            let (labels, value) = line.strip_prefix("understudy_")?.strip_prefix(name)?.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse().ok())?
        };
        let values: Vec<i64> = text.lines().filter_map(value).collect();
        assert!(!values.is_empty(), "no {name} in\n{text}");
        values.iter().sum()
    }

    /// The most memory that its process has taken, MiB.
    pub fn most_mib(&self) -> u64 {
        let is_ours = |process: &fs::DirEntry| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.windows(self.config.len()).any(|part| part == self.config.as_bytes())
        };
        let process = fs::read_dir("/proc").expect("/proc").flatten().find(is_ours).expect("the mirror's process");
        let text = fs::read_to_string(process.path().join("status")).expect("its status");
        let most = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        most.map(|kib: u64| kib >> 10).expect("a number of kB")
    }
}

/// Has a server show this certificate, with its key, to whoever asks for TLS.
pub async fn encrypt(server: &Cluster, certificate: &str, key: &str) {
    for (from, name) in [(certificate, "worker.crt"), (key, "worker.key")] {
        let path = server.data_dir().join(name);
        fs::copy(from, &path).expect("a copy");
        server_account().take(&path).expect("the server's own");
    }
    let client = server.connect().await;
    for statement in ENCRYPTED {
        client.batch_execute(statement).await.expect(statement);
    }
    let address = ([127, 0, 0, 1], server.port()).into();
    wait_until("it speaks TLS", || async { answer(address).await.1 == b'S' }).await;
}

/// A connection on which TLS was asked for and agreed to.
pub async fn agreed(address: SocketAddr) -> TcpStream {
    let (stream, said) = answer(address).await;
    assert_eq!(char::from(said), 'S', "{address}");
    stream
}

async fn answer(address: SocketAddr) -> (TcpStream, u8) {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&request(SSL_REQUEST)).await?;
        let said = stream.read_u8().await?;
        std::io::Result::Ok((stream, said))
    };
    timeout(LIMIT, asked).await.expect("in time").expect("an answer")
}
