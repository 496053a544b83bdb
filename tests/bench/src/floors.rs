//! What has to hold, and what is aimed at. Decides nothing but whether a figure is on the right side, and
//! whether more rounds could put it on the other.

use serde::{Deserialize, Serialize};

use crate::figures::is_clear;

/// How many times as many rounds there are at most where chance could have put a figure on either side of its floor.
pub const AT_MOST_AS_MANY: usize = 3;

/// Which side of a limit is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The figure is to be small.
    AtMost,
    /// The figure is to be large.
    AtLeast,
}

/// One figure, held against its floor and its aim.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub figure: f64,
    /// Which side is right.
    pub side: Side,
    /// What must hold.
    pub floor: f64,
    /// What is aimed at, where there is more than the floor.
    pub aim: Option<f64>,
    /// The same figure of each round, where there are rounds.
    #[serde(skip)]
    each: Vec<f64>,
}

impl Check {
    /// A figure that is to be at most its floor.
    pub fn at_most(what: impl Into<String>, figure: f64, floor: f64, aim: Option<f64>) -> Self {
        Self { what: what.into(), figure, side: Side::AtMost, floor, aim, each: Vec::new() }
    }

    /// A figure that is to be at least its floor.
    pub fn at_least(what: impl Into<String>, figure: f64, floor: f64, aim: Option<f64>) -> Self {
        Self { what: what.into(), figure, side: Side::AtLeast, floor, aim, each: Vec::new() }
    }

    /// The same, with the figure of each round.
    #[must_use]
    pub fn of_rounds(self, each: Vec<f64>) -> Self {
        Self { each, ..self }
    }

    /// Whether more rounds would hardly put it on the other side of its floor.
    pub fn is_clear(&self) -> bool {
        is_clear(&self.each, self.floor)
    }

    /// Whether the floor holds.
    pub fn holds(&self) -> bool {
        self.is_within(self.floor)
    }

    /// Whether the aim is reached, where there is one.
    pub fn reaches(&self) -> Option<bool> {
        self.aim.map(|aim| self.is_within(aim))
    }

    fn is_within(&self, limit: f64) -> bool {
        match self.side {
            Side::AtMost => self.figure > 0.0 && self.figure <= limit,
            Side::AtLeast => self.figure >= limit,
        }
    }

    fn line(&self) -> String {
        let sign = if self.side == Side::AtMost { '≤' } else { '≥' };
        let mark = if self.holds() { '✓' } else { '✗' };
        let aim = match (self.aim, self.reaches()) {
            (Some(aim), Some(true)) => format!("aim {sign} {aim:.2} reached"),
            (Some(aim), _) => format!("aim {sign} {aim:.2} missed"),
            _ => String::new(),
        };
        format!("  {mark} {:<58} {:>7.2}  floor {sign} {:<6.2} {aim}", self.what, self.figure, self.floor)
    }
}

/// Prints them all.
pub fn print(checks: &[Check]) {
    println!();
    for check in checks {
        println!("{}", check.line().trim_end());
    }
    let missed = checks.iter().filter(|check| !check.holds()).count();
    println!("\n{} of {} floors hold", checks.len() - missed, checks.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_own_side() {
        assert!(Check::at_most("cpu", 1.1, 1.15, Some(1.0)).holds());
        assert_eq!(Check::at_most("cpu", 1.1, 1.15, Some(1.0)).reaches(), Some(false));
        assert!(!Check::at_most("cpu", 1.2, 1.15, None).holds());
        assert!(Check::at_least("tps", 0.98, 0.97, None).holds());
        assert!(!Check::at_least("tps", 0.96, 0.97, None).holds());
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        assert!(!Check::at_most("cpu", 0.0, 1.15, None).holds());
        assert!(!Check::at_most("cpu", f64::NAN, 1.15, None).holds());
    }

    #[test]
    fn a_line_says_which_side_and_whether() {
        says(&Check::at_most("cpu", 1.204, 1.15, Some(1.0)), "✗", "floor ≤ 1.15", "aim ≤ 1.00 missed");
        says(&Check::at_least("tps", 1.07, 0.97, Some(1.06)), "✓", "floor ≥ 0.97", "aim ≥ 1.06 reached");
    }

    fn says(check: &Check, mark: &str, floor: &str, aim: &str) {
        let line = check.line();
        assert!([mark, floor, aim].iter().all(|part| line.contains(part)), "{line}");
    }
}
