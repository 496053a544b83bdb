//! An exchange as the arms see it: with what its statements are and touch, and what it owes the
//! memory budget.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use understudy_crds::{condition::SkipReason, experiment::StatementClass};

use super::statement::footprint::Footprint;
use crate::{
    capture::exchange::{Exchange, Outcome},
    measure::interval::Fingerprint,
};

/// What an entry weighs beside the bytes it carries.
pub const ENTRY_BYTES: usize = 768;
/// One part in so many of the budget in use is enough that nothing is put off; at a half, the log goes to disk.
const CROWDED_PART: usize = 4;

/// An exchange with what is known about it. Shared by all arms; freed when the last has passed it.
#[derive(Debug)]
pub struct Entry {
    /// Number in the order in which requests were completed, over all sessions.
    pub id: u64,
    /// What was captured.
    pub exchange: Arc<Exchange>,
    /// The statements it executes, in order.
    pub statements: Vec<PlannedStatement>,
    /// It may write or lock: it takes part in the order.
    pub writes: bool,
    /// What its statements touch.
    pub touches: Footprint,
    /// What becomes visible to others when it ends.
    pub publishes: Footprint,
    /// When it ends, sessions may begin with something else: roles, databases, or what is set for either.
    pub beginnings: bool,
    /// Why it is not played, if it is not.
    pub skip: Option<Skip>,
    /// On production it overlapped something that changed what it reads.
    pub overlapped: AtomicBool,
    /// What it takes of the memory budget.
    pub charge: Charge,
    /// What its outcome takes. Set once the ingest has taken the outcome in: only then is it known what
    /// it overlapped, and whatever production finished before it.
    pub taken_in: OnceLock<Charge>,
}

/// One statement of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStatement {
    /// What its latency counts as.
    pub class: StatementClass,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// How its rows are compared.
    pub answer: Answer,
}

/// An exchange is not played, on any arm. Stands in the traffic log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// Why.
    pub reason: SkipReason,
    /// Something in it changes data or objects: an arm that does not play it has others from then on.
    pub changes: bool,
}

/// Whether two servers with the same data give the same rows. Stands in the traffic log by its place here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// They do, in any order.
    Definite,
    /// They depend on the clock, on chance, or on the server itself, as system catalogs do.
    Volatile,
    /// As many rows, but a plan chooses which, where there is no order or it has ties: LIMIT, DISTINCT ON. An index,
    /// which may be what is tried, makes another choice that is as right.
    Picked,
    /// They do where nothing was changed meanwhile: a function of which nothing is known may have read anything.
    Called,
}

impl Answer {
    /// The same where no more than some of the rows are asked for.
    #[must_use]
    pub fn of_some(self) -> Self {
        match self {
            Self::Definite => Self::Picked,
            Self::Called => Self::Volatile,
            other => other,
        }
    }
}

impl Entry {
    /// What came of it on production, once known.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.exchange.outcome.get()
    }

    /// When it ended on production; `u64::MAX` while it runs.
    pub fn ended_ns(&self) -> u64 {
        self.outcome().map_or(u64::MAX, |o| o.ended_ns)
    }

    /// Whether its rows may differ between two servers although both are right.
    pub fn is_ambiguous(&self) -> bool {
        self.overlapped.load(Ordering::Relaxed)
    }

    /// What it takes of the memory budget, with its outcome where that has been taken in, bytes.
    pub fn charged_bytes(&self) -> usize {
        self.charge.bytes + self.taken_in.get().map_or(0, |charge| charge.bytes)
    }
}

#[cfg(test)]
impl Entry {
    /// An entry of which nothing is known: it may do anything, and takes nothing of a budget.
    pub(crate) fn unplanned(exchange: Exchange) -> Self {
        Self {
            id: 1,
            exchange: Arc::new(exchange),
            statements: Vec::new(),
            writes: true,
            touches: Footprint::Anything,
            publishes: Footprint::Anything,
            beginnings: true,
            skip: None,
            overlapped: AtomicBool::new(false),
            charge: Budget::new(0).charge(0),
            taken_in: OnceLock::new(),
        }
    }
}

/// Bytes of the memory budget, given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Where it was taken.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

/// The memory that captured traffic takes, and how much it may take.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    /// The limit, bytes.
    pub limit_bytes: usize,
}

impl Budget {
    /// A budget.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit_bytes })
    }

    /// Takes bytes, whether or not there is room: who asks looks at [`Budget::is_exceeded`].
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Charge { budget: Arc::clone(self), bytes }
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// So much is in use that nothing may be put off.
    pub fn is_crowded(&self) -> bool {
        self.used_bytes() > self.limit_bytes / CROWDED_PART
    }

    /// More is in use than allowed.
    pub fn is_exceeded(&self) -> bool {
        self.used_bytes() > self.limit_bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
