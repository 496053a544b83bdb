//! The mirror's side of the exact cut: closes the gate, says what is under way, and marks the moment.
//! What the worker says at that moment is asked by the platform, which decides whether the cut holds.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    capture::exchange::SessionId,
    clock::now_ns,
    mirror::{INGEST_LIMIT, Mirror},
    production::gate::Hold,
    shadow::ingest::Command,
};

/// How often in-flight exchanges are counted while the gate is closed.
const LOOK: Duration = Duration::from_micros(200);

/// Why a cut could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The shadow path does not answer.
    #[error("the mirror's shadow path does not answer")]
    ShadowGone,
    /// Nothing is captured, so nothing could be played after the cut.
    #[error("the mirror does not capture")]
    NotCapturing,
}

/// An exchange that was under way when the gate was closed and production drained as far as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// The session.
    pub session: SessionId,
    /// Its backend.
    pub backend_pid: i32,
    /// More than one exchange is under way in it (a pipeline): what came of each can't be told apart.
    pub pipelined: bool,
}

/// The moment of a cut.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The moment from which on nothing ended until the gate opened again, ns since the mirror's epoch.
    /// What had ended by then is on the clones. It lies before the worker was asked: an answer that was
    /// read since, and not yet counted, may tell of a commit that the worker had not made then.
    pub at_ns: u64,
    /// When the gate opened again, ns since the mirror's epoch.
    pub sealed_ns: u64,
    /// What was under way.
    pub in_flight: Vec<InFlight>,
    /// Sessions with an open transaction: it is played from its beginning.
    pub carried_over: usize,
    /// How long the gate was closed.
    pub pause: Duration,
}

/// A closed gate. It opens when dropped, and by itself at its deadline.
#[derive(Debug)]
pub struct ClosedGate<'a> {
    mirror: &'a Mirror,
    closed_ns: u64,
    deadline_ns: u64,
    ended: u64,
    drained_ns: u64,
    /// What is under way.
    pub in_flight: Vec<InFlight>,
}

impl Mirror {
    /// Keeps from now on what a cut will need. Waits until the shadow path has taken note.
    pub async fn prepare_cut(&self) -> Result<(), CutError> {
        if !self.is_capturing() {
            return Err(CutError::NotCapturing);
        }
        let (reply, noted) = oneshot::channel();
        self.commands.try_send(Command::Retain(now_ns(), reply)).map_err(|_| CutError::ShadowGone)?;
        timeout(INGEST_LIMIT, noted).await.map_err(|_| CutError::ShadowGone)?.map_err(|_| CutError::ShadowGone)
    }

    /// No cut is being made any more: forget what is over.
    pub fn release_cut(&self) {
        // A shadow path that is gone keeps nothing.
        let _ = self.commands.try_send(Command::Release);
    }

    /// Closes the gate for new transactions, lets the open ones end for half of the pause, then holds
    /// everything, and returns as soon as nothing is under way, or when half of the rest is over.
    /// The gate opens by itself at `max_pause`.
    pub async fn close_gate(&self, max_pause: Duration) -> ClosedGate<'_> {
        let gate = &self.production.gate;
        let closed_ns = now_ns();
        let pause_ns = u64::try_from(max_pause.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = closed_ns.saturating_add(pause_ns);
        gate.close(Hold::Transactions, deadline_ns);
        self.wait_while(closed_ns + pause_ns / 2, |s| {
            s.in_flight.load(Ordering::SeqCst) > 0 || s.in_block.load(Ordering::SeqCst)
        })
        .await;
        gate.close(Hold::Exchanges, deadline_ns);
        self.wait_while(closed_ns + pause_ns * 3 / 4, |s| s.in_flight.load(Ordering::SeqCst) > 0).await;
        // In this order: what ends from here on is counted, or ended by `drained_ns`.
        let ended = gate.ended();
        let in_flight = self.in_flight();
        let drained_ns = now_ns();
        ClosedGate { mirror: self, closed_ns, deadline_ns, ended, drained_ns, in_flight }
    }

    fn in_flight(&self) -> Vec<InFlight> {
        self.mirrored()
            .iter()
            .filter_map(|s| {
                let exchanges = s.in_flight.load(Ordering::SeqCst);
                (exchanges > 0).then(|| InFlight {
                    session: s.id,
                    backend_pid: s.backend_pid.load(Ordering::SeqCst),
                    pipelined: exchanges > 1,
                })
            })
            .collect()
    }

    async fn wait_while(&self, until_ns: u64, busy: impl Fn(&crate::production::sessions::SessionState) -> bool) {
        while now_ns() < until_ns && self.mirrored().iter().any(|s| busy(s)) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn mirrored(&self) -> Vec<Arc<crate::production::sessions::SessionState>> {
        let mut sessions = self.production.sessions.list();
        sessions.retain(|s| s.mirrored.load(Ordering::Relaxed));
        sessions
    }
}

impl ClosedGate<'_> {
    /// How many exchanges have ended since the gate was found drained.
    pub fn ended_since(&self) -> u64 {
        self.mirror.production.gate.ended() - self.ended
    }

    /// Whether a session is in a transaction block.
    pub fn has_open_transactions(&self) -> bool {
        self.mirror.mirrored().iter().any(|s| s.in_block.load(Ordering::SeqCst))
    }

    /// How much of the pause is left.
    pub fn left(&self) -> Duration {
        Duration::from_nanos(self.deadline_ns.saturating_sub(now_ns()))
    }

    /// Marks the moment and opens the gate. `None`: an exchange has ended or begun since, or the gate
    /// has opened by itself; the cut does not hold.
    pub fn seal(self) -> Option<Cut> {
        let sealed_ns = now_ns();
        let carried_over = self.mirror.mirrored().iter().filter(|s| s.in_block.load(Ordering::SeqCst)).count();
        // A pipeline goes on behind a closed gate: whatever its backend did when the worker was asked may
        // belong to an exchange that was not there when the gate was found drained.
        let known = |flight: &InFlight| self.in_flight.iter().any(|f| f.session == flight.session);
        let grown = self.mirror.in_flight().iter().any(|f| f.pipelined || !known(f));
        if grown || self.ended_since() > 0 || sealed_ns >= self.deadline_ns {
            return None;
        }
        self.mirror.production.gate.open();
        let pause = Duration::from_nanos(now_ns().saturating_sub(self.closed_ns));
        Some(Cut { at_ns: self.drained_ns, sealed_ns, in_flight: self.in_flight.clone(), carried_over, pause })
    }
}

impl Drop for ClosedGate<'_> {
    fn drop(&mut self) {
        self.mirror.production.gate.open();
    }
}
