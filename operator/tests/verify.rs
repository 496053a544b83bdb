//! Comparing real tables: the same rows are the same in any order, and every difference is seen.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::collections::{BTreeMap, BTreeSet};

use understudy_harness::{Cluster, worker};
use understudy_operator::platform::local::{
    session::Session,
    verify::{Excluded, TableOutcome, compare, open_snapshot},
};

const TABLES: &str = "
    CREATE SCHEMA \"Odd one\";
    CREATE TABLE same (i int, t text, f float8, at timestamptz, b bytea);
    CREATE TABLE clocked (i int, at timestamptz, day date);
    CREATE TABLE doubled (i int);
    CREATE TABLE changed (i int, t text);
    CREATE TABLE \"Odd one\".\"ta\"\"ble\" (\"co l\" int, note text);
    CREATE TABLE parent (i int) PARTITION BY LIST (i);
    CREATE TABLE child PARTITION OF parent FOR VALUES IN (1, 2);
    CREATE UNLOGGED TABLE unlogged (i int)";

async fn side(cluster: &Cluster, rows: &str) -> Session {
    let client = cluster.connect().await;
    client.batch_execute(TABLES).await.expect("tables");
    client.batch_execute(rows).await.expect("rows");
    let session = worker(cluster).connect().await.expect("a session");
    open_snapshot(&session).await.expect("a snapshot");
    session
}

#[tokio::test]
async fn every_difference_is_seen_and_order_is_none() {
    let (a, b) = tokio::join!(Cluster::start(), Cluster::start());
    let left = side(
        &a,
        "INSERT INTO same VALUES (1, 'x', 0.1, '2026-01-01 00:00+00', '\\x00'), (2, NULL, 'NaN', NULL, NULL);
         INSERT INTO clocked VALUES (1, '2026-01-01 00:00+00', '2026-01-01');
         INSERT INTO doubled VALUES (1), (2), (2);
         INSERT INTO changed VALUES (1, 'a');
         INSERT INTO \"Odd one\".\"ta\"\"ble\" VALUES (1, 'here');
         INSERT INTO parent VALUES (1);
         INSERT INTO unlogged VALUES (1);
         CREATE TABLE only_here (i int)",
    )
    .await;
    // In another order, in another time zone, and with the changes.
    let right = side(
        &b,
        "SET TimeZone = 'Asia/Tokyo';
         INSERT INTO same VALUES (2, NULL, 'NaN', NULL, NULL), (1, 'x', 0.1, '2026-01-01 09:00+09', '\\x00');
         INSERT INTO clocked VALUES (1, '2026-01-01 00:00:01+00', '2026-01-01');
         INSERT INTO doubled VALUES (1), (1), (2);
         INSERT INTO changed VALUES (1, 'b');
         INSERT INTO \"Odd one\".\"ta\"\"ble\" VALUES (1, 'there');
         INSERT INTO parent VALUES (1), (2);
         CREATE TABLE only_there (i int)",
    )
    .await;
    // What comes after the snapshots does not count.
    b.connect().await.batch_execute("DELETE FROM same").await.expect("deleted");

    let excluded: Excluded = BTreeMap::from([("Odd one.ta\"ble".to_owned(), BTreeSet::from(["note".to_owned()]))]);
    let found: BTreeMap<String, TableOutcome> =
        compare(&left, &right, &excluded).await.expect("compared").into_iter().map(|c| (c.table, c.outcome)).collect();
    let expected = BTreeMap::from([
        ("Odd one.ta\"ble".to_owned(), TableOutcome::Same { rows: 1 }),
        ("public.changed".to_owned(), TableOutcome::Differs { left_rows: 1, right_rows: 1 }),
        ("public.child".to_owned(), TableOutcome::Differs { left_rows: 1, right_rows: 2 }),
        ("public.clocked".to_owned(), TableOutcome::SameButClock { rows: 1, columns: vec!["at".to_owned()] }),
        ("public.doubled".to_owned(), TableOutcome::Differs { left_rows: 3, right_rows: 3 }),
        ("public.only_here".to_owned(), TableOutcome::OnlyLeft),
        ("public.only_there".to_owned(), TableOutcome::OnlyRight),
        ("public.same".to_owned(), TableOutcome::Same { rows: 2 }),
    ]);
    assert_eq!(found, expected);
}
