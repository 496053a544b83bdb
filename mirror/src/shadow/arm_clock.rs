//! The arms' clock: the mirror's, but that it stands still while production's threads wait for a processor. What
//! production does in a burst that fills the machine is played when the burst is over, with the spacing it had; the
//! clock then runs a little faster until it is level again. One clock for all arms: what one has to wait for, all
//! have.
//!
//! It never falls back further than it may ([`MOST_BEHIND`], or less): on a machine that is always full the arms play
//! beside production, as nice as their threads are. It must not make anything wait that production does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    clock::now_ns,
    production::run_queue::{RunQueue, is_waiting},
};

/// It falls back no further than this where nothing else is said: a sixth of the lag with which an arm still counts.
pub const MOST_BEHIND: Duration = Duration::from_secs(10);
/// How often production's waits are looked at, ns.
const LOOK_NS: u64 = 20_000_000;
/// The clock makes up for one part in so many of the time that passes.
const RETURN_PART: u64 = 8;

/// The clock.
#[derive(Debug, Default)]
pub struct ArmClock {
    behind_ns: AtomicU64,
    stood_ns: AtomicU64,
}

impl ArmClock {
    /// How far it is behind the mirror's clock, ns.
    pub fn behind_ns(&self) -> u64 {
        self.behind_ns.load(Ordering::Relaxed)
    }

    /// For how long it has stood still, in all, ns.
    pub fn stood_ns(&self) -> u64 {
        self.stood_ns.load(Ordering::Relaxed)
    }
}

/// Sets the clock. There is one, on the ingest's thread.
#[derive(Debug)]
pub struct ClockKeeper {
    clock: Arc<ArmClock>,
    run_queue: Arc<RunQueue>,
    most_behind_ns: u64,
    looked_ns: u64,
    waited_ns: Vec<Option<u64>>,
}

/// What was seen since the last look.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// The time since, ns.
    elapsed_ns: u64,
    /// For how long the thread waited that waited longest, ns.
    waited_ns: u64,
    /// Captured traffic may not take much more memory.
    crowded: bool,
}

impl ClockKeeper {
    /// A keeper of this clock, who looks at these threads.
    pub fn new(clock: Arc<ArmClock>, run_queue: Arc<RunQueue>, most_behind: Duration) -> Self {
        let most_behind_ns = u64::try_from(most_behind.as_nanos()).unwrap_or(u64::MAX);
        Self { clock, run_queue, most_behind_ns, looked_ns: now_ns(), waited_ns: Vec::new() }
    }

    /// Looks at production's threads when it is time to, and sets the clock.
    pub fn look(&mut self, crowded: bool) {
        let now = now_ns();
        let elapsed_ns = now.saturating_sub(self.looked_ns);
        if elapsed_ns < LOOK_NS {
            return;
        }
        self.looked_ns = now;
        self.set(elapsed_ns, crowded);
    }

    fn set(&mut self, elapsed_ns: u64, crowded: bool) {
        let before = std::mem::replace(&mut self.waited_ns, self.run_queue.waited_ns());
        let waited = self.waited_ns.iter().zip(before).filter_map(|(now, before)| (*now)?.checked_sub(before?));
        let look = Look { elapsed_ns, waited_ns: waited.max().unwrap_or(0), crowded };
        let behind_ns = self.clock.behind_ns();
        let next_ns = next_behind_ns(behind_ns, look, self.most_behind_ns);
        self.clock.behind_ns.store(next_ns, Ordering::Relaxed);
        self.clock.stood_ns.fetch_add(next_ns.saturating_sub(behind_ns), Ordering::Relaxed);
        if next_ns == self.most_behind_ns && behind_ns < self.most_behind_ns {
            tracing::debug!("production's threads go on waiting for a processor; the arms play beside them");
        }
    }
}

/// How far the clock is behind from now on, ns.
fn next_behind_ns(behind_ns: u64, look: Look, most_behind_ns: u64) -> u64 {
    let Look { elapsed_ns, waited_ns, crowded } = look;
    // What is not played stays in memory: a load whose bytes fill it is played.
    if !crowded && is_waiting(waited_ns, elapsed_ns) {
        behind_ns.saturating_add(elapsed_ns).min(most_behind_ns)
    } else {
        behind_ns.saturating_sub(elapsed_ns / RETURN_PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MOST: u64 = 10 * SECOND;

    /// For so long production waits such a share of the time; how far behind the clock is then, ns.
    fn after(behind_ns: u64, seconds: u64, percent: u64, crowded: bool) -> u64 {
        let look = Look { elapsed_ns: LOOK_NS, waited_ns: LOOK_NS * percent / 100, crowded };
        (0..seconds * SECOND / LOOK_NS).fold(behind_ns, |behind_ns, _| next_behind_ns(behind_ns, look, MOST))
    }

    #[test]
    fn it_stands_still_while_production_waits_and_then_makes_up_for_it() {
        assert_eq!(after(0, 60, 25, false), 0, "production has room");
        assert_eq!(after(0, 3, 50, false), 3 * SECOND);
        assert_eq!(after(3 * SECOND, 8, 25, false), 2 * SECOND);
        assert_eq!(after(3 * SECOND, 24, 0, false), 0);
    }

    #[test]
    fn it_falls_back_no_further_than_it_may() {
        assert_eq!(after(0, 3600, 100, false), MOST);
    }

    #[test]
    fn what_fills_the_memory_is_played() {
        assert_eq!(after(3 * SECOND, 8, 100, true), 2 * SECOND);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_joins_has_not_waited_all_at_once() {
        let (clock, run_queue) = (Arc::new(ArmClock::default()), Arc::new(RunQueue::new(1)));
        let mut keeper = ClockKeeper::new(Arc::clone(&clock), Arc::clone(&run_queue), MOST_BEHIND);
        keeper.waited_ns = run_queue.waited_ns();
        run_queue.join(0);
        // This thread may have waited for longer than that.
        keeper.set(1, false);
        assert!(keeper.waited_ns.first().is_some_and(Option::is_some));
        assert_eq!((clock.behind_ns(), clock.stood_ns()), (0, 0));
    }
}
