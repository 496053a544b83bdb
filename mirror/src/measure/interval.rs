//! One interval of observation: the histograms of everything that production *started* in it, on
//! production and on every arm. Statements are paired: an interval holds the same statements on all
//! sides, whenever an arm got round to playing them.
//!
//! Plain data for the control plane; nothing here records or decides.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use understudy_crds::experiment::StatementClass;

/// Identity of a normalised statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Everything that production started in one stretch of time.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Number of the interval since observation began, without gaps.
    pub index: u64,
    /// When it began on production, µs since observation began.
    pub start_us: u64,
    /// Its length, µs.
    pub length_us: u64,
    /// By arm: `production`, `baseline`, and the candidates.
    pub arms: BTreeMap<String, ArmInterval>,
}

/// What one arm did of an interval.
#[derive(Debug, Clone, Default)]
pub struct ArmInterval {
    /// Service time (sent until answered) of successful statements, µs.
    pub service: BTreeMap<StatementClass, Histogram<u64>>,
    /// Response time (should have been sent until answered), µs.
    pub response: BTreeMap<StatementClass, Histogram<u64>>,
    /// Service time by normalised statement, µs.
    pub fingerprints: HashMap<Fingerprint, Histogram<u64>>,
    /// This arm's service time over production's of the same statement, in thousandths.
    pub ratio_permille: BTreeMap<StatementClass, Histogram<u64>>,
    /// Statements that failed; they are not in the histograms.
    pub errors: u64,
    /// Statements cancelled or timed out; they are not in the histograms.
    pub cancelled: u64,
}

/// A new histogram as all of Understudy uses them: 3 significant digits, growing, µs.
///
/// The only error of the constructor is a precision above 5.
#[expect(clippy::expect_used, reason = "3 digits is a constant that the constructor accepts")]
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("3 significant digits are allowed")
}
