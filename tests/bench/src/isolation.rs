//! Production's latency at half of what it can do, and how much it can do, while something ails an arm or the log:
//! each held against the same beside a healthy arm, right before or right behind it.
//!
//! What production can do is what it does for long with a healthy arm beside it on the same machine. While the arms' clock
//! stands it does more; at half of that the arm takes the other half, the machine is full, and a 99th percentile tells of
//! nothing but that: 4 to 600 ms, from one window of three seconds to the next. Most of what differs between two windows
//! differs within them as well: what is judged is the 99th percentile of each half second, and the geometric means of
//! those; that of the whole window is told beside it.
//!
//! An arm's server that dies beside production has its processes cleared away by production's processors, whoever its
//! clients were. So a dead arm is held against a healthy one beside which as many sessions of another server die, which
//! nobody plays to: what differs is what the mirror makes of it. It happens once, so that the percentile is that of the
//! whole window, which is short.
//!
//! A flood of large results is production's own. The worker makes them and clients take them whatever the arms do;
//! what an arm can add is that it makes them again, and that the mirror reads that. So it is held against the same
//! flood past the mirror, straight from the worker, with the same load and a healthy arm: on both sides the worker
//! has as much to do, and what differs is what the relay and the arm get of it. Held against no arm, the replay
//! of the load itself would be measured, which [`crate::hop`] judges; held against an arm that hangs, an arm that
//! is felt would make the other side slower and the figure better.

use serde::{Deserialize, Serialize};

use crate::{
    figures::{geometric_mean, median, order, ratio_of_means, ratio_of_medians, ratios},
    floors::{AT_MOST_AS_MANY, Check},
    load::{self, Tail},
    place::Place,
    target::{Kind, Target},
    trouble::{CLIENTS, Situation, Ward},
};

/// One situation, and what it is held against: a figure for each round, got one right after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Which.
    pub situation: Situation,
    /// What it is held against.
    pub against: Situation,
    /// 99th percentile of production's latency at the rate, of half seconds unless a server dies, µs.
    pub p99_us: Pair,
    /// That of whole windows, which nobody judges, µs.
    pub whole_p99_us: Pair,
    /// Transactions a second, when as many are asked for as can be.
    pub tps: Pair,
}

/// The same figure in both situations.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pair {
    /// In the one that is judged.
    pub of: Vec<f64>,
    /// In the one that it is held against.
    pub to: Vec<f64>,
}

impl Pair {
    fn push(&mut self, turn: usize, figure: f64) {
        if turn == 0 { &mut self.of } else { &mut self.to }.push(figure);
    }
}

impl Row {
    fn p99(&self) -> Check {
        let (name, against) = (self.situation.name(), self.against.name());
        let Pair { of, to } = &self.p99_us;
        let aim = (self.situation == Situation::Hung).then_some(1.05);
        let to_usual: Vec<f64> = vec![geometric_mean(to); to.len()];
        Check::at_most(format!("production's p99, {name} ÷ {against}"), ratio_of_means(of, to), 1.10, aim)
            .of_rounds(ratios(of, &to_usual))
    }

    fn tps(&self) -> Check {
        let (name, against) = (self.situation.name(), self.against.name());
        let each = ratios(&self.tps.of, &self.tps.to);
        Check::at_least(format!("production's tps, {name} ÷ {against}"), median(each.iter().copied()), 0.95, None)
            .of_rounds(each)
    }
}

/// Longer than the arms' clock may stand still.
const UNTIL_IT_LASTS_SECONDS: u64 = 12;

/// What was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Transactions a second that were asked for where the latency was looked at.
    pub rate: f64,
    /// Every situation that could be made.
    pub rows: Vec<Row>,
    /// Those that could not.
    #[serde(default)]
    pub missing: Vec<Situation>,
}

