//! The three whole runs that the mirror is judged by, as the benchmark wrote them (`runs/`), and what PERFORMANCE.md says of
//! them. Must not judge: it reads what was judged.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::{
    bulk,
    floors::{Check, Side},
    hop, idle, isolation,
};

/// How a row of the table begins, the figure that it is about, and its floor.
const ROWS: [(&str, &str, &str); 24] = [
    ("CPU a transaction, no arm ÷ HAProxy, c=1 ", "CPU, no arm ÷ HAProxy, c=1", "≤ 1.15"),
    ("the same, c=16 ", "CPU, no arm ÷ HAProxy, c=16", "≤ 1.15"),
    ("tps, no arm ÷ HAProxy, c=1 ", "tps, no arm ÷ HAProxy, c=1", "≥ 0.97"),
    ("the same, c=16 ", "tps, no arm ÷ HAProxy, c=16", "≥ 0.97"),
    ("CPU a transaction, one arm ÷ HAProxy without, c=1 ", "CPU, one arm ÷ HAProxy, c=1", "≤ 2.2"),
    ("the same, c=16 ", "CPU, one arm ÷ HAProxy, c=16", "≤ 2.2"),
    ("tps, one arm ÷ HAProxy without, c=1 ", "tps, one arm ÷ HAProxy, c=1", "≥ 0.65"),
    ("the same, c=16, for 3 s", "tps, one arm ÷ HAProxy, c=16", "≥ 0.75"),
    ("MB/s of 100 MB ÷ HAProxy, rows", "MB/s of 100 MB, SELECT ÷ HAProxy", "≥ 1.0"),
    ("MB/s of 100 MB ÷ HAProxy, COPY out", "MB/s of 100 MB, COPY out ÷ HAProxy", "≥ 1.0"),
    ("kB of an idle session, 10,000 of them", "kB of an idle session, 10000 of them, one arm", "≤ 48"),
    ("the most that a session takes", "kB of a session, 10000 of them when all ask at once", "≤ 48"),
    ("production's p99, hung arm", "production's p99, hung arm ÷ healthy arm", "≤ 1.10"),
    ("its throughput", "production's tps, hung arm ÷ healthy arm", "≥ 0.95"),
    ("production's p99, dead arm", "production's p99, dead arm ÷ death past it", "≤ 1.10"),
    ("its throughput", "production's tps, dead arm ÷ death past it", "≥ 0.95"),
    ("production's p99, arm of a byte a second", "production's p99, arm of a byte a second ÷ healthy arm", "≤ 1.10"),
    ("its throughput", "production's tps, arm of a byte a second ÷ healthy arm", "≥ 0.95"),
    ("production's p99, arm with a full disk", "production's p99, arm with a full disk ÷ healthy arm", "≤ 1.10"),
    ("its throughput", "production's tps, arm with a full disk ÷ healthy arm", "≥ 0.95"),
    ("production's p99, log with a full disk", "production's p99, log with a full disk ÷ healthy arm", "≤ 1.10"),
    ("its throughput", "production's tps, log with a full disk ÷ healthy arm", "≥ 0.95"),
    ("production's p99, flood of large results", "production's p99, flood of large results ÷ flood past it", "≤ 1.10"),
    ("its throughput", "production's tps, flood of large results ÷ flood past it", "≥ 0.95"),
];
/// Which columns of the table, the first being what stands before it, are that of the three runs, and that of the floors.
const COLUMN: usize = 4;
const FLOOR_COLUMN: usize = 5;

/// What the benchmark wrote.
#[derive(Deserialize)]
struct Run {
    hop: Vec<hop::Row>,
    bulk: Vec<bulk::Row>,
    isolation: isolation::Figures,
    idle: idle::Figures,
    checks: Vec<Judged>,
}

impl Run {
    /// What is made of its figures today.
    fn judged(&self) -> Vec<Check> {
        let hop = [hop::checks(&self.hop), bulk::checks(&self.bulk)].concat();
        [hop, isolation::checks(&self.isolation), idle::checks(&self.idle)].concat()
    }
}

#[derive(Deserialize)]
struct Judged {
    what: String,
    figure: f64,
    side: Side,
    floor: f64,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn runs() -> [Run; 3] {
    [1, 2, 3].map(|n| serde_json::from_str(&read(&format!("runs/{n}.json"))).expect("a run"))
}

#[test]
fn three_runs_held_every_floor() {
    for run in runs() {
        let today = run.judged();
        assert_eq!(today.len(), ROWS.len() + 1, "the rows of the table, and how many sessions there was room for");
        assert_eq!(run.checks.len(), today.len());
        for (check, Judged { what, figure, side, floor }) in today.iter().zip(run.checks) {
            assert!(check.holds(), "{check:?}");
            assert_eq!((&check.what, check.side), (&what, side), "in their order");
            assert!((check.figure - figure).abs() < 1e-9, "{check:?} was {figure}");
            assert_eq!(check.floor.to_bits(), floor.to_bits(), "{what}: the floor of today");
        }
    }
}

#[test]
fn floors_are_what_the_table_says() {
    let [run, ..] = runs();
    let today = run.judged();
    for (_, what, told) in ROWS {
        let check = today.iter().find(|check| check.what == what).expect(what);
        let sign = if check.side == Side::AtMost { "≤" } else { "≥" };
        let floor: f64 = told.trim_start_matches([' ', '≤', '≥']).parse().expect("a number");
        assert!(told.starts_with(sign) && floor.to_bits() == check.floor.to_bits(), "{told}: {check:?}");
    }
}

#[test]
fn the_table_tells_of_the_three_runs() {
    let runs = runs();
    let text = read("../../mirror/PERFORMANCE.md");
    let mut table = text.lines().skip_while(|line| !line.starts_with("| CPU a transaction"));
    for (row, what, floor) in ROWS {
        let line = table.next().expect("a row for each");
        assert!(line.trim_start_matches("| ").starts_with(row), "{line}\nis no row of {what}");
        let column = |n: usize| line.split('|').nth(n).expect("a column").trim();
        assert_eq!(column(FLOOR_COLUMN), floor, "{what}");
        let told = column(COLUMN);
        let of = |run: &Run| run.checks.iter().find(|judged| judged.what == what).expect(what).figure;
        let mut figures = runs.each_ref().map(of);
        figures.sort_by(f64::total_cmp);
        let shown = |figure: f64| if what.starts_with("kB") { format!("{figure:.1}") } else { format!("{figure:.2}") };
        let [least, most] = [figures[0], figures[2]].map(shown);
        assert_eq!(told, if least == most { least } else { format!("{least}–{most}") }, "{what}");
    }
}
