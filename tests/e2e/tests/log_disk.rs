//! The file system of the traffic log is full, whatever the log may take of it: production does not feel it, the arm
//! that is behind is lost and told why, and plays everything where there is room again in time. Nothing that was
//! half written is read, and nothing is left.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use understudy_crds::condition::ArmState;
use understudy_e2e::{
    load::{Load, ROWS, TABLES},
    small_disk::SmallDisk,
    stage::{Servers, Stage},
};
use understudy_harness::{Paused, wait_until};
use understudy_mirror::shadow::log::disk::segments;

const SESSIONS: i64 = 6;
const PERIOD: Duration = Duration::from_millis(10);
/// Half of it lasts for five seconds, longer than the log waits before it tries its disk again, and than its thread,
/// which goes behind production's, may wait for a processor.
const MEMORY: &str = "16Mi";
const REFUSED: &str = "nothing more of the traffic log goes to disk";

/// Production at work, an arm that hangs, and a log whose disk is smaller than what it may take.
struct Scene {
    stage: Stage,
    load: Load,
    paused: Paused,
    disk: SmallDisk,
    log: PathBuf,
}

impl Scene {
    /// `None`: only root can make a small disk.
    async fn open() -> Option<Self> {
        let servers = Servers::start(2, TABLES).await;
        let disk = SmallDisk::mount(servers.worker.directory())?;
        let log = disk.path().join("log");
        let told =
            format!("memory: {MEMORY}\ndisk: {{ directory: {}, size: 1Gi, keepFreePercent: 0 }}\n", log.display());
        let (worker, arms) = (([127, 0, 0, 1], servers.worker.port()).into(), servers.addresses());
        let stage = servers.mirror_with(worker, &told, &arms).await;
        let mut load = Load::start(stage.through, SESSIONS, PERIOD).await;
        stage.arm_until("candidate", "playing", |arm| arm.exchanges.played > 0).await;
        load.figures().expect_fair("beside healthy arms");
        let paused = Paused::all_of(stage.servers.arms.last().expect("two arms"));
        Some(Self { stage, load, paused, disk, log })
    }

    async fn disk_bytes_reach(&self, bytes: i64) {
        wait_until("so much is on disk", || async { self.disk_bytes().await >= bytes }).await;
    }

    async fn disk_bytes(&self) -> i64 {
        self.stage.metric("understudy_log_disk_bytes").await
    }

    async fn has_said(&self, line: &str) {
        wait_until(line, || async { self.stage.mirror.transcript().contains(line) }).await;
    }

    /// The arm that hangs is lost since the disk is full, and nobody else has anything to do with it.
    async fn expect_lost(mut self) {
        let arm = self.stage.arm_until("candidate", "lost", |arm| arm.state == ArmState::Lost).await;
        let why = arm.message.unwrap_or_default();
        assert!(why.starts_with("fell off the traffic log: "), "{why}");
        assert!(why.contains("the traffic log's disk: No space left on device"), "{why}");
        self.load.figures().expect_fair("while the log's disk is full");
        self.close().await;
    }

    /// Production has lost nothing, the arm that is well is level, and the log is empty.
    async fn close(self) {
        let Self { stage, load, paused, disk, log } = self;
        drop(paused);
        load.expect_kept(&stage.servers.worker.connect().await).await;
        stage.expect_level("baseline", &ROWS).await;
        if stage.arm("candidate").await.state != ArmState::Lost {
            stage.expect_level("candidate", &ROWS).await;
        }
        expect_empty(&log).await;
        assert_eq!(stage.metric("understudy_log_disk_bytes").await, 0);
        let ended = stage.end().await;
        assert!(!ended.stderr.contains("damaged"), "{}", ended.stderr);
        assert!(!log.exists(), "the log's directory was made by the mirror and goes with it");
        drop(disk);
    }
}

async fn expect_empty(log: &Path) {
    wait_until("no segment is left", || async { segments(log).expect("the directory").is_empty() }).await;
}

fn free(disk: &SmallDisk) {
    fs::remove_file(disk.path().join("filler")).expect("what fills the disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_costs_the_arm_that_is_behind_and_nobody_else() {
    let Some(scene) = Scene::open().await else { return };
    scene.disk_bytes_reach(256 << 10).await;
    scene.disk.fill();
    scene.expect_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_full_from_the_beginning_costs_no_more() {
    let Some(scene) = Scene::open().await else { return };
    scene.disk.fill();
    assert_eq!(scene.disk_bytes().await, 0, "nothing was written yet");
    scene.expect_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_plays_everything_where_there_is_room_again_in_time() {
    let Some(mut scene) = Scene::open().await else { return };
    scene.disk_bytes_reach(256 << 10).await;
    scene.disk.fill();
    scene.has_said(REFUSED).await;
    let before = scene.disk_bytes().await;
    free(&scene.disk);
    // Behind what could not be written whole.
    scene.disk_bytes_reach(before + 1).await;
    scene.load.figures().expect_fair("while the log's disk was full");
    let arm = scene.stage.arm("candidate").await;
    assert_eq!(arm.state, ArmState::Live, "{arm:#?}\n{}", scene.stage.mirror.transcript());
    scene.close().await;
}