/// Measures all of them in interleaved rounds, and goes on for a while with those that are not clear.
pub async fn measure(place: &mut Place, rounds: usize, seconds: u64) -> Figures {
    let target = Target::start(Kind::UnderstudyWithArm, place).await;
    load::flood(&place.worker, target.port, CLIENTS, UNTIL_IT_LASTS_SECONDS).await;
    let saturated = load::flood(&place.worker, target.port, CLIENTS, seconds).await;
    target.settled().await;
    drop(target);
    let rate = saturated.tps / 2.0;
    let mut ward = Ward::open(place, rate, seconds).await;
    let missing = ward.missing();
    let row = |situation: Situation| {
        let [p99_us, whole_p99_us, tps] = std::array::from_fn(|_| Pair::default());
        Some(Row { situation, against: situation.against()?, p99_us, whole_p99_us, tps })
    };
    let mut rows: Vec<Row> = ward.situations().filter_map(row).collect();
    println!("what ails an arm: {rounds} rounds of {} situations, at {rate:.0} transactions a second", rows.len());
    for round in 1..=rounds * AT_MOST_AS_MANY {
        for n in order(rows.len(), round) {
            let Some(row) = rows.get_mut(n) else { continue };
            let is_wanted = |check: Check| round <= rounds || !check.is_clear();
            let (p99, tps) = (is_wanted(row.p99()), is_wanted(row.tps()));
            if round > rounds && (p99 || tps) {
                println!("round {round} since a figure is not clear: {}", row.situation.name());
            }
            let [situation, against] = [row.situation, row.against];
            let of_turn = |turn| if turn == 0 { situation } else { against };
            // Side by side: a machine that is shared is another one a minute later.
            for turn in order(2, round).into_iter().filter(|_| p99) {
                let Tail { whole_us, pieces_us } = ward.p99(of_turn(turn)).await;
                row.p99_us.push(turn, if situation.dies() { whole_us } else { pieces_us });
                row.whole_p99_us.push(turn, whole_us);
            }
            for turn in order(2, round).into_iter().filter(|_| tps) {
                let figure = ward.tps(of_turn(turn)).await;
                row.tps.push(turn, figure);
            }
        }
    }
    ward.close().await;
    let figures = Figures { rate, rows, missing };
    print(&figures);
    figures
}

fn print(figures: &Figures) {
    println!(
        "\n  {:<24} {:<16} {:>8} {:>8} {:>10} {:>8} {:>10} {:>10}",
        "production beside", "÷ beside", "p99, µs", "÷", "whole, µs", "÷", "tps", "÷"
    );
    for row in &figures.rows {
        let Row { situation, against, p99_us, whole_p99_us: whole, tps } = row;
        println!(
            "  {:<24} {:<16} {:>8.0} {:>8.3} {:>10.0} {:>8.3} {:>10.0} {:>10.3}",
            situation.name(),
            against.name(),
            geometric_mean(&p99_us.of),
            row.p99().figure,
            median(whole.of.clone()),
            ratio_of_medians(&whole.of, &whole.to),
            median(tps.of.clone()),
            row.tps().figure
        );
    }
}

/// The floors, and the aim.
pub fn checks(figures: &Figures) -> Vec<Check> {
    // What could not be brought about was not seen to hold.
    let not_seen = |situation: &Situation| {
        Check::at_least(format!("production beside {}, which root alone can make", situation.name()), 0.0, 1.0, None)
    };
    let seen = figures.rows.iter().flat_map(|row| [row.p99(), row.tps()]);
    seen.chain(figures.missing.iter().map(not_seen)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(situation: Situation, p99_us: [f64; 2], tps: [f64; 2]) -> Row {
        let pair = |[of, to]: [f64; 2]| Pair { of: vec![of], to: vec![to] };
        let against = situation.against().expect("one that is judged");
        Row { situation, against, p99_us: pair(p99_us), whole_p99_us: Pair::default(), tps: pair(tps) }
    }

    #[test]
    fn each_trouble_is_held_against_what_was_measured_beside_it() {
        let rows = vec![
            row(Situation::Hung, [109.0, 100.0], [960.0, 1000.0]),
            row(Situation::Dead, [111.0, 100.0], [940.0, 1000.0]),
            row(Situation::Flood, [210.0, 200.0], [490.0, 500.0]),
        ];
        let checks = checks(&Figures { rate: 500.0, rows, missing: vec![Situation::FullDisk] });
        let holds: Vec<_> = checks.iter().map(Check::holds).collect();
        assert_eq!(holds, [true, true, false, false, true, true, false], "{checks:#?}");
        assert_eq!(checks.first().and_then(Check::reaches), Some(false));
    }
}
