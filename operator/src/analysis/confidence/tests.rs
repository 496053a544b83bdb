//! Simulated experiments, each with its own seed: how often the interval is wrong, and how soon it
//! finds what is there.

use super::*;

const RUNS: u64 = 400;
const LOOKS: usize = 400;

/// A generator that never changes, so that a failure can be seen again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn student3(&mut self) -> f64 {
        let spread: f64 = (0..3).map(|_| self.normal().powi(2)).sum();
        self.normal() / (spread / 3.0).sqrt()
    }
}

/// The noise of an experiment; each arm has its own, of sd 0.1 in log latency.
#[derive(Clone, Copy)]
enum Noise {
    Ar1(f64),
    Ar1AndIndependent(f64),
    HeavyTails,
    Checkpoints,
}

/// `blocks` differences between two arms that are the same.
fn differences(noise: Noise, blocks: usize, seed: u64) -> Vec<f64> {
    let mut random = Random(seed.wrapping_mul(7919) + 13);
    let mut arms = [random.normal(), random.normal()];
    let phases = [random.next() % 40, random.next() % 40];
    let mut step = |rho: f64, random: &mut Random| {
        for arm in &mut arms {
            *arm = rho * *arm + (1.0 - rho * rho).sqrt() * random.normal();
        }
        0.1 * (arms[0] - arms[1])
    };
    (0..blocks as u64)
        .map(|block| match noise {
            Noise::Ar1(rho) => step(rho, &mut random),
            Noise::Ar1AndIndependent(rho) => step(rho, &mut random) + 0.14 * random.normal(),
            Noise::HeavyTails => 0.1 * (random.student3() - random.student3()),
            Noise::Checkpoints => {
                let slow = phases.map(|phase| if (block + phase) % 40 < 5 { 0.5 } else { 0.0 });
                slow[0] - slow[1] + 0.1 * random.normal()
            }
        })
        .collect()
}

/// The first look at which the interval lies outside of zero, if any.
fn decided_at(noise: Noise, effect: f64, blocks: usize, seed: u64) -> Option<usize> {
    let mut sequence = MeanSequence::new(FALSE_VERDICTS);
    differences(noise, blocks, seed).into_iter().enumerate().find_map(|(block, difference)| {
        sequence.push(difference + effect);
        let interval = sequence.interval()?;
        (interval.low > 0.0 || interval.high < 0.0).then_some(block + 1)
    })
}

fn false_verdicts(noise: Noise, blocks: usize, runs: u64) -> f64 {
    (0..runs).filter(|seed| decided_at(noise, 0.0, blocks, *seed).is_some()).count() as f64
}

/// The most that may be wrong of `runs` when 5 % are, with two standard deviations of luck.
fn allowed(runs: u64) -> f64 {
    let runs = runs as f64;
    FALSE_VERDICTS * runs + 2.0 * (runs * FALSE_VERDICTS * (1.0 - FALSE_VERDICTS)).sqrt()
}

fn assert_few_false_verdicts(noise: Noise) {
    let wrong = false_verdicts(noise, LOOKS, RUNS);
    assert!(wrong <= allowed(RUNS), "{wrong} of {RUNS} equal pairs were called different");
}

#[test]
fn independent_noise_is_rarely_taken_for_a_difference() {
    assert_few_false_verdicts(Noise::Ar1(0.0));
}

#[test]
fn noise_that_lasts_some_blocks_is_rarely_taken_for_a_difference() {
    assert_few_false_verdicts(Noise::Ar1(0.5));
}

#[test]
fn noise_that_lasts_many_blocks_is_rarely_taken_for_a_difference() {
    assert_few_false_verdicts(Noise::Ar1(0.9));
}

#[test]
fn lasting_noise_under_measurement_noise_is_rarely_taken_for_a_difference() {
    assert_few_false_verdicts(Noise::Ar1AndIndependent(0.9));
}

#[test]
fn heavy_tails_are_rarely_taken_for_a_difference() {
    assert_few_false_verdicts(Noise::HeavyTails);
}

#[test]
fn checkpoints_at_other_moments_are_rarely_taken_for_a_difference() {
    assert_few_false_verdicts(Noise::Checkpoints);
}

#[test]
fn a_long_experiment_whose_values_are_averaged_stays_honest() {
    let wrong = false_verdicts(Noise::Ar1(0.5), 4_000, 40);
    assert!(wrong <= allowed(40), "{wrong} of 40 equal pairs were called different");
}

fn assert_found(noise: Noise, relative: f64, blocks: usize, least: f64) {
    let effect = f64::ln_1p(relative);
    let found = (0..RUNS).filter(|seed| decided_at(noise, effect, blocks, *seed).is_some()).count();
    assert!(found as f64 >= least * RUNS as f64, "found in {found} of {RUNS} experiments of {blocks} blocks");
}

#[test]
fn thirty_per_cent_less_is_found_in_nearly_all_experiments_of_eighty_blocks() {
    assert_found(Noise::Ar1(0.0), -0.30, 80, 0.92);
}

#[test]
fn seventy_per_cent_less_is_found_at_once() {
    assert_found(Noise::Ar1(0.0), -0.70, 60, 0.95);
}

#[test]
fn seventy_per_cent_less_is_found_in_a_short_experiment_with_lasting_noise() {
    assert_found(Noise::Ar1(0.5), -0.70, 120, 0.94);
}

#[test]
fn where_noise_outlasts_the_experiment_nothing_is_claimed() {
    let claimed =
        (0..RUNS).filter(|seed| decided_at(Noise::Ar1(0.9), f64::ln_1p(-0.10), 100, *seed).is_some()).count() as f64;
    assert!(claimed <= allowed(RUNS), "{claimed} of {RUNS} claim what nobody can know");
}

#[test]
fn there_is_no_interval_of_a_few_values() {
    let mut sequence = MeanSequence::new(FALSE_VERDICTS);
    for _ in 0..LEAST_VALUES - 1 {
        sequence.push(-1.0);
        assert_eq!(sequence.interval(), None);
    }
}

#[test]
fn what_is_not_a_number_is_left_out() {
    let mut sequence = MeanSequence::new(FALSE_VERDICTS);
    for block in 0..20 {
        sequence.push(f64::from(block % 3));
        sequence.push(f64::NAN);
        sequence.push(f64::INFINITY);
    }
    let interval = sequence.interval().unwrap();
    assert!(interval.low.is_finite() && interval.high.is_finite());
}

#[test]
fn a_difference_that_changes_is_followed() {
    let mut sequence = MeanSequence::new(FALSE_VERDICTS);
    for (block, noise) in differences(Noise::Ar1(0.0), 600, 1).into_iter().enumerate() {
        sequence.push(noise + if block < 200 { -0.5 } else { 0.5 });
        if let Some(MeanInterval { mean, low, high, .. }) = sequence.interval() {
            assert!(low <= mean && mean <= high, "at {block}");
        }
    }
    assert!(sequence.interval().unwrap().high > 0.0, "what was clear at first is not so any more");
}

#[test]
fn what_is_known_is_not_lost_from_one_block_to_the_next() {
    for seed in 0..20 {
        let mut sequence = MeanSequence::new(FALSE_VERDICTS);
        for difference in differences(Noise::Ar1(0.0), 100, seed) {
            let before = sequence.interval();
            sequence.push(difference);
            if let (Some(before), Some(now)) = (before, sequence.interval()) {
                assert!(now.high - now.low <= (before.high - before.low) * 3.0, "seed {seed}");
            }
        }
        assert!(sequence.interval().is_some(), "seed {seed}");
    }
}
