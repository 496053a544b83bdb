//! What an experiment does next. Pure: the world as it was observed goes in, the next step comes out.
//!
//! ```text
//!  CatchingUp ──all arms level──► WarmingUp ──warmUp over──► Observing ──verdict or maximum──► Concluded
//!       │                             │                          │
//!       └─ halt, guardrail, not level within the maximum, no baseline, no candidate: Concluded (or Halted) ─┘
//! ```

use std::time::Duration;

use understudy_crds::{
    condition::{ArmRole, ArmState, Phase},
    experiment::{Candidate, Guardrails, Schedule},
    status::ShadowExperimentStatus,
};

use crate::analysis::{
    verdict::{Guardrail, GuardrailTripped},
    wording,
};

/// Outcomes that must have been compared before their share means something.
const LEAST_COMPARED: i64 = 200;
/// Divergences that are too few to stop an experiment, whatever their share.
const FEW_DIVERGED: i64 = 5;

/// What is observed of a running experiment.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// What the arms and production report.
    pub status: &'a ShadowExperimentStatus,
    /// How long the experiment has been in its phase.
    pub in_phase: Duration,
    /// The kill switch has been thrown.
    pub halted: bool,
    /// There is a verdict.
    pub verdict: bool,
    /// The room that the arms have.
    pub disks: &'a [Disk],
}

/// The file system that an arm lives on; on one machine it may be the worker's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The arm.
    pub arm: String,
    /// What is free, bytes.
    pub free_bytes: u64,
    /// What there is in all, bytes.
    pub total_bytes: u64,
}

