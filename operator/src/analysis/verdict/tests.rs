//! Every branch of the verdict, as a table of small experiments.

use std::collections::BTreeMap;

use understudy_crds::{
    experiment::{Candidate, LocalTarget, Schedule, StatementClass, Target},
    labels::PRODUCTION,
    quantity::{Percent, Span},
};

use super::*;
use crate::analysis::Counts;

fn criterion(class: StatementClass, improve: Option<f64>, regress: Option<f64>) -> Criterion {
    Criterion {
        class,
        quantile: 0.95,
        improve_by: improve.map(Percent::from_fraction),
        regress_by: regress.map(Percent::from_fraction),
    }
}

/// Reads 15 % faster, writes at most 15 % slower; one minute at least, ten at most.
fn spec() -> ShadowExperimentSpec {
    ShadowExperimentSpec {
        hypothesis: None,
        target: Target {
            stateful_set: None,
            local: Some(LocalTarget {
                host: "127.0.0.1".into(),
                port: 5432,
                user: "postgres".into(),
                database: "app".into(),
                password_file: None,
                listen: "127.0.0.1:0".into(),
            }),
            cloud_native_pg: None,
            citus: None,
        },
        clone: understudy_crds::experiment::CloneSpec::default(),
        cut: understudy_crds::experiment::CutSpec::default(),
        capture: understudy_crds::experiment::CaptureSpec::default(),
        baseline: true,
        candidates: vec![Candidate { name: "index".into(), ..Candidate::default() }],
        align: None,
        traffic: understudy_crds::experiment::TrafficSpec::default(),
        schedule: Schedule { warm_up: Span::from_secs(1), minimum: Span::from_secs(60), maximum: Span::from_secs(600) },
        success: vec![
            criterion(StatementClass::Read, Some(0.15), None),
            criterion(StatementClass::Write, None, Some(0.15)),
        ],
        guardrails: understudy_crds::experiment::Guardrails::default(),
        promotion: understudy_crds::experiment::Promotion::default(),
        halt: false,
    }
}

fn comparison(arm: &str, class: StatementClass, delta: f64, low: f64, high: f64) -> Comparison {
    let against = if arm == BASELINE { PRODUCTION } else { BASELINE };
    Comparison {
        candidate: arm.into(),
        against: against.into(),
        class,
        quantile: 0.95,
        delta,
        low,
        high,
        blocks: 90,
        conclusive: false,
    }
}

/// A/A agrees; reads 74.5 % faster, writes 4.6 % slower.
fn good() -> Vec<Comparison> {
    vec![
        comparison(BASELINE, StatementClass::Read, 0.02, -0.03, 0.08),
        comparison(BASELINE, StatementClass::Write, 0.1, 0.02, 0.18),
        comparison("index", StatementClass::Read, -0.745, -0.769, -0.718),
        comparison("index", StatementClass::Write, 0.046, -0.012, 0.109),
    ]
}

fn with(change: &Comparison) -> Vec<Comparison> {
    let same = |c: &Comparison| c.candidate == change.candidate && c.class == change.class;
    good().into_iter().map(|c| if same(&c) { change.clone() } else { c }).collect()
}

fn counts(reads: u64, writes: u64) -> Counts {
    Counts {
        measured: BTreeMap::from([(StatementClass::Read, reads), (StatementClass::Write, writes)]),
        errors: 0,
        cancelled: 0,
    }
}

fn arm(name: &str) -> ArmCheck {
    ArmCheck {
        name: name.into(),
        compared: 10_000,
        did: counts(8_000, 2_000),
        production_did: counts(8_000, 2_000),
        lag_seconds: 1.0,
        ..ArmCheck::default()
    }
}

/// After two minutes all is well.
fn checks() -> Checks {
    Checks {
        elapsed: std::time::Duration::from_secs(120),
        production: counts(8_000, 2_000),
        arms: vec![arm(BASELINE), arm("index")],
        ..Checks::default()
    }
}

fn ended() -> Checks {
    Checks { elapsed: std::time::Duration::from_secs(600), ..checks() }
}

/// `checks` with one arm changed.
fn arm_with(mut checks: Checks, name: &str, change: impl FnOnce(&mut ArmCheck)) -> Checks {
    change(checks.arms.iter_mut().find(|arm| arm.name == name).unwrap());
    checks
}

fn says(spec: &ShadowExperimentSpec, comparisons: &[Comparison], checks: &Checks) -> Option<(Outcome, VerdictReason)> {
    judge(spec, comparisons, checks).map(|verdict| (verdict.outcome, verdict.reason))
}

