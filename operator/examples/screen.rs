//! Shows the screen of a demo with invented numbers, so that it can be looked at without one:
//! `cargo run -p understudy-operator --example screen -- [text|json] [SPEED]`

use std::{collections::BTreeMap, time::Duration};

use understudy_crds::{
    Percent,
    condition::{ArmRole, ArmState, DivergenceKind, Outcome, Phase, VerdictReason},
    experiment::{Criterion, StatementClass},
    status::{
        ArmStatus, ClassKey, Comparison, Effect, ExchangeCounts, Lag, Latency, LatencyByClass, ProductionStatus,
        PromotionOutcome, ShadowExperimentStatus, Verdict,
    },
};
use understudy_operator::screen::{Failure, Format, Moment, Progress, Screen};

fn latency(read: [i64; 3], write: [i64; 3], count: i64) -> LatencyByClass {
    let one = |[p50_us, p95_us, p99_us]: [i64; 3]| Latency { count, p50_us, p95_us, p99_us };
    BTreeMap::from([(ClassKey::Read, one(read)), (ClassKey::Write, one(write))])
}

fn arm(name: &str, role: ArmRole, latency: LatencyByClass) -> ArmStatus {
    ArmStatus {
        name: name.into(),
        role,
        state: ArmState::Live,
        message: None,
        endpoint: None,
        cut: None,
        lag: Lag { exchanges: 120, seconds: 1.0 },
        exchanges: ExchangeCounts::default(),
        divergence: BTreeMap::from([(DivergenceKind::Rows, i64::from(name != "baseline"))]),
        compared: 90_000,
        ambiguous: 12,
        latency,
    }
}

fn comparison(candidate: &str, against: &str, class: StatementClass, [delta, low, high]: [f64; 3]) -> Comparison {
    let (candidate, against) = (candidate.into(), against.into());
    Comparison { candidate, against, class, quantile: 0.95, delta, low, high, blocks: 40, conclusive: low * high > 0.0 }
}

fn status(seconds: i64) -> ShadowExperimentStatus {
    let wobble = |us: i64| us + us * (seconds % 7) / 50;
    let width = 1.0 / (seconds as f64 / 10.0).max(0.3);
    ShadowExperimentStatus {
        phase: Phase::Observing,
        production: ProductionStatus {
            latency: latency(
                [wobble(4_120), wobble(38_400), wobble(71_200)],
                [610, wobble(1_900), 4_100],
                seconds * 70,
            ),
            sessions: 40,
            ..ProductionStatus::default()
        },
        arms: vec![
            arm(
                "baseline",
                ArmRole::Baseline,
                latency([4_090, wobble(38_100), wobble(70_900)], [620, wobble(1_950), 4_300], seconds * 70),
            ),
            arm(
                "user-id-index",
                ArmRole::Candidate,
                latency([1_020, wobble(9_700), wobble(22_100)], [660, wobble(2_040), 4_400], seconds * 70),
            ),
        ],
        comparisons: if seconds < 5 {
            vec![]
        } else {
            let read = StatementClass::Read;
            vec![
                comparison("user-id-index", "baseline", read, [-0.745, -0.745 - 0.1 * width, -0.745 + 0.1 * width]),
                comparison(
                    "user-id-index",
                    "baseline",
                    StatementClass::Write,
                    [0.046, 0.046 - 0.3 * width, 0.046 + 0.3 * width],
                ),
                comparison("baseline", "production", read, [-0.008, -0.008 - 0.2 * width, -0.008 + 0.2 * width]),
            ]
        },
        ..ShadowExperimentStatus::default()
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let format = if arguments.next().as_deref() == Some("json") { Format::Json } else { Format::Text };
    let speed: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let pause = |seconds: f64| std::thread::sleep(Duration::from_secs_f64(seconds / speed));
    let screen = Screen::new(format);
    let criteria = [
        Criterion {
            class: StatementClass::Read,
            quantile: 0.95,
            improve_by: Some(Percent::from_fraction(0.15)),
            regress_by: None,
        },
        Criterion {
            class: StatementClass::Write,
            quantile: 0.95,
            improve_by: None,
            regress_by: Some(Percent::from_fraction(0.15)),
        },
    ];

    screen.title("Understudy demo · everything below happens on this machine, in target/demo");
    let step = screen.step("worker");
    for done in 0..=30 {
        step.progress(Progress::Count { done: done * 50_000, total: 1_500_000, of: "events" });
        pause(0.1);
    }
    step.done("PostgreSQL 15.18 on 127.0.0.1:6432, 1.5 M events, 40 sessions of an analytics app");
    let step = screen.step("mirror");
    pause(0.2);
    step.done("in front of it; clients reconnected, 0 errors");
    let step = screen.step("clones");
    for done in 0..=40 {
        step.progress(Progress::Bytes { done: done * 15_300_000, total: 612_000_000 });
        pause(0.1);
    }
    step.done("2 × 306 MB by base backup, while the worker served 9,412 transactions");
    screen.step("cut").done("at 0/4A31F7D8: production paused 2.7 ms, 12 transactions in flight carried over");
    let step = screen.step("candidate");
    step.progress(Progress::Doing(
        "CREATE INDEX CONCURRENTLY events_user_id ON events (user_id, event_type, ts)".into(),
    ));
    pause(2.0);
    step.done("user-id-index: CREATE INDEX … (user_id, event_type, ts), random_page_cost = 1.1");
    screen.step("caught up").done("18,220 exchanges replayed, 0 lost");
    for seconds in 1..=45_u64 {
        let moment = Moment {
            elapsed: Duration::from_secs(seconds),
            planned: Duration::from_secs(60),
            verdict_in: (seconds > 10).then(|| Duration::from_secs(45 - seconds)),
        };
        screen.live(&status(seconds.cast_signed()), &criteria, moment);
        pause(1.0);
    }
    screen.live_done("observed", "12,345 statements on each arm, the same ones");
    screen.verdict(&Verdict {
        outcome: Outcome::Better,
        candidate: Some("user-id-index".into()),
        reason: VerdictReason::CriteriaMet,
        message: "reads p95 −74.5 %, criterion was −15 %; writes within what was allowed".into(),
    });
    let step = screen.step("promoted");
    pause(2.0);
    step.done("the same index and setting, now on the worker");
    let effect = |delta| Effect { delta, low: delta - 0.02, high: delta + 0.02 };
    screen.outcomes(&[PromotionOutcome {
        class: StatementClass::Read,
        quantile: 0.95,
        before_us: 38_400,
        after_us: 9_900,
        predicted: effect(-0.745),
        observed: effect(-0.742),
    }]);
    screen.step("cleaned up").done("clones removed, clients direct again");
    screen.closing(&[
        ("report", "target/demo/report.html".into()),
        ("next", "understudy run -f examples/index.yaml        # with your own server".into()),
    ]);
    let step = screen.step("clones");
    pause(0.5);
    step.fail("the worker refuses a base backup");
    screen.failure(
        &Failure::new("the worker refuses a base backup")
            .with("worker", "127.0.0.1:5432 (PostgreSQL 15.18), user app")
            .with("reason", "max_wal_senders = 0")
            .with(
                "do",
                "ALTER SYSTEM SET max_wal_senders = 10; and restart the worker, or name a standby in spec.clone.from",
            )
            .afterwards("nothing was changed"),
    );
}
