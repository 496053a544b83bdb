//! A worker, two arms and the shipped `understudy-mirror` between them and the clients, and the looks at its
//! process from outside: memory, open files.

use std::{fs, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use rustix::{
    process::{Pid, Resource, Rlimit, Signal, prlimit},
    thread::{CpuSet, sched_setaffinity},
};
use tokio::time::{Instant, sleep};
use understudy_crds::{
    condition::ArmState,
    status::{ArmStatus, ShadowExperimentStatus},
};
use understudy_harness::{Cluster, ClusterBuilder};

use crate::{
    child::{Ended, Running, start},
    experiment::Desk,
    http,
    tables::{Rows, digests},
    turn::{Turn, take_turn},
};

/// How long an arm may take to be level with the worker.
const LEVEL_LIMIT: Duration = Duration::from_secs(60);
/// What opens the mirror's control verbs.
pub const TOKEN: &str = "open-sesame";

/// The servers of a test.
#[derive(Debug)]
pub struct Servers {
    /// Production.
    pub worker: Cluster,
    /// `baseline` and `candidate`; none: nothing is captured.
    pub arms: Vec<Cluster>,
    _turn: Turn,
}

impl Servers {
    /// Waits for its turn and starts a worker and so many arms, all with these tables.
    pub async fn start(arms: usize, tables: &str) -> Self {
        Self::start_asking("nobody", arms, tables).await
    }

    /// The same, with a worker that asks one role for its password.
    pub async fn start_asking(role: &str, arms: usize, tables: &str) -> Self {
        let turn = take_turn().await;
        let hba = format!(
            "local all all trust\nhost all {role} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        );
        let started = (0..arms).map(|_| server(Cluster::builder(), tables));
        let (worker, arms) = tokio::join!(server(Cluster::builder().hba(&hba), tables), join_all(started));
        Self { worker, arms, _turn: turn }
    }

    /// Where the arms are.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.arms.iter().map(address).collect()
    }

    /// Starts the mirror, which reaches its arms at these addresses.
    pub async fn mirror(self, memory: &str, arms: &[SocketAddr]) -> Stage {
        let direct = address(&self.worker);
        self.mirror_to(direct, memory, arms).await
    }

    /// Starts the mirror in front of another worker than the own.
    pub async fn mirror_to(self, worker: SocketAddr, memory: &str, arms: &[SocketAddr]) -> Stage {
        self.mirror_with(worker, &format!("memory: {memory}\n"), arms).await
    }

    /// The same, with these lines in its configuration document.
    pub async fn mirror_with(self, worker: SocketAddr, more: &str, arms: &[SocketAddr]) -> Stage {
        let desk = Desk::new();
        let token = desk.write("token", &format!("{TOKEN}\n"));
        let document = format!("{more}admin: 127.0.0.1:0\nadminTokenFile: {}\n", token.display());
        let config = desk.write("mirror.yaml", &document).to_string_lossy().into_owned();
        let names = ["baseline", "candidate"];
        let arms = names.into_iter().zip(arms).flat_map(|(name, at)| ["--arm".to_owned(), format!("{name}={at}")]);
        let sides = ["--listen", "127.0.0.1:0", "--config", &config, "--worker", &worker.to_string()];
        let mut mirror = start("understudy-mirror", sides.into_iter().map(str::to_owned).chain(arms));
        let through = mirror.mirror().await;
        let admin = mirror.admin().await;
        let pid = processes().find(|pid| command_line(*pid).contains(&config)).expect("the mirror's process");
        let direct = address(&self.worker);
        Stage { servers: self, mirror, pid, direct, through, admin, _desk: desk }
    }
}

/// A server like the others of a test.
async fn server(builder: ClusterBuilder, tables: &str) -> Cluster {
    let server = builder.setting("max_connections", "150").start().await;
    server.connect().await.batch_execute(tables).await.expect("tables");
    server
}

fn address(of: &Cluster) -> SocketAddr {
    ([127, 0, 0, 1], of.port()).into()
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// Everything that runs.
#[derive(Debug)]
pub struct Stage {
    /// Worker and arms.
    pub servers: Servers,
    /// The mirror.
    pub mirror: Running,
    /// Its process.
    pid: u32,
    /// The worker.
    pub direct: SocketAddr,
    /// The mirror in front of it.
    pub through: SocketAddr,
    /// The mirror's admin HTTP.
    pub admin: String,
    _desk: Desk,
}

impl Stage {
    /// What the mirror says of itself.
    pub async fn status(&self) -> ShadowExperimentStatus {
        http::status(&self.admin).await.unwrap_or_else(|e| panic!("{e}\n{}", self.mirror.transcript()))
    }

    /// What it says of an arm.
    pub async fn arm(&self, name: &str) -> ArmStatus {
        let status = self.status().await;
        status.arms.into_iter().find(|arm| arm.name == name).expect("the arm")
    }

    /// Waits until an arm is as wanted.
    pub async fn arm_until(&self, name: &str, what: &str, wanted: impl Fn(&ArmStatus) -> bool) -> ArmStatus {
        let end = Instant::now() + LEVEL_LIMIT;
        loop {
            let arm = self.arm(name).await;
            if wanted(&arm) {
                return arm;
            }
            assert!(Instant::now() < end, "{name} is not {what}: {arm:#?}\n{}", self.mirror.transcript());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an arm has played everything, which was all there was to play, with the worker's tables then.
    pub async fn expect_level(&self, name: &str, tables: &[Rows]) -> ArmStatus {
        let settled = |arm: &ArmStatus| {
            let counts = &arm.exchanges;
            let skipped: i64 = counts.skipped.values().sum();
            arm.state != ArmState::Live || (arm.lag.exchanges == 0 && counts.played + skipped == counts.captured)
        };
        let index = usize::from(name != "baseline");
        let (worker, arm) = (self.servers.worker.connect().await, self.servers.arms.get(index).expect("the arm"));
        let arm = arm.connect().await;
        let wanted = digests(&worker, tables).await;
        let end = Instant::now() + LEVEL_LIMIT;
        // Production's last exchanges may be on their way into the log.
        loop {
            let found = digests(&arm, tables).await;
            let status = self.arm(name).await;
            if found == wanted || status.state != ArmState::Live {
                break;
            }
            assert!(Instant::now() < end, "{name} has {found:?}, the worker {wanted:?}: {status:#?}");
            sleep(Duration::from_millis(50)).await;
        }
        let status = self.arm_until(name, "level", settled).await;
        assert_eq!((status.state, status.exchanges.lost), (ArmState::Live, 0), "{status:#?}");
        assert_eq!(digests(&arm, tables).await, wanted);
        status
    }

    /// A number of `/metrics`.
    pub async fn metric(&self, name: &str) -> i64 {
        let text = http::get(&self.admin, "/metrics").await.expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// The memory that the mirror's process takes, and the most that it has taken, MiB.
    pub fn memory_mib(&self) -> (u64, u64) {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the mirror's process");
        let kib = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("a number of kB")
        };
        (kib("VmRSS:") >> 10, kib("VmHWM:") >> 10)
    }

    /// All of the mirror's threads run on these processors only.
    pub fn keep_on(&self, processors: &CpuSet) {
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).expect("its threads").flatten() {
            let thread = task.file_name().to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
            // A thread may have ended.
            let _ = sched_setaffinity(thread, processors);
        }
    }

    /// The mirror may have no more than so many files open from now on.
    pub fn limit_files(&self, files: u64) {
        let pid = Pid::from_raw(self.pid.cast_signed());
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) }).expect("its limit");
    }

    /// Files and sockets that the mirror has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("its files").count()
    }

    /// Ends the mirror in good order; all that it said must be expected by the test.
    pub async fn end(self) -> Ended {
        self.mirror.signal(Signal::TERM);
        let ended = self.mirror.ended_within(Duration::from_secs(20)).await;
        ended.expect_code(0);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended
    }
}
