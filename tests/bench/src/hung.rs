//! Production's latency at half of what it can do, beside an arm that is well and one that hangs.

use serde::Serialize;
use understudy_harness::Paused;

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
        let paused = Paused::all_of(&place.arm);
        figures.hung_p99_us.push(load::paced(place, target.port, CLIENTS, seconds, figures.rate).await);
        drop(paused);
    }
    println!(
        "\n  production's p99: {:.0} µs beside a healthy arm, {:.0} µs beside one that hangs",
        median(figures.healthy_p99_us.clone()),
        median(figures.hung_p99_us.clone())
    );
    figures
}

/// The floor and the aim.
pub fn checks(figures: &Figures) -> Vec<Check> {
    let ratio = median_ratio(&figures.hung_p99_us, &figures.healthy_p99_us);
    vec![Check::at_most("production's p99, hung arm ÷ healthy arm", ratio, 1.10, Some(1.05))]
}