use Outcome::{Better, Equivalent, Inconclusive, Invalid, Worse};

#[test]
fn a_candidate_that_joined_late_is_judged_after_the_minimum_of_its_own() {
    let spec = spec();
    let late = |secs| {
        let joined_after = std::time::Duration::from_secs(secs);
        arm_with(checks(), "index", |arm| arm.joined_after = joined_after)
    };
    let minimum = spec.schedule.minimum.duration().as_secs();
    assert_eq!(says(&spec, &good(), &late(120 - minimum)).map(|s| s.0), Some(Outcome::Better));
    assert_eq!(says(&spec, &good(), &late(121 - minimum)), None);
}

#[test]
fn criteria_decide_when_all_checks_hold() {
    let read = |delta, low, high| with(&comparison("index", StatementClass::Read, delta, low, high));
    let write = |delta, low, high| with(&comparison("index", StatementClass::Write, delta, low, high));
    let late = Some((Inconclusive, VerdictReason::NotConclusive));
    for (name, comparisons, now, at_the_end) in [
        ("all hold", good(), Some((Better, VerdictReason::CriteriaMet)), Some((Better, VerdictReason::CriteriaMet))),
        ("the improvement is not clear", read(-0.2, -0.3, -0.1), None, late),
        (
            "the improvement is too small",
            read(-0.07, -0.1, -0.03),
            None,
            Some((Inconclusive, VerdictReason::CriterionRefuted)),
        ),
        (
            "no improvement, really slower",
            read(0.07, 0.01, 0.12),
            Some((Worse, VerdictReason::CriterionRefuted)),
            Some((Worse, VerdictReason::CriterionRefuted)),
        ),
        ("writes not clear", write(0.12, 0.05, 0.2), None, late),
        (
            "writes too slow",
            write(0.3, 0.2, 0.4),
            Some((Worse, VerdictReason::CriterionRefuted)),
            Some((Worse, VerdictReason::CriterionRefuted)),
        ),
        (
            "no interval of writes",
            good().into_iter().filter(|c| c.candidate != "index" || c.class != StatementClass::Write).collect(),
            None,
            Some((Inconclusive, VerdictReason::TooFewSamples)),
        ),
    ] {
        assert_eq!(says(&spec(), &comparisons, &checks()), now, "{name}, while it runs");
        assert_eq!(says(&spec(), &comparisons, &ended()), at_the_end, "{name}, at the end");
    }
}

#[test]
fn without_an_improvement_asked_for_the_best_is_equivalent() {
    let mut spec = spec();
    spec.success = vec![criterion(StatementClass::Write, None, Some(0.15))];
    assert_eq!(says(&spec, &good(), &checks()), Some((Equivalent, VerdictReason::CriteriaMet)));
}

#[test]
fn without_criteria_reads_may_be_no_slower_and_writes_five_per_cent() {
    let mut spec = spec();
    spec.success.clear();
    assert_eq!(says(&spec, &good(), &checks()), None, "writes up to +10.9 % are not within 5 %");
    let quick = with(&comparison("index", StatementClass::Write, 0.0, -0.04, 0.04));
    assert_eq!(says(&spec, &quick, &checks()), Some((Equivalent, VerdictReason::CriteriaMet)));
}

#[test]
fn nothing_is_said_before_the_minimum() {
    let early = Checks { elapsed: std::time::Duration::from_secs(59), ..checks() };
    assert_eq!(says(&spec(), &good(), &early), None);
    let halted = Checks { halted: true, ..early };
    assert_eq!(says(&spec(), &good(), &halted), Some((Inconclusive, VerdictReason::Halted)));
}

#[test]
fn an_experiment_that_is_stopped_says_what_was_clear() {
    let halted = Checks { halted: true, ..checks() };
    assert_eq!(says(&spec(), &good(), &halted), Some((Better, VerdictReason::CriteriaMet)));
    let unclear = with(&comparison("index", StatementClass::Read, -0.2, -0.3, -0.1));
    assert_eq!(says(&spec(), &unclear, &halted), Some((Inconclusive, VerdictReason::Halted)));
}

