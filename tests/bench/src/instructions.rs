//! What the mirror executes for one exchange: instructions, as callgrind counts them, and system calls, as strace does. A
//! noisy machine moves the first by little, so that what a change has cost is seen at once. Both are held against the
//! committed ones.
//!
//! Instructions are those of the process in user space, all of its threads, and nothing of the kernel's work; system
//! calls are of all threads as well. Under either the mirror is many times slower than it is, and waits more often.

use std::{collections::BTreeMap, fs, path::Path};

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

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Counted {
    /// In user space.
    Instructions,
    /// Of all threads.
    SystemCalls,
}

impl Counted {
    const ALL: [Self; 2] = [Self::Instructions, Self::SystemCalls];

    fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::SystemCalls => "system calls",
        }
    }

    /// The command line of what counts, up to the program's own.
    fn by(self, out: &Path) -> Vec<String> {
        let out = out.display();
        match self {
            Self::Instructions => {
                vec!["valgrind".into(), "--tool=callgrind".into(), format!("--callgrind-out-file={out}")]
            }
            // Told to end, it ends the program and says what it has counted.
            Self::SystemCalls => ["strace", "-I2", "-f", "-c", "-U", "calls,name", "-o"]
                .map(str::to_owned)
                .into_iter()
                .chain([out.to_string()])
                .collect(),
        }
    }

    /// The total in what was written.
    fn total(self, text: &str) -> Option<u64> {
        let mut lines = text.lines();
        let total = match self {
            // In an older callgrind only `summary:`.
            Self::Instructions => lines
                .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")))?
                .split_whitespace()
                .next(),
            Self::SystemCalls => lines.find_map(|line| line.strip_suffix(" total")).map(str::trim),
        };
        total?.parse().ok()
    }
}

/// What one exchange takes, by what stood between.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures(BTreeMap<Counted, BTreeMap<String, f64>>);

/// Measures the mirror without and with an arm.
pub async fn measure(place: &Place) -> Figures {
    let mut figures = Figures::default();
    for counted in Counted::ALL {
        for kind in [Kind::Understudy, Kind::UnderstudyWithArm] {
            let mut totals = Vec::new();
            for exchanges in LOADS {
                totals.push(total(place, kind, counted, exchanges).await);
            }
            let [few, many] = totals[..] else { panic!("two loads") };
            let each = many.saturating_sub(few) as f64 / f64::from(LOADS[1] - LOADS[0]);
            println!("{} an exchange, {}: {}", counted.name(), kind.name(), rounded(each));
            figures.0.entry(counted).or_default().insert(kind.name().to_owned(), rounded(each));
        }
    }
    figures
}

/// All that was counted beside so many exchanges.
async fn total(place: &Place, kind: Kind, counted: Counted, exchanges: u32) -> u64 {
    let out = place.file(&format!("counted-{exchanges}"), "");
    let by = counted.by(&out);
    let by: Vec<&str> = by.iter().map(String::as_str).collect();
    let target = Target::start_counted(kind, place, &by).await;
    load::exactly(&place.worker, target.port, exchanges).await;
    target.settled().await;
    target.end();
    let text = fs::read_to_string(&out).expect("what was counted");
    counted.total(&text).unwrap_or_else(|| panic!("no total in {}", out.display()))
}

/// Whole ones of what there are thousands of, hundredths of what there are few.
fn rounded(figure: f64) -> f64 {
    if figure >= 1000.0 { figure.round() } else { (figure * 100.0).round() / 100.0 }
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
    against(figures, &serde_json::from_str(&text).expect("the committed figures"))
}

fn against(figures: &Figures, committed: &Figures) -> Vec<Check> {
    let mut checks = Vec::new();
    for (counted, each) in &figures.0 {
        for (kind, figure) in each {
            // What nobody committed does not hold.
            let before = committed.0.get(counted).and_then(|each| each.get(kind)).copied().unwrap_or(f64::NAN);
            let what = format!("{} an exchange ÷ committed, {kind}", counted.name());
            checks.push(Check::at_most(what, figure / before, TOLERANCE, None));
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_in_what_callgrind_and_strace_write() {
        for (counted, text, total) in [
            (Counted::Instructions, "version: 1\nevents: Ir\nfn=(1) main\n3 4\n\ntotals: 12345\n", Some(12_345)),
            (Counted::Instructions, "summary: 7 8\n", Some(7)),
            (Counted::Instructions, "events: Ir\n", None),
            (Counted::SystemCalls, STRACE, Some(2_060)),
            (Counted::SystemCalls, "strace: Process 7 detached\n", None),
        ] {
            assert_eq!(counted.total(text), total, "{text}");
        }
    }

    const STRACE: &str = "    calls syscall\n--------- ----------------\n     2000 read\n       60 futex\n--------- ----------------\n     2060 total\n";

    #[test]
    fn more_than_committed_is_a_regression() {
        let of = |figure: f64| Figures([(Counted::Instructions, [("hop".to_owned(), figure)].into())].into());
        let holds =
            |figures: &Figures| -> Vec<bool> { against(figures, &of(100.0)).iter().map(Check::holds).collect() };
        assert_eq!(holds(&of(110.0)), [true]);
        assert_eq!(holds(&of(111.0)), [false]);
        let nobody_committed = Figures([(Counted::SystemCalls, [("hop".to_owned(), 4.0)].into())].into());
        assert_eq!(holds(&nobody_committed), [false]);
    }
}
