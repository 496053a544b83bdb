//! An arm that answers as production did is not said to have answered otherwise, and a session that rests is known
//! to, whatever way clients have of asking.

use std::time::Duration;

use rustix::process::Signal;
use understudy_e2e::{
    twins::Twins,
    wire::{Wire, execute, message, query, sync},
};

async fn expect_agreement(twins: Twins) {
    for arm in twins.expect_level(&[]).await {
        assert!(arm.divergence.values().all(|count| *count == 0), "{arm:#?}");
    }
    twins.end().await;
}

/// psycopg's pipelines do this whenever a result is fetched, asyncpg whenever it prepares a statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_flush_are_production_s_as_well() {
    let twins = Twins::start(|builder| builder, "CREATE TABLE flushed (i int)").await;
    let mut wire = Wire::connect(twins.through).await;
    wire.exchange(&query("INSERT INTO flushed VALUES (1)"), 1).await;
    let flush = message(b'H', &[]);
    let refused = message(b'P', b"\0SELECT nothing FROM nowhere\0\0\0");
    for (statement, answer) in [(execute("SELECT i FROM flushed", &[]), b'C'), (refused, b'E')] {
        wire.send(&[statement, flush.clone()].concat()).await;
        wire.until(answer, 1).await;
        wire.exchange(&sync(), 1).await;
    }
    expect_agreement(twins).await;
}

/// The arm needs longer for the first statement of a session: it connects then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_a_later_write_overtakes_on_an_arm_is_not_said_to_differ() {
    let twins = Twins::start(|builder| builder, "CREATE TABLE overtaken (i int)").await;
    let mut writer = Wire::connect(twins.through).await;
    for _ in 0..50 {
        let mut reader = Wire::connect(twins.through).await;
        reader.exchange(&query("SELECT count(*) FROM overtaken"), 1).await;
        writer.exchange(&query("INSERT INTO overtaken VALUES (1)"), 1).await;
    }
    expect_agreement(twins).await;
}

/// psycopg's pipelines leave a session like this as often as not; it would hold up the mirror's end, and a cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_rests_that_has_sent_a_flush_behind_its_sync() {
    let twins = Twins::start(|builder| builder, "").await;
    let mut wire = Wire::connect(twins.through).await;
    wire.exchange(&[execute("SELECT 1", &[]), sync(), message(b'H', &[])].concat(), 1).await;
    twins.mirror.signal(Signal::TERM);
    let last = wire.last_words(&[]).await;
    assert!(last.windows(5).any(|code| code == b"57P01"), "{}", last.escape_ascii());
    twins.mirror.ended_within(Duration::from_secs(5)).await.expect_code(0);
}
