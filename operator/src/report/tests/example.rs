//! Two minutes of an analytics application, made up: an index that helps some of its reads.

use std::{collections::BTreeMap, time::Duration};

use understudy_crds::{
    condition::{ArmRole, ArmState, DivergenceKind, Phase, SkipReason},
    experiment::StatementClass,
    labels::{BASELINE, PRODUCTION},
    report::Report,
    status::{ArmStatus, CutStatus, ExchangeCounts, Lag, ProductionStatus},
};
use understudy_mirror::measure::interval::{ArmInterval, Fingerprint, Interval, histogram};

use super::super::{Facts, build};
use crate::analysis::{
    Analysis, Texts, outcome,
    verdict::{Checks, judge},
};
use understudy_crds::{
    ShadowExperiment, ShadowExperimentStatus,
    report::{Environment, TimelineEvent},
};

const CANDIDATE: &str = "user-id-index";

/// Text, class, calls in half a second, median in µs, spread, and the candidate's latency as a factor.
const STATEMENTS: [(&str, StatementClass, u64, f64, f64, f64); 8] = [
    (
        "SELECT count(*), avg(value) FROM events WHERE user_id = $1 AND event_type = $2 AND ts BETWEEN $3 AND $4",
        StatementClass::Read,
        60,
        9_000.0,
        0.75,
        0.2,
    ),
    (
        "SELECT event_type, count(*) FROM events WHERE user_id = $1 AND ts > now() - $2::interval GROUP BY event_type ORDER BY count(*) DESC LIMIT $3",
        StatementClass::Read,
        45,
        6_500.0,
        0.6,
        0.25,
    ),
    (
        "SELECT date_trunc($1, ts) AS hour, count(DISTINCT user_id) FROM events WHERE ts > $2 GROUP BY 1",
        StatementClass::Read,
        6,
        31_000.0,
        0.3,
        1.0,
    ),
    ("SELECT * FROM users WHERE id = $1", StatementClass::Read, 150, 160.0, 0.4, 1.0),
    ("SELECT plan FROM accounts WHERE id = $1", StatementClass::Read, 80, 140.0, 0.4, 1.0),
    (
        "INSERT INTO events (user_id, event_type, ts, value) VALUES ($1, $2, $3, $4)",
        StatementClass::Write,
        90,
        420.0,
        0.55,
        1.05,
    ),
    ("UPDATE users SET last_seen = $1 WHERE id = $2", StatementClass::Write, 40, 510.0, 0.6, 1.0),
    ("COMMIT", StatementClass::Commit, 60, 900.0, 0.5, 1.0),
];

/// A generator that never changes.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

fn arm(random: &mut Random, slower: f64, changed: bool) -> ArmInterval {
    let mut arm = ArmInterval::default();
    for (index, (_, class, calls, median_us, spread, factor)) in (0_u64..).zip(STATEMENTS) {
        let factor = if changed { factor } else { 1.0 } * slower;
        for _ in 0..calls {
            let latency = Duration::from_secs_f64(median_us * factor * (spread * random.normal()).exp() / 1e6);
            let latency_us = u64::try_from(latency.as_micros()).unwrap();
            arm.service.entry(class).or_insert_with(histogram).record(latency_us).unwrap();
            arm.response.entry(class).or_insert_with(histogram).record(latency_us + 40).unwrap();
            let fingerprint = Fingerprint(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(index + 1));
            arm.fingerprints.entry(fingerprint).or_insert_with(histogram).record(latency_us).unwrap();
        }
    }
    arm
}

fn traffic(changed: &[&str], names: &[&str], intervals: u64, seed: u64) -> Vec<Interval> {
    let mut random = Random(seed);
    let mut drift = vec![0.0; names.len()];
    (0..intervals)
        .map(|index| {
            let mut arms = BTreeMap::new();
            for (name, drift) in names.iter().zip(&mut drift) {
                *drift = 0.5 * *drift + 0.02 * random.normal();
                let slower = f64::exp(*drift) * if *name == PRODUCTION { 1.0 } else { 1.06 };
                arms.insert((*name).to_owned(), arm(&mut random, slower, changed.contains(name)));
            }
            Interval { index, start_us: index * 500_000, length_us: 500_000, arms }
        })
        .collect()
}

pub(super) fn intervals() -> Vec<Interval> {
    traffic(&[CANDIDATE], &[PRODUCTION, BASELINE, CANDIDATE], 160, 1)
}

fn experiment() -> ShadowExperiment {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "understudy.dev/v1alpha1",
        "kind": "ShadowExperiment",
        "metadata": { "name": "user-id-index" },
        "spec": {
            "hypothesis": "Including user ids in the event index cuts read p95 by 15 % and costs writes nothing to speak of.",
            "target": { "local": { "host": "127.0.0.1", "user": "postgres", "database": "app" } },
            "candidates": [{
                "name": CANDIDATE,
                "parameters": { "random_page_cost": "1.1" },
                "sql": {
                    "apply": ["CREATE INDEX CONCURRENTLY events_user_type_ts ON events (user_id, event_type, ts)"],
                    "revert": ["DROP INDEX CONCURRENTLY events_user_type_ts"],
                },
            }],
            "schedule": { "warmUp": "5s", "minimum": "60s", "maximum": "5m" },
            "success": [
                { "class": "Read", "quantile": 0.95, "improveBy": "15%" },
                { "class": "Write", "quantile": 0.95, "regressBy": "15%" },
            ],
        }
    }))
    .unwrap()
}

