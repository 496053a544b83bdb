//! How long production's threads have waited for a processor, by the kernel's own account of each
//! (`/proc/PID/task/TID/schedstat`, Documentation/scheduler/sched-stats.rst). The control and the shadow side read
//! it; it costs production's threads nothing. Where the system keeps no such account, nobody ever waits.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Mutex, PoisonError},
};

/// The accounts of production's threads.
#[derive(Debug, Default)]
pub struct RunQueue(Mutex<Vec<File>>);

impl RunQueue {
    /// The calling thread is one of production's.
    pub fn join(&self) {
        // What is opened is this thread's account, whoever reads it later.
        if let Ok(account) = File::open("/proc/thread-self/schedstat") {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(account);
        }
    }

    /// For how long each of them has waited since it began, ns. A wait is told when it is over.
    pub fn waited_ns(&self) -> Vec<u64> {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.iter().map(|account| waited_ns(account).unwrap_or(0)).collect()
    }
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
    fn nobody_waits_before_a_thread_has_joined() {
        assert!(RunQueue::default().waited_ns().is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn more_threads_than_processors_wait_and_another_thread_sees_it() {
        let run_queue = Arc::new(RunQueue::default());
        let end = Arc::new(AtomicBool::new(false));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..=processors)
            .map(|_| {
                let (run_queue, end) = (Arc::clone(&run_queue), Arc::clone(&end));
                thread::spawn(move || {
                    run_queue.join();
                    while !end.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(60);
        while run_queue.waited_ns().iter().sum::<u64>() < 1_000_000 {
            assert!(Instant::now() < until, "nobody waited: {:?}", run_queue.waited_ns());
            thread::sleep(Duration::from_millis(5));
        }
        end.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
