//! What is recorded is loaded.

use std::collections::BTreeMap;

use understudy_crds::{
    condition::{Outcome, Phase, VerdictReason},
    experiment::StatementClass,
};
use understudy_mirror::measure::interval::{ArmInterval, histogram};

use super::*;

fn experiment(name: &str) -> ShadowExperiment {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "understudy.dev/v1alpha1",
        "kind": "ShadowExperiment",
        "metadata": { "name": name },
        "spec": { "target": { "local": { "host": "127.0.0.1", "user": "postgres", "database": "app" } } }
    }))
    .unwrap()
}

fn interval(index: u64) -> Interval {
    let mut arm = ArmInterval { errors: 2, cancelled: 1, ..ArmInterval::default() };
    for (class, value) in [(StatementClass::Read, 1_234 + index), (StatementClass::Write, 77)] {
        let mut service = histogram();
        service.record_n(value, 50).unwrap();
        arm.response.insert(class, service.clone());
        arm.service.insert(class, service);
    }
    let arms = BTreeMap::from([("production".to_owned(), arm.clone()), ("baseline".to_owned(), arm)]);
    Interval { index, start_us: index * 1_000_000, length_us: 1_000_000, arms }
}

async fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("results.db").display());
    let store = Store::open(&url).await.unwrap();
    (directory, store)
}

#[tokio::test]
async fn what_is_recorded_is_loaded() {
    let (directory, store) = store().await;
    let environment = Environment { started_at: "2026-11-22T10:00:00Z".into(), cores: 2, ..Environment::default() };
    let run = store.begin(&experiment("a"), &environment).await.unwrap();
    let verdict = |outcome| Verdict {
        outcome,
        candidate: Some("index".into()),
        reason: VerdictReason::CriteriaMet,
        message: "reads p95 −74.5 %".into(),
    };
    let event = |step: &str| TimelineEvent {
        at: "2026-11-22T10:00:01Z".into(),
        step: step.into(),
        message: "production paused 2.7 ms".into(),
    };
    let first = Batch {
        intervals: vec![(Stage::Observing, interval(0)), (Stage::Observing, interval(1))],
        verdicts: vec![("2026-11-22T10:00:02Z".into(), verdict(Outcome::Inconclusive))],
        events: vec![event("cut")],
        ..Batch::default()
    };
    store.record(run, &first).await.unwrap();
    let status = ShadowExperimentStatus {
        phase: Phase::Concluded,
        verdict: Some(verdict(Outcome::Better)),
        outcomes: vec![PromotionOutcome {
            class: StatementClass::Read,
            quantile: 0.95,
            before_us: 38_400,
            after_us: 9_900,
            predicted: understudy_crds::status::Effect { delta: -0.745, low: -0.769, high: -0.718 },
            observed: understudy_crds::status::Effect { delta: -0.742, low: -0.8, high: -0.7 },
        }],
        ..ShadowExperimentStatus::default()
    };
    let second = Batch {
        intervals: vec![(Stage::Promoted, interval(0))],
        status: Some(status.clone()),
        environment: Some(Environment { postgres: "15.18".into(), ..environment }),
        verdicts: vec![("2026-11-22T10:00:03Z".into(), verdict(Outcome::Better))],
        events: vec![event("promotion")],
        ended_at: Some("2026-11-22T10:01:00Z".into()),
        ..Batch::default()
    };
    store.record(run, &second).await.unwrap();
    store.close().await;

    let store = Store::open(&directory.path().join("results.db").display().to_string()).await.unwrap();
    let Recorded {
        experiment: loaded,
        status: found,
        environment,
        observed,
        promoted,
        fingerprints,
        verdicts,
        timeline,
        outcomes,
    } = store.load("a").await.unwrap();
    assert_eq!(loaded.metadata.name.as_deref(), Some("a"));
    assert_eq!(found, status);
    assert_eq!((environment.postgres.as_str(), environment.cores), ("15.18", 2));
    assert_eq!((observed.len(), promoted.len(), fingerprints.len()), (2, 1, 0));
    let (was, is) = (&interval(1), &observed[1]);
    assert_eq!((is.index, is.start_us, is.length_us), (was.index, was.start_us, was.length_us));
    for (name, arm) in &was.arms {
        assert_eq!((is.arms[name].errors, is.arms[name].cancelled), (arm.errors, arm.cancelled));
        assert_eq!(is.arms[name].service, arm.service);
        assert_eq!(is.arms[name].response, arm.response);
    }
    assert_eq!(verdicts.iter().map(|(_, v)| v.outcome).collect::<Vec<_>>(), [Outcome::Inconclusive, Outcome::Better]);
    assert_eq!(timeline.iter().map(|e| e.step.as_str()).collect::<Vec<_>>(), ["cut", "promotion"]);
    assert_eq!(outcomes, status.outcomes);
}

#[tokio::test]
async fn the_newest_run_of_a_name_counts() {
    let (_directory, store) = store().await;
    let environment = |cores| Environment { cores, ..Environment::default() };
    store.begin(&experiment("a"), &environment(1)).await.unwrap();
    store.begin(&experiment("a"), &environment(2)).await.unwrap();
    store.begin(&experiment("b"), &environment(3)).await.unwrap();
    assert_eq!(store.load("a").await.unwrap().environment.cores, 2);
    assert!(matches!(store.load("c").await, Err(StoreError::NoSuchExperiment { .. })));
}

#[tokio::test]
async fn what_is_no_store_is_refused_by_name() {
    let error = Store::open("postgres://user:secret@host/results").await.unwrap_err().to_string();
    assert!(error.contains("not supported yet") && !error.contains("secret"), "{error}");
    assert!(matches!(Store::open("").await, Err(StoreError::NoFile)));
    let error = Store::open("sqlite:/nonexistent/results.db").await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/results.db"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "This is not a database, but it is long enough to be taken for one. ".repeat(50)).unwrap();
    let error = Store::open(&path.display().to_string()).await.unwrap_err().to_string();
    assert!(error.contains("notes.txt"), "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("This is not"), "it is left as it was");
}

#[tokio::test]
async fn a_damaged_document_is_named() {
    let (_directory, store) = store().await;
    store.begin(&experiment("a"), &Environment::default()).await.unwrap();
    sqlx::query("UPDATE experiments SET status = '{'").execute(&store.pool).await.unwrap();
    let error = store.load("a").await.unwrap_err().to_string();
    assert!(error.contains("results.db") && error.contains("the status"), "{error}");
}
