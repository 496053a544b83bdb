//! How long the mirror holds bytes before it passes them on. It counts in fixed arrays: what the production path
//! records must not allocate or lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::per_thread::PerThread;

/// The last is for all that took longer than four seconds.
const POWERS: usize = 24;

/// How long a thread held bytes, in powers of two of microseconds.
#[derive(Debug, Default)]
pub struct HeldHistogram([AtomicU64; POWERS]);

impl HeldHistogram {
    /// Records one time, ns.
    pub fn record(&self, held_ns: u64) {
        let power = (u64::BITS - (held_ns / 1000).leading_zeros()) as usize;
        if let Some(counter) = self.0.get(power.min(POWERS - 1)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An upper limit of the 99th percentile of all threads' times, µs.
pub fn held_p99_us(threads: &PerThread<HeldHistogram>) -> u64 {
    let mut counts = [0_u64; POWERS];
    for held in threads.iter() {
        counts.iter_mut().zip(&held.0).for_each(|(count, counter)| *count += counter.load(Ordering::Relaxed));
    }
    let total: u64 = counts.iter().sum();
    let mut seen = 0;
    for (power, count) in counts.iter().enumerate() {
        seen += count;
        if total > 0 && seen * 100 >= total * 99 {
            return 1 << power;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_told_as_an_upper_limit() {
        let threads = PerThread::<HeldHistogram>::new(2);
        let record = |thread: usize, held_ns| threads.of(thread).unwrap().record(held_ns);
        assert_eq!(held_p99_us(&threads), 0);
        (0..99).for_each(|n| record(n % 2, 3_500));
        assert_eq!(held_p99_us(&threads), 4);
        (0..10).for_each(|_| record(1, 900_000));
        assert_eq!(held_p99_us(&threads), 1024);
    }
}
