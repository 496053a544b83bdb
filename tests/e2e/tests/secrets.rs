//! What clients send stays with those whom it is for: nothing of it stands in what the mirror says, at `debug` too,
//! in its metrics or in its status. The traffic log on disk holds what arms have to play, and no password.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, net::SocketAddr, path::Path, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::SinkExt as _;
use rustix::process::Signal;
use tokio::time::{Instant, interval};
use tokio_postgres::{Client, Config, NoTls};
use understudy_crds::condition::ArmState;
use understudy_e2e::{
    child::{Running, start_in},
    http,
    raw::{Raw, startup},
    turn::take_turn,
    wire::message,
};
use understudy_harness::{Cluster, Paused};
use understudy_mirror::shadow::log::disk::segments;

const LIMIT: Duration = Duration::from_secs(60);
/// How often a statement fills the log: the disk and the arm that is well have to keep up.
const PERIOD: Duration = Duration::from_millis(4);
/// Stands in everything that a client sends here and that is nobody else's business.
const MARK: &str = "tattletale";
const PASSWORD: &str = "tattletale-password";
const HBA: &str = "local all all trust\nhost all plain 127.0.0.1/32 password\nhost all all 127.0.0.1/32 trust\n";
/// The role is there on the arms too, which ask for nothing.
const TABLES: &str = "CREATE TABLE noted (t text); CREATE ROLE plain LOGIN PASSWORD 'tattletale-password';
                      GRANT ALL ON noted TO PUBLIC";
/// What the traffic log has to hold: of each way to send something, one mark of its own.
const KEPT: [&str; 4] = ["tattletale-literal", "tattletale-parameter", "tattletale-copied", "tattletale-application"];

struct Stage {
    worker: Cluster,
    arms: [Cluster; 2],
    mirror: Running,
    through: SocketAddr,
    admin: String,
    files: tempfile::TempDir,
}

