//! The three whole runs that the mirror is judged by, as the benchmark wrote them (`runs/`), and what PERFORMANCE.md says of
//! them. Must not judge: it reads what was judged.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::floors::Side;

/// How a row of the table begins, and the figure that it is about.
const ROWS: [(&str, &str); 24] = [
    ("CPU a transaction, no arm ÷ HAProxy, c=1 ", "CPU, no arm ÷ HAProxy, c=1"),
    ("the same, c=16 ", "CPU, no arm ÷ HAProxy, c=16"),
    ("tps, no arm ÷ HAProxy, c=1 ", "tps, no arm ÷ HAProxy, c=1"),
    ("the same, c=16 ", "tps, no arm ÷ HAProxy, c=16"),
    ("CPU a transaction, one arm ÷ HAProxy without, c=1 ", "CPU, one arm ÷ HAProxy, c=1"),
    ("the same, c=16 ", "CPU, one arm ÷ HAProxy, c=16"),
    ("tps, one arm ÷ HAProxy without, c=1 ", "tps, one arm ÷ HAProxy, c=1"),
    ("the same, c=16, for 3 s", "tps, one arm ÷ HAProxy, c=16"),
    ("MB/s of 100 MB ÷ HAProxy, rows", "MB/s of 100 MB, SELECT ÷ HAProxy"),
    ("MB/s of 100 MB ÷ HAProxy, COPY out", "MB/s of 100 MB, COPY out ÷ HAProxy"),
    ("kB of an idle session, 10,000 of them", "kB of an idle session, 10000 of them, one arm"),
    ("the most that a session takes", "kB of a session, 10000 of them when all ask at once"),
    ("production's p99, hung arm", "production's p99, hung arm ÷ healthy arm"),
    ("its throughput", "production's tps, hung arm ÷ healthy arm"),
    ("production's p99, dead arm", "production's p99, dead arm ÷ death past it"),
    ("its throughput", "production's tps, dead arm ÷ death past it"),
    ("production's p99, arm of a byte a second", "production's p99, arm of a byte a second ÷ healthy arm"),
    ("its throughput", "production's tps, arm of a byte a second ÷ healthy arm"),
    ("production's p99, arm with a full disk", "production's p99, arm with a full disk ÷ healthy arm"),
    ("its throughput", "production's tps, arm with a full disk ÷ healthy arm"),
    ("production's p99, log with a full disk", "production's p99, log with a full disk ÷ healthy arm"),
    ("its throughput", "production's tps, log with a full disk ÷ healthy arm"),
    ("production's p99, flood of large results", "production's p99, flood of large results ÷ flood past it"),
    ("its throughput", "production's tps, flood of large results ÷ flood past it"),
];
/// Which column of the table, the first being what stands before it, is that of the three runs.
const COLUMN: usize = 4;

#[derive(Deserialize)]
struct Run {
    checks: Vec<Judged>,
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
    for Run { checks } in runs() {
        assert_eq!(checks.len(), ROWS.len() + 1, "the rows of the table, and how many sessions there was room for");
        for Judged { what, figure, side, floor } in checks {
            let holds = if side == Side::AtMost { figure <= floor } else { figure >= floor };
            assert!(holds, "{what}: {figure}, {floor}");
        }
    }
}

#[test]
fn the_table_tells_of_the_three_runs() {
    let runs = runs();
    let text = read("../../mirror/PERFORMANCE.md");
    let mut table = text.lines().skip_while(|line| !line.starts_with("| CPU a transaction"));
    for (row, what) in ROWS {
        let line = table.next().expect("a row for each");
        assert!(line.trim_start_matches("| ").starts_with(row), "{line}\nis no row of {what}");
        let told = line.split('|').nth(COLUMN).expect("a column for them").trim();
        let of = |run: &Run| run.checks.iter().find(|judged| judged.what == what).expect(what).figure;
        let mut figures = runs.each_ref().map(of);
        figures.sort_by(f64::total_cmp);
        let shown = |figure: f64| if what.starts_with("kB") { format!("{figure:.1}") } else { format!("{figure:.2}") };
        let [least, most] = [figures[0], figures[2]].map(shown);
        assert_eq!(told, if least == most { least } else { format!("{least}–{most}") }, "{what}");
    }
}
