//! How long production's threads have waited for a processor, by the kernel's own account of each
//! (`/proc/PID/task/TID/schedstat`, Documentation/scheduler/sched-stats.rst). The shadow side reads all of them, and each
//! thread its own a few times a second; it must cost production's threads no more. Where the system keeps no such
//! account, nobody ever waits.

use std::{fs::File, os::unix::fs::FileExt as _, sync::OnceLock};

/// The accounts of production's threads.
#[derive(Debug)]
pub struct RunQueue(Vec<OnceLock<File>>);

impl RunQueue {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| OnceLock::new()).collect())
    }

    /// The calling thread is production's thread of this number.
    pub fn join(&self, thread: usize) {
        // What is opened is this thread's account, whoever reads it later.
        if let (Some(place), Ok(account)) = (self.0.get(thread), File::open("/proc/thread-self/schedstat")) {
            // A thread joins once.
            let _ = place.set(account);
        }
    }

    /// For how long each of them has waited since it began, ns; nothing of one that has no account. A wait is told
    /// when it is over.
    pub fn waited_ns(&self) -> Vec<Option<u64>> {
        (0..self.0.len()).map(|thread| self.waited_ns_of(thread)).collect()
    }

    /// For how long the one with this number has waited. As above.
    pub fn waited_ns_of(&self, thread: usize) -> Option<u64> {
        waited_ns(self.0.get(thread)?.get()?)
    }
}

/// A thread waits when it has spent this share of the time waiting, percent. Two processors: up to 25 beside an arm that
/// has room, from 50 on where everything is taken (PERFORMANCE.md).
const WAITING_PERCENT: u64 = 40;

/// Whether a thread waits for a processor that has waited for so much of that time, both ns.
pub fn is_waiting(waited_ns: u64, elapsed_ns: u64) -> bool {
    waited_ns.saturating_mul(100) >= elapsed_ns.saturating_mul(WAITING_PERCENT)
}

/// Time on a processor, time waiting for one (both ns), and how often it got one.
fn waited_ns(account: &File) -> Option<u64> {
    let mut text = [0; 96];
    let read = account.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..read)?).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn nothing_is_known_of_a_thread_before_it_has_joined() {
        assert_eq!(RunQueue::new(2).waited_ns(), [None, None]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn more_threads_than_processors_wait_and_another_thread_sees_it() {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let run_queue = Arc::new(RunQueue::new(processors + 1));
        let end = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..=processors)
            .map(|number| {
                let (run_queue, end) = (Arc::clone(&run_queue), Arc::clone(&end));
                thread::spawn(move || {
                    run_queue.join(number);
                    while !end.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(60);
        while run_queue.waited_ns().into_iter().flatten().sum::<u64>() < 1_000_000 {
            assert!(Instant::now() < until, "nobody waited: {:?}", run_queue.waited_ns());
            thread::sleep(Duration::from_millis(5));
        }
        end.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
