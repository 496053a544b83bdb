//! An arm: plays the log to one clone, on a thread of its own. What it tells others stands in
//! [`ArmShared`]; a panic in here ends this arm and nothing else.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use understudy_crds::{
    condition::{ArmRole, ArmState, DivergenceKind, SkipReason},
    status::{ArmStatus, ExchangeCounts, Lag},
};

use super::log::Reader;
use crate::{
    clock::now_ns,
    measure::recorder::{Observing, Recorder},
};

pub mod address;
pub mod driver;
mod locks;
pub mod session;
pub mod ticks;

/// What an arm shares with the rest of the mirror.
#[derive(Debug)]
pub struct ArmShared {
    /// `baseline`, or the candidate's name.
    pub name: String,
    /// What it is for.
    pub role: ArmRole,
    /// Its place among the arms that play at the same time; it starts statements a little after those before.
    pub slot: u32,
    /// Its place in the traffic log, from its cut on.
    pub log: OnceLock<Reader>,
    /// What it measured.
    pub recorder: Mutex<Recorder>,
    counts: Mutex<ArmCounts>,
    state: Mutex<(ArmState, Option<String>)>,
    outstanding: AtomicU64,
    /// Everything that production was done with by then is finished here, ns; `u64::MAX`: nothing has been told yet.
    level_ns: AtomicU64,
    /// Everything that production began before is recorded here, ns.
    recorded_until_ns: AtomicU64,
    /// The first interval in which it is measured; `u64::MAX`: it is not measured.
    measured_from: AtomicU64,
    /// Exchanges that production began at this moment or later wait, ns.
    pub hold_from_ns: AtomicU64,
    /// Everything before the hold has been played.
    pub held: AtomicBool,
    /// The arm is to end.
    pub stop: AtomicBool,
}

/// What became of an arm's exchanges and statements.
#[derive(Debug, Default, Clone)]
pub struct ArmCounts {
    /// Exchanges taken in since the cut.
    pub captured: u64,
    /// Played to the end.
    pub played: u64,
    /// Not played although they should have been.
    pub lost: u64,
    /// Deliberately not played.
    pub skipped: BTreeMap<SkipReason, u64>,
    /// Outcomes that differed.
    pub divergence: BTreeMap<DivergenceKind, u64>,
    /// Statements compared.
    pub compared: u64,
    /// Statements whose rows could not be compared.
    pub ambiguous: u64,
}

impl ArmShared {
    /// An arm that has not begun.
    pub fn new(name: &str, role: ArmRole, slot: u32) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            role,
            slot,
            log: OnceLock::new(),
            recorder: Mutex::default(),
            counts: Mutex::default(),
            state: Mutex::new((ArmState::Seeding, None)),
            outstanding: AtomicU64::new(0),
            level_ns: AtomicU64::new(u64::MAX),
            recorded_until_ns: AtomicU64::new(0),
            measured_from: AtomicU64::new(u64::MAX),
            hold_from_ns: AtomicU64::new(u64::MAX),
            held: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        })
    }

    /// Where it stands, and why it is lost.
    pub fn state(&self) -> (ArmState, Option<String>) {
        lock(&self.state).clone()
    }

    /// It goes on to another state. What is lost or removed stays so.
    pub fn set_state(&self, state: ArmState) {
        let mut current = lock(&self.state);
        if !matches!(current.0, ArmState::Lost | ArmState::Removed) {
            current.0 = state;
        }
    }

    /// Nothing it says counts any more. The first reason is kept.
    pub fn lose(&self, why: &str) {
        let mut current = lock(&self.state);
        if !matches!(current.0, ArmState::Lost | ArmState::Removed) {
            tracing::warn!(arm = self.name, why, "arm lost");
            *current = (ArmState::Lost, Some(why.to_owned()));
        }
    }

    /// Whether it still plays.
    pub fn is_alive(&self) -> bool {
        !matches!(lock(&self.state).0, ArmState::Lost | ArmState::Removed)
    }

    /// Everything that production began before is recorded here, ns.
    pub fn recorded_until_ns(&self) -> u64 {
        self.recorded_until_ns.load(Ordering::Acquire)
    }

    /// It is measured from this interval on, the partial one before it included.
    pub fn measure_from(&self, interval: u64, observing: Observing) {
        lock(&self.recorder).observe(observing);
        self.measured_from.store(interval, Ordering::Release);
    }

    /// The first interval in which it is measured, if it is.
    pub fn measured_from(&self) -> Option<u64> {
        Some(self.measured_from.load(Ordering::Acquire)).filter(|from| *from != u64::MAX)
    }

    /// How far it is behind production.
    pub fn lag(&self) -> Lag {
        let level_ns = self.level_ns.load(Ordering::Relaxed);
        let seconds = if level_ns == u64::MAX { 0.0 } else { now_ns().saturating_sub(level_ns) as f64 / 1e9 };
        let unread = self.log.get().map_or(0, Reader::unread);
        Lag { exchanges: to_i64(self.outstanding.load(Ordering::Relaxed) + unread), seconds }
    }

    /// What became of its exchanges.
    pub fn counts(&self) -> ArmCounts {
        lock(&self.counts).clone()
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut ArmCounts)) {
        change(&mut lock(&self.counts));
    }

    /// What it says of itself. Endpoint and cut are the platform's to add.
    pub fn status(&self) -> ArmStatus {
        let (state, message) = self.state();
        let ArmCounts { captured, played, lost, skipped, divergence, compared, ambiguous } = self.counts();
        let divergence = DivergenceKind::ALL
            .into_iter()
            .map(|kind| (kind, to_i64(divergence.get(&kind).copied().unwrap_or(0))))
            .collect();
        ArmStatus {
            name: self.name.clone(),
            role: self.role,
            state,
            message,
            endpoint: None,
            cut: None,
            lag: self.lag(),
            exchanges: ExchangeCounts {
                captured: to_i64(captured),
                played: to_i64(played),
                lost: to_i64(lost),
                skipped: skipped.into_iter().map(|(reason, n)| (reason, to_i64(n))).collect(),
            },
            divergence,
            compared: to_i64(compared),
            ambiguous: to_i64(ambiguous),
            latency: lock(&self.recorder).latency(),
        }
    }
}

/// How nice an arm's thread is to others: enough that production's threads go first where processors are short,
/// and not so much that an arm never catches up.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Lets production's threads go before the calling thread, as far as the system has a way.
pub fn yield_to_production() {
    // Elsewhere a process is nice as a whole. Linux counts it for each thread.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "the arm's thread runs with production's priority");
    }
}

/// A count as it stands in the status.
pub fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A lock whose holder panicked still guards plain counters that are whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_thread_that_panics_with_a_lock_leaves_the_others_what_it_guards() {
        let shared = ArmShared::new("candidate", ArmRole::Candidate, 0);
        let panics = || shared.count(|_| panic!("as the test wants it"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        shared.count(|counts| counts.played += 1);
        assert_eq!(shared.status().exchanges.played, 1);
        shared.lose("its thread panicked");
        assert_eq!(shared.state().0, ArmState::Lost);
    }
}
