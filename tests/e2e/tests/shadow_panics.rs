//! A panic anywhere on the shadow side ends the arm that it happened in, or what is captured: the process lives,
//! no client notices, and the status says it. The code as it is has no known panic to offer, so a log line brings
//! one about: whoever writes a line can fail at it, and each part of the shadow side writes some.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{
    collections::HashSet,
    fmt::Debug,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_postgres::Client;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use understudy_crds::condition::{ArmRole, ArmState};
use understudy_e2e::{
    application::connect,
    turn::{Turn, take_turn},
};
use understudy_harness::{Cluster, Paused, wait_until};
use understudy_mirror::{
    mirror::{Mirror, Settings},
    shadow::log::disk::DiskSettings,
    stream::Address,
};

const ROWS: i64 = 200;

/// The line at which the next thread to write it panics.
static PANIC_AT: Mutex<Option<&str>> = Mutex::new(None);

struct Panicking;

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("understudy_mirror::")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let mut at = PANIC_AT.lock().unwrap_or_else(PoisonError::into_inner);
        if at.is_some_and(|at| at == line.0) {
            *at = None;
            drop(at);
            panic!("at `{}`, as the test wants it", line.0);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// A mirror in this process, with two arms and a session at work.
struct Stage {
    worker: Cluster,
    arms: [(&'static str, Cluster); 2],
    mirror: Arc<Mirror>,
    through: SocketAddr,
    early: Client,
    written: i64,
    _turn: Turn,
}

impl Stage {
    async fn set(settings: impl FnOnce(&mut Settings)) -> Self {
        // Another test of this process may have set it; they are all the same.
        let _ = tracing::subscriber::set_global_default(Panicking);
        let turn = take_turn().await;
        let worker = server().await;
        let arms = [("baseline", server().await), ("candidate", server().await)];
        let address = |of: &Cluster| Address::new("127.0.0.1", of.port());
        let mut chosen = Settings { threads: 1, ..Settings::new("127.0.0.1:0", address(&worker)) };
        settings(&mut chosen);
        let mirror = Mirror::start(&chosen).expect("a mirror");
        let cut = mirror.close_gate(Duration::from_millis(50)).await.seal().expect("nobody is connected yet");
        let roles = [ArmRole::Baseline, ArmRole::Candidate];
        let names: Vec<_> = arms.iter().map(|(name, _)| (*name).to_owned()).zip(roles).collect();
        let to_start = mirror.arms_at(&cut, &names).expect("arms");
        for (name, arm) in &arms {
            mirror.start_arm(&to_start, name, address(arm).into(), HashSet::new()).expect("started");
        }
        let through = mirror.address;
        let early = connect(through).await.expect("a session");
        let mut stage = Self { worker, arms, mirror, through, early, written: 0, _turn: turn };
        stage.write(None).await;
        for (name, _) in &stage.arms {
            stage.level(name).await;
        }
        stage
    }

    /// Rows from the session that has been there all the time, or from another.
    async fn write(&mut self, session: Option<&Client>) {
        let session = session.unwrap_or(&self.early);
        let insert = session.prepare("INSERT INTO t VALUES ($1, repeat('x', 2000))").await.expect("prepared");
        for id in self.written..self.written + ROWS {
            session.execute(&insert, &[&id]).await.expect("a row");
        }
        self.written += ROWS;
    }

    async fn level(&self, name: &str) {
        let arm = &self.arms.iter().find(|(arm, _)| *arm == name).expect("an arm").1;
        let session = arm.connect().await;
        wait_until("an arm has every row", || async { count(&session).await == self.written }).await;
        let shared = self.mirror.arm(name).expect("an arm");
        assert_eq!((shared.is_alive(), shared.counts().lost), (true, 0), "{:?}", shared.state());
    }

    /// Arms that are lost, and why.
    fn lost(&self) -> Vec<(String, String)> {
        let lost = |(name, state): (String, (ArmState, Option<String>))| {
            (state.0 == ArmState::Lost).then(|| (name, state.1.unwrap_or_default()))
        };
        self.mirror.arms().iter().map(|arm| (arm.name.clone(), arm.state())).filter_map(lost).collect()
    }

    /// Production goes on as ever, on sessions old and new, and all of it ends in good order.
    async fn expect_unfelt(mut self) {
        let late = connect(self.through).await.expect("a session");
        self.write(None).await;
        self.write(Some(&late)).await;
        assert_eq!(count(&self.worker.connect().await).await, self.written);
        assert_eq!(*PANIC_AT.lock().unwrap_or_else(PoisonError::into_inner), None, "nobody panicked");
        let playing: Vec<_> = self.mirror.arms().iter().filter(|arm| arm.is_alive()).cloned().collect();
        for arm in playing {
            self.level(&arm.name).await;
        }
        let Self { early, mirror, .. } = self;
        drop((early, late));
        tokio::task::spawn_blocking(move || mirror.stop()).await.expect("it stops");
    }
}

async fn server() -> Cluster {
    let server = Cluster::start().await;
    server.connect().await.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, x text)").await.expect("a table");
    server
}

async fn count(session: &Client) -> i64 {
    session.query_one("SELECT count(*) FROM t", &[]).await.expect("a count").get(0)
}

fn panic_at(line: &'static str) {
    *PANIC_AT.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
}

/// A thread of one arm panics at a line that it writes for a new session, while it plays something of another.
async fn one_arm_panics_at(line: &'static str) {
    let mut stage = Stage::set(|_| {}).await;
    let sleeper = connect(stage.through).await.expect("a session");
    let slept = tokio::spawn(async move { sleeper.batch_execute("SELECT pg_sleep(3)").await });
    for (name, arm) in &stage.arms {
        let session = arm.connect().await;
        let plays = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        wait_until(&format!("{name} plays it"), || async {
            session.query_one(plays, &[]).await.expect("a look").get::<_, i64>(0) == 1
        })
        .await;
    }
    panic_at(line);
    let late = connect(stage.through).await.expect("a session");
    stage.write(Some(&late)).await;
    wait_until("an arm is lost", || async { !stage.lost().is_empty() }).await;
    let lost = stage.lost();
    assert!(matches!(&lost[..], [(_, why)] if why == "the arm's thread panicked"), "{lost:?}");
    slept.await.expect("its end").expect("production's answer");
    stage.expect_unfelt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_an_arms_driver_ends_that_arm() {
    one_arm_panics_at("session taken in").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_one_sessions_player_ends_that_arm() {
    one_arm_panics_at("session plays").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_ingest_ends_all_arms() {
    let mut stage = Stage::set(|_| {}).await;
    panic_at("session captured");
    let late = connect(stage.through).await.expect("a session");
    stage.write(Some(&late)).await;
    wait_until("both arms are lost", || async { stage.lost().len() == 2 }).await;
    for (_, why) in stage.lost() {
        assert_eq!(why, "the ingest panicked: nothing is captured any more");
    }
    stage.expect_unfelt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_traffic_logs_thread_ends_the_arm_that_needed_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("traffic-log");
    let mut stage = Stage::set(|settings| {
        settings.memory_bytes = 2 << 20;
        settings.disk = Some(DiskSettings { directory: path, limit_bytes: 64 << 10, keep_free_percent: 0 });
    })
    .await;
    panic_at("nothing more of the traffic log goes to disk");
    let paused = Paused::all_of(&stage.arms[1].1);
    while stage.lost().is_empty() {
        stage.write(None).await;
        assert!(stage.written < 100 * ROWS, "an arm that hangs outlives the memory");
    }
    drop(paused);
    let lost = stage.lost();
    assert!(matches!(&lost[..], [(name, _)] if name == "candidate"), "{lost:?}");
    stage.expect_unfelt().await;
}
