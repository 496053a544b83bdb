//! What the clients see: counts and latency. Counting must not slow a session down, and must not
//! remember anything that users sent.

use std::{
    future::Future,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// What the clients have seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadStats {
    /// Transactions that ended as intended, deliberate rollbacks included.
    pub transactions: u64,
    /// Statements answered without an error.
    pub statements: u64,
    /// Errors that the application provokes: unique violations.
    pub expected_errors: u64,
    /// Everything else that failed. 0 is right.
    pub unexpected_errors: u64,
    /// Where the last unexpected error came from, and its SQLSTATE or kind.
    pub last_unexpected: Option<String>,
    /// Sessions that changed to another address because they were told to.
    pub moves: u64,
    /// Sessions that had to connect again because their connection broke.
    pub reconnects: u64,
    /// Arrivals that were dropped since their session was still busy.
    pub dropped: u64,
}

/// The latest latencies of one kind of statement, as clients saw them, µs.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    latencies_us: Vec<u32>,
    next: usize,
}

/// Samples that are kept; older ones are overwritten.
const KEPT: usize = 1 << 16;

impl Samples {
    fn add(&mut self, latency: Duration) {
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        match self.latencies_us.get_mut(self.next) {
            Some(oldest) => *oldest = latency_us,
            None => self.latencies_us.push(latency_us),
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// Samples that are kept.
    pub fn count(&self) -> usize {
        self.latencies_us.len()
    }

    /// The latencies at `quantiles` (0 to 1), µs; 0 without samples.
    pub fn quantiles_us<const N: usize>(&self, quantiles: [f64; N]) -> [u32; N] {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        quantiles.map(|quantile| {
            let below = sorted.len().saturating_sub(1) as f64 * quantile.clamp(0.0, 1.0);
            let rank = (0..sorted.len()).rfind(|rank| *rank as f64 <= below).unwrap_or(0);
            sorted.get(rank).copied().unwrap_or(0)
        })
    }
}

/// Latency as clients saw it, sent until answered.
#[derive(Debug, Clone, Default)]
pub struct ClientLatency {
    /// Statements that change nothing.
    pub read: Samples,
    /// Statements that write or lock.
    pub write: Samples,
}

/// What a statement does, for the clients' own latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// Counts for all sessions of a workload.
#[derive(Debug, Default)]
pub(super) struct Meter {
    transactions: AtomicU64,
    statements: AtomicU64,
    expected_errors: AtomicU64,
    unexpected_errors: AtomicU64,
    moves: AtomicU64,
    reconnects: AtomicU64,
    dropped: AtomicU64,
    last_unexpected: Mutex<Option<String>>,
    latency: Mutex<ClientLatency>,
}

impl Meter {
    pub(super) fn stats(&self) -> WorkloadStats {
        let Self {
            transactions,
            statements,
            expected_errors,
            unexpected_errors,
            moves,
            reconnects,
            dropped,
            last_unexpected,
            latency: _,
        } = self;
        WorkloadStats {
            transactions: transactions.load(Relaxed),
            statements: statements.load(Relaxed),
            expected_errors: expected_errors.load(Relaxed),
            unexpected_errors: unexpected_errors.load(Relaxed),
            last_unexpected: last_unexpected.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            moves: moves.load(Relaxed),
            reconnects: reconnects.load(Relaxed),
            dropped: dropped.load(Relaxed),
        }
    }

    pub(super) fn take_latency(&self) -> ClientLatency {
        std::mem::take(&mut *self.latency.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs one statement and, when it succeeds, counts it with its latency.
    pub(super) async fn time<T, E>(&self, kind: Kind, statement: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let sent = Instant::now();
        let answer = statement.await?;
        let took = sent.elapsed();
        self.statements.fetch_add(1, Relaxed);
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Read => latency.read.add(took),
            Kind::Write => latency.write.add(took),
        }
        Ok(answer)
    }

    pub(super) fn transaction(&self) {
        self.transactions.fetch_add(1, Relaxed);
    }

    pub(super) fn expected_error(&self) {
        self.expected_errors.fetch_add(1, Relaxed);
    }

    pub(super) fn unexpected_error(&self, what: String) {
        self.unexpected_errors.fetch_add(1, Relaxed);
        *self.last_unexpected.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    pub(super) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Relaxed);
    }

    pub(super) fn dropped(&self, arrivals: u64) {
        self.dropped.fetch_add(arrivals, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantiles_us([0.5]), [0]);
        for us in (1..=101).rev() {
            samples.add(Duration::from_micros(us));
        }
        assert_eq!(samples.quantiles_us([0.0, 0.5, 0.95, 1.0]), [1, 51, 96, 101]);
    }

    #[test]
    fn only_the_latest_samples_are_kept() {
        let mut samples = Samples::default();
        for us in 0..(KEPT as u64 + 10) {
            samples.add(Duration::from_micros(us));
        }
        assert_eq!((samples.count(), samples.quantiles_us([0.0])), (KEPT, [10]));
    }
}
