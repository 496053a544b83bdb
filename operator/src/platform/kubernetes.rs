//! The platform of the mirror pod: arms are pods of their own, each with an agent that does there what
//! the local platform does here; the worker is reached over the network.
//!
//! What is said to an arm, to its agent and to its PostgreSQL alike, goes over mutual TLS with the
//! experiment's certificates.
//!
//! It never talks to Kubernetes: pods are made, removed and promoted to by the operator.

pub mod agent;
pub mod protocol;

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

use futures_util::future::{join_all, try_join_all};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio_postgres::Config;
use understudy_crds::{
    experiment::Candidate,
    pods::{ArmPeer, CandidatesNotice, POSTGRES_PORT},
};
use understudy_mirror::{shadow::arm::address::ArmAddress, stream::Address};

use self::{
    agent::Agent,
    protocol::{AgentState, AtTheCut, Order},
};
use super::{
    ArmEndpoint, Edited, OnProgress, Platform,
    local::{
        cut::CutProbe,
        cut_probe::CutProber,
        direct::{self, DirectSession},
        facts::WorkerFacts,
        leftovers::Cleared,
        lsn::Lsn,
        preflight::{Needs, STATEFUL_SET},
        promotion::{Promoted, RestartWorker},
        recovery::Recovered,
        session::{Names, Session},
        wal_hold::{RunTag, WalHold},
        worker::Worker,
        worker_check::check_worker,
    },
};
use crate::{
    error::{ErrorKind, Side, UserError},
    plan::Disk,
};

/// WAL that the worker may be made to keep while it is cloned, in bytes.
const MOST_HELD_WAL_BYTES: u64 = 16 << 30;
/// How often is looked whether an agent has done what it was told.
const POLL: Duration = Duration::from_millis(200);
/// How long a clone may take to recover to the cut: as long as it has WAL to replay.
const RECOVERY_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// What became of a promotion; others do it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromotionWord {
    /// Nothing has been decided.
    #[default]
    Undecided,
    /// The candidate is being rolled out.
    Began,
    /// It is on the workers.
    Done,
}

/// The arms of an experiment, seen from the mirror pod.
pub struct KubernetesPlatform {
    worker: Worker,
    facts: WorkerFacts,
    run: RunTag,
    agents: Vec<Agent>,
    candidates: Vec<Candidate>,
    prober: Option<CutProber>,
    hold: Option<WalHold>,
    tls: Arc<ClientConfig>,
    word: Word,
}

/// What the operator says while the experiment runs.
#[derive(Clone)]
pub struct Word {
    /// What becomes of the promotion.
    pub promotion: watch::Receiver<PromotionWord>,
    /// The candidates that there shall be.
    pub candidates: watch::Receiver<CandidatesNotice>,
}

impl KubernetesPlatform {
    /// Asks the worker whether it can be cloned, and begins to look for the arms' agents.
    pub async fn open(
        worker: Worker,
        run: RunTag,
        arms: &[ArmPeer],
        candidates: Vec<Candidate>,
        tls: Arc<ClientConfig>,
        word: Word,
    ) -> Result<Self, UserError> {
        let session = worker.connect().await?;
        let facts = WorkerFacts::read(&session).await?;
        let needs = Needs {
            worker: format!("{}, user {}", worker.label(), worker.target().user),
            fields: STATEFUL_SET,
            clones: arms.len(),
            // The cluster finds room for the arms' volumes, or says that it can't.
            room: Vec::new(),
        };
        check_worker(&worker, &facts, &needs).await?;
        let agents = arms.iter().map(|arm| Agent::new(arm, Arc::clone(&tls))).collect::<Result<_, _>>()?;
        Ok(Self { worker, facts, run, agents, candidates, prober: None, hold: None, tls, word })
    }

    async fn seed_one(&self, agent: &Agent, progress: &OnProgress) -> Result<(), UserError> {
        // One that was told before others were edited goes on.
        if agent.until(POLL, None, |state| Some(*state == AgentState::Waiting)).await? {
            agent.order(&Order::Seed).await?;
        }
        agent
            .until(POLL, None, |state| {
                if let Some(now) = state.progress() {
                    progress(&agent.name, now);
                }
                (*state == AgentState::Following).then_some(())
            })
            .await
    }

