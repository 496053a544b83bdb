//! Instructions that the mirror executes for one exchange, as callgrind counts them: a figure that a noisy
//! machine does not move, so that what a change has cost is seen at once. It is held against the committed one.
//!
//! Counts what the process does in user space, all of its threads, and nothing of the kernel's work.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    floors::Check,
    load,
    place::Place,
    target::{Kind, Target},
};

/// Exchanges of the two loads. What the process does once, and for a session, is in both; the difference is
/// what exchanges cost.
const LOADS: [u32; 2] = [1_000, 5_000];
/// How much more than the committed figure is a regression.
const TOLERANCE: f64 = 1.10;
/// The committed figures.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");

/// Instructions for one exchange, by what stood between.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures(BTreeMap<String, u64>);

/// Measures the mirror without and with an arm.
pub async fn measure(place: &Place) -> Figures {
    let mut figures = Figures::default();
    for kind in [Kind::Understudy, Kind::UnderstudyWithArm] {
        let mut counted = Vec::new();
        for exchanges in LOADS {
            let out = place.file(&format!("callgrind-{exchanges}"), "");
            let target = Target::start_counted(kind, place, &out).await;
            load::exactly(&place.worker, target.port, exchanges).await;
            target.settled().await;
            target.end();
            counted.push(total(&out));
        }
        let [few, many] = counted[..] else { panic!("two loads") };
        let each = many.saturating_sub(few) / u64::from(LOADS[1] - LOADS[0]);
        println!("instructions an exchange, {}: {each}", kind.name());
        figures.0.insert(kind.name().to_owned(), each);
    }
    figures
}

/// Makes them the committed ones.
pub fn accept(figures: &Figures) {
    let text = serde_json::to_string_pretty(figures).expect("figures");
    fs::write(COMMITTED, text + "\n").expect("the committed figures");
    println!("accepted: {COMMITTED}");
}

/// Against the committed ones.
pub fn checks(figures: &Figures) -> Vec<Check> {
    let text = fs::read_to_string(COMMITTED).expect("the committed figures; --accept writes them");
    let Figures(committed) = serde_json::from_str(&text).expect("the committed figures");
    let against = |(kind, each): (&String, &u64)| {
        let before = committed.get(kind).copied().unwrap_or_default();
        Check::at_most(format!("instructions an exchange ÷ committed, {kind}"), ratio(*each, before), TOLERANCE, None)
    };
    figures.0.iter().map(against).collect()
}

fn ratio(of: u64, to: u64) -> f64 {
    if to == 0 { f64::NAN } else { of as f64 / to as f64 }
}

/// All instructions of a run.
fn total(out: &Path) -> u64 {
    let text = fs::read_to_string(out).expect("callgrind's file");
    sum_of(&text).unwrap_or_else(|| panic!("callgrind says no total in {}", out.display()))
}

/// The line `totals:`; in an older callgrind only `summary:`.
fn sum_of(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    line?.split_whitespace().next()?.parse().ok()
}

/// Callgrind's command line up to the program's own.
pub fn counting(out: &Path) -> (PathBuf, Vec<String>) {
    let options = ["--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", out.display())];
    (PathBuf::from("/usr/bin/valgrind"), options.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_in_what_callgrind_writes() {
        assert_eq!(sum_of("version: 1\nevents: Ir\nfn=(1) main\n3 4\n\ntotals: 12345\n"), Some(12_345));
        assert_eq!(sum_of("summary: 7 8\n"), Some(7));
        assert_eq!(sum_of("events: Ir\n"), None);
    }

    #[test]
    fn more_instructions_than_committed_are_a_regression() {
        assert!(Check::at_most("", ratio(110, 100), TOLERANCE, None).holds());
        assert!(!Check::at_most("", ratio(111, 100), TOLERANCE, None).holds());
        assert!(!Check::at_most("", ratio(111, 0), TOLERANCE, None).holds(), "what nobody committed does not hold");
    }
}
