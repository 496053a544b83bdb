//! A test server whose processes are all stopped: it takes connections and bytes as far as the system buffers
//! them, and answers nothing.

#![expect(clippy::expect_used, reason = "a test that can't stop its server has failed")]

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::Cluster;

/// They are stopped for as long as this lives.
#[derive(Debug)]
pub struct Paused(Vec<Pid>);

impl Paused {
    /// Stops the server and all its processes.
    pub fn all_of(cluster: &Cluster) -> Self {
        let text = fs::read_to_string(cluster.data_dir().join("postmaster.pid")).expect("a server that runs");
        let postmaster: i32 = text.lines().next().and_then(|line| line.parse().ok()).expect("its process id");
        let children =
            fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).expect("its processes");
        // The postmaster first, so that it makes no more.
        let pids = [postmaster].into_iter().chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()));
        let paused = Self(pids.filter_map(Pid::from_raw).collect());
        paused.signal(Signal::STOP);
        paused
    }

    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // A backend may have ended.
            let _ = kill_process(*pid, signal);
        }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}
