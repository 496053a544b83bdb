//! Nothing that happens to an arm is felt by production: beside one that hangs, dies, answers a byte a second, has
//! a full disk, is flooded or has to wait for a processor, clients see no error and lose nothing, the mirror's memory
//! stays bounded, and the other arm goes on as if it were alone. How little is felt the benchmarks say; here only the
//! gross can fail: what is far worse than beside healthy arms, and bad by itself.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that can't have what it needs has failed; figures are printed, not judged"
)]

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_getaffinity},
};
use tokio::time::{Instant, sleep};
use understudy_crds::{
    condition::{ArmState, DivergenceKind},
    status::ArmStatus,
};
use understudy_e2e::{
    load::{Figures, Load, ROWS, TABLES},
    small_disk::SmallDisk,
    stage::{Servers, Stage},
    throttle::Throttle,
    wire::{Wire, query},
};

const SESSIONS: i64 = 6;
const PERIOD: Duration = Duration::from_millis(10);
/// How long is looked at production at least: one wait of every session is less than a hundredth of it.
const LOOK: Duration = Duration::from_secs(2);
/// Nothing fails that is still as good as this, steps a second and ms: beside healthy arms, on a machine whose
/// processors builds had taken six times over, there were 42 and 2500 to be seen.
const FAIR_RATE: f64 = 20.0;
const FAIR_P99_MS: f64 = 3000.0;
/// What captured traffic may take, twice: what waits to be taken in, and what the arms have not played yet.
const MEMORY: &str = "8Mi";
/// What the process may take then: threads, buffers, statements' templates, and what the allocator keeps.
const MOST_MIB: u64 = 160;

/// A stage with its clients at work, all well so far.
struct Scene {
    stage: Stage,
    load: Load,
    /// What clients saw then.
    healthy: Figures,
}

impl Scene {
    async fn open(stage: Stage) -> Self {
        let mut load = Load::start(stage.through, SESSIONS, PERIOD).await;
        stage.arm_until("candidate", "live", |arm| arm.state == ArmState::Live && arm.exchanges.played > 0).await;
        load.figures();
        sleep(LOOK).await;
        let healthy = load.figures();
        healthy.expect_fair("beside healthy arms");
        Self { stage, load, healthy }
    }

    /// Clients see about what they saw beside healthy arms.
    fn expect_unfelt(&mut self, when: &str) {
        let figures = self.load.figures();
        figures.expect_fair(when);
        assert!(is_alike(&figures, &self.healthy), "{when}: {figures:?}, beside healthy arms {:?}", self.healthy);
    }

    /// Until the candidate is as wanted, and for a while more.
    async fn until(&mut self, what: &str, wanted: impl Fn(&ArmStatus) -> bool) -> ArmStatus {
        let arm = self.stage.arm_until("candidate", what, wanted).await;
        println!("the candidate: {:?} {:?}", arm.state, arm.message);
        sleep(LOOK).await;
        self.expect_unfelt(what);
        arm
    }

    /// Production has kept everything, the mirror is within its memory, and the baseline is as the worker.
    async fn close(self) -> Stage {
        let Self { stage, load, .. } = self;
        let worker = stage.servers.worker.connect().await;
        load.expect_kept(&worker).await;
        let (now, most) = stage.memory_mib();
        println!("the mirror's memory: {now} MiB, at most {most} MiB");
        assert!(most < MOST_MIB, "the mirror took {most} MiB");
        let baseline = stage.expect_level("baseline", &ROWS).await;
        assert!(baseline.divergence.values().all(|n| *n == 0), "{baseline:#?}");
        stage
    }
}

fn is_alike(figures: &Figures, healthy: &Figures) -> bool {
    figures.rate > (healthy.rate / 3.0).min(FAIR_RATE) && figures.p99_ms < (healthy.p99_ms * 10.0).max(FAIR_P99_MS)
}

fn is_lost(arm: &ArmStatus) -> bool {
    arm.state == ArmState::Lost
}

fn expect_said(arm: &ArmStatus, said: &[&str]) {
    let message = arm.message.as_deref().unwrap_or_default();
    assert!(said.iter().any(|said| message.contains(said)), "none of {said:?} is said: {arm:#?}");
}

