//! Blocks: consecutive intervals put together until a quantile of them means something.
//!
//! Both sides of a block hold the same statements (intervals are paired by what production started),
//! so the difference of the two logarithms of a quantile is free of what both sides share.
//! A class with little traffic gets few, long blocks; one without any gets none.

use hdrhistogram::Histogram;
use understudy_mirror::measure::interval::histogram;

/// This many statements of a block lie beyond the quantile, or it would be the extreme of a handful.
const BEYOND_QUANTILE: f64 = 2.0;
/// No block is smaller than this, whatever the quantile.
const LEAST_STATEMENTS: u64 = 20;

/// The statements that a block needs on both sides: 40 for p95, 200 for p99, 20 for the median.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 4 and 2 million")]
pub(super) fn statements_needed(quantile: f64) -> u64 {
    let beyond = quantile.min(1.0 - quantile).clamp(1e-6, 0.5);
    // The rounding takes back what 1 − 0.95 loses in binary.
    let needed = (BEYOND_QUANTILE / beyond * 1e6).round() / 1e6;
    (needed.ceil() as u64).max(LEAST_STATEMENTS)
}

/// Adds `from` to `into`.
pub(super) fn merge(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    // The only error is a value above a fixed upper bound, and ours grow.
    let added = into.add(from);
    debug_assert!(added.is_ok(), "histograms grow");
}

/// Puts intervals of one class together, for one quantile of two sides.
#[derive(Debug, Clone)]
pub(super) struct BlockBuilder {
    quantile: f64,
    needed: u64,
    judged: Histogram<u64>,
    against: Histogram<u64>,
}

impl BlockBuilder {
    pub(super) fn new(quantile: f64) -> Self {
        Self { quantile, needed: statements_needed(quantile), judged: histogram(), against: histogram() }
    }

    /// Takes both sides of the next interval. When a block is complete: the difference of the
    /// logarithms of its quantile, judged side less other side.
    pub(super) fn push(&mut self, judged: Option<&Histogram<u64>>, against: Option<&Histogram<u64>>) -> Option<f64> {
        if let (Some(judged), Some(against), true) =
            (judged, against, self.judged.is_empty() && self.against.is_empty())
            && judged.len().min(against.len()) >= self.needed
        {
            // Most intervals of a busy class are a block by themselves; nothing is copied for them.
            return Some(log_difference(judged, against, self.quantile));
        }
        for (pending, histogram) in [(&mut self.judged, judged), (&mut self.against, against)] {
            if let Some(histogram) = histogram {
                merge(pending, histogram);
            }
        }
        if self.judged.len().min(self.against.len()) < self.needed {
            return None;
        }
        let difference = log_difference(&self.judged, &self.against, self.quantile);
        self.judged.reset();
        self.against.reset();
        Some(difference)
    }
}

/// ln(judged ÷ against) at a quantile; answers within the same microsecond count as one.
fn log_difference(judged: &Histogram<u64>, against: &Histogram<u64>, quantile: f64) -> f64 {
    let at = |histogram: &Histogram<u64>| (histogram.value_at_quantile(quantile).max(1) as f64).ln();
    at(judged) - at(against)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value_us: u64, count: u64) -> Histogram<u64> {
        let mut made = histogram();
        made.record_n(value_us, count).unwrap();
        made
    }

    #[test]
    fn a_block_needs_two_statements_beyond_its_quantile() {
        for (quantile, needed) in
            [(0.5, 20), (0.9, 20), (0.95, 40), (0.99, 200), (0.999, 2000), (0.05, 40), (0.0, 2_000_000)]
        {
            assert_eq!(statements_needed(quantile), needed, "quantile {quantile}");
        }
    }

    #[test]
    fn a_busy_interval_is_a_block_by_itself() {
        let mut builder = BlockBuilder::new(0.95);
        let difference = builder.push(Some(&of(500, 40)), Some(&of(1000, 40))).unwrap();
        assert!((difference - 0.5_f64.ln()).abs() < 0.002);
    }

    #[test]
    fn quiet_intervals_are_put_together_until_both_sides_have_enough() {
        let mut builder = BlockBuilder::new(0.95);
        assert_eq!(builder.push(Some(&of(500, 39)), Some(&of(500, 100))), None);
        assert_eq!(builder.push(None, Some(&of(500, 100))), None);
        assert!(builder.push(Some(&of(500, 1)), None).is_some());
        assert_eq!(builder.push(Some(&of(500, 39)), Some(&of(500, 39))), None, "the next block begins empty");
    }

    #[test]
    fn silence_makes_no_block() {
        let mut builder = BlockBuilder::new(0.95);
        assert!((0..10_000).all(|_| builder.push(None, None).is_none()));
    }

    #[test]
    fn answers_below_a_microsecond_are_no_division_by_zero() {
        let mut builder = BlockBuilder::new(0.5);
        assert_eq!(builder.push(Some(&of(0, 40)), Some(&of(0, 40))), Some(0.0));
    }
}
