//! Whole experiments of synthetic intervals.

use std::collections::BTreeMap;

use understudy_crds::experiment::{Candidate, ShadowExperiment};
use understudy_mirror::measure::interval::{ArmInterval, histogram};

use super::*;

pub(crate) fn spec(candidates: &[&str]) -> ShadowExperimentSpec {
    let experiment: ShadowExperiment = serde_json::from_value(serde_json::json!({
        "apiVersion": "understudy.dev/v1alpha1",
        "kind": "ShadowExperiment",
        "metadata": { "name": "user-id-index" },
        "spec": {
            "target": { "local": { "host": "127.0.0.1", "user": "postgres", "database": "app" } },
            "schedule": { "warmUp": "1s", "minimum": "30s", "maximum": "10m" },
        }
    }))
    .unwrap();
    let candidates = candidates.iter().map(|name| Candidate { name: (*name).into(), ..Candidate::default() }).collect();
    ShadowExperimentSpec { candidates, ..experiment.spec }
}

/// A second of statements whose latencies are `scale_us` times a fixed, skewed shape.
fn arm(reads: u64, read_us: u64, writes: u64, write_us: u64) -> ArmInterval {
    let mut arm = ArmInterval::default();
    for (class, count, scale_us) in [(StatementClass::Read, reads, read_us), (StatementClass::Write, writes, write_us)]
    {
        let mut service = histogram();
        for statement in 0..count {
            service.record(scale_us * (100 + statement * statement % 97) / 100).unwrap();
        }
        arm.service.insert(class, service);
    }
    arm
}

fn second(index: u64, arms: &[(&str, ArmInterval)]) -> Interval {
    let arms = arms.iter().map(|(name, arm)| ((*name).to_owned(), arm.clone())).collect::<BTreeMap<_, _>>();
    Interval { index, start_us: index * 1_000_000, length_us: 1_000_000, arms }
}

/// Deterministic noise of some per cent that differs between arms.
fn noisy(base: u64, index: u64, salt: u64) -> u64 {
    base + base * ((index + 1) * (salt * 7919 + 104_729) % 13) / 100
}

fn observe(analysis: &mut Analysis, seconds: u64) {
    for index in 0..seconds {
        analysis.push(&second(
            index,
            &[
                (PRODUCTION, arm(200, noisy(4_000, index, 1), 60, noisy(600, index, 2))),
                (BASELINE, arm(200, noisy(4_200, index, 3), 60, noisy(630, index, 4))),
                ("index", arm(200, noisy(1_000, index, 5), 60, noisy(640, index, 6))),
            ],
        ));
    }
}

#[test]
fn a_minute_of_a_great_improvement_is_enough() {
    let mut analysis = Analysis::of_experiment(&spec(&["index"]));
    observe(&mut analysis, 60);
    let comparisons = analysis.comparisons();
    let names: Vec<_> = comparisons.iter().map(|c| (c.candidate.as_str(), c.against.as_str(), c.class)).collect();
    assert_eq!(
        names,
        [
            (BASELINE, PRODUCTION, StatementClass::Read),
            (BASELINE, PRODUCTION, StatementClass::Write),
            ("index", BASELINE, StatementClass::Read),
            ("index", BASELINE, StatementClass::Write),
        ]
    );
    let reads = &comparisons[2];
    assert!((reads.delta + 0.762).abs() < 0.02 && reads.high < -0.7 && reads.conclusive, "{reads:?}");
    assert_eq!(reads.blocks, 60);
    assert_eq!(analysis.series().len(), comparisons.len());
    assert_eq!(analysis.elapsed(), Duration::from_secs(60));
}

#[test]
fn an_arm_that_joins_late_is_held_against_what_production_did_since() {
    let mut analysis = Analysis::of_experiment(&spec(&["index"]));
    for index in 0..10 {
        let mut arms = vec![(PRODUCTION, arm(50, 100, 0, 1)), (BASELINE, arm(50, 100, 0, 1))];
        if index >= 6 {
            arms.push(("index", arm(50, 100, 0, 1)));
        }
        analysis.push(&second(index, &arms));
    }
    assert_eq!(analysis.counts("index").of(StatementClass::Read), 200);
    assert_eq!(analysis.production_beside("index").of(StatementClass::Read), 200);
    assert_eq!(analysis.production_beside(BASELINE).of(StatementClass::Read), 500);
}