#[test]
fn only_what_is_far_worse_and_bad_by_itself_is_felt() {
    let figures = |rate, p99_ms| Figures { rate, p99_ms, slowest_ms: p99_ms };
    for (with, healthy, alike) in [
        (figures(500.0, 8.0), figures(550.0, 6.0), true),
        // A machine that others use.
        (figures(42.0, 2500.0), figures(550.0, 6.0), true),
        (figures(15.0, 5000.0), figures(40.0, 900.0), true),
        // Somebody waits for the arm.
        (figures(15.0, 100.0), figures(550.0, 6.0), false),
        (figures(500.0, 3200.0), figures(550.0, 6.0), false),
    ] {
        assert_eq!(is_alike(&with, &healthy), alike, "{with:?} beside {healthy:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_that_hangs() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let mut scene = Scene::open(servers.mirror(MEMORY, &arms).await).await;
    let stopped = Stopped::all_of(scene.stage.servers.arms[1].data_dir());
    let arm = scene.until("lost since it hangs", is_lost).await;
    expect_said(&arm, &["fell off the traffic log"]);
    let stage = scene.close().await;
    drop(stopped);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_that_dies() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let mut scene = Scene::open(servers.mirror(MEMORY, &arms).await).await;
    scene.stage.servers.arms[1].server_mut().stop_immediately().await;
    let arm = scene.until("lost since it is dead", is_lost).await;
    expect_said(&arm, &["the arm's connection"]);
    scene.close().await.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_that_answers_a_byte_a_second() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let throttle = Throttle::start(arms[1]).await;
    let mut scene = Scene::open(servers.mirror(MEMORY, &[arms[0], throttle.address]).await).await;
    throttle.slow_down();
    let arm = scene.until("lost since it is slow", is_lost).await;
    expect_said(&arm, &["fell off the traffic log"]);
    scene.close().await.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_whose_tables_have_no_room() {
    let servers = Servers::start(2, TABLES).await;
    let Some(disk) = SmallDisk::mount(servers.arms[1].directory()) else { return };
    let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display());
    let arm = servers.arms[1].connect().await;
    for sql in [&tablespace, "ALTER TABLE ledger SET TABLESPACE small"] {
        arm.batch_execute(sql).await.expect("the arm's tables on the small disk");
    }
    let arms = servers.addresses();
    let mut scene = Scene::open(servers.mirror(MEMORY, &arms).await).await;
    disk.fill();
    // It answers every write with an error: that is load, and divergence, and is told as such.
    let failed = |arm: &ArmStatus| arm.divergence.get(&DivergenceKind::Error).is_some_and(|n| *n > 10);
    let arm = scene.until("failing since its disk is full", failed).await;
    assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{arm:#?}");
    assert!(scene.stage.servers.arms[1].log().contains("No space left on device"));
    scene.close().await.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_whose_log_has_no_room() {
    let mut servers = Servers::start(2, TABLES).await;
    let Some(disk) = SmallDisk::mount(servers.arms[1].directory()) else { return };
    let limit = Duration::from_secs(30);
    servers.arms[1].server_mut().stop(limit).await;
    let log = servers.arms[1].data_dir().join("pg_wal");
    disk.move_here(&log);
    servers.arms[1].server_mut().start_again(limit).await.expect("the arm with its log on the small disk");
    let arms = servers.addresses();
    let mut scene = Scene::open(servers.mirror(MEMORY, &arms).await).await;
    disk.fill();
    // The next segment is one too many. Who asks is told so, or is disconnected by the panic of another session.
    let asked = scene.stage.servers.arms[1].connect().await.batch_execute("SELECT pg_switch_wal()").await;
    println!("a new segment of the log: {asked:?}");
    let arm = scene.until("lost since it panicked", is_lost).await;
    expect_said(&arm, &["the arm's connection"]);
    assert!(scene.stage.servers.arms[1].log().contains("PANIC"));
    scene.close().await.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arms_that_are_flooded_by_large_results() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    // The arms are as long behind as they need for all that.
    let mut scene = Scene::open(servers.mirror("32Mi", &arms).await).await;
    let large = query("SELECT repeat(chr(64 + i), 1000000) FROM generate_series(1, 200) i");
    let mut reader = Wire::connect(scene.stage.through).await;
    for _ in 0..2 {
        assert!(reader.discard(&large).await > 200_000_000);
    }
    scene.expect_unfelt("while 400 MB are read");
    drop(reader);
    let played = scene.stage.status().await.arms[0].exchanges.captured;
    let arm = scene.until("through with it", |arm| arm.exchanges.played >= played).await;
    assert_eq!((arm.state, arm.exchanges.lost), (ArmState::Live, 0), "{arm:#?}");
    let stage = scene.close().await;
    stage.expect_level("candidate", &ROWS).await;
    stage.end().await;
}

/// Where production's threads wait for a processor, the arms wait first, and then play all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn a_mirror_without_a_processor_to_spare() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let mut scene = Scene::open(servers.mirror("64Mi", &arms).await).await;
    let everywhere = sched_getaffinity(None).expect("the processors of this process");
    scene.stage.keep_on(&first_of(&everywhere));
    let flood: Vec<_> = (0..16).map(|_| tokio::spawn(ask_for_ever(scene.stage.through))).collect();
    let stood = "understudy_arm_clock_stood_microseconds_total";
    let end = Instant::now() + Duration::from_secs(60);
    while scene.stage.metric(stood).await < 300_000 {
        assert!(Instant::now() < end, "the arms never waited\n{}", scene.stage.mirror.transcript());
        sleep(Duration::from_millis(10)).await;
    }
    println!("the arms waited {} µs; {:?}", scene.stage.metric(stood).await, scene.stage.arm("candidate").await.lag);
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    scene.stage.keep_on(&everywhere);
    // What was slow meanwhile was the machine.
    scene.load.figures();
    scene.until("level again", |arm| arm.lag.seconds < 1.5).await;
    let stage = scene.close().await;
    stage.expect_level("candidate", &ROWS).await;
    stage.end().await;
}

fn first_of(all: &CpuSet) -> CpuSet {
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).expect("a processor"));
    one
}

async fn ask_for_ever(through: SocketAddr) {
    let (mut client, question) = (Wire::connect(through).await, query("SELECT 1"));
    loop {
        client.discard(&question).await;
    }
}

/// A server and all its processes, stopped for as long as this lives.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn all_of(data_dir: &Path) -> Self {
        let text = fs::read_to_string(data_dir.join("postmaster.pid")).expect("the arm runs");
        let postmaster: i32 = text.lines().next().and_then(|line| line.parse().ok()).expect("its process id");
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.expect("its processes");
        // The one that would start others goes first.
        let pids = [postmaster].into_iter().chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()));
        let stopped = Self(pids.filter_map(Pid::from_raw).collect());
        stopped.signal(Signal::STOP);
        stopped
    }

    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // A backend may have ended.
            let _ = kill_process(*pid, signal);
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}
