//! The gate holds new exchanges back for the few milliseconds of a cut. It opens by itself at its
//! deadline: nobody's death can keep production waiting.
//!
//! ```text
//!   Open ──close──► Transactions (no new transaction begins; open ones go on)
//!    ▲                   │ half of the pause is over
//!    │                   ▼
//!    └──open/deadline── Exchanges (nothing new is forwarded)
//! ```

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::per_thread::PerThread;
use crate::clock::now_ns;

/// What the gate holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// Nothing.
    Open = 0,
    /// Exchanges that would begin a transaction.
    Transactions = 1,
    /// All new exchanges.
    Exchanges = 2,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    hold: AtomicU8,
    deadline_ns: AtomicU64,
    opened: Notify,
    ended: PerThread<AtomicU64>,
}

impl Gate {
    /// An open gate for so many production threads.
    pub fn new(threads: usize) -> Self {
        Self {
            hold: AtomicU8::new(Hold::Open as u8),
            deadline_ns: AtomicU64::new(0),
            opened: Notify::new(),
            ended: PerThread::new(threads),
        }
    }

    /// Holds back as said until opened, but no longer than until `deadline_ns`.
    pub fn close(&self, hold: Hold, deadline_ns: u64) {
        self.deadline_ns.store(deadline_ns, Ordering::SeqCst);
        self.hold.store(hold as u8, Ordering::SeqCst);
    }

    /// Lets everything through.
    pub fn open(&self) {
        self.hold.store(Hold::Open as u8, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    /// Whether an exchange may begin in a session that is (or is not) in a transaction block.
    pub fn lets(&self, in_block: bool) -> bool {
        let hold = self.hold.load(Ordering::SeqCst);
        hold == Hold::Open as u8
            || (hold == Hold::Transactions as u8 && in_block)
            || now_ns() >= self.deadline_ns.load(Ordering::SeqCst)
    }

    /// Waits until the gate may have opened; at most until its deadline.
    pub async fn opened(&self) {
        let opened = self.opened.notified();
        if self.hold.load(Ordering::SeqCst) == Hold::Open as u8 {
            return;
        }
        let left_ns = self.deadline_ns.load(Ordering::SeqCst).saturating_sub(now_ns());
        // The deadline passing is as good as an opening.
        let _ = timeout(Duration::from_nanos(left_ns), opened).await;
    }

    /// An exchange of this thread's has ended.
    pub fn note_ended(&self, thread: usize) {
        if let Some(ended) = self.ended.of(thread) {
            ended.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Exchanges ended since the mirror began. What ends while this reads is in it, or in what a later call says.
    pub fn ended(&self) -> u64 {
        self.ended.iter().map(|ended| ended.load(Ordering::SeqCst)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_gate_opens_by_itself_at_its_deadline() {
        let gate = Gate::new(1);
        gate.close(Hold::Exchanges, now_ns() + 20_000_000);
        assert!(!gate.lets(true));
        gate.opened().await;
        assert!(gate.lets(false), "nobody opened it");
    }

    #[test]
    fn open_transactions_go_on_while_new_ones_wait() {
        let gate = Gate::new(1);
        assert!(gate.lets(false));
        gate.close(Hold::Transactions, u64::MAX);
        assert!(gate.lets(true) && !gate.lets(false));
        gate.close(Hold::Exchanges, u64::MAX);
        assert!(!gate.lets(true));
        gate.open();
        assert!(gate.lets(false));
    }
}
