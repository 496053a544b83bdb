//! On a machine that is full, each production thread stays on a processor of its own; where there is room, it goes wherever
//! one is idle.
//!
//! Threads that come to share a processor while everything is taken may be left there for seconds, which costs a tenth of the
//! throughput. A thread that always stayed on its own would wait for whoever computes there, with another processor
//! idle beside it. So it is a thread that is free which is looked at, and none stays for long without another look
//! (PERFORMANCE.md). Only where there are as many threads as processors: fewer would all choose the same ones in each mirror of
//! a machine. Must not move any other thread.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::run_queue::{RunQueue, is_waiting};

/// For so long a thread that is free is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// For so long it stays where it is when it had to wait. It may wait there for somebody who computes.
const STAY: Duration = Duration::from_millis(500);

/// A production thread that may stay on a processor of its own.
#[derive(Debug, Clone, Copy)]
pub struct Tenant {
    thread: usize,
    threads: usize,
}

impl Tenant {
    /// The calling thread, with this number of so many; nothing where it was told on which processors to run: to let it go
    /// again would take that back.
    pub fn new(thread: usize, threads: usize) -> Option<Self> {
        let told = Processors::allowed()?;
        Processors::all().bind_thread();
        if Processors::allowed()? == told {
            return Some(Self { thread, threads });
        }
        told.bind_thread();
        None
    }

    /// Its own processor, if there are as many as threads at this moment.
    fn own(self) -> Option<Processors> {
        let single = Processors::allowed()?.singles();
        single.get(self.thread).copied().filter(|_| single.len() == self.threads)
    }

    /// Keeps the calling thread on its own processor while it would have to wait for one.
    pub async fn keep(self, run_queue: Arc<RunQueue>) {
        loop {
            let (before_ns, began) = (run_queue.waited_ns_of(self.thread), Instant::now());
            sleep(LOOK).await;
            let waited_ns = before_ns.and_then(|before| run_queue.waited_ns_of(self.thread)?.checked_sub(before));
            let elapsed_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            if is_waiting(waited_ns.unwrap_or(0), elapsed_ns)
                && let Some(own) = self.own()
            {
                own.bind_thread();
                sleep(STAY).await;
                // Whoever has told it otherwise meanwhile is obeyed.
                if Processors::allowed() == Some(own) {
                    Processors::all().bind_thread();
                }
            }
        }
    }

    /// Lets the calling thread, which such a thread has started, run wherever it may.
    pub fn lets_go(self) {
        if self.threads > 1 && Processors::allowed().is_some_and(|allowed| allowed.singles().len() == 1) {
            Processors::all().bind_thread();
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// Processors that a thread may run on.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(super) struct Processors(CpuSet);

    impl Processors {
        /// Those of the calling thread.
        pub(super) fn allowed() -> Option<Self> {
            Some(Self(sched_getaffinity(None).ok()?))
        }

        /// Whatever there are, now or later: the system leaves out what a control group may not use.
        pub(super) fn all() -> Self {
            let mut set = CpuSet::new();
            (0..CpuSet::MAX_CPU).for_each(|n| set.set(n));
            Self(set)
        }

        /// Each of them by itself.
        pub(super) fn singles(&self) -> Vec<Self> {
            let single = |n| {
                let mut set = CpuSet::new();
                set.set(n);
                Self(set)
            };
            (0..CpuSet::MAX_CPU).filter(|n| self.0.is_set(*n)).map(single).collect()
        }

        /// The calling thread runs on these alone.
        pub(super) fn bind_thread(&self) {
            // A processor may have been taken away since: the thread then goes on where it is.
            if let Err(error) = sched_setaffinity(None, &self.0) {
                tracing::debug!(%error, "a production thread can't choose its processors");
            }
        }
    }
}

/// Elsewhere the system alone decides.
#[cfg(not(target_os = "linux"))]
mod system {
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(super) struct Processors;

    impl Processors {
        pub(super) fn allowed() -> Option<Self> {
            None
        }

        pub(super) fn all() -> Self {
            Self
        }

        pub(super) fn singles(&self) -> Vec<Self> {
            Vec::new()
        }

        pub(super) fn bind_thread(&self) {}
    }
}

use system::Processors;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn only_as_many_threads_as_there_are_processors_have_one_each() {
        let allowed = Processors::allowed().unwrap().singles();
        let own = |threads: usize| -> Vec<_> {
            let own = (0..threads).map(|thread| Tenant { thread, threads }.own());
            own.collect()
        };
        assert_eq!(own(allowed.len()), allowed.iter().copied().map(Some).collect::<Vec<_>>());
        assert!(own(allowed.len() + 1).iter().all(Option::is_none));
        assert!(own(allowed.len() - 1).iter().all(Option::is_none));
    }

    #[test]
    fn a_thread_that_was_told_where_to_run_stays_there() {
        // A thread of its own: the test's goes on with whatever this one has.
        let tenant = thread::spawn(|| {
            Processors::all().bind_thread();
            let all = Processors::allowed().unwrap();
            let told = *all.singles().first().unwrap();
            told.bind_thread();
            (Tenant::new(0, 1).is_some() == (all == told), Processors::allowed() == Some(told))
        });
        assert_eq!(tenant.join().unwrap(), (true, true));
    }

    #[test]
    fn a_thread_that_waits_stays_on_its_own_processor() {
        let threads = Processors::allowed().unwrap().singles().len();
        // They compute until this is gone.
        let test = Arc::new(());
        let compute = |_| {
            let test = Arc::downgrade(&test);
            thread::spawn(move || while test.strong_count() > 0 {})
        };
        let computing: Vec<_> = (0..threads * 3).map(compute).collect();
        let waits = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let run_queue = Arc::new(RunQueue::new(threads));
            run_queue.join(0);
            let tenant = Tenant { thread: 0, threads };
            let own = tenant.own().unwrap();
            runtime.spawn(tenant.keep(run_queue));
            runtime.block_on(async {
                let until = Instant::now() + Duration::from_secs(60);
                // It wants a processor all the time.
                while Processors::allowed() != Some(own) && Instant::now() < until {
                    tokio::task::yield_now().await;
                }
                // What it starts is not bound by that.
                let started = thread::spawn(move || {
                    tenant.lets_go();
                    Processors::allowed().unwrap().singles().len()
                });
                (Processors::allowed() == Some(own), started.join().unwrap())
            })
        });
        let (stays, started) = waits.join().unwrap();
        drop(test);
        for thread in computing {
            thread.join().unwrap();
        }
        assert!(stays);
        assert!(started >= threads, "{started} of {threads}");
    }
}
