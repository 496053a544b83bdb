//! Where experiments run: this machine ([`local`]), or pods of a cluster ([`kubernetes`]).
//!
//! The control plane decides; a platform makes clones, cuts them from the worker's WAL, puts changes
//! on them and on the worker, and clears up. It must not decide when, nor judge.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use understudy_crds::{condition::ArmRole, experiment::Candidate};
use understudy_mirror::shadow::arm::address::ArmAddress;

use crate::{
    error::{ErrorKind, Side, UserError},
    plan::Disk,
};

pub mod kubernetes;
pub mod local;

use local::{
    base_backup::CopyProgress,
    cut::CutProbe,
    direct::DirectSession,
    facts::WorkerFacts,
    leftovers::Cleared,
    promotion::{Promoted, RestartWorker},
    recovery::Recovered,
    session::{Names, Session},
    worker::Worker,
};

/// Told how far the copy of an arm is, by the arm's name. It must return at once.
pub type OnProgress = Arc<dyn Fn(&str, CopyProgress) + Send + Sync>;

/// Where an arm can be reached by the mirror, and by a person.
#[derive(Clone, Debug)]
pub struct ArmEndpoint {
    /// The arm's name.
    pub name: String,
    /// What it is for.
    pub role: ArmRole,
    /// Where and how the mirror reaches its PostgreSQL.
    pub address: ArmAddress,
    /// For people: `host=/tmp/… port=5433`.
    pub text: String,
}

/// Candidates that were edited while an experiment runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Edited {
    /// All that there shall be.
    pub candidates: Vec<Candidate>,
    /// What whoever edits them calls this version of them.
    pub version: String,
}

fn not_edited(candidate: &Candidate) -> UserError {
    let what = format!("{} can't be added while the experiment runs", candidate.name);
    UserError::new(ErrorKind::Unfit, Side::Host, what)
}

/// What a platform does for an experiment, in this order.
pub trait Platform: Send + Sync + Sized + 'static {
    /// Its name in reports.
    const NAME: &'static str;
    /// Whether every client session has to pass the mirror before the cut, the idle ones too. Where
    /// clients were moved by a change of routing, an idle session that stayed behind writes later.
    const DIRECT_SESSIONS_MUST_LEAVE: bool;

    /// The worker.
    fn worker(&self) -> &Worker;

    /// What the worker said about itself.
    fn facts(&self) -> &WorkerFacts;

    /// Opens a control session to a database of an arm that has left the WAL.
    fn connect_arm(
        &self,
        arm: &str,
        database: &str,
        names: Names,
    ) -> impl Future<Output = Result<Session, UserError>> + Send;

    /// Makes a clone for every arm that has none yet, side by side, and waits until all of them follow the
    /// worker.
    fn seed(&mut self, progress: OnProgress) -> impl Future<Output = Result<(), UserError>> + Send;

    /// Opens what the cut needs and pauses the clones. From here on WAL piles up on them: cut soon.
    fn prepare_cut(&mut self) -> impl Future<Output = Result<(), UserError>> + Send;

    /// Reads what a cut needs from the worker, while the gate is shut.
    fn probe(&self) -> impl Future<Output = Result<CutProbe, UserError>> + Send;

    /// Sessions on the worker that are neither the mirror's (`mirrored`, by backend) nor ours.
    fn direct_sessions(&self, mirrored: &[i32]) -> impl Future<Output = Result<Vec<DirectSession>, UserError>> + Send;

    /// Ends sessions that bypass the mirror.
    fn terminate_direct(&self, found: &[DirectSession]) -> impl Future<Output = Result<usize, UserError>> + Send;

    /// Makes a server of its own of every clone: recovered to the cut, quarantined, with the worker's
    /// sequences. Transactions in doubt (`ask`) are settled, for each arm by name.
    fn cut(
        &mut self,
        probe: &CutProbe,
        ask: &[u64],
    ) -> impl Future<Output = Result<BTreeMap<String, Recovered>, UserError>> + Send;

    /// Puts every candidate's SQL on its clone.
    fn apply(&self) -> impl Future<Output = Result<(), UserError>> + Send;

    /// Where the arms are, the baseline first.
    fn endpoints(&self) -> Vec<ArmEndpoint>;

    /// Why an arm's server has ended, for those that have, by the arm's name.
    fn dead_arms(&self) -> impl Future<Output = Vec<(String, UserError)>> + Send;

    /// The room that the arms have, as far as it is known.
    fn disks(&self) -> Vec<Disk>;

    /// The candidates that somebody asks for now, when that has changed since it was last looked. Where
    /// candidates can't be edited, nobody does.
    fn edited(&mut self) -> Option<Edited> {
        None
    }

    /// Waits until there is something new in [`Self::edited`].
    fn until_edited(&self) -> impl Future<Output = ()> + Send + use<Self> {
        std::future::pending()
    }

    /// Takes in a candidate that was added before the first cut: it is seeded with the others.
    fn admit(&mut self, candidate: &Candidate) -> Result<(), UserError> {
        Err(not_edited(candidate))
    }

    /// A platform of one arm, for a candidate that was added: it is seeded and cut by itself.
    fn newcomer(&self, candidate: &Candidate) -> impl Future<Output = Result<Self, UserError>> + Send + use<Self> {
        std::future::ready(Err(not_edited(candidate)))
    }

    /// Takes a newcomer's arm among its own, once that plays.
    fn welcome(&mut self, _newcomer: Self) {}

    /// Forgets an arm.
    fn dismiss(&mut self, _arm: &str) {}

    /// Puts a candidate on the worker, checks it, and takes it back when the check fails. The worker
    /// is restarted only by `restart`, where there is one.
    fn promote(
        &self,
        candidate: &str,
        restart: Option<RestartWorker<'_>>,
    ) -> impl Future<Output = Result<Promoted, UserError>> + Send;

    /// Stops and removes everything that was made, and says what that was.
    fn teardown(&mut self) -> impl Future<Output = Result<Vec<Cleared>, UserError>> + Send;
}
