//! The traffic of an analytics application, as an open-loop workload: clients arrive on a schedule of
//! their own, whether or not the server keeps up.
//!
//! To the workload there is one server at one address. Everything that a read returns follows from
//! the data alone, so that outcomes can be compared between servers with the same data.

mod action;
mod arrivals;
mod connection;
mod ledger;
mod meter;
mod perform;
mod reads;
mod role;
mod route;
mod session;
mod statements;
mod writes;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_postgres::Config;

use self::{
    arrivals::{Arrivals, Backlog},
    meter::Meter,
    role::Role,
    route::{Moves, Route},
    session::{Session, Shared},
};
pub use self::{
    ledger::{Ledger, LedgerCheck, LedgerError},
    meter::{ClientLatency, Samples, WorkloadStats},
};

/// Sessions of the application.
pub const SESSIONS: u32 = 40;
/// How long the sessions may take to open, to move, or to end.
const LIMIT: Duration = Duration::from_secs(30);

/// Something went wrong with the workload as a whole.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// A session could not be opened.
    #[error("the demo's application could not connect; is the worker up, with at least {SESSIONS} connections free?")]
    Connect(#[source] tokio_postgres::Error),
    /// Not all sessions could be opened in time.
    #[error("the demo's application could not open {SESSIONS} sessions within {} s; is the worker overloaded?", LIMIT.as_secs())]
    ConnectTimedOut,
    /// Not all sessions changed over in time.
    #[error("{moved} of {SESSIONS} sessions changed to the new address within {} s; does it accept connections?", LIMIT.as_secs())]
    MoveTimedOut {
        /// Sessions that did.
        moved: usize,
    },
}

/// Starts workloads.
#[derive(Debug, Clone, Copy)]
pub struct Workload;

impl Workload {
    /// Opens all sessions at `config` and starts the traffic.
    ///
    /// The same `seed` gives the same arrivals and the same choices. `rate` scales the arrivals: 1 is
    /// what a small machine carries three times over.
    pub async fn start(config: Config, seed: u64, rate: f64) -> Result<WorkloadHandle, WorkloadError> {
        let (control, route) = watch::channel(Route { config, generation: 0, stopping: false });
        let moves = Arc::new(Moves::default());
        let meter = Arc::new(Meter::default());
        let ledger = Arc::new(Ledger::default());
        let started = Instant::now();
        let mut sessions = Vec::new();
        let opening = async {
            for number in 0..SESSIONS {
                let role = Role::of(number);
                let arrivals = Arrivals::new(seed, number, role.per_second() * rate);
                let backlog = Backlog::new(arrivals);
                let shared = Shared {
                    route: route.clone(),
                    moves: Arc::clone(&moves),
                    meter: Arc::clone(&meter),
                    ledger: Arc::clone(&ledger),
                };
                sessions.push(Session::open(number, seed, backlog, shared).await.map_err(WorkloadError::Connect)?);
            }
            Ok(())
        };
        timeout(LIMIT, opening).await.map_err(|_| WorkloadError::ConnectTimedOut)??;
        let clock = Instant::now();
        tracing::debug!(sessions = sessions.len(), took = ?clock - started, "workload connected");
        let mut tasks = JoinSet::new();
        for session in sessions {
            tasks.spawn(session.run(clock));
        }
        Ok(WorkloadHandle { control, moves, meter, ledger, tasks })
    }
}

/// A running workload. Dropping it ends the sessions at once.
#[derive(Debug)]
pub struct WorkloadHandle {
    control: watch::Sender<Route>,
    moves: Arc<Moves>,
    meter: Arc<Meter>,
    ledger: Arc<Ledger>,
    tasks: JoinSet<()>,
}

impl WorkloadHandle {
    /// What the clients have seen so far.
    pub fn stats(&self) -> WorkloadStats {
        self.meter.stats()
    }

    /// Latency as the clients saw it since the last call.
    pub fn take_latency(&self) -> ClientLatency {
        self.meter.take_latency()
    }

    /// Writes that the server has acknowledged.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Moves every session to another address of the same server, each at its next transaction
    /// boundary, and returns when all have left the old one.
    pub async fn reconnect_to(&self, config: Config) -> Result<(), WorkloadError> {
        let mut generation = 0;
        self.control.send_modify(|route| {
            route.config = config;
            route.generation += 1;
            generation = route.generation;
        });
        let sessions = SESSIONS as usize;
        if timeout(LIMIT, self.moves.reached(generation, sessions)).await.is_err() {
            return Err(WorkloadError::MoveTimedOut { moved: self.moves.count(generation) });
        }
        Ok(())
    }

    /// Ends every session at its next transaction boundary, at the latest after half a minute.
    pub async fn stop(mut self) -> (WorkloadStats, Arc<Ledger>) {
        self.control.send_modify(|route| route.stopping = true);
        let ended = timeout(LIMIT, async { while self.tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            self.tasks.shutdown().await;
        }
        (self.meter.stats(), self.ledger)
    }

    /// Looks for every acknowledged write on the server behind `client`.
    pub async fn check_ledger(&self, client: &tokio_postgres::Client) -> Result<LedgerCheck, LedgerError> {
        self.ledger.check(client).await
    }
}
