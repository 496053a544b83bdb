//! Statuses with invented numbers, for the tests of what draws them.

use std::collections::BTreeMap;

use understudy_crds::{
    Percent,
    condition::{
        ArmRole, ArmState, Condition, ConditionReason, ConditionStatus, ConditionType, DivergenceKind, Outcome, Phase,
        VerdictReason,
    },
    experiment::{Criterion, StatementClass},
    status::{
        ArmStatus, ClassKey, Comparison, CutStatus, Effect, ExchangeCounts, Lag, Latency, LatencyByClass,
        ProductionStatus, PromotionOutcome, ShadowExperimentStatus, Verdict,
    },
};

/// Reads must improve by 15 % at p95, writes may regress by as much.
pub(super) fn criteria() -> Vec<Criterion> {
    let by = |percent: f64| Some(Percent::from_fraction(percent / 100.0));
    vec![
        Criterion { class: StatementClass::Read, quantile: 0.95, improve_by: by(15.0), regress_by: None },
        Criterion { class: StatementClass::Write, quantile: 0.95, improve_by: None, regress_by: by(15.0) },
    ]
}

pub(super) fn latency(read_us: [i64; 3], write_us: [i64; 3]) -> LatencyByClass {
    let one = |[p50_us, p95_us, p99_us]: [i64; 3]| Latency { count: 1_000, p50_us, p95_us, p99_us };
    BTreeMap::from([(ClassKey::Read, one(read_us)), (ClassKey::Write, one(write_us))])
}

pub(super) fn arm(name: &str, latency: LatencyByClass) -> ArmStatus {
    ArmStatus {
        name: name.into(),
        role: if name == "baseline" { ArmRole::Baseline } else { ArmRole::Candidate },
        state: ArmState::Live,
        message: None,
        endpoint: None,
        cut: Some(CutStatus { lsn: "0/4A31F7D8".into(), pause_ms: 2.71, attempts: 1, carried_over: 12 }),
        lag: Lag { exchanges: 87, seconds: 1.02 },
        exchanges: ExchangeCounts::default(),
        divergence: BTreeMap::new(),
        compared: 90_000,
        ambiguous: 0,
        latency,
    }
}

pub(super) fn comparison(arms: [&str; 2], class: StatementClass, percent: [f64; 3]) -> Comparison {
    let [candidate, against] = arms.map(str::to_owned);
    let [delta, low, high] = percent.map(|percent| percent / 100.0);
    let conclusive = low > 0.0 || high < 0.0;
    Comparison { candidate, against, class, quantile: 0.95, delta, low, high, blocks: 40, conclusive }
}

/// An experiment in the middle of its observation.
pub(super) fn observing() -> ShadowExperimentStatus {
    let (read, write) = (StatementClass::Read, StatementClass::Write);
    ShadowExperimentStatus {
        phase: Phase::Observing,
        production: ProductionStatus {
            latency: latency([4_120, 38_400, 71_200], [610, 1_900, 4_100]),
            sessions: 40,
            ..ProductionStatus::default()
        },
        arms: vec![
            arm("baseline", latency([4_090, 38_100, 70_900], [620, 1_950, 4_300])),
            arm("user-id-index", latency([1_020, 9_700, 22_100], [660, 2_040, 4_400])),
        ],
        comparisons: vec![
            comparison(["user-id-index", "baseline"], read, [-74.5, -76.9, -71.8]),
            comparison(["user-id-index", "baseline"], write, [4.6, -1.2, 10.9]),
            comparison(["user-id-index", "baseline"], StatementClass::Commit, [0.5, -1.0, 2.0]),
            comparison(["baseline", "production"], read, [-0.8, -3.1, 1.6]),
        ],
        ..ShadowExperimentStatus::default()
    }
}

/// The same, where much went wrong.
pub(super) fn troubled() -> ShadowExperimentStatus {
    let (read, write) = (StatementClass::Read, StatementClass::Write);
    let mut status = observing();
    status.production.latency = latency([41_200, 1_384_000, 7_712_000], [610, 1_900, 4_100]);
    status.production.leaks = 3;
    for arm in &mut status.arms {
        arm.exchanges.lost = 1_204;
        arm.divergence = BTreeMap::from([(DivergenceKind::Rows, 1_100), (DivergenceKind::Error, 25)]);
    }
    let slow = latency([42_000, 1_401_000, 7_800_000], [620, 1_950, 4_300]);
    let far_behind = ArmStatus {
        state: ArmState::CatchingUp,
        cut: Some(CutStatus { lsn: "0/5000060".into(), pause_ms: 31.0, attempts: 3, carried_over: 0 }),
        ..arm("a-candidate-whose-name-does-not-fit", slow.clone())
    };
    let lost = ArmStatus {
        state: ArmState::Lost,
        message: Some("it fell off the traffic log".into()),
        ..arm("zfs-64k", slow)
    };
    status.arms.extend([far_behind, lost, ArmStatus { state: ArmState::Removed, ..arm("gone", BTreeMap::new()) }]);
    status.comparisons = vec![
        comparison(["baseline", "production"], read, [31.0, 12.0, 50.0]),
        comparison(["user-id-index", "baseline"], read, [9.0, 2.5, 16.0]),
        comparison(["user-id-index", "baseline"], write, [1_204.0, 20.0, f64::INFINITY]),
        comparison(["a-candidate-whose-name-does-not-fit", "baseline"], read, [-4.0, -9.0, -1.0]),
        comparison(["a-candidate-whose-name-does-not-fit", "baseline"], write, [28.0, 18.0, 38.0]),
    ];
    status
}

/// The experiment after its promotion.
pub(super) fn promoted() -> ShadowExperimentStatus {
    let effect = |delta| Effect { delta, low: delta - 0.02, high: delta + 0.02 };
    ShadowExperimentStatus {
        phase: Phase::Promoted,
        verdict: Some(Verdict {
            outcome: Outcome::Better,
            candidate: Some("user-id-index".into()),
            reason: VerdictReason::CriteriaMet,
            message: "reads p95 −74.5 %, criterion was −15 %; writes within what was allowed".into(),
        }),
        outcomes: vec![PromotionOutcome {
            class: StatementClass::Read,
            quantile: 0.95,
            before_us: 38_400,
            after_us: 9_900,
            predicted: effect(-0.745),
            observed: effect(-0.742),
        }],
        conditions: vec![Condition {
            type_: ConditionType::Healthy,
            status: ConditionStatus::False,
            reason: ConditionReason::WriteLeaked,
            message: "3 writes came around the mirror".into(),
            last_transition_time: "2026-11-22T12:00:00Z".into(),
        }],
        ..observing()
    }
}