#[test]
fn a_baseline_that_differs_from_production_makes_all_invalid() {
    let baseline = |low, high| with(&comparison(BASELINE, StatementClass::Read, f64::midpoint(low, high), low, high));
    for (name, low, high, now, at_the_end) in [
        ("somewhat slower", 0.1, 0.25, Some(Better), Some(Better)),
        ("maybe too slow", 0.4, 0.6, Some(Better), Some(Better)),
        ("too slow", 0.51, 0.6, Some(Invalid), Some(Invalid)),
        ("too fast", -0.5, -0.4, Some(Invalid), Some(Invalid)),
        ("so wide that it says nothing", -0.5, 0.9, None, Some(Inconclusive)),
    ] {
        let outcome = |checks: &Checks| says(&spec(), &baseline(low, high), checks).map(|(outcome, _)| outcome);
        assert_eq!(outcome(&checks()), now, "{name}");
        assert_eq!(outcome(&ended()), at_the_end, "{name}, at the end");
    }
    let without: Vec<Comparison> = good().into_iter().filter(|c| c.candidate != BASELINE).collect();
    assert_eq!(says(&spec(), &without, &checks()), None);
    assert_eq!(says(&spec(), &without, &ended()), Some((Inconclusive, VerdictReason::TooFewSamples)));
}

#[test]
fn an_arm_that_did_something_else_makes_it_invalid() {
    for name in [BASELINE, "index"] {
        let cases: [(&str, Checks, VerdictReason); 6] = [
            ("lost", arm_with(checks(), name, |a| a.lost = Some("it fell off the log".into())), VerdictReason::ArmLost),
            ("lost exchanges", arm_with(checks(), name, |a| a.lost_exchanges = 1), VerdictReason::ArmLost),
            ("diverged", arm_with(checks(), name, |a| a.diverged = 101), VerdictReason::Diverged),
            ("more errors", arm_with(checks(), name, |a| a.did.errors = 101), VerdictReason::Diverged),
            ("more timed out", arm_with(checks(), name, |a| a.did.cancelled = 101), VerdictReason::Diverged),
            ("fewer writes", arm_with(checks(), name, |a| a.did = counts(8_000, 1_900)), VerdictReason::Diverged),
        ];
        for (what, checks, reason) in cases {
            assert_eq!(says(&spec(), &good(), &checks), Some((Invalid, reason)), "{name}: {what}");
        }
        for (what, checks) in [
            ("diverged as much as allowed", arm_with(checks(), name, |a| a.diverged = 100)),
            ("errors as many as allowed", arm_with(checks(), name, |a| a.did.errors = 100)),
        ] {
            assert_eq!(says(&spec(), &good(), &checks).map(|v| v.0), Some(Better), "{name}: {what}");
        }
    }
}

#[test]
fn an_experiment_whose_candidates_are_all_lost_is_invalid_however_early_it_is() {
    let early = |name| {
        let lost = arm_with(checks(), name, |a| a.lost = Some("its server has ended".into()));
        Checks { elapsed: std::time::Duration::from_secs(1), ..lost }
    };
    for checks in [early("index"), Checks { production: Counts::default(), ..early("index") }] {
        assert_eq!(says(&spec(), &[], &checks), Some((Invalid, VerdictReason::ArmLost)));
    }
    let mut two = spec();
    two.candidates.push(Candidate { name: "zfs".into(), ..Candidate::default() });
    assert_eq!(says(&two, &[], &early("index")), None, "zfs goes on");
}

#[test]
fn the_users_limit_of_divergence_counts() {
    let mut spec = spec();
    spec.guardrails.max_divergence = Some(Percent::from_fraction(0.001));
    let checks = arm_with(checks(), "index", |a| a.diverged = 11);
    assert_eq!(says(&spec, &good(), &checks), Some((Invalid, VerdictReason::Diverged)));
}

#[test]
fn shares_of_a_handful_are_not_judged_early() {
    let early = Checks { elapsed: std::time::Duration::from_secs(5), ..checks() };
    let few =
        |a: &mut ArmCheck| (a.compared, a.diverged, a.did, a.production_did) = (50, 1, counts(30, 20), counts(30, 20));
    assert_eq!(says(&spec(), &good(), &arm_with(early, BASELINE, few)), None);
}

#[test]
fn guardrails_end_the_experiment() {
    for (kind, expected) in [
        (Guardrail::Lag, (Invalid, VerdictReason::GuardrailTripped)),
        (Guardrail::Divergence, (Invalid, VerdictReason::Diverged)),
        (Guardrail::ProductionOverhead, (Inconclusive, VerdictReason::GuardrailTripped)),
    ] {
        let tripped = GuardrailTripped { kind, message: "the limit was passed".into() };
        let checks = Checks { guardrail: Some(tripped), ..checks() };
        assert_eq!(says(&spec(), &good(), &checks), Some(expected), "{kind:?}");
    }
}

