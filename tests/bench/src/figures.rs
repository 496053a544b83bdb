//! Few numbers, their middle, and the order in which they are got. No I/O.

/// The median; of an even number of figures the mean of the two in the middle. 0 of none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let (lower, upper) = (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2));
    lower.zip(upper).map_or(0.0, |(lower, upper)| f64::midpoint(*lower, *upper))
}

/// The median of what two series make in each round: rounds are interleaved, so what disturbed one
/// figure of a round has disturbed the other.
pub fn median_ratio(of: &[f64], to: &[f64]) -> f64 {
    median(ratios(of, to))
}

/// What each figure of one series makes of one of another in the same round.
pub fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).filter(|(_, to)| **to > 0.0).map(|(of, to)| of / to).collect()
}

/// Whether chance would hardly have put the middle of these figures on this side of a limit: a sign test, which is wrong
/// once in ten times on one side.
pub fn is_clear(figures: &[f64], limit: f64) -> bool {
    let (all, below) = (figures.len() as f64, figures.iter().filter(|figure| **figure <= limit).count() as f64);
    (2.0 * below - all).abs() >= 1.645 * all.sqrt()
}

/// The geometric mean. 0 of none.
pub fn geometric_mean(figures: &[f64]) -> f64 {
    let logarithms: f64 = figures.iter().map(|figure| figure.ln()).sum();
    if figures.is_empty() { 0.0 } else { (logarithms / figures.len() as f64).exp() }
}

/// What the geometric means of two series make.
pub fn ratio_of_means(of: &[f64], to: &[f64]) -> f64 {
    let to = geometric_mean(to);
    if to > 0.0 { geometric_mean(of) / to } else { 0.0 }
}

/// What the medians of two series make: for figures of which one in a few is many times the others, whatever is measured.
/// Of their ratios twice as many would be.
pub fn ratio_of_medians(of: &[f64], to: &[f64]) -> f64 {
    let to = median(to.iter().copied());
    if to > 0.0 { median(of.iter().copied()) / to } else { 0.0 }
}

/// In which order so many targets have their turn in a round: forwards and backwards by turns, so that none is always
/// the one behind another.
pub fn order(targets: usize, round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..targets).rev().collect() } else { (0..targets).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_turn_in_every_round() {
        assert_eq!(order(3, 1), [0, 1, 2]);
        assert_eq!(order(3, 2), [2, 1, 0]);
    }

    #[test]
    fn the_middle_is_found_in_any_order() {
        let cases: [(&[f64], f64); 3] = [(&[3.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 3.0, 2.0], 2.5), (&[], 0.0)];
        for (figures, middle) in cases {
            assert_eq!(median(figures.iter().copied()).to_bits(), middle.to_bits(), "{figures:?}");
        }
    }

    #[test]
    fn one_figure_that_is_far_off_makes_no_ratio() {
        assert_eq!(ratio_of_medians(&[2.0, 90.0, 1.0], &[4.0, 4.0, 70.0]).to_bits(), 0.5_f64.to_bits());
        assert_eq!(ratio_of_medians(&[1.0], &[]).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn a_geometric_mean_tells_of_each_figure() {
        assert!((geometric_mean(&[1.0, 100.0]) - 10.0).abs() < 1e-9);
        assert_eq!(geometric_mean(&[]).to_bits(), 0.0_f64.to_bits());
        assert!((ratio_of_means(&[2.0, 8.0], &[1.0, 4.0, 2.0]) - 2.0).abs() < 1e-9);
        assert_eq!(ratio_of_means(&[1.0], &[]).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn a_figure_is_clear_when_most_rounds_are_on_its_side() {
        let of =
            |below: usize, all: usize| -> Vec<f64> { (0..all).map(|n| if n < below { 0.9 } else { 1.2 }).collect() };
        let cases =
            [(7, 9, true), (6, 9, false), (5, 9, false), (2, 9, true), (17, 27, false), (18, 27, true), (1, 1, false)];
        for (below, all, clear) in cases {
            assert_eq!(is_clear(&of(below, all), 1.1), clear, "{below} of {all}");
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The second round was twice as slow for both.
        assert_eq!(median_ratio(&[10.0, 5.0, 11.0], &[20.0, 10.0, 22.0]).to_bits(), 0.5_f64.to_bits());
        assert_eq!(median_ratio(&[10.0], &[0.0]).to_bits(), 0.0_f64.to_bits());
    }
}
