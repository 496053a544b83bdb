//! The traffic log on disk: an arm that hangs for longer than the memory lasts plays everything when it is back;
//! a log that is full costs the arm that is behind and nobody else; what a killed mirror leaves can be read.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use understudy_crds::condition::ArmState;
use understudy_e2e::{
    application::{Application, Served, connect, create_tables, ledger},
    child::{Running, start},
    http,
    tables::digests,
    turn::take_turn,
};
use understudy_harness::{Cluster, Paused, wait_until, wait_until_within};
use understudy_mirror::shadow::log::{disk::segments, record::Record, segment};

const SESSIONS: usize = 8;
/// Each session sends a statement so often: the log's memory does not last for a second of it.
const PERIOD: Duration = Duration::from_millis(4);
const MEMORY: &str = "4Mi";
const TABLES: [(&str, &str); 2] = [("orders", "t::text"), ("ledger", "t::text")];

/// A worker, two arms that are as it is, and a mirror with a log on disk.
struct Stage {
    worker: Cluster,
    baseline: Cluster,
    candidate: Cluster,
    mirror: Running,
    through: SocketAddr,
    _files: tempfile::TempDir,
    log: PathBuf,
    config: PathBuf,
}

impl Stage {
    async fn set(size: &str) -> Self {
        let server = || Cluster::builder().start();
        let (worker, baseline, candidate) = tokio::join!(server(), server(), server());
        let files = tempfile::tempdir().expect("a directory");
        let (log, config) = (files.path().join("log"), files.path().join("config.yaml"));
        let address = |cluster: &Cluster| format!("127.0.0.1:{}", cluster.port());
        let document = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworker: {}\nmemory: {MEMORY}\n\
             disk: {{ directory: {}, size: {size}, keepFreePercent: 0 }}\n\
             arms: [{{ name: baseline, address: \"{}\" }}, {{ name: candidate, address: \"{}\" }}]\n",
            address(&worker),
            log.display(),
            address(&baseline),
            address(&candidate),
        );
        fs::write(&config, document).expect("a configuration");
        let mut mirror = start("understudy-mirror", [Path::new("--config"), &config]);
        let through = mirror.mirror().await;
        let client = connect(through).await.expect("a session");
        create_tables(&client).await;
        // The arm that is well has to keep up.
        client.batch_execute("CREATE INDEX ON orders (customer)").await.expect("an index");
        let mut stage = Self { worker, baseline, candidate, mirror, through, _files: files, log, config };
        stage.level("the tables are made").await;
        stage
    }

    async fn disk_bytes(&mut self) -> u64 {
        let admin = self.mirror.admin().await;
        let metrics = http::get(&admin, "/metrics").await.expect("metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix("understudy_log_disk_bytes "));
        value.and_then(|value| value.parse().ok()).expect("the bytes on disk")
    }

    async fn disk_bytes_reach(&mut self, bytes: u64) {
        for _ in 0..300 {
            if self.disk_bytes().await >= bytes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no {bytes} bytes on disk\n{}", self.mirror.transcript());
    }

    /// Waits until all that was captured has been played on the arms that are not lost.
    async fn level(&mut self, what: &str) {
        self.mirror
            .status_until(what, Duration::from_secs(60), |status| {
                let lost = |arm: &ArmState| *arm == ArmState::Lost;
                status.arms.iter().all(|arm| {
                    lost(&arm.state)
                        || (arm.state == ArmState::Live && arm.lag.exchanges == 0 && arm.exchanges.captured > 0)
                })
            })
            .await;
    }
}

fn expect_unfelt(served: &Served) {
    assert_eq!(served.errors, Vec::<String>::new());
    assert!(served.reads > 100 && served.writes > 30, "{served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_that_hung_for_longer_than_the_memory_lasts_plays_everything_from_disk() {
    let _turn = take_turn().await;
    let mut stage = Stage::set("256Mi").await;
    let paused = Paused::all_of(&stage.candidate);
    let application = Application::start(stage.through, SESSIONS, PERIOD).await;
    stage.disk_bytes_reach(512 << 10).await;
    assert!(!segments(&stage.log).expect("the directory").is_empty());
    drop(paused);
    // It catches up while there is more to do, and the rest when there is not.
    let served = application.stop().await;
    expect_unfelt(&served);
    stage.level("the arm that hung has played everything").await;
    let admin = stage.mirror.admin().await;
    let status = http::status(&admin).await.expect("a status");
    for arm in &status.arms {
        assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{arm:#?}\n{}", stage.mirror.transcript());
    }
    let expected = digests(&stage.worker.connect().await, &TABLES).await;
    assert_eq!(ledger(&stage.worker.connect().await).await, served.writes);
    for arm in [&stage.baseline, &stage.candidate] {
        assert_eq!(digests(&arm.connect().await, &TABLES).await, expected);
    }
    let log = stage.log.clone();
    wait_until("nothing is left on disk", || {
        let left = segments(&log).expect("the directory").len();
        async move { left == 0 }
    })
    .await;
    assert_eq!(stage.disk_bytes().await, 0);
    println!("{} reads and {} writes went on while an arm hung", served.reads, served.writes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_costs_the_arm_that_is_behind_and_nobody_else() {
    let _turn = take_turn().await;
    let mut stage = Stage::set("2Mi").await;
    let paused = Paused::all_of(&stage.candidate);
    let application = Application::start(stage.through, SESSIONS, PERIOD).await;
    let status = stage
        .mirror
        .status_until("the arm that hangs is lost", Duration::from_secs(60), |status| {
            status.arms.iter().any(|arm| arm.state == ArmState::Lost)
        })
        .await;
    let lost: Vec<_> = status.arms.iter().filter(|arm| arm.state == ArmState::Lost).collect();
    let [arm] = lost.as_slice() else { panic!("{lost:#?}") };
    let why = arm.message.clone().unwrap_or_default();
    assert_eq!(arm.name, "candidate");
    assert_eq!(
        why,
        "fell off the traffic log: it was behind by more than 4 MiB in memory, and the traffic log has the 2048 KiB of \
         disk that it may have"
    );
    let served = application.stop().await;
    drop(paused);
    expect_unfelt(&served);
    stage.level("the other arm has played everything").await;
    let expected = digests(&stage.worker.connect().await, &TABLES).await;
    assert_eq!(digests(&stage.baseline.connect().await, &TABLES).await, expected);
    assert_eq!(stage.disk_bytes().await, 0, "nobody needs what the lost arm did not read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_mirror_leaves_on_disk_can_be_read_and_goes_with_the_next_start() {
    let _turn = take_turn().await;
    let mut stage = Stage::set("256Mi").await;
    let paused = Paused::all_of(&stage.candidate);
    let application = Application::start(stage.through, SESSIONS, PERIOD).await;
    stage.disk_bytes_reach(256 << 10).await;
    stage.mirror.signal(Signal::KILL);
    // Until it has ended, the directory is its own.
    stage.mirror.ended_within(Duration::from_secs(20)).await;
    application.stop().await;
    let left = segments(&stage.log).expect("the directory");
    assert!(!left.is_empty());
    let (mut next, mut begun) = (None, 0);
    for path in &left {
        for frame in segment::frames(File::open(path).expect("a segment")).expect("a segment") {
            assert!(next.is_none_or(|next| next == frame.first), "no gap");
            next = Some(frame.first + u64::from(frame.events));
            let mut rest = frame.payload.as_slice();
            for _ in 0..frame.events {
                let (record, behind) = Record::read(rest).expect("a record");
                begun += u64::from(matches!(record, Record::Begun(_)));
                rest = behind;
            }
            assert!(rest.is_empty());
        }
    }
    assert!(begun > 100, "{begun} exchanges");
    println!("{begun} exchanges in {} segments were left", left.len());
    drop(paused);
    let mut again = start("understudy-mirror", [Path::new("--config"), &stage.config]);
    again.mirror().await;
    let log = stage.log.clone();
    wait_until_within(Duration::from_secs(5), "what was left is gone", || {
        let left = segments(&log).expect("the directory").len();
        async move { left == 0 }
    })
    .await;
    again.signal(Signal::TERM);
    again.ended_within(Duration::from_secs(20)).await.expect_code(0);
}
