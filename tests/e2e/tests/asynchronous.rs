//! What a server says without having been asked for it, at any moment: notifications, settings that were changed for
//! it, notices between rows, its last words. A client gets it through the mirror where it gets it directly, message by
//! message, and the arms, whose servers say such things as well, stay level.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use tokio_postgres::Client;
use understudy_crds::condition::SkipReason;
use understudy_e2e::{
    scene::{Scene, play},
    wire::{Wire, execute, kinds, message, query, sync},
};
use understudy_harness::{Cluster, wait_until};

const TABLES: &str = "CREATE TABLE heard (i int PRIMARY KEY, t text);
    CREATE FUNCTION loud(i int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN RAISE NOTICE 'row %', i; RAISE WARNING 'mind %', i; RETURN i; END $$";
/// Flush: answers so far, please.
const FLUSH: [u8; 5] = [b'H', 0, 0, 0, 4];

/// Somebody else tells the news, and has been told that they are out.
async fn tell(scene: &Scene<'_>, what: &str) {
    scene.other.batch_execute(&format!("NOTIFY news, '{what}'")).await.expect("told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_others_come_while_idle_at_the_end_of_a_transaction_and_in_a_pipeline() {
    play(TABLES, async |scene| {
        scene.wire.exchange(&query("LISTEN news"), 1).await;

        // Idle: at once, and before the answer to what is asked next.
        for news in ["one", "two"] {
            tell(scene, news).await;
            assert_eq!(kinds(&scene.wire.until(b'A', 1).await), "A");
        }
        let answers = scene.wire.exchange(&query("INSERT INTO heard VALUES (1, 'idle')"), 1).await;
        assert_eq!(kinds(&answers), "CZ");

        // In a transaction: when it is over, whatever its end.
        for (end, i) in [("COMMIT", 2), ("ROLLBACK", 3)] {
            scene.wire.exchange(&query("BEGIN"), 1).await;
            tell(scene, end).await;
            let insert = query(&format!("INSERT INTO heard VALUES ({i}, 'in a transaction') RETURNING i"));
            assert_eq!(kinds(&scene.wire.exchange(&insert, 1).await), "TDCZ", "not yet");
            assert_eq!(kinds(&scene.wire.exchange(&query(end), 1).await), "CAZ", "{end}");
        }

        // In a pipeline whose Sync is still to come: before the ReadyForQuery that Sync brings.
        let first = [execute("INSERT INTO heard VALUES (4, $1)", &[b"a pipeline"]), FLUSH.to_vec()].concat();
        scene.wire.send(&first).await;
        assert_eq!(kinds(&scene.wire.until(b'C', 1).await), "12nC");
        tell(scene, "in a pipeline").await;
        let rest = [execute("SELECT count(*) FROM heard", &[]), sync()].concat();
        assert_eq!(kinds(&scene.wire.exchange(&rest, 1).await), "12TDCAZ");

        // Between the exchanges of a pipeline: what it tells itself.
        let telling = execute("SELECT pg_notify('news', 'to myself')", &[]);
        let pipeline = [execute("SELECT 1", &[]), sync(), telling, sync(), execute("SELECT 2", &[]), sync()].concat();
        assert_eq!(kinds(&scene.wire.exchange(&pipeline, 3).await), "12TDCZ12TDCAZ12TDCZ");
        scene.wire.exchange(&query("INSERT INTO heard VALUES (5, 'after all')"), 1).await;
    })
    .await;
}

/// A server tells a session of a setting that was changed for it with the answer to what the session asks next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_is_changed_for_all_is_told_to_a_session_that_was_idle_or_in_a_transaction() {
    play(TABLES, async |scene| {
        let administrator = scene.server.connect().await;
        scene.wire.exchange(&query("INSERT INTO heard VALUES (1, 'before')"), 1).await;
        for (style, begin) in [("iso_8601", None), ("postgres_verbose", Some("BEGIN"))] {
            if let Some(begin) = begin {
                scene.wire.exchange(&query(begin), 1).await;
            }
            change(&administrator, scene.server, style).await;
            let answers = scene.wire.exchange(&query("SELECT count(*) FROM heard"), 1).await;
            assert_eq!(kinds(&answers), "TDCSZ", "{style}");
            let told = [b"IntervalStyle\0", style.as_bytes(), b"\0"].concat();
            assert!(answers.contains(&(b'S', told)), "{style}");
        }
        scene.wire.exchange(&query("INSERT INTO heard VALUES (2, 'after'); COMMIT"), 1).await;
    })
    .await;
}

/// Changes how intervals are written, and waits until all processes of the server have been told to look.
async fn change(administrator: &Client, server: &Cluster, style: &str) {
    let alter = format!("ALTER SYSTEM SET intervalstyle = '{style}'");
    administrator.batch_execute(&alter).await.expect("a setting");
    administrator.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    // Who begins with the new value was started when the others had been told.
    wait_until("new sessions have it", || async {
        let row = server.connect().await.query_one("SHOW intervalstyle", &[]).await;
        row.is_ok_and(|row| row.get::<_, String>(0) == style)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_come_between_rows_in_either_protocol_and_around_copy() {
    play(TABLES, async |scene| {
        let rows = "SELECT loud(n) FROM generate_series(1, 3) n";
        assert_eq!(kinds(&scene.wire.exchange(&query(rows), 1).await), "TNNDNNDNNDCZ");
        let pipeline = [execute(rows, &[]), execute("SELECT loud(4)", &[]), sync()].concat();
        assert_eq!(kinds(&scene.wire.exchange(&pipeline, 1).await), "12TNNDNNDNNDC12TNNDCZ");
        // Portions of a result with notices before each.
        let portion = message(b'E', &[0, 0, 0, 0, 2]);
        let bound = [message(b'P', &[&[0], rows.as_bytes(), &[0, 0, 0]].concat()), message(b'B', &[0; 8])].concat();
        let portions = [bound, portion.clone(), portion, sync()].concat();
        assert_eq!(kinds(&scene.wire.exchange(&portions, 1).await), "12NNDNNDsNNDCZ");
        scene.wire.exchange(&query("ALTER TABLE heard ADD CHECK (loud(i) > 0)"), 1).await;
        let copied = [message(b'd', b"7\tcopied\n8\tcopied\n"), message(b'c', b"")].concat();
        let copy = [query("COPY heard FROM STDIN"), copied].concat();
        assert_eq!(kinds(&scene.wire.exchange(&copy, 1).await), "GNNNNCZ");
        assert_eq!(kinds(&scene.wire.exchange(&query("COMMIT"), 1).await), "NCZ", "there is no transaction");
        scene.wire.exchange(&query("UPDATE heard SET t = 'after'"), 1).await;
    })
    .await;
}

/// Nobody is hit on the arms: there the statement would name somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_ended_while_idle_or_in_a_transaction_hears_why() {
    let arms = play(TABLES, async |scene| {
        for (name, before) in [("idle", "SELECT 1"), ("in a transaction", "BEGIN; UPDATE heard SET t = 'undone'")] {
            let insert = format!("SET application_name = '{name}'; INSERT INTO heard VALUES ({}, 'kept')", name.len());
            scene.wire.exchange(&query(&insert), 1).await;
            scene.wire.exchange(&query(before), 1).await;
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
            let ended = scene.other.query(end, &[&name]).await.expect("a signal");
            assert_eq!(ended.len(), 1);
            let last_words = scene.wire.last_words(&[]).await;
            assert!(last_words.starts_with(b"E") && last_words.windows(6).any(|w| w == b"C57P01"), "{last_words:?}");
            scene.wire = Wire::connect(scene.at).await;
        }
    })
    .await;
    for arm in arms {
        assert_eq!(arm.exchanges.skipped.get(&SkipReason::ServerIdentity), Some(&2), "{arm:#?}");
    }
}
