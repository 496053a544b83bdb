//! Production's latency at half of what it can do, beside an arm that is well and one that hangs.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::{
    figures::{median, median_ratio},
    floors::Check,
    load,
    place::Place,
    target::{Kind, Target},
};

const CLIENTS: u32 = 16;

/// A figure for each round.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Transactions a second that were asked for.
    pub rate: f64,
    /// 99th percentile of production's latency, µs.
    pub healthy_p99_us: Vec<f64>,
    /// The same while the arm's processes are stopped.
    pub hung_p99_us: Vec<f64>,
}

/// Measures both in interleaved rounds.
pub async fn measure(place: &Place, rounds: usize, seconds: u64) -> Figures {
    let target = Target::start(Kind::UnderstudyWithArm, place).await;
    let saturated = load::flood(place, target.port, CLIENTS, seconds).await;
    target.settled().await;
    drop(target);
    let mut figures = Figures { rate: saturated.tps / 2.0, ..Figures::default() };
    // A 99th percentile needs more of it than a mean.
    let (rounds, seconds) = (rounds + 2, seconds * 2);
    println!("an arm that hangs: {rounds} rounds at {:.0} transactions a second", figures.rate);
    for _ in 0..rounds {
        let target = Target::start(Kind::UnderstudyWithArm, place).await;
        figures.healthy_p99_us.push(load::paced(place, target.port, CLIENTS, seconds, figures.rate).await);
        target.settled().await;
        drop(target);

        let target = Target::start(Kind::UnderstudyWithArm, place).await;
        let stopped = Stopped::all_of(place);
        figures.hung_p99_us.push(load::paced(place, target.port, CLIENTS, seconds, figures.rate).await);
        drop(stopped);
    }
    println!(
        "\n  production's p99: {:.0} µs beside a healthy arm, {:.0} µs beside one that hangs",
        median(figures.healthy_p99_us.clone()),
        median(figures.hung_p99_us.clone())
    );
    figures
}

/// The arm's server and all its processes, stopped for as long as this lives.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn all_of(place: &Place) -> Self {
        let file = place.arm.data_dir().join("postmaster.pid");
        let text = fs::read_to_string(file).expect("the arm runs");
        let postmaster: i32 = text.lines().next().and_then(|line| line.parse().ok()).expect("its process id");
        let children =
            fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).expect("its processes");
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([postmaster]);
        let stopped = Self(pids.filter_map(Pid::from_raw).collect());
        stopped.signal(Signal::STOP);
        stopped
    }

    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // A backend may have ended.
            let _ = kill_process(*pid, signal);
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

/// The floor and the aim.
pub fn checks(figures: &Figures) -> Vec<Check> {
    let ratio = median_ratio(&figures.hung_p99_us, &figures.healthy_p99_us);
    vec![Check::at_most("production's p99, hung arm ÷ healthy arm", ratio, 1.10, Some(1.05))]
}
