//! The arm's heartbeat. Two timers by turns, since tokio wakes its own thread, with a system call and a turn for nothing,
//! for a timer that comes before all others; for one that is set behind another it does not. Must not know what is done at
//! a tick.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep};

/// A heartbeat.
#[derive(Debug)]
pub struct Ticks {
    /// The one that comes next, and the one behind it.
    timers: [Pin<Box<Sleep>>; 2],
}

impl Ticks {
    /// Begins now.
    pub fn start(period: Duration) -> Self {
        Self { timers: [Box::pin(sleep(period)), Box::pin(sleep(2 * period))] }
    }

    /// Waits for the next one, and sets the one behind the next so long behind that. Who gives up waiting misses none.
    pub async fn next(&mut self, period: Duration) {
        let [next, behind] = &mut self.timers;
        next.as_mut().await;
        // Who was held up does not make up for it.
        next.as_mut().reset(behind.deadline().max(Instant::now()) + period);
        self.timers.swap(0, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn none_comes_early_and_none_is_made_up_for() {
        const PERIOD: Duration = Duration::from_millis(2);
        let (began, mut ticks) = (Instant::now(), Ticks::start(PERIOD));
        for n in 1..=4 {
            ticks.next(PERIOD).await;
            assert!(began.elapsed() >= n * PERIOD);
        }
        std::thread::sleep(20 * PERIOD);
        let held_up = Instant::now();
        // Both that were waited for have come meanwhile.
        for n in [0, 0, 1, 2] {
            ticks.next(PERIOD).await;
            assert!(held_up.elapsed() >= n * PERIOD);
        }
    }
}
