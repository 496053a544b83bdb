//! When clients want something: a Poisson process with bursts, and the bounded backlog of a session
//! that can't keep up. Pure: time goes in as microseconds since the workload began.

use std::{collections::VecDeque, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Length of the slots in which the rate is constant, µs.
const SLOT_US: u64 = 500_000;
/// One slot in so many is a burst.
const BURST_ONE_IN: u64 = 12;
/// Rate in a burst, relative to the mean.
const BURST: f64 = 2.2;
/// Rate outside bursts, such that the mean is 1.
const CALM: f64 = (BURST_ONE_IN as f64 - BURST) / (BURST_ONE_IN as f64 - 1.0);
/// Arrivals that a session keeps while it is busy; older ones are dropped.
const BACKLOG: usize = 16;

/// One arrival of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Number of the arrival in its session, from 0, dropped ones included.
    pub index: u64,
    /// When it is due, µs since the workload began.
    pub at_us: u64,
}

/// The schedule of one session. Endless.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    rng: StdRng,
    seed: u64,
    per_second: f64,
    index: u64,
    at: Duration,
}

impl Arrivals {
    /// The arrivals of `session`, `per_second` on average. Bursts come at the same time for all
    /// sessions with the same seed.
    pub fn new(seed: u64, session: u32, per_second: f64) -> Self {
        let rng = StdRng::seed_from_u64(mix(seed, u64::from(session) + 1));
        Self { rng, seed, per_second: per_second.clamp(0.001, 10_000.0), index: 0, at: Duration::ZERO }
    }

    /// The next arrival: candidates at the burst's rate, thinned to the rate of their moment.
    fn draw(&mut self) -> Arrival {
        loop {
            let gap_s = -(1.0 - self.rng.random::<f64>()).ln() / (self.per_second * BURST);
            self.at += Duration::from_secs_f64(gap_s);
            let at_us = u64::try_from(self.at.as_micros()).unwrap_or(u64::MAX);
            if self.rng.random::<f64>() * BURST < intensity(self.seed, at_us) {
                let arrival = Arrival { index: self.index, at_us };
                self.index += 1;
                return arrival;
            }
        }
    }
}

/// The rate at a moment, relative to the mean.
fn intensity(seed: u64, at_us: u64) -> f64 {
    if mix(seed, at_us / SLOT_US).is_multiple_of(BURST_ONE_IN) { BURST } else { CALM }
}

/// A well-mixed number from two (the finaliser of SplitMix64).
pub(super) fn mix(seed: u64, value: u64) -> u64 {
    let mut z = seed.wrapping_add(value.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What has arrived at a session and has not been served.
#[derive(Debug, Clone)]
pub(super) struct Backlog {
    arrivals: Arrivals,
    upcoming: Arrival,
    pending: VecDeque<Arrival>,
}

impl Backlog {
    /// An empty backlog.
    pub fn new(mut arrivals: Arrivals) -> Self {
        let upcoming = arrivals.draw();
        Self { arrivals, upcoming, pending: VecDeque::with_capacity(BACKLOG) }
    }

    /// Takes in what has arrived by `now_us`; returns how many arrivals had to be dropped for it.
    pub fn admit(&mut self, now_us: u64) -> u64 {
        let mut dropped = 0;
        while self.upcoming.at_us <= now_us {
            if self.pending.len() == BACKLOG {
                self.pending.pop_front();
                dropped += 1;
            }
            self.pending.push_back(self.upcoming);
            self.upcoming = self.arrivals.draw();
        }
        dropped
    }

    /// The oldest arrival that has not been served.
    pub fn serve(&mut self) -> Option<Arrival> {
        self.pending.pop_front()
    }

    /// When the next arrival is due, µs since the workload began.
    pub fn next_us(&self) -> u64 {
        self.upcoming.at_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(seed: u64, session: u32, per_second: f64, until_us: u64) -> Vec<u64> {
        let mut arrivals = Arrivals::new(seed, session, per_second);
        std::iter::from_fn(|| Some(arrivals.draw().at_us)).take_while(|at| *at < until_us).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        assert_eq!(arrivals(7, 3, 5.0, 60_000_000), arrivals(7, 3, 5.0, 60_000_000));
        assert_ne!(arrivals(7, 3, 5.0, 60_000_000), arrivals(8, 3, 5.0, 60_000_000));
        assert_ne!(arrivals(7, 3, 5.0, 60_000_000), arrivals(7, 4, 5.0, 60_000_000));
    }

    #[test]
    fn the_mean_rate_is_what_was_asked_for() {
        let hour = 3_600_000_000;
        let count = arrivals(1, 0, 10.0, hour).len();
        assert!((34_500..37_500).contains(&count), "{count} in an hour at 10 a second");
    }

    #[test]
    fn bursts_are_busier_and_common_to_all_sessions() {
        let (seed, hour) = (1, 3_600_000_000);
        for session in [0, 1] {
            let all = arrivals(seed, session, 10.0, hour);
            let burst = all.iter().filter(|at| intensity(seed, **at) > 1.0).count();
            let share = burst as f64 / all.len() as f64;
            let expected = BURST / BURST_ONE_IN as f64;
            assert!((share - expected).abs() < 0.03, "{share} of the arrivals in bursts, expected {expected}");
        }
    }

    #[test]
    fn a_busy_session_keeps_the_latest_arrivals_and_counts_the_rest() {
        let mut backlog = Backlog::new(Arrivals::new(1, 0, 10.0));
        let due = arrivals(1, 0, 10.0, 60_000_000);
        let dropped = backlog.admit(59_999_999);
        assert_eq!(dropped, due.len() as u64 - BACKLOG as u64);
        let kept: Vec<u64> = std::iter::from_fn(|| backlog.serve()).map(|arrival| arrival.at_us).collect();
        assert_eq!(kept, due[due.len() - BACKLOG..]);
    }

    #[test]
    fn nothing_is_served_before_it_is_due() {
        let mut backlog = Backlog::new(Arrivals::new(1, 0, 10.0));
        let first = backlog.next_us();
        assert_eq!((backlog.admit(first - 1), backlog.serve()), (0, None));
        assert_eq!(backlog.admit(first), 0);
        assert_eq!(backlog.serve(), Some(Arrival { index: 0, at_us: first }));
        assert!(backlog.next_us() >= first);
    }
}
