//! What may ail an arm or the log: brought about, seen to be what it is called, and taken away again. It
//! judges no figure.

use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use understudy_crds::{
    condition::{ArmState, DivergenceKind},
    status::ArmStatus,
};
use understudy_e2e::{small_disk::SmallDisk, throttle::Throttle};
use understudy_harness::{Cluster, Paused};

use crate::{
    bystander::Bystander,
    load::{self, Tail},
    neighbour::Neighbour,
    place::Place,
    target::Target,
};

/// Clients of the load that is measured.
pub const CLIENTS: u32 = 16;
/// How long an arm lives behind production: a mirror's default.
const SHIFT: Duration = Duration::from_secs(1);
/// What a transaction of it takes of the log's memory at least, bytes.
const TRANSACTION_BYTES: f64 = 800.0;
/// What a latency is not looked at in: sixteen clients log in and prepare their statement, and a second later so do
/// they on an arm. The 99th percentile of the first three seconds was twice that of the next.
const BEGINNING_SECONDS: u64 = 2;
/// How long an arm may take to be what it is to be, and to start again.
const LIMIT: Duration = Duration::from_secs(30);

/// What production runs beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Situation {
    /// Nothing ails the arm.
    Healthy,
    /// Its processes are stopped.
    Hung,
    /// Nothing ails it, and in the middle of the load a server dies that nobody plays to.
    DeathPast,
    /// In the middle of the load its server dies.
    Dead,
    /// It answers a byte a second.
    Slow,
    /// Its tables have no room: it refuses what it is to write.
    FullDisk,
    /// It hangs, and the log that should keep everything for it has no room.
    FullLog,
    /// A neighbour reads large results straight from the worker.
    FloodPast,
    /// A neighbour reads them through the mirror, and the arm has to read them too.
    Flood,
}

impl Situation {
    /// All of them.
    const ALL: [Self; 9] = [
        Self::Healthy,
        Self::Hung,
        Self::DeathPast,
        Self::Dead,
        Self::Slow,
        Self::FullDisk,
        Self::FullLog,
        Self::FloodPast,
        Self::Flood,
    ];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy arm",
            Self::Hung => "hung arm",
            Self::DeathPast => "death past it",
            Self::Dead => "dead arm",
            Self::Slow => "arm of a byte a second",
            Self::FullDisk => "arm with a full disk",
            Self::FullLog => "log with a full disk",
            Self::FloodPast => "flood past it",
            Self::Flood => "flood of large results",
        }
    }

    /// What it is held against.
    pub fn against(self) -> Option<Self> {
        match self {
            Self::Healthy | Self::DeathPast | Self::FloodPast => None,
            Self::Dead => Some(Self::DeathPast),
            Self::Flood => Some(Self::FloodPast),
            _ => Some(Self::Healthy),
        }
    }

    /// A server dies in the middle of the load, once.
    pub fn dies(self) -> bool {
        matches!(self, Self::Dead | Self::DeathPast)
    }

    fn hangs(self) -> bool {
        matches!(self, Self::Hung | Self::FullLog)
    }

    /// Whether an arm is what it has to be at the end of a load: otherwise something else was measured.
    fn is_meant(self, arm: &ArmStatus) -> bool {
        let live = arm.state == ArmState::Live && arm.exchanges.lost == 0;
        let lost_since =
            |why| arm.state == ArmState::Lost && arm.message.as_deref().is_some_and(|message| message.contains(why));
        match self {
            Self::Healthy | Self::DeathPast | Self::FloodPast | Self::Flood => live && arm.exchanges.played > 0,
            // The log has room for all that it does not take.
            Self::Hung => live && arm.exchanges.played == 0 && arm.exchanges.captured > 0,
            Self::Dead => lost_since("the arm's connection"),
            Self::Slow => live && arm.exchanges.played < arm.exchanges.captured / 10,
            Self::FullDisk => live && arm.divergence.get(&DivergenceKind::Error).is_some_and(|refused| *refused > 0),
            Self::FullLog => lost_since("No space left on device"),
        }
    }
}

/// The disk that the arm keeps the neighbour's rows on, and that of the log. Only root can make them.
#[derive(Debug)]
struct Disks {
    arm: SmallDisk,
    log: SmallDisk,
}

/// The servers, the disks, and the load.
#[derive(Debug)]
pub struct Ward<'a> {
    place: &'a mut Place,
    bystander: Bystander,
    disks: Option<Disks>,
    rate: f64,
    seconds: u64,
    // Behind the disk that lies in it.
    directory: TempDir,
}

impl<'a> Ward<'a> {
    /// Makes the neighbours' table, on the arm on a disk of its own.
    pub async fn open(place: &'a mut Place, rate: f64, seconds: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let disks = SmallDisk::mount(place.arm.directory())
            .and_then(|arm| Some(Disks { arm, log: SmallDisk::mount(directory.path())? }));
        let table = "CREATE TABLE notes (note text)";
        on(&place.worker, &[table]).await;
        on(&place.arm, &[table]).await;
        if let Some(Disks { arm, .. }) = &disks {
            let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", arm.path().display());
            on(&place.arm, &[&tablespace, "ALTER TABLE notes SET TABLESPACE small"]).await;
        }
        let bystander = Bystander::new().await;
        Self { place, bystander, disks, rate, seconds, directory }
    }

    /// Those that can be brought about here.
    pub fn situations(&self) -> impl Iterator<Item = Situation> + use<> {
        let missing = self.missing();
        Situation::ALL.into_iter().filter(move |situation| !missing.contains(situation))
    }

