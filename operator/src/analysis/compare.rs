//! One difference between two arms: what is known of it now, and what was known when.

use hdrhistogram::Histogram;
use understudy_crds::{
    experiment::StatementClass,
    report::{DeltaPoint, DeltaSeries},
    status::{Comparison, Effect},
};
use understudy_mirror::measure::interval::Interval;

use super::{
    blocks::BlockBuilder,
    confidence::{MeanInterval, MeanSequence},
};

/// Points kept of a difference over time; when there are more, every other one is dropped.
const POINTS: usize = 400;
/// Logarithms of ratios beyond this (a factor of 1000) are shown as this.
const LARGEST_LOG: f64 = 6.9;

/// The same statements on two arms, at one quantile of one class.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    /// The arm that is judged.
    pub judged: String,
    /// The arm it is held against.
    pub against: String,
    pub class: StatementClass,
    pub quantile: f64,
    tracker: Tracker,
    history: History,
}

impl Difference {
    pub(super) fn new(judged: &str, against: &str, class: StatementClass, quantile: f64, alpha: f64) -> Self {
        Self {
            judged: judged.to_owned(),
            against: against.to_owned(),
            class,
            quantile,
            tracker: Tracker::new(quantile, alpha),
            history: History::default(),
        }
    }

    /// Takes the next interval; one that an arm has no part in tells nothing about the difference.
    pub(super) fn push(&mut self, interval: &Interval) {
        let (Some(judged), Some(against)) = (interval.arms.get(&self.judged), interval.arms.get(&self.against)) else {
            return;
        };
        if self.tracker.push(judged.service.get(&self.class), against.service.get(&self.class))
            && let Some(effect) = self.tracker.effect()
        {
            let seconds = interval.start_us.saturating_add(interval.length_us) as f64 / 1e6;
            self.history.push(DeltaPoint { seconds, effect });
        }
    }

    /// The share of experiments in which it may be wrong.
    #[cfg(test)]
    pub(super) fn alpha(&self) -> f64 {
        self.tracker.sequence.alpha()
    }

    /// What is known now, `conclusive` left open.
    pub(super) fn comparison(&self) -> Option<Comparison> {
        let Effect { delta, low, high } = self.tracker.effect()?;
        Some(Comparison {
            candidate: self.judged.clone(),
            against: self.against.clone(),
            class: self.class,
            quantile: self.quantile,
            delta,
            low,
            high,
            blocks: i64::try_from(self.tracker.blocks).unwrap_or(i64::MAX),
            conclusive: false,
        })
    }

    pub(super) fn series(&self) -> DeltaSeries {
        DeltaSeries {
            candidate: self.judged.clone(),
            against: self.against.clone(),
            class: self.class,
            quantile: self.quantile,
            points: self.history.points.clone(),
        }
    }
}

/// Blocks into a sequence of differences, and the interval of their mean.
#[derive(Debug, Clone)]
pub(super) struct Tracker {
    blocks_in: BlockBuilder,
    sequence: MeanSequence,
    known: Option<MeanInterval>,
    blocks: u64,
}

impl Tracker {
    pub(super) fn new(quantile: f64, alpha: f64) -> Self {
        Self { blocks_in: BlockBuilder::new(quantile), sequence: MeanSequence::new(alpha), known: None, blocks: 0 }
    }

    /// Takes the next interval; whether it completed a block.
    pub(super) fn push(&mut self, judged: Option<&Histogram<u64>>, against: Option<&Histogram<u64>>) -> bool {
        let Some(difference) = self.blocks_in.push(judged, against) else { return false };
        self.sequence.push(difference);
        self.blocks += 1;
        self.known = self.sequence.interval();
        true
    }

    /// The relative difference and its interval.
    pub(super) fn effect(&self) -> Option<Effect> {
        self.known.map(|known| Effect {
            delta: relative(known.mean),
            low: relative(known.low),
            high: relative(known.high),
        })
    }
}

/// The relative difference that the logarithm of a ratio stands for, to a millionth: what is written as
/// JSON and read back is then the same number.
pub(super) fn relative(log_ratio: f64) -> f64 {
    (log_ratio.clamp(-LARGEST_LOG, LARGEST_LOG).exp_m1() * 1e6).round() / 1e6
}

/// What was known when, thinned to a few hundred points.
#[derive(Debug, Clone, Default)]
struct History {
    points: Vec<DeltaPoint>,
    /// One point of this many (a power of two) is kept.
    spacing_log2: u32,
    seen: u64,
}

impl History {
    fn push(&mut self, point: DeltaPoint) {
        if self.seen.trailing_zeros() >= self.spacing_log2 {
            self.points.push(point);
        }
        self.seen += 1;
        if self.points.len() > POINTS {
            let mut index = 0_usize;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.spacing_log2 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_a_few_hundred_points_evenly_spaced() {
        let mut history = History::default();
        for second in 0..50_000_u32 {
            history.push(DeltaPoint { seconds: f64::from(second), effect: Effect::default() });
        }
        assert!((POINTS / 2..=POINTS).contains(&history.points.len()), "{}", history.points.len());
        let spacing = history.points[1].seconds - history.points[0].seconds;
        assert!(history.points.windows(2).all(|pair| (pair[1].seconds - pair[0].seconds - spacing).abs() < 1e-9));
    }

    #[test]
    fn a_ratio_out_of_all_bounds_stays_a_number() {
        assert!(relative(f64::INFINITY).is_finite());
        assert!(relative(-1e9) > -1.0);
    }
}