    async fn seed_all(&self, progress: &OnProgress) -> Result<(), UserError> {
        try_join_all(self.agents.iter().map(|agent| self.seed_one(agent, progress))).await.map(|_| ())
    }

    async fn cut_one(&self, agent: &Agent, order: &Order) -> Result<(String, Recovered), UserError> {
        agent.order(order).await?;
        let found = agent
            .until(POLL, Some(RECOVERY_LIMIT), |state| match state {
                AgentState::Own(found) => Some(found.clone()),
                _ => None,
            })
            .await?;
        Ok((agent.name.clone(), recovered(&found)))
    }

    /// Where the arm of an edited candidate is.
    fn peer(&self, candidate: &Candidate) -> Result<ArmPeer, UserError> {
        let notice = self.word.candidates.borrow();
        let peer = notice.arms.iter().find(|arm| arm.name == candidate.name).cloned();
        peer.ok_or_else(|| UserError::new(ErrorKind::Missing, Side::Arm, format!("{} has no pod", candidate.name)))
    }

    fn not_prepared() -> UserError {
        UserError::new(ErrorKind::CutFailed, Side::Host, "the cut was not prepared")
    }
}

fn recovered(found: &AtTheCut) -> Recovered {
    Recovered {
        replayed: Lsn::from_str(&found.replayed).unwrap_or_default(),
        committed: found.committed.iter().copied().collect(),
    }
}

impl Platform for KubernetesPlatform {
    const NAME: &'static str = "kubernetes";
    const DIRECT_SESSIONS_MUST_LEAVE: bool = true;

    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn facts(&self) -> &WorkerFacts {
        &self.facts
    }

    async fn connect_arm(&self, arm: &str, database: &str, names: Names) -> Result<Session, UserError> {
        let found = self.agents.iter().find(|agent| agent.name == arm);
        let agent =
            found.ok_or_else(|| UserError::new(ErrorKind::Missing, Side::Arm, format!("there is no arm {arm}")))?;
        let mut config = Config::new();
        config.host(&agent.host).port(POSTGRES_PORT).user(&self.worker.target().user).dbname(database);
        Session::open_over_tls(&config, &agent.tls, Side::Arm, arm, names).await
    }