impl Disk {
    /// What has to stay free: 2 %, at least 64 MiB, 1 GiB is always enough.
    fn least_free_bytes(&self) -> u64 {
        (self.total_bytes / 50).clamp(64 << 20, 1 << 30)
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Go on as it is.
    Stay,
    /// Go on to another phase.
    Enter(Phase),
    /// End the observation, and say why if it is not a verdict.
    Conclude(Option<GuardrailTripped>),
    /// Production goes direct, at once.
    Halt,
}

/// What an experiment does next.
pub fn next(world: &World<'_>, schedule: &Schedule, guardrails: &Guardrails) -> Next {
    let World { status, in_phase, halted, verdict, disks } = *world;
    if halted {
        return Next::Halt;
    }
    if nothing_left_to_compare(status) {
        return Next::Conclude(None);
    }
    if let Some(tripped) = tripped(guardrails, status).or_else(|| full(disks)) {
        return Next::Conclude(Some(tripped));
    }
    match status.phase {
        Phase::CatchingUp if all_level(status) => Next::Enter(Phase::WarmingUp),
        Phase::CatchingUp if in_phase >= schedule.maximum.duration() => {
            Next::Conclude(Some(never_level(status, schedule)))
        }
        Phase::WarmingUp if in_phase >= schedule.warm_up.duration() => Next::Enter(Phase::Observing),
        Phase::Observing if verdict || in_phase >= schedule.maximum.duration() => Next::Conclude(None),
        _ => Next::Stay,
    }
}

/// The baseline is gone, or all candidates are.
fn nothing_left_to_compare(status: &ShadowExperimentStatus) -> bool {
    let lost = |role: ArmRole| {
        let mut arms = status.arms.iter().filter(|arm| arm.role == role).peekable();
        arms.peek().is_some() && arms.all(|arm| arm.state == ArmState::Lost)
    };
    lost(ArmRole::Baseline) || lost(ArmRole::Candidate)
}

/// Every arm that is not lost has caught up. One that is only being made was added later: the others don't
/// wait for it.
fn all_level(status: &ShadowExperimentStatus) -> bool {
    status.arms.iter().all(|arm| matches!(arm.state, ArmState::Live | ArmState::Lost | ArmState::Seeding))
}

/// An arm that can't keep up with production never catches up with it: nobody waits longer than for a verdict.
fn never_level(status: &ShadowExperimentStatus, schedule: &Schedule) -> GuardrailTripped {
    let behind = status.arms.iter().filter(|arm| arm.state == ArmState::CatchingUp);
    let behind = behind.max_by(|a, b| a.lag.seconds.total_cmp(&b.lag.seconds));
    let (name, seconds) = behind.map_or(("an arm", 0.0), |arm| (arm.name.as_str(), arm.lag.seconds));
    let message =
        format!("{name} is {seconds:.1} s behind production and has not caught up within {}", schedule.maximum);
    GuardrailTripped { kind: Guardrail::Lag, message }
}

/// The guardrail that is broken, if one is. An arm that is still catching up has no lag yet that would
/// mean anything.
pub fn tripped(guardrails: &Guardrails, status: &ShadowExperimentStatus) -> Option<GuardrailTripped> {
    let Guardrails { max_lag, max_divergence, max_production_overhead } = guardrails;
    let live = || status.arms.iter().filter(|arm| arm.state == ArmState::Live);
    if let Some(limit) = max_lag
        && let Some(arm) = live().find(|arm| arm.lag.seconds > limit.duration().as_secs_f64())
    {
        let message = format!("{} fell {:.1} s behind production; {limit} are allowed", arm.name, arm.lag.seconds);
        return Some(GuardrailTripped { kind: Guardrail::Lag, message });
    }
    if let Some(limit) = max_divergence {
        let diverged = |arm: &understudy_crds::status::ArmStatus| arm.divergence.values().sum::<i64>();
        let over = live().find(|arm| {
            arm.compared >= LEAST_COMPARED
                && diverged(arm) > FEW_DIVERGED
                && diverged(arm) as f64 > arm.compared as f64 * limit.fraction()
        });
        if let Some(arm) = over {
            let share = wording::share(diverged(arm) as f64 / arm.compared as f64);
            let message = format!(
                "{} answered {share} of the statements otherwise than production; {limit} are allowed",
                arm.name
            );
            return Some(GuardrailTripped { kind: Guardrail::Divergence, message });
        }
    }
    if let Some(limit) = max_production_overhead {
        let overhead_us = u128::try_from(status.production.overhead_p99_us).unwrap_or(0);
        if overhead_us > limit.duration().as_micros() {
            let overhead = wording::latency(status.production.overhead_p99_us);
            let message = format!("the mirror added {overhead} at p99 to production; {limit} are allowed");
            return Some(GuardrailTripped { kind: Guardrail::ProductionOverhead, message });
        }
    }
    None
}

/// The disk that is about to be full, if one is: an arm must never be what fills production's.
fn full(disks: &[Disk]) -> Option<GuardrailTripped> {
    let disk = disks.iter().find(|disk| disk.free_bytes < disk.least_free_bytes())?;
    let mebibytes = |bytes: u64| wording::count(bytes >> 20);
    let message = format!(
        "the disk of {} has {} MiB left of {}; {} MiB are to stay free",
        disk.arm,
        mebibytes(disk.free_bytes),
        mebibytes(disk.total_bytes),
        mebibytes(disk.least_free_bytes())
    );
    Some(GuardrailTripped { kind: Guardrail::Disk, message })
}

/// What an edit of the candidates means for the arms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits {
    /// Arms that go, by candidate.
    pub removed: Vec<String>,
    /// Candidates that get an arm. One that was changed is another one: its arm goes, and one comes.
    pub added: Vec<Candidate>,
}

/// What an edit of the candidates means for the arms; whoever stays as it is is not touched.
pub fn edits(before: &[Candidate], wanted: &[Candidate]) -> Edits {
    let removed = before.iter().filter(|c| !wanted.contains(c)).map(|c| c.name.clone()).collect();
    let added = wanted.iter().filter(|c| !before.contains(c)).cloned().collect();
    Edits { removed, added }
}

/// How long the intervals of an observation are: short enough for many blocks within the minimum.
pub fn interval(schedule: &Schedule) -> Duration {
    (schedule.minimum.duration() / 120).clamp(Duration::from_millis(500), Duration::from_secs(10))
}