#[test]
fn no_traffic_is_never_success() {
    let silent = |checks: Checks| Checks { production: counts(8_000, 0), ..checks };
    assert_eq!(says(&spec(), &good(), &silent(checks())), None);
    assert_eq!(says(&spec(), &good(), &silent(ended())), Some((Inconclusive, VerdictReason::NoTraffic)));
}

#[test]
fn an_arm_that_is_far_behind_is_not_judged() {
    let behind = |checks| arm_with(checks, "index", |a| a.lag_seconds = 75.0);
    assert_eq!(says(&spec(), &good(), &behind(checks())), None);
    assert_eq!(says(&spec(), &good(), &behind(ended())), Some((Inconclusive, VerdictReason::NotConclusive)));
}

#[test]
fn without_a_candidate_the_noise_is_measured() {
    let mut spec = spec();
    spec.candidates.clear();
    spec.success.clear();
    assert_eq!(says(&spec, &good(), &checks()), Some((Equivalent, VerdictReason::NoCandidate)));
    let apart = with(&comparison(BASELINE, StatementClass::Write, 1.0, 0.8, 1.2));
    assert_eq!(says(&spec, &apart, &checks()), Some((Invalid, VerdictReason::BaselineDisagrees)));
    assert_eq!(says(&spec, &[], &ended()), Some((Inconclusive, VerdictReason::TooFewSamples)));
}

#[test]
fn of_several_candidates_the_best_speaks() {
    let mut spec = spec();
    spec.candidates.push(Candidate { name: "zfs".into(), ..Candidate::default() });
    let mut checks = checks();
    checks.arms.push(arm("zfs"));
    let zfs = |read: (f64, f64, f64)| {
        let mut all = good();
        all.push(comparison("zfs", StatementClass::Read, read.0, read.1, read.2));
        all.push(comparison("zfs", StatementClass::Write, 0.0, -0.05, 0.05));
        all
    };
    let winner = |comparisons: &[Comparison], checks: &Checks| {
        judge(&spec, comparisons, checks).map(|v| (v.outcome, v.candidate.unwrap_or_default()))
    };
    assert_eq!(winner(&zfs((-0.8, -0.9, -0.7)), &checks), Some((Better, "zfs".into())));
    assert_eq!(winner(&zfs((-0.2, -0.25, -0.1)), &checks), Some((Better, "index".into())));
    let lost = arm_with(checks.clone(), "index", |a| a.lost = Some("its disk is full".into()));
    assert_eq!(winner(&zfs((-0.2, -0.25, -0.1)), &lost), None, "zfs is not clear yet");
    assert_eq!(winner(&zfs((0.2, 0.1, 0.3)), &lost), Some((Invalid, "index".into())));
}

#[test]
fn messages_say_what_was_found_and_what_was_asked_for() {
    let message = |comparisons: &[Comparison], checks: &Checks| judge(&spec(), comparisons, checks).unwrap().message;
    assert_eq!(message(&good(), &checks()), "reads p95 −74.5 %, criterion was −15 %; writes within what was allowed");
    assert_eq!(
        message(&with(&comparison("index", StatementClass::Write, 0.32, 0.281, 0.362)), &checks()),
        "writes p95 +32.0 % [+28.1 %, +36.2 %], at most +15 % was allowed"
    );
    assert_eq!(
        message(&with(&comparison("index", StatementClass::Read, -0.2, -0.27, -0.13)), &ended()),
        "reads p95 −20.0 % [−27.0 %, −13.0 %], criterion was −15 %: not clear yet; about 10 min more would tell"
    );
    assert_eq!(
        message(&with(&comparison("index", StatementClass::Read, -0.07, -0.1, -0.03)), &ended()),
        "reads p95 −7.0 % [−10.0 %, −3.0 %], criterion was −15 %: not reached"
    );
    assert_eq!(
        message(&with(&comparison(BASELINE, StatementClass::Read, 0.7, 0.6, 0.8)), &checks()),
        "clones can't be trusted: the baseline, unchanged, differs from production: reads p95 +70.0 % \
         [+60.0 %, +80.0 %]; between −33 % and +50 % is allowed"
    );
    assert_eq!(
        message(&good(), &arm_with(checks(), "index", |a| a.diverged = 150)),
        "index diverged: 1.5 % of its 10\u{202f}000 outcomes differ from production's, 1 % is allowed"
    );
}
