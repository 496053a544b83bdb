//! Promotion to a real worker: the change is there afterwards, or nothing of it is.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Mutex;
use understudy_crds::experiment::{Candidate, CandidateSql};
use understudy_harness::{Cluster, worker};
use understudy_operator::{
    error::ErrorKind,
    platform::local::{
        promotion::{Effect, RestartWorker, promote},
        server::START_LIMIT,
    },
};

fn candidate(parameters: &[(&str, &str)], apply: &[&str], revert: &[&str]) -> Candidate {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    Candidate {
        name: "change".into(),
        parameters: parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        sql: (!apply.is_empty()).then(|| CandidateSql { apply: owned(apply), revert: owned(revert) }),
        ..Candidate::default()
    }
}

async fn worker_with_rows() -> Cluster {
    let cluster = Cluster::start().await;
    let client = cluster.connect().await;
    client
        .batch_execute("CREATE TABLE t AS SELECT i, i % 10 AS j FROM generate_series(1, 1000) i")
        .await
        .expect("rows");
    cluster
}

/// Everything that a promotion could leave behind.
async fn state(cluster: &Cluster) -> BTreeMap<String, String> {
    let client = cluster.connect().await;
    let sql = "SELECT 'index ' || indexrelid::regclass, indisvalid::text FROM pg_index WHERE indrelid = 't'::regclass
               UNION ALL SELECT 'file ' || name, setting FROM pg_file_settings WHERE sourcefile ~ 'auto.conf$'
               UNION ALL SELECT 'now ' || name, setting FROM pg_settings WHERE name IN ('work_mem', 'random_page_cost')";
    let rows = client.query(sql, &[]).await.expect("state");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

const INDEX: &str = "CREATE INDEX CONCURRENTLY t_j ON t (j)";
const NO_INDEX: &str = "DROP INDEX CONCURRENTLY t_j";

#[tokio::test]
async fn a_change_is_on_the_worker_and_in_effect() {
    let cluster = worker_with_rows().await;
    let change = candidate(&[("random_page_cost", "1.1"), ("max_connections", "123")], &[INDEX], &[NO_INDEX]);
    let promoted = promote(&worker(&cluster), 0, &change, None).await.expect("promoted");
    assert_eq!((promoted.statements, promoted.indexes), (1, vec!["public.t_j".to_owned()]));
    let expected = [("max_connections", Effect::AtRestart), ("random_page_cost", Effect::Now)];
    assert_eq!(promoted.settings, expected.map(|(n, e)| (n.to_owned(), e)).into());
    let state = state(&cluster).await;
    assert_eq!(state.get("now random_page_cost").map(String::as_str), Some("1.1"));
    assert_eq!(state.get("index t_j").map(String::as_str), Some("true"));
}

#[tokio::test]
async fn whoever_owns_the_worker_may_have_it_restarted() {
    let cluster = Arc::new(Mutex::new(worker_with_rows().await));
    let target = worker(&*cluster.lock().await);
    let owner = Arc::clone(&cluster);
    let restart: RestartWorker<'_> =
        Box::pin(async move { owner.lock().await.server_mut().restart(START_LIMIT).await });
    let change =
        candidate(&[("max_connections", "123"), ("shared_preload_libraries", "auto_explain, pg_prewarm")], &[], &[]);
    let promoted = promote(&target, 0, &change, Some(restart)).await.expect("promoted");
    assert!(promoted.settings.values().all(|effect| *effect == Effect::Now), "{promoted:?}");
    let client = cluster.lock().await.connect().await;
    let row =
        client.query_one("SELECT current_setting('max_connections'), current_setting('shared_preload_libraries')", &[]);
    let row = row.await.expect("settings");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("123", "auto_explain, pg_prewarm"));
}

#[tokio::test]
async fn what_fails_is_taken_back_to_the_letter() {
    let cluster = worker_with_rows().await;
    let client = cluster.connect().await;
    client.batch_execute("ALTER SYSTEM SET work_mem = '5MB'").await.expect("a setting of the worker's own");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
    let failures: [(&str, Candidate, &str); 4] = [
        (
            "a later statement fails",
            candidate(&[("work_mem", "64MB")], &[INDEX, "CREATE INDEX nonsense ON nowhere (x)"], &[NO_INDEX]),
            "spec.candidates[3].sql.apply[1]",
        ),
        (
            "a setting is refused after the statements and another setting",
            candidate(&[("random_page_cost", "2"), ("work_mem", "lots")], &[INDEX], &[NO_INDEX]),
            "spec.candidates[3].parameters.work_mem",
        ),
        (
            "an index comes out broken and there is no revert",
            candidate(&[], &["CREATE UNIQUE INDEX CONCURRENTLY t_broken ON t (j)"], &[]),
            "spec.candidates[3].sql.apply[0]",
        ),
        (
            "the command line of the worker wins",
            candidate(&[("work_mem", "64MB"), ("port", "1234")], &[INDEX], &[NO_INDEX]),
            "command line",
        ),
    ];
    for (name, change, says) in failures {
        let before = state(&cluster).await;
        let error = promote(&worker(&cluster), 3, &change, None).await.expect_err(name);
        assert_eq!(error.kind, ErrorKind::Reverted, "{name}");
        let text = error.to_string();
        assert!(text.contains(says), "{name}: {text}");
        assert!(!text.contains("not taken back"), "{name}: {text}");
        assert_eq!(state(&cluster).await, before, "{name}");
    }
}

#[tokio::test]
async fn what_was_there_before_is_not_taken_away_when_the_first_statement_fails() {
    let cluster = worker_with_rows().await;
    let client = cluster.connect().await;
    client.batch_execute("CREATE INDEX t_j ON t (j)").await.expect("an index of the worker's own");
    let before = state(&cluster).await;
    let change = candidate(&[], &[INDEX], &[NO_INDEX]);
    let error = promote(&worker(&cluster), 0, &change, None).await.expect_err("it is there already");
    assert!(error.to_string().contains("already exists"), "{error}");
    assert_eq!(state(&cluster).await, before);
}

#[tokio::test]
async fn what_could_not_be_taken_back_is_said() {
    let cluster = worker_with_rows().await;
    let change = candidate(&[("work_mem", "lots")], &[INDEX], &["DROP INDEX CONCURRENTLY no_such_index"]);
    let error = promote(&worker(&cluster), 0, &change, None).await.expect_err("a bad setting");
    let text = error.to_string();
    assert!(text.contains("not taken back") && text.contains("no_such_index"), "{text}");
    assert!(text.contains("by hand"), "{text}");
}
