//! Candidates that are added, changed and removed while an experiment runs, on real servers. The local platform's
//! manifests can't be edited; here a platform of several local ones stands for the one on Kubernetes.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{collections::BTreeMap, future::Future, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_postgres::NoTls;
use understudy_crds::{
    Candidate, ShadowExperiment, ShadowExperimentStatus,
    condition::{ArmState, Phase},
    labels::BASELINE,
};
use understudy_e2e::{
    application::{Application, create_tables, ledger},
    experiment::{Desk, manifest, options},
    turn::take_turn,
};
use understudy_harness::{Cluster, wait_until, wait_until_within};
use understudy_operator::{
    error::UserError,
    plan::Disk,
    platform::{
        ArmEndpoint, Edited, OnProgress, Platform,
        local::{
            LocalPlatform,
            cut::CutProbe,
            direct::DirectSession,
            facts::WorkerFacts,
            leftovers::Cleared,
            promotion::{Promoted, RestartWorker},
            recovery::Recovered,
            session::{Names, Session},
            worker::Worker,
        },
    },
    run::{self, Alone, state::State},
};

/// A local platform for the first arms, and one for each that came later.
struct Editable {
    own: LocalPlatform,
    guests: BTreeMap<String, LocalPlatform>,
    wanted: watch::Receiver<Vec<Candidate>>,
    document: ShadowExperiment,
    directory: PathBuf,
    /// The only arm that counts, in a platform of a newcomer.
    only: Option<String>,
}

impl Editable {
    async fn open(
        document: ShadowExperiment,
        directory: PathBuf,
        only: Option<String>,
        wanted: watch::Receiver<Vec<Candidate>>,
    ) -> Result<Self, UserError> {
        let (own, _) = LocalPlatform::open(&document, &directory).await?;
        Ok(Self { own, guests: BTreeMap::new(), wanted, document, directory, only })
    }
}

impl Platform for Editable {
    const NAME: &'static str = LocalPlatform::NAME;
    const DIRECT_SESSIONS_MUST_LEAVE: bool = LocalPlatform::DIRECT_SESSIONS_MUST_LEAVE;

    fn worker(&self) -> &Worker {
        self.own.worker()
    }

    fn facts(&self) -> &WorkerFacts {
        self.own.facts()
    }

    async fn connect_arm(&self, arm: &str, database: &str, names: Names) -> Result<Session, UserError> {
        self.guests.get(arm).unwrap_or(&self.own).connect_arm(arm, database, names).await
    }

    async fn seed(&mut self, progress: OnProgress) -> Result<(), UserError> {
        self.own.seed(progress).await
    }

    async fn prepare_cut(&mut self) -> Result<(), UserError> {
        self.own.prepare_cut().await
    }

    async fn probe(&self) -> Result<CutProbe, UserError> {
        self.own.probe().await
    }

    async fn direct_sessions(&self, mirrored: &[i32]) -> Result<Vec<DirectSession>, UserError> {
        self.own.direct_sessions(mirrored).await
    }

    async fn terminate_direct(&self, found: &[DirectSession]) -> Result<usize, UserError> {
        self.own.terminate_direct(found).await
    }

    async fn cut(&mut self, probe: &CutProbe, ask: &[u64]) -> Result<BTreeMap<String, Recovered>, UserError> {
        self.own.cut(probe, ask).await
    }

    async fn apply(&self) -> Result<(), UserError> {
        self.own.apply().await
    }

    fn endpoints(&self) -> Vec<ArmEndpoint> {
        let mut all = self.own.endpoints();
        all.retain(|endpoint| self.only.as_ref().is_none_or(|only| endpoint.name == *only));
        all
    }

    fn disks(&self) -> Vec<Disk> {
        self.own.disks()
    }

    async fn dead_arms(&self) -> Vec<(String, UserError)> {
        self.own.dead_arms().await
    }

    fn edited(&mut self) -> Option<Edited> {
        let changed = self.wanted.has_changed().unwrap_or(false);
        let candidates = changed.then(|| self.wanted.borrow_and_update().clone())?;
        Some(Edited { version: candidates.len().to_string(), candidates })
    }

    fn newcomer(&self, candidate: &Candidate) -> impl Future<Output = Result<Self, UserError>> + Send + use<> {
        let mut document = self.document.clone();
        document.spec.candidates = vec![candidate.clone()];
        let directory = self.directory.join(format!("later-{}", self.guests.len()));
        let (only, wanted) = (Some(candidate.name.clone()), self.wanted.clone());
        Self::open(document, directory, only, wanted)
    }

    fn welcome(&mut self, newcomer: Self) {
        self.guests.insert(newcomer.only.unwrap_or_default(), newcomer.own);
    }