    async fn seed(&mut self, progress: OnProgress) -> Result<(), UserError> {
        // WAL is not kept for pods that nobody has room for.
        try_join_all(self.agents.iter().map(|agent| agent.until(POLL, None, |_| Some(())))).await?;
        if self.hold.is_none() {
            let clones = self.agents.len();
            self.hold = Some(WalHold::take(&self.worker, &self.run, clones, MOST_HELD_WAL_BYTES).await?);
        }
        let gave_up = async {
            match &self.hold {
                Some(hold) => hold.gave_up().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = self.seed_all(&progress) => result,
            error = gave_up => Err(error),
        }
    }

    async fn prepare_cut(&mut self) -> Result<(), UserError> {
        self.prober = Some(CutProber::open(&self.worker, &self.facts.databases).await?);
        try_join_all(self.agents.iter().map(async |agent| {
            agent.order(&Order::Pause).await?;
            agent.until(POLL, Some(Duration::from_secs(120)), |s| (*s == AgentState::Paused).then_some(())).await
        }))
        .await?;
        Ok(())
    }

    async fn probe(&self) -> Result<CutProbe, UserError> {
        self.prober.as_ref().ok_or_else(Self::not_prepared)?.probe().await
    }

    async fn direct_sessions(&self, mirrored: &[i32]) -> Result<Vec<DirectSession>, UserError> {
        direct::around_the_mirror(&self.worker, mirrored, self.prober.as_ref(), self.hold.as_ref()).await
    }

    async fn terminate_direct(&self, found: &[DirectSession]) -> Result<usize, UserError> {
        let session = self.worker.connect().await?;
        direct::terminate(&session, found).await
    }

    async fn cut(&mut self, probe: &CutProbe, ask: &[u64]) -> Result<BTreeMap<String, Recovered>, UserError> {
        if self.prober.is_none() {
            return Err(Self::not_prepared());
        }
        let order = Order::Cut { lsn: probe.lsn.to_string(), ask: ask.to_vec(), sequences: probe.sequences.clone() };
        let found = try_join_all(self.agents.iter().map(|agent| self.cut_one(agent, &order))).await?;
        // Nothing on this side reaches for the worker's WAL any more.
        self.hold = None;
        self.prober = None;
        Ok(found.into_iter().collect())
    }

    async fn apply(&self) -> Result<(), UserError> {
        let changed = |agent: &&Agent| self.candidates.iter().any(|c| c.name == agent.name && c.sql.is_some());
        try_join_all(self.agents.iter().filter(changed).map(async |agent| {
            agent.order(&Order::Apply).await?;
            // An index takes as long as it takes.
            agent.until(POLL, None, |state| (*state == AgentState::Ready).then_some(())).await
        }))
        .await?;
        Ok(())
    }

    fn endpoints(&self) -> Vec<ArmEndpoint> {
        let endpoint = |agent: &Agent| ArmEndpoint {
            name: agent.name.clone(),
            role: agent.role,
            address: ArmAddress::new(Address::new(&agent.host, POSTGRES_PORT), Some(agent.tls.clone())),
            text: format!("pod {}", agent.host.split('.').next().unwrap_or(&agent.host)),
        };
        self.agents.iter().map(endpoint).collect()
    }

    fn disks(&self) -> Vec<Disk> {
        self.agents.iter().filter_map(Agent::disk).collect()
    }

    async fn dead_arms(&self) -> Vec<(String, UserError)> {
        let looks = self.agents.iter().map(async |agent| agent.trouble().await.map(|why| (agent.name.clone(), why)));
        join_all(looks).await.into_iter().flatten().collect()
    }

    fn edited(&mut self) -> Option<Edited> {
        // Whoever could say more may be gone: then nothing has changed.
        let changed = self.word.candidates.has_changed().unwrap_or(false);
        let CandidatesNotice { candidates, version, arms: _ } =
            changed.then(|| self.word.candidates.borrow_and_update().clone())?;
        Some(Edited { candidates, version })
    }

    fn until_edited(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut candidates = self.word.candidates.clone();
        async move {
            if candidates.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn admit(&mut self, candidate: &Candidate) -> Result<(), UserError> {
        self.agents.push(Agent::new(&self.peer(candidate)?, Arc::clone(&self.tls))?);
        self.candidates.push(candidate.clone());
        Ok(())
    }

    fn newcomer(&self, candidate: &Candidate) -> impl Future<Output = Result<Self, UserError>> + Send + use<> {
        let peer = self.peer(candidate);
        let (worker, run, candidate) = (self.worker.clone(), self.run.clone(), candidate.clone());
        let (tls, word) = (Arc::clone(&self.tls), self.word.clone());
        async move {
            let arms = [peer?];
            Self::open(worker, run, &arms, vec![candidate], tls, word).await
        }
    }

    fn welcome(&mut self, newcomer: Self) {
        self.agents.extend(newcomer.agents);
        self.candidates.extend(newcomer.candidates);
    }

    fn dismiss(&mut self, arm: &str) {
        self.agents.retain(|agent| agent.name != arm);
        self.candidates.retain(|candidate| candidate.name != arm);
    }

    /// Others promote; this waits until it is done. One that is taken back is theirs to tell: what was
    /// measured stays as it is, and the pod goes with the experiment.
    async fn promote(&self, _: &str, _: Option<RestartWorker<'_>>) -> Result<Promoted, UserError> {
        let mut word = self.word.promotion.clone();
        match word.wait_for(|word| *word == PromotionWord::Done).await {
            Ok(_) => Ok(Promoted::default()),
            Err(_) => Err(UserError::new(ErrorKind::Cancelled, Side::Host, "nobody says how the promotion went")),
        }
    }

    /// Pods are the operator's.
    async fn teardown(&mut self) -> Result<Vec<Cleared>, UserError> {
        self.prober = None;
        self.hold = None;
        Ok(Vec::new())
    }
}