pub(super) fn observed() -> Analysis {
    let mut analysis = Analysis::of_experiment(&experiment().spec);
    for interval in intervals() {
        analysis.push(&interval);
    }
    analysis
}

fn arm_status(analysis: &Analysis, name: &str, role: ArmRole) -> ArmStatus {
    ArmStatus {
        name: name.to_owned(),
        role,
        state: ArmState::Live,
        message: None,
        endpoint: Some("host=/tmp/understudy port=5433".to_owned()),
        cut: Some(CutStatus { lsn: "0/4A31F7D8".to_owned(), pause_ms: 2.7, attempts: 1, carried_over: 12 }),
        lag: Lag { exchanges: 210, seconds: 1.0 },
        exchanges: ExchangeCounts {
            captured: 72_210,
            played: 72_000,
            lost: 0,
            skipped: BTreeMap::from([(SkipReason::ServerIdentity, 2)]),
        },
        divergence: if role == ArmRole::Candidate {
            BTreeMap::from([(DivergenceKind::Rows, 7)])
        } else {
            BTreeMap::new()
        },
        compared: 84_960,
        ambiguous: 31,
        latency: analysis.latency(name),
    }
}

fn timeline() -> Vec<TimelineEvent> {
    [
        ("10:00:02", "mirror", "in front of the worker; 41 clients reconnected, 0 errors"),
        ("10:00:14", "clones", "2 × 612 MB by base backup in 11.4 s, while the worker served 9,412 transactions"),
        ("10:00:14", "cut", "at 0/4A31F7D8: production paused 2.7 ms, 12 transactions in flight carried over"),
        ("10:00:19", "candidate", "user-id-index applied in 4.9 s"),
        ("10:00:31", "caught up", "18,220 exchanges replayed, 0 lost"),
        ("10:01:56", "verdict", "Better: reads p95 −71 %, criterion was −15 %"),
        ("10:02:03", "promoted", "the same index and setting, now on the worker, in 5.2 s"),
        ("10:02:40", "cleaned up", "clones removed, clients direct again"),
    ]
    .map(|(time, step, message)| TimelineEvent {
        at: format!("2026-11-22T{time}Z"),
        step: step.to_owned(),
        message: message.to_owned(),
    })
    .to_vec()
}

pub(super) fn facts(analysis: &Analysis) -> Facts {
    let experiment = experiment();
    let spec = &experiment.spec;
    let mut after = Analysis::of_promotion(spec);
    for interval in traffic(&[PRODUCTION], &[PRODUCTION, BASELINE], 70, 2) {
        after.push(&interval);
    }
    let mut status = ShadowExperimentStatus {
        phase: Phase::Promoted,
        production: ProductionStatus {
            pipelined: 0,
            too_long: 0,
            latency: analysis.latency(PRODUCTION),
            sessions: 41,
            errors: 0,
            overhead_p99_us: 38,
            leaks: 0,
        },
        arms: vec![
            arm_status(analysis, BASELINE, ArmRole::Baseline),
            arm_status(analysis, CANDIDATE, ArmRole::Candidate),
        ],
        comparisons: analysis.comparisons(),
        outcomes: outcome::outcomes(spec, CANDIDATE, analysis, &after),
        ..ShadowExperimentStatus::default()
    };
    status.verdict = judge(spec, &status.comparisons, &Checks::of(analysis, &status));
    let texts: Texts = (0_u64..)
        .zip(STATEMENTS)
        .map(|(index, (text, class, ..))| {
            (Fingerprint(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(index + 1)), (text.to_owned(), class))
        })
        .collect();
    let mut fingerprints = analysis.fingerprints(&texts);
    if let Some(first) = fingerprints.first_mut() {
        first.plans = BTreeMap::from([
            (
                BASELINE.to_owned(),
                "Aggregate  (cost=9314.21..9314.22 rows=1 width=40)\n  ->  Bitmap Heap Scan on events  (cost=97.4..9308.9 rows=1050 width=8)\n        Recheck Cond: ((event_type = 'click'::text) AND (ts >= $3) AND (ts <= $4))\n        Filter: (user_id = 471147114711)\n        ->  Bitmap Index Scan on events_type_ts  (cost=0.00..97.1 rows=8400 width=0)".to_owned(),
            ),
            (
                CANDIDATE.to_owned(),
                "Aggregate  (cost=412.30..412.31 rows=1 width=40)\n  ->  Index Scan using events_user_type_ts on events  (cost=0.43..407.1 rows=1050 width=8)\n        Index Cond: ((user_id = 471147114711) AND (event_type = 'click'::text) AND (ts >= $3) AND (ts <= $4))".to_owned(),
            ),
        ]);
    }
    let environment = Environment {
        understudy: "0.1.0".to_owned(),
        postgres: "15.18".to_owned(),
        platform: "local".to_owned(),
        cores: 4,
        memory_bytes: 16 << 30,
        started_at: "2026-11-22T10:00:00Z".to_owned(),
        ended_at: "2026-11-22T10:02:41Z".to_owned(),
        data_bytes: 612 << 20,
        shift_ms: 1000,
    };
    Facts { experiment, status, environment, fingerprints, timeline: timeline() }
}

pub(super) fn report() -> Report {
    let analysis = observed();
    build(facts(&analysis), &analysis)
}