    async fn promote(&self, candidate: &str, restart: Option<RestartWorker<'_>>) -> Result<Promoted, UserError> {
        self.own.promote(candidate, restart).await
    }

    async fn teardown(&mut self) -> Result<Vec<Cleared>, UserError> {
        for guest in self.guests.values_mut() {
            guest.teardown().await?;
        }
        self.own.teardown().await
    }
}

fn candidate(name: &str, memory: &str) -> Candidate {
    let parameters = BTreeMap::from([("work_mem".to_owned(), memory.to_owned())]);
    Candidate { name: name.into(), parameters, ..Candidate::default() }
}

fn live(status: &ShadowExperimentStatus) -> Vec<&str> {
    status.arms.iter().filter(|arm| arm.state == ArmState::Live).map(|arm| arm.name.as_str()).collect()
}

/// A control session to an arm.
async fn arm(status: &ShadowExperimentStatus, name: &str) -> tokio_postgres::Client {
    let endpoint = status.arms.iter().find(|arm| arm.name == name).and_then(|arm| arm.endpoint.clone());
    let address = format!("{} user=postgres dbname=postgres", endpoint.expect("an endpoint"));
    let (client, connection) = tokio_postgres::connect(&address, NoTls).await.expect("the arm");
    tokio::spawn(connection);
    client
}

const SPEC: &str = "  candidates:
  - { name: first, parameters: { work_mem: 8MB } }
  schedule: { warmUp: 1s, minimum: 5m, maximum: 10m }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_that_is_added_while_an_experiment_runs_has_every_write_and_touches_nobody_elses() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    create_tables(&direct).await;
    let desk = Desk::new();
    let document = understudy_crds::manifest::read(&manifest("edited", worker.port(), SPEC)).expect("a manifest");
    let out = desk.out("edited");
    let (wants, wanted) = watch::channel(document.spec.candidates.clone());
    let mut platform = Editable::open(document.clone(), out.clone(), None, wanted).await.expect("a platform");
    let mirror = run::start_mirror(&document, platform.worker(), &out).expect("a mirror");
    let (halt, _) = watch::channel(false);
    let state = State::new(Arc::clone(&mirror), run::arms(&document), halt.clone());
    let options = options(document, out);
    let application = Application::start(mirror.address, 4, Duration::from_millis(150)).await;
    let (address, shown) = (mirror.address, state.clone());
    let running = tokio::spawn(async move {
        Box::pin(run::run_on(&mut platform, options, &mut Alone, mirror, shown)).await.map(|ended| ended.status)
    });
    wait_until("observing", || async { state.status().phase == Phase::Observing }).await;

    wants.send_replace(vec![candidate("first", "8MB"), candidate("later", "16MB")]);
    wait_until("the later one is live", || async { live(&state.status()) == [BASELINE, "first", "later"] }).await;
    // A first interval needs as many intervals of measurement as its share of error asks for: about a minute.
    let compared = || async { state.status().comparisons.iter().any(|c| c.candidate == "later") };
    wait_until_within(Duration::from_secs(240), "it is compared", compared).await;
    let status = state.status();
    let cut = |name: &str| status.arms.iter().find(|a| a.name == name).and_then(|a| a.cut.clone()).map(|c| c.lsn);
    assert_eq!(cut(BASELINE), cut("first"));
    assert_ne!(cut("later"), cut("first"));

    wants.send_replace(vec![candidate("later", "16MB")]);
    wait_until("the first one is gone", || async { live(&state.status()) == [BASELINE, "later"] }).await;
    assert!(state.status().comparisons.iter().all(|c| c.candidate != "first"), "nothing is said of it any more");

    let served = application.stop().await;
    assert_eq!(served.errors, Vec::<String>::new());
    assert_eq!(ledger(&direct).await, served.writes);
    let later = arm(&state.status(), "later").await;
    let memory: String = later.query_one("SHOW work_mem", &[]).await.expect("a setting").get(0);
    assert_eq!(memory, "16MB");
    let rows = "SELECT count(*), sum(hashtext(ledger::text)) FROM ledger";
    let all = direct.query_one(rows, &[]).await.expect("the ledger");
    wait_until("the later one has every write, once", || async {
        let found = later.query_one(rows, &[]).await.expect("the arm's ledger");
        let same = |column: usize| found.get::<_, Option<i64>>(column) == all.get::<_, Option<i64>>(column);
        same(0) && same(1)
    })
    .await;
    assert!(state.status().arms.iter().all(|arm| arm.exchanges.lost == 0));
    drop(later);
    halt.send_replace(true);
    let ended = running.await.expect("the run's end").expect("halted in good order");
    assert_eq!(ended.phase, Phase::Halted);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the mirror has gone");
}