#[test]
fn a_candidate_that_is_added_later_has_a_smaller_share_of_what_may_be_wrong() {
    let mut analysis = Analysis::of_experiment(&spec(&["index"]));
    let given = |analysis: &Analysis| analysis.differences.iter().map(compare::Difference::alpha).sum::<f64>();
    // The A/A comparison declares nothing about a candidate.
    let judged = |analysis: &Analysis| {
        given(analysis) - analysis.differences[..2].iter().map(compare::Difference::alpha).sum::<f64>()
    };
    let mut all = judged(&analysis);
    for round in 0..20 {
        let name = format!("again-{round}");
        let before = judged(&analysis);
        analysis.add_candidate(&name);
        all += judged(&analysis) - before;
        analysis.remove_candidate(&name);
    }
    assert!(all <= FALSE_VERDICTS + 1e-12 && all > 0.99 * FALSE_VERDICTS, "{all}");
}

#[test]
fn a_removed_candidate_leaves_nothing_and_another_may_have_its_name() {
    let mut analysis = Analysis::of_experiment(&spec(&["index"]));
    observe(&mut analysis, 60);
    analysis.remove_candidate("index");
    assert!(analysis.comparisons().iter().all(|c| c.candidate != "index"));
    assert_eq!(analysis.counts("index").all(), 0);
    analysis.add_candidate("index");
    assert_eq!(analysis.joined_after("index"), Duration::ZERO);
    analysis.push(&second(60, &[(PRODUCTION, arm(50, 100, 0, 1)), ("index", arm(50, 100, 0, 1))]));
    assert_eq!(analysis.joined_after("index"), Duration::from_secs(60));
}

#[test]
fn silence_makes_no_comparison_and_no_panic() {
    let mut analysis = Analysis::of_experiment(&spec(&["index"]));
    for index in 0..100 {
        analysis.push(&second(index, &[]));
        analysis.push(&second(index, &[(PRODUCTION, ArmInterval::default()), (BASELINE, ArmInterval::default())]));
    }
    assert!(analysis.comparisons().is_empty() && analysis.series().is_empty());
    assert!(analysis.latency(PRODUCTION).is_empty());
}

#[test]
fn a_class_with_little_traffic_gets_its_blocks_from_many_intervals() {
    let mut analysis = Analysis::of_experiment(&spec(&["index"]));
    for index in 0..600 {
        let arms = [PRODUCTION, BASELINE, "index"].map(|name| (name, arm(200, 500, 1, noisy(900, index, 3))));
        analysis.push(&second(index, &arms));
    }
    let writes =
        analysis.comparisons().into_iter().find(|c| c.candidate == "index" && c.class == StatementClass::Write);
    assert_eq!(writes.map(|c| c.blocks), Some(15));
}

#[test]
fn a_promotion_is_production_against_the_baseline() {
    let spec = spec(&["index"]);
    let mut before = Analysis::of_experiment(&spec);
    observe(&mut before, 60);
    let mut after = Analysis::of_promotion(&spec);
    for index in 0..40 {
        after.push(&second(
            index,
            &[
                (PRODUCTION, arm(200, noisy(1_000, index, 1), 60, noisy(610, index, 2))),
                (BASELINE, arm(200, noisy(4_200, index, 3), 60, noisy(630, index, 4))),
            ],
        ));
    }
    let outcomes = outcome::outcomes(&spec, "index", &before, &after);
    let reads = &outcomes[0];
    assert_eq!((reads.class, outcomes.len()), (StatementClass::Read, 2));
    assert!((reads.observed.delta + 0.75).abs() < 0.02, "{reads:?}");
    assert!(reads.observed.low < reads.observed.delta && reads.observed.delta < reads.observed.high);
    assert!(reads.before_us > 3 * reads.after_us, "{reads:?}");
}
