//! Production's latency at half of what it can do, and how much it can do, while something ails an arm or the log:
//! each held against the same beside a healthy arm in the same round.
//!
//! A flood of large results is production's own. The worker makes them and clients take them whatever the arms do;
//! what an arm can add is that it makes them again, and that the mirror reads that. So it is held against the same
//! flood past the mirror, straight from the worker, with the same load and a healthy arm: on both sides the worker
//! has as much to do, and what differs is what the relay and the arm get of it. Held against no arm, the replay
//! of the load itself would be measured, which [`crate::hop`] judges; held against an arm that hangs, an arm that
//! is felt would make the other side slower and the figure better.

use serde::Serialize;

use crate::{
    figures::{median, median_ratio, order},
    floors::Check,
    load,
    place::Place,
    target::{Kind, Target},
    trouble::{CLIENTS, Situation, Ward},
};

/// One situation: a figure for each round.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Which.
    pub situation: Situation,
    /// 99th percentile of production's latency at the rate, µs.
    pub p99_us: Vec<f64>,
    /// Transactions a second, when as many are asked for as can be.
    pub tps: Vec<f64>,
}

/// What was measured.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Transactions a second that were asked for where the latency was looked at.
    pub rate: f64,
    /// Every situation that could be made.
    pub rows: Vec<Row>,
}

/// Measures all of them in interleaved rounds.
pub async fn measure(place: &mut Place, rounds: usize, seconds: u64) -> Figures {
    let target = Target::start(Kind::UnderstudyWithArm, place).await;
    let saturated = load::flood(&place.worker, target.port, CLIENTS, seconds).await;
    target.settled().await;
    drop(target);
    let rate = saturated.tps / 2.0;
    let mut ward = Ward::open(place, rate, seconds).await;
    let row = |situation| Row { situation, p99_us: Vec::new(), tps: Vec::new() };
    let mut rows: Vec<Row> = ward.situations().map(row).collect();
    // A 99th percentile needs more of it than a mean.
    let rounds = rounds + 1;
    println!("what ails an arm: {rounds} rounds of {} situations, at {rate:.0} transactions a second", rows.len());
    for round in 1..=rounds {
        for n in order(rows.len(), round) {
            let Some(row) = rows.get_mut(n) else { continue };
            row.p99_us.push(ward.p99_us(row.situation).await);
            row.tps.push(ward.tps(row.situation).await);
        }
    }
    ward.close().await;
    let figures = Figures { rate, rows };
    print(&figures);
    figures
}

fn print(figures: &Figures) {
    println!("\n  {:<32} {:>8} {:>10} {:>10} {:>10}", "production beside", "p99, µs", "÷ healthy", "tps", "÷ healthy");
    for row in &figures.rows {
        let (p99, tps) = ratios(row, &figures.rows).unwrap_or((1.0, 1.0));
        println!(
            "  {:<32} {:>8.0} {p99:>10.3} {:>10.0} {tps:>10.3}",
            row.situation.name(),
            median(row.p99_us.clone()),
            median(row.tps.clone())
        );
    }
}

/// A situation's latency and throughput as parts of those that it is held against.
fn ratios(row: &Row, rows: &[Row]) -> Option<(f64, f64)> {
    let against = row.situation.against()?;
    let against = rows.iter().find(|row| row.situation == against)?;
    Some((median_ratio(&row.p99_us, &against.p99_us), median_ratio(&row.tps, &against.tps)))
}

/// The floors, and the aim.
pub fn checks(figures: &Figures) -> Vec<Check> {
    let of = |row: &Row| {
        let (p99, tps) = ratios(row, &figures.rows)?;
        let (name, against) = (row.situation.name(), row.situation.against()?.name());
        let aim = (row.situation == Situation::Hung).then_some(1.05);
        Some([
            Check::at_most(format!("production's p99, {name} ÷ {against}"), p99, 1.10, aim),
            Check::at_least(format!("production's tps, {name} ÷ {against}"), tps, 0.95, None),
        ])
    };
    figures.rows.iter().filter_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(situation: Situation, p99_us: f64, tps: f64) -> Row {
        Row { situation, p99_us: vec![p99_us], tps: vec![tps] }
    }

    #[test]
    fn each_trouble_is_held_against_its_own_healthy_arm() {
        let rows = vec![
            row(Situation::Healthy, 100.0, 1000.0),
            row(Situation::Hung, 109.0, 960.0),
            row(Situation::Dead, 111.0, 940.0),
            row(Situation::FloodPast, 200.0, 500.0),
            row(Situation::Flood, 210.0, 490.0),
        ];
        let checks = checks(&Figures { rate: 500.0, rows });
        let holds: Vec<_> = checks.iter().map(Check::holds).collect();
        assert_eq!(holds, [true, true, false, false, true, true], "{checks:#?}");
        assert_eq!(checks.first().and_then(Check::reaches), Some(false));
    }
}