impl Stage {
    /// A worker, two arms that are as it is, and a mirror with a log on disk that says all that it can but `trace`.
    async fn set() -> Self {
        let (worker, baseline, candidate) =
            tokio::join!(Cluster::builder().hba(HBA).start(), Cluster::start(), Cluster::start());
        for server in [&worker, &baseline, &candidate] {
            server.connect().await.batch_execute(TABLES).await.expect("tables");
        }
        let files = tempfile::tempdir().expect("a directory");
        let config = files.path().join("config.yaml");
        let address = |cluster: &Cluster| format!("127.0.0.1:{}", cluster.port());
        let document = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworker: {}\nmemory: 16Mi\n\
             disk: {{ directory: {}, size: 256Mi, keepFreePercent: 0 }}\n\
             arms: [{{ name: baseline, address: \"{}\" }}, {{ name: candidate, address: \"{}\" }}]\n",
            address(&worker),
            files.path().join("log").display(),
            address(&baseline),
            address(&candidate),
        );
        fs::write(&config, document).expect("a configuration");
        let mut mirror = start_in("understudy-mirror", [Path::new("--config"), &config], &[("RUST_LOG", "debug")]);
        let (through, admin) = (mirror.mirror().await, mirror.admin().await);
        Self { worker, arms: [baseline, candidate], mirror, through, admin, files }
    }

    async fn login(&self, password: &str) -> Result<Client, tokio_postgres::Error> {
        self.login_as("plain", password).await
    }

    async fn login_as(&self, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.through.port()).user(user).dbname("postgres");
        let config = config.password(password).application_name("tattletale-application");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Nothing that carries the mark stands in anything that the mirror says, until its end.
    async fn expect_silence(self) {
        let mut said = String::new();
        for path in ["/metrics", "/v1/status", "/readyz"] {
            said.push_str(&http::get(&self.admin, path).await.expect("the admin HTTP"));
        }
        self.mirror.signal(Signal::TERM);
        let ended = self.mirror.ended_within(Duration::from_secs(20)).await;
        ended.expect_code(0);
        assert!(ended.stderr.contains("DEBUG"), "it says all that it can: {}", ended.stderr);
        said.push_str(&ended.transcript());
        let told: Vec<_> = said.lines().filter(|line| line.to_lowercase().contains(MARK)).collect();
        assert!(told.is_empty(), "{}", told.join("\n"));
    }

    /// All that lies in the log's segments.
    fn on_disk(&self) -> String {
        let paths = segments(&self.files.path().join("log")).expect("the log's directory");
        let bytes: Vec<u8> = paths.iter().flat_map(|path| fs::read(path).expect("a segment")).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes until what lies in the log's segments is as wanted.
    async fn fill(&self, client: &Client, wanted: impl Fn(&str) -> bool) {
        let filler = "x".repeat(16 << 10);
        let (end, mut beat) = (Instant::now() + LIMIT, interval(PERIOD));
        while !wanted(&self.on_disk()) {
            assert!(Instant::now() < end, "it does not go to disk\n{}", self.mirror.transcript());
            beat.tick().await;
            client.execute("INSERT INTO noted VALUES ($1)", &[&filler]).await.expect("a write");
        }
    }
}

/// A session in which something is sent in every way there is.
async fn send_marks(client: &Client) {
    client.batch_execute("INSERT INTO noted VALUES ('tattletale-literal')").await.expect("a literal");
    client.execute("INSERT INTO noted VALUES ($1)", &[&"tattletale-parameter"]).await.expect("a parameter");
    let mut copy = pin!(client.copy_in::<_, Bytes>("COPY noted FROM STDIN").await.expect("COPY"));
    copy.send(Bytes::from_static(b"tattletale-copied\n")).await.expect("its data");
    copy.close().await.expect("its end");
    client.batch_execute("SELECT tattletale FROM noted").await.expect_err("no such column");
    client.batch_execute("SELECT 'tattletale'::int").await.expect_err("no number");
    client.batch_execute("tattletale").await.expect_err("no SQL");
    client.batch_execute("SET application_name = 'tattletale-again'").await.expect("a setting");
    client.batch_execute("ALTER ROLE plain PASSWORD 'tattletale-password'").await.expect("its own password");
    client.batch_execute("ALTER ROLE postgres PASSWORD 'tattletale-theirs'").await.expect_err("not its to change");
    client.query("SELECT t FROM noted WHERE t = 'tattletale-literal'", &[]).await.expect("rows");
}

/// A first packet of this protocol.
fn packet(protocol: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + rest.len()).expect("short");
    [length.to_be_bytes().as_slice(), &protocol, rest].concat()
}

/// Connections that come to nothing.
async fn send_garbage(at: SocketAddr) {
    let first_packets = [
        MARK.as_bytes().to_vec(),
        packet(*b"tatt", b"letale"),
        packet([0, 2, 0, 0], b"tattletale\0"),
        packet([0, 3, 0, 0], b"user\0tattletale"),
        packet([0, 3, 0, 0], b"user\0plain\0database\0postgres\0tattletale\0tattletale\0\0"),
        startup(MARK),
        [&[0x16, 3, 1, 2, 0], MARK.as_bytes()].concat(),
    ];
    for packet in first_packets {
        let mut client = Raw::connect(at).await;
        client.send(&packet).await;
        client.send_no_more().await;
        client.rest().await;
    }
    let no_messages = [
        [b"Q\x7f\xff\xff\xff".as_slice(), MARK.as_bytes()].concat(),
        message(b'p', b"tattletale\0"),
        message(b'!', MARK.as_bytes()),
    ];
    for words in no_messages {
        let mut client = Raw::login(at).await;
        client.send(&words).await;
        client.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_client_sent_is_said_and_no_password_is_kept() {
    let _turn = take_turn().await;
    let mut stage = Stage::set().await;
    let paused = Paused::all_of(&stage.arms[1]);
    let before = stage.login(PASSWORD).await.expect("a session");
    // The arm that hangs takes in no more: all that comes now has to lie in the log until it is back.
    stage.fill(&before, |on_disk| !on_disk.is_empty()).await;
    let client = stage.login(PASSWORD).await.expect("a session");
    stage.login("tattletale-wrong").await.expect_err("a wrong password");
    send_marks(&client).await;
    send_garbage(stage.through).await;
    stage.fill(&before, |on_disk| KEPT.iter().all(|mark| on_disk.contains(mark))).await;
    let on_disk = stage.on_disk();
    // What stands in a statement has to be played; a login is no statement.
    let logged_in = on_disk.replace("ALTER ROLE plain PASSWORD 'tattletale-password'", "");
    for password in [PASSWORD, "tattletale-wrong"] {
        assert!(!logged_in.contains(password), "the traffic log holds the password of a login");
    }
    drop((paused, before, client));
    stage
        .mirror
        .status_until("both arms have played all of it", LIMIT, |status| {
            status.arms.iter().all(|arm| {
                arm.state == ArmState::Live
                    && arm.lag.exchanges == 0
                    && arm.exchanges.lost == 0
                    && arm.exchanges.played + arm.exchanges.skipped.values().sum::<i64>() == arm.exchanges.captured
            })
        })
        .await;
    stage.expect_silence().await;
}

/// What an arm does otherwise than production, and why one is lost, is told without a word of what they were given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_client_sent_is_said_of_arms_that_differ_or_are_lost() {
    const THEIRS: &str = "CREATE ROLE tattletale LOGIN";
    let _turn = take_turn().await;
    let mut stage = Stage::set().await;
    let [baseline, candidate] = &stage.arms;
    baseline.connect().await.batch_execute(&format!("DROP TABLE noted; {THEIRS}")).await.expect("another schema");
    candidate.connect().await.batch_execute("DROP TABLE noted").await.expect("another schema");
    stage.worker.connect().await.batch_execute(THEIRS).await.expect("a role");
    send_marks(&stage.login(PASSWORD).await.expect("a session")).await;
    stage
        .mirror
        .status_until("both arms differ", LIMIT, |status| {
            status.arms.iter().all(|arm| arm.divergence.values().sum::<i64>() > 3)
        })
        .await;
    let theirs = stage.login_as(MARK, "").await.expect("a session");
    theirs.batch_execute("SELECT 'tattletale-theirs'").await.expect("an answer");
    stage
        .mirror
        .status_until("what they ask is judged", LIMIT, |status| {
            status.arms.iter().all(|arm| match arm.name.as_str() {
                "candidate" => arm.state == ArmState::Lost || arm.exchanges.lost > 0,
                _ => arm.state == ArmState::Live && arm.lag.exchanges == 0,
            })
        })
        .await;
    drop(theirs);
    stage.expect_silence().await;
}
