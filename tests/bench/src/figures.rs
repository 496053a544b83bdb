//! Few numbers, and their middle. No I/O.

/// The median; of an even number of figures the lower of the two in the middle. 0 of none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or(0.0)
}

/// The median of what two series make in each round: rounds are interleaved, so what disturbed one
/// figure of a round has disturbed the other.
pub fn median_ratio(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).filter(|(_, to)| **to > 0.0).map(|(of, to)| of / to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found_in_any_order() {
        let cases: [(&[f64], f64); 3] = [(&[3.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 3.0, 2.0], 2.0), (&[], 0.0)];
        for (figures, middle) in cases {
            assert_eq!(median(figures.iter().copied()).to_bits(), middle.to_bits(), "{figures:?}");
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The second round was twice as slow for both.
        assert_eq!(median_ratio(&[10.0, 5.0, 11.0], &[20.0, 10.0, 22.0]).to_bits(), 0.5_f64.to_bits());
        assert_eq!(median_ratio(&[10.0], &[0.0]).to_bits(), 0.0_f64.to_bits());
    }
}