    /// Those that can not.
    pub fn missing(&self) -> Vec<Situation> {
        if self.disks.is_some() { Vec::new() } else { vec![Situation::FullDisk, Situation::FullLog] }
    }

    /// The 99th percentile of production's latency at the rate.
    pub async fn p99(&mut self, situation: Situation) -> Tail {
        // A percentile needs more of it than a mean. A death costs 25 to 50 ms, once: of six seconds that is a hundredth, and
        // chance would decide whether the percentile is one of before or of behind it; of three it is more.
        let (rate, seconds) = (self.rate, if situation.dies() { self.seconds } else { self.seconds * 2 });
        let middle = Duration::from_secs(BEGINNING_SECONDS) + Duration::from_secs(seconds) / 2;
        let load = async |worker: &Cluster, port: u16| {
            load::paced(worker, port, CLIENTS, BEGINNING_SECONDS, seconds, rate).await
        };
        self.during(situation, middle, load).await
    }

    /// Transactions a second, as many as can be.
    pub async fn tps(&mut self, situation: Situation) -> f64 {
        let seconds = self.seconds;
        let load = async |worker: &Cluster, port: u16| load::flood(worker, port, CLIENTS, seconds).await.tps;
        self.during(situation, Duration::from_secs(seconds) / 2, load).await
    }

    /// A load, and what happens in its middle.
    async fn during<T>(
        &mut self,
        situation: Situation,
        middle: Duration,
        load: impl AsyncFnOnce(&Cluster, u16) -> T,
    ) -> T {
        // As many as the load has on an arm, each of which has read what an arm's has by the time when it dies.
        let bystanders = if situation == Situation::DeathPast {
            let accounts = self.rate / f64::from(CLIENTS) * middle.saturating_sub(SHIFT).as_secs_f64();
            self.bystander.sessions(CLIENTS + 1, accounts).await
        } else {
            Vec::new()
        };
        let Place { worker, arm, .. } = &mut *self.place;
        let throttle = if situation == Situation::Slow {
            Some(Throttle::start(([127, 0, 0, 1], arm.port()).into()).await)
        } else {
            None
        };
        let arm_port = throttle.as_ref().map_or(arm.port(), |throttle| throttle.address.port());
        let config = self.disks.as_ref().filter(|_| situation == Situation::FullLog).map(|disks| {
            // At the rate the memory lasts until the middle.
            let memory_kib = self.rate * TRANSACTION_BYTES / 1024.0 * middle.as_secs_f64();
            let (file, log) = (self.directory.path().join("mirror.yaml"), disks.log.path().join("log"));
            let disk = format!("{{ directory: {}, size: 1Gi, keepFreePercent: 0 }}", log.display());
            fs::write(&file, format!("memory: {memory_kib:.0}Ki\ndisk: {disk}\n")).expect("a configuration");
            file
        });
        let target = Target::mirror(worker.port(), arm_port, config.as_deref()).await;
        let full = self.disks.as_ref().and_then(|disks| match situation {
            Situation::FullDisk => Some(&disks.arm),
            Situation::FullLog => Some(&disks.log),
            _ => None,
        });
        full.inspect(|disk| disk.fill());
        let paused = situation.hangs().then(|| Paused::all_of(arm));
        // It writes a little, so that a full disk has something to refuse.
        let mut neighbours = vec![Neighbour::writing(target.port).await];
        match situation {
            Situation::FloodPast => neighbours.push(Neighbour::reading(worker.port()).await),
            Situation::Flood => neighbours.push(Neighbour::reading(target.port).await),
            _ => {}
        }
        if let Some(throttle) = &throttle {
            // It had a session, and has it still.
            arm_until(&target, "playing", |arm| arm.exchanges.played > 0).await;
            throttle.slow_down();
        }
        let death = async {
            match situation {
                Situation::Dead => {
                    sleep(middle).await;
                    arm.server_mut().stop_immediately().await;
                }
                Situation::DeathPast => {
                    sleep(middle).await;
                    self.bystander.die().await;
                }
                _ => {}
            }
        };
        let (figure, ()) = tokio::join!(load(worker, target.port), death);
        neighbours.into_iter().for_each(Neighbour::end);
        arm_until(&target, situation.name(), |arm| situation.is_meant(arm)).await;
        drop(paused);
        drop(target);
        full.inspect(|disk| free(disk.path()));
        drop(bystanders);
        match situation {
            Situation::Dead => arm.server_mut().start_again(LIMIT).await.expect("the arm again"),
            Situation::DeathPast => self.bystander.start_again(LIMIT).await,
            _ => {}
        }
        figure
    }

    /// Takes everything away that the other parts do not know.
    pub async fn close(self) {
        on(&self.place.worker, &["DROP TABLE notes"]).await;
        on(&self.place.arm, &["DROP TABLE notes"]).await;
        if self.disks.is_some() {
            on(&self.place.arm, &["DROP TABLESPACE small"]).await;
        }
    }
}

async fn on(server: &Cluster, statements: &[&str]) {
    let client = server.connect().await;
    for statement in statements {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

async fn arm_until(target: &Target, what: &str, wanted: impl Fn(&ArmStatus) -> bool) {
    let end = Instant::now() + LIMIT;
    loop {
        let arm = target.arm().await.expect("an arm");
        if wanted(&arm) {
            return;
        }
        assert!(Instant::now() < end, "the arm is no {what}: {arm:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn free(disk: &Path) {
    fs::remove_file(disk.join("filler")).expect("what fills a disk");
}