/// How long production is measured on after a promotion: as long as the minimum, within limits; and, where
/// too few blocks of time came together by then for an interval, at most for so long.
pub fn outcome_time(schedule: &Schedule) -> (Duration, Duration) {
    let least = schedule.minimum.duration().clamp(Duration::from_secs(5), Duration::from_secs(3600));
    (least, (least * 2).max(Duration::from_secs(120)))
}

/// How long a mirror whose experiment has concluded stays in front of production, so that what a
/// promotion brings can be measured. Afterwards production goes direct; promoting is still possible.
pub const fn promotion_window() -> Duration {
    Duration::from_secs(3600)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use understudy_crds::{
        Percent, Span,
        condition::DivergenceKind,
        status::{ArmStatus, ExchangeCounts, Lag, ProductionStatus},
    };

    use super::*;

    fn arm(name: &str, role: ArmRole, state: ArmState) -> ArmStatus {
        ArmStatus {
            name: name.into(),
            role,
            state,
            message: None,
            endpoint: None,
            cut: None,
            lag: Lag::default(),
            exchanges: ExchangeCounts::default(),
            divergence: BTreeMap::new(),
            compared: 0,
            ambiguous: 0,
            latency: BTreeMap::new(),
        }
    }

    fn status(phase: Phase, baseline: ArmState, candidate: ArmState) -> ShadowExperimentStatus {
        let arms = vec![arm("baseline", ArmRole::Baseline, baseline), arm("c", ArmRole::Candidate, candidate)];
        ShadowExperimentStatus { phase, arms, ..ShadowExperimentStatus::default() }
    }

    fn schedule() -> Schedule {
        Schedule { warm_up: Span::from_secs(5), minimum: Span::from_secs(20), maximum: Span::from_secs(60) }
    }

    fn step(status: &ShadowExperimentStatus, secs: u64, halted: bool, verdict: bool) -> Next {
        let world = World { status, in_phase: Duration::from_secs(secs), halted, verdict, disks: &[] };
        next(&world, &schedule(), &Guardrails::default())
    }

    #[test]
    fn an_experiment_goes_from_phase_to_phase() {
        use ArmState::{CatchingUp, Live, Lost};
        for (phase, baseline, candidate, secs, verdict, expected) in [
            (Phase::CatchingUp, Live, CatchingUp, 59, false, Next::Stay),
            (Phase::CatchingUp, Live, Live, 0, false, Next::Enter(Phase::WarmingUp)),
            (Phase::WarmingUp, Live, Live, 4, false, Next::Stay),
            (Phase::WarmingUp, Live, Live, 5, false, Next::Enter(Phase::Observing)),
            (Phase::Observing, Live, Live, 59, false, Next::Stay),
            (Phase::Observing, Live, Live, 30, true, Next::Conclude(None)),
            (Phase::Observing, Live, Live, 60, false, Next::Conclude(None)),
            (Phase::Observing, Lost, Live, 1, false, Next::Conclude(None)),
            (Phase::Observing, Live, Lost, 1, false, Next::Conclude(None)),
        ] {
            let status = status(phase, baseline, candidate);
            assert_eq!(step(&status, secs, false, verdict), expected, "{phase:?} {baseline:?} {candidate:?} {secs}");
        }
    }

    #[test]
    fn an_arm_that_never_catches_up_is_waited_for_no_longer_than_for_a_verdict() {
        let mut behind = status(Phase::CatchingUp, ArmState::Live, ArmState::CatchingUp);
        behind.arms[1].lag.seconds = 38.24;
        let message = "c is 38.2 s behind production and has not caught up within 1m".to_owned();
        let tripped = GuardrailTripped { kind: Guardrail::Lag, message };
        assert_eq!(step(&behind, 60, false, false), Next::Conclude(Some(tripped)));
    }

    #[test]
    fn an_arm_does_not_fill_a_disk() {
        let disk = |free_mib: u64, total_mib: u64| Disk {
            arm: "c".into(),
            free_bytes: free_mib << 20,
            total_bytes: total_mib << 20,
        };
        for (free_mib, total_mib, trips) in [
            (63, 1000, true),
            (64, 1000, false),
            (199, 10_000, true),
            (200, 10_000, false),
            (1023, 1 << 20, true),
            (1024, 1 << 20, false),
        ] {
            let found = full(&[disk(5000, 10_000), disk(free_mib, total_mib)]);
            assert_eq!(found.is_some(), trips, "{free_mib} of {total_mib}");
        }
        let message = full(&[disk(199, 10_000)]).unwrap().message;
        assert_eq!(message, "the disk of c has 199 MiB left of 10\u{202f}000; 200 MiB are to stay free");
    }

    #[test]
    fn an_edit_touches_those_only_that_were_edited() {
        let candidate = |name: &str, memory: &str| Candidate {
            name: name.into(),
            parameters: BTreeMap::from([("work_mem".to_owned(), memory.to_owned())]),
            ..Candidate::default()
        };
        let (a, b, other_b, c) =
            (candidate("a", "1MB"), candidate("b", "1MB"), candidate("b", "2MB"), candidate("c", "1MB"));
        for (before, wanted, removed, added) in [
            (vec![&a], vec![&a], vec![], vec![]),
            (vec![&a], vec![&b, &a], vec![], vec![&b]),
            (vec![&a, &b], vec![&b], vec!["a"], vec![]),
            (vec![&a, &b], vec![&a, &other_b], vec!["b"], vec![&other_b]),
            (vec![&a, &b], vec![&c], vec!["a", "b"], vec![&c]),
        ] {
            let own = |list: Vec<&Candidate>| list.into_iter().cloned().collect::<Vec<_>>();
            let found = edits(&own(before), &own(wanted));
            assert_eq!(found, Edits { removed: removed.into_iter().map(String::from).collect(), added: own(added) });
        }
    }

    #[test]
    fn a_short_minimum_does_not_cut_the_outcome_off_before_there_is_one() {
        for (minimum, least, most) in [(1, 5, 120), (5, 5, 120), (300, 300, 600), (86_400, 3600, 7200)] {
            let schedule = Schedule { minimum: Span::from_secs(minimum), ..schedule() };
            let expected = (Duration::from_secs(least), Duration::from_secs(most));
            assert_eq!(outcome_time(&schedule), expected, "{minimum}");
        }
    }

    #[test]
    fn the_kill_switch_comes_before_everything() {
        let status = status(Phase::Observing, ArmState::Lost, ArmState::Lost);
        assert_eq!(step(&status, 60, true, true), Next::Halt);
    }

    #[test]
    fn guardrails_trip_beyond_their_limit_and_not_before() {
        let mut lagging = status(Phase::Observing, ArmState::Live, ArmState::Live);
        lagging.arms[1].lag.seconds = 61.0;
        let lag = |secs| Guardrails { max_lag: Some(Span::from_secs(secs)), ..Guardrails::default() };
        assert_eq!(tripped(&lag(60), &lagging).unwrap().kind, Guardrail::Lag);
        assert_eq!(tripped(&lag(62), &lagging), None);
        lagging.arms[1].state = ArmState::CatchingUp;
        assert_eq!(tripped(&lag(60), &lagging), None, "who is catching up is behind by nature");

        let mut diverged = status(Phase::Observing, ArmState::Live, ArmState::Live);
        diverged.arms[0].compared = 1000;
        diverged.arms[0].divergence = BTreeMap::from([(DivergenceKind::Rows, 11)]);
        let share =
            |fraction| Guardrails { max_divergence: Some(Percent::from_fraction(fraction)), ..Guardrails::default() };
        assert_eq!(tripped(&share(0.01), &diverged).unwrap().kind, Guardrail::Divergence);
        assert_eq!(tripped(&share(0.02), &diverged), None);

        let mut slow = status(Phase::Observing, ArmState::Live, ArmState::Live);
        slow.production = ProductionStatus { overhead_p99_us: 2048, ..ProductionStatus::default() };
        let overhead = Guardrails { max_production_overhead: Some(Span::from_millis(1)), ..Guardrails::default() };
        assert_eq!(tripped(&overhead, &slow).unwrap().kind, Guardrail::ProductionOverhead);
    }
}
