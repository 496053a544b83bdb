//! Large results: how fast 100 MB go through each target, as rows and as COPY.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use understudy_e2e::wire::{Wire, query};

use crate::{
    figures::{median, median_ratio, order},
    floors::Check,
    place::Place,
    target::{Kind, Target},
};

const MEGABYTES: u32 = 100;
/// One after the other, over one connection: on which processors the programs meet makes one result a fifth faster
/// or slower than the next.
const RESULTS_A_ROUND: u32 = 3;

/// What is asked for: its name, and the statement.
const RESULTS: [(&str, &str); 2] = [
    ("COPY out", "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"),
    ("SELECT", "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"),
];

/// One result through one target: a figure for each round.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What stood between.
    pub target: Kind,
    /// What was asked for.
    pub result: String,
    /// MB a second.
    pub megabytes_a_second: Vec<f64>,
}

/// Measures all of them. The mirror with an arm is left out: the arm's own 100 MB would be measured.
pub async fn measure(place: &Place, rounds: usize) -> Vec<Row> {
    let kinds = [Kind::Direct, Kind::HaProxy, Kind::PgBouncer, Kind::Understudy];
    let mut rows: Vec<Row> = RESULTS
        .iter()
        .flat_map(|(result, _)| {
            kinds.map(|target| Row { target, result: (*result).to_owned(), megabytes_a_second: Vec::new() })
        })
        .collect();
    // A second takes a few results: each of them is short.
    let rounds = rounds * 3;
    println!("large results: {rounds} rounds of {} times {RESULTS_A_ROUND} of {MEGABYTES} MB", rows.len());
    for round in 1..=rounds {
        for n in order(rows.len(), round) {
            let Some(row) = rows.get_mut(n) else { continue };
            let statement = RESULTS.iter().find(|(name, _)| *name == row.result).map_or("", |(_, text)| text);
            let target = Target::start(row.target, place).await;
            row.megabytes_a_second.push(speed(target.port, statement).await);
        }
    }
    println!("\n  {:<26} {:>9} {:>8} {:>10}", "target", "result", "MB/s", "of direct");
    for row in &rows {
        let direct = find(&rows, Kind::Direct, &row.result).map_or(&[][..], |row| &row.megabytes_a_second);
        println!(
            "  {:<26} {:>9} {:>8.0} {:>10.3}",
            row.target.name(),
            row.result,
            median(row.megabytes_a_second.clone()),
            median_ratio(&row.megabytes_a_second, direct)
        );
    }
    rows
}

async fn speed(port: u16, statement: &str) -> f64 {
    let mut wire = Wire::connect(([127, 0, 0, 1], port).into()).await;
    let began = Instant::now();
    let mut bytes = 0;
    for _ in 0..RESULTS_A_ROUND {
        bytes += wire.discard(&query(statement)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!(bytes > u64::from(RESULTS_A_ROUND * MEGABYTES) * 1_000_000, "all of it came: {bytes} bytes");
    bytes as f64 / 1e6 / seconds
}

fn find<'a>(rows: &'a [Row], target: Kind, result: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.target == target && row.result == result)
}

/// The floors.
pub fn checks(rows: &[Row]) -> Vec<Check> {
    let of = |kind, result| find(rows, kind, result).map_or(&[][..], |row| &row.megabytes_a_second);
    RESULTS
        .iter()
        .map(|(result, _)| {
            let ratio = median_ratio(of(Kind::Understudy, result), of(Kind::HaProxy, result));
            Check::at_least(format!("MB/s of {MEGABYTES} MB, {result} ÷ HAProxy"), ratio, 1.0, None)
        })
        .collect()
}
