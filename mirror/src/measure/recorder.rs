//! Records one side's statements: totals for the status, and intervals for the analysis.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use understudy_crds::{
    experiment::StatementClass,
    status::{ClassKey, Latency, LatencyByClass},
};

use super::interval::{ArmInterval, Fingerprint, histogram};

/// Normalised statements told apart within one interval; the rest shares [`OTHER`].
const MAX_FINGERPRINTS: usize = 200;
/// The fingerprint of whatever exceeds the number that is told apart.
pub const OTHER: Fingerprint = Fingerprint(0);

/// One measured statement.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When production began its exchange, ns since the mirror's epoch.
    pub begun_ns: u64,
    /// Its class.
    pub class: StatementClass,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// Sent until answered, µs.
    pub service_us: u64,
    /// Should have been sent until answered, µs.
    pub response_us: u64,
    /// Production's service time of the same statement, µs.
    pub production_us: u64,
}

/// What became of a statement that is not in the histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// It failed.
    Failed,
    /// It was cancelled or timed out.
    Cancelled,
    /// The client sent it before it had the answer to what it sent before.
    Pipelined,
    /// It took so long that its interval has been taken since.
    TooLong,
}

/// Records one side.
#[derive(Debug, Default)]
pub struct Recorder {
    observing: Option<Observing>,
    intervals: BTreeMap<u64, ArmInterval>,
    totals: BTreeMap<StatementClass, Histogram<u64>>,
    errors: u64,
    pipelined: u64,
    too_long: u64,
}

/// When observation began, and how long an interval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observing {
    /// Exchanges that production began at this moment or later are observed, ns.
    pub from_ns: u64,
    /// Length of an interval, ns.
    pub interval_ns: u64,
}

impl Recorder {
    /// Begins observation; what was recorded before is forgotten.
    pub fn observe(&mut self, observing: Observing) {
        *self = Self { observing: Some(observing), ..Self::default() };
    }

    /// Records a statement.
    pub fn record(&mut self, sample: &Sample) {
        let Sample { begun_ns, class, fingerprint, service_us, response_us, production_us } = *sample;
        if self.observing.is_some_and(|o| begun_ns < o.from_ns) {
            return;
        }
        note(self.totals.entry(class).or_insert_with(histogram), service_us);
        let Some(interval) = self.interval(begun_ns) else { return };
        note(interval.service.entry(class).or_insert_with(histogram), service_us);
        note(interval.response.entry(class).or_insert_with(histogram), response_us);
        let known = interval.fingerprints.len() < MAX_FINGERPRINTS || interval.fingerprints.contains_key(&fingerprint);
        let fingerprint = if known { fingerprint } else { OTHER };
        note(interval.fingerprints.entry(fingerprint).or_insert_with(histogram), service_us);
        if let Some(ratio) = service_us.saturating_mul(1000).checked_div(production_us) {
            note(interval.ratio_permille.entry(class).or_insert_with(histogram), ratio);
        }
    }

    /// Counts a statement that is not measured.
    pub fn exclude(&mut self, begun_ns: u64, why: Excluded) {
        if self.observing.is_some_and(|o| begun_ns < o.from_ns) {
            return;
        }
        self.errors += u64::from(why == Excluded::Failed);
        self.pipelined += u64::from(why == Excluded::Pipelined);
        self.too_long += u64::from(why == Excluded::TooLong);
        if why == Excluded::TooLong {
            return;
        }
        let Some(interval) = self.interval(begun_ns) else { return };
        match why {
            Excluded::Failed => interval.errors += 1,
            Excluded::Cancelled => interval.cancelled += 1,
            Excluded::Pipelined | Excluded::TooLong => {}
        }
    }

    fn interval(&mut self, begun_ns: u64) -> Option<&mut ArmInterval> {
        let Observing { from_ns, interval_ns } = self.observing?;
        let index = begun_ns.checked_sub(from_ns)?.checked_div(interval_ns)?;
        Some(self.intervals.entry(index).or_default())
    }

    /// Takes an interval out, once nothing can be added to it any more.
    pub fn take(&mut self, index: u64) -> ArmInterval {
        self.intervals.remove(&index).unwrap_or_default()
    }

    /// Latency by class since observation began (or since the mirror began, before that).
    pub fn latency(&self) -> LatencyByClass {
        self.totals.iter().map(|(class, histogram)| (ClassKey::from(*class), latency(histogram))).collect()
    }

    /// Statements that failed.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Statements that were not measured since they were pipelined.
    pub fn pipelined(&self) -> u64 {
        self.pipelined
    }

    /// Statements that were not measured since they took too long.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    /// The histograms by class since observation began.
    pub fn totals(&self) -> &BTreeMap<StatementClass, Histogram<u64>> {
        &self.totals
    }
}

/// A histogram in numbers.
pub fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| i64::try_from(histogram.value_at_quantile(quantile)).unwrap_or(i64::MAX);
    Latency {
        count: i64::try_from(histogram.len()).unwrap_or(i64::MAX),
        p50_us: at(0.5),
        p95_us: at(0.95),
        p99_us: at(0.99),
    }
}

/// A histogram grows as needed (`saturating_record` would not let it). What it can't hold even so is no
/// time that a clock can show.
fn note(histogram: &mut Histogram<u64>, value: u64) {
    if histogram.record(value).is_err() {
        histogram.saturating_record(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(begun_ns: u64, service_us: u64) -> Sample {
        Sample {
            begun_ns,
            class: StatementClass::Read,
            fingerprint: Fingerprint(7),
            service_us,
            response_us: service_us + 5,
            production_us: 100,
        }
    }

    #[test]
    fn statements_go_into_the_interval_in_which_production_began_them() {
        let mut recorder = Recorder::default();
        recorder.observe(Observing { from_ns: 1000, interval_ns: 100 });
        recorder.record(&sample(999, 1));
        recorder.record(&sample(1000, 200));
        recorder.record(&sample(1199, 300));
        let (first, second) = (recorder.take(0), recorder.take(1));
        assert_eq!(first.service[&StatementClass::Read].max(), 200);
        assert_eq!(first.ratio_permille[&StatementClass::Read].max(), 2000);
        assert_eq!(first.response[&StatementClass::Read].max(), 205);
        assert_eq!(second.fingerprints[&Fingerprint(7)].len(), 1);
        assert_eq!(recorder.latency()[&ClassKey::Read].count, 2, "what came before observation is not counted");
    }

    #[test]
    fn long_statements_are_recorded_with_their_full_length() {
        let mut recorder = Recorder::default();
        recorder.record(&sample(0, 60_000_000));
        assert_eq!(recorder.latency()[&ClassKey::Read].p99_us / 100_000, 600);
    }

    #[test]
    fn more_statements_than_are_told_apart_share_one_histogram() {
        let mut recorder = Recorder::default();
        recorder.observe(Observing { from_ns: 0, interval_ns: 100 });
        for n in 0..300 {
            recorder.record(&Sample { fingerprint: Fingerprint(n + 1), ..sample(0, 1) });
        }
        let interval = recorder.take(0);
        assert_eq!(interval.fingerprints.len(), MAX_FINGERPRINTS + 1);
        assert_eq!(interval.fingerprints[&OTHER].len(), 100);
    }
}
