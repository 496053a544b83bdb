//! FunctionCall, the protocol's oldest way to have something done: functions that write, called by their numbers, do on
//! the arms what they do on the worker, and their answers pass as they are.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use understudy_e2e::{
    scene::{Scene, play},
    wire::{execute, kinds, message, query, sync},
};

const TABLES: &str = "CREATE TABLE noted (i int PRIMARY KEY, t text);
    CREATE FUNCTION note(i int, t text) RETURNS bigint LANGUAGE sql AS
    $$ INSERT INTO noted VALUES (i, t); SELECT count(*) FROM noted $$";

/// Calls `note` with its parameters as text; its result comes in this format.
async fn note(scene: &Scene<'_>, i: &str, text: Option<&str>, format: u8) -> Vec<u8> {
    let row = scene.server.connect().await.query_one("SELECT 'note'::regproc::oid", &[]).await;
    let number: u32 = row.expect("the function").get(0);
    let mut body = [&number.to_be_bytes()[..], &[0, 0, 0, 2]].concat();
    for value in [Some(i), text] {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).expect("short"));
        body.extend(length.to_be_bytes());
        body.extend(value.unwrap_or_default().bytes());
    }
    body.extend([0, format]);
    message(b'F', &body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_called_by_its_number_writes_on_the_arms_as_well() {
    play(TABLES, async |scene| {
        // By itself, with a result as text and in binary.
        let call = note(scene, "1", Some("by itself"), 0).await;
        let answers = scene.wire.exchange(&call, 1).await;
        assert_eq!((kinds(&answers).as_str(), answers[0].1.as_slice()), ("VZ", &b"\0\0\0\x011"[..]));
        let call = note(scene, "2", Some("ä in binary"), 1).await;
        let answers = scene.wire.exchange(&call, 1).await;
        assert_eq!((kinds(&answers).as_str(), answers[0].1.as_slice()), ("VZ", &b"\0\0\0\x08\0\0\0\0\0\0\0\x02"[..]));

        // One that fails, and one that was never there.
        let call = note(scene, "2", Some("again"), 0).await;
        assert_eq!(kinds(&scene.wire.exchange(&call, 1).await), "EZ");
        assert_eq!(kinds(&scene.wire.exchange(&message(b'F', &[0; 10]), 1).await), "EZ");

        // In transactions of either end, and one that fails.
        for (end, i) in [("COMMIT", "3"), ("ROLLBACK", "4")] {
            scene.wire.exchange(&query("BEGIN"), 1).await;
            let call = note(scene, i, Some(end), 0).await;
            assert_eq!(kinds(&scene.wire.exchange(&call, 1).await), "VZ");
            scene.wire.exchange(&query(end), 1).await;
        }
        let twice = note(scene, "5", None, 0).await;
        let pipeline = [query("BEGIN"), twice.clone(), twice.clone(), query("COMMIT")].concat();
        assert_eq!(kinds(&scene.wire.exchange(&pipeline, 4).await), "CZVZEZCZ");

        // Between statements of a pipeline.
        let before = [execute("INSERT INTO noted VALUES (6, 'before')", &[]), sync()].concat();
        let after = [execute("UPDATE noted SET t = t || '!' WHERE i = $1", &[b"5"]), sync()].concat();
        let pipeline = [before, twice, after].concat();
        assert_eq!(kinds(&scene.wire.exchange(&pipeline, 3).await), "12nCZVZ12nCZ");
        let rows = scene.wire.exchange(&query("SELECT i FROM noted ORDER BY i"), 1).await;
        assert_eq!(kinds(&rows), "TDDDDDCZ", "1, 2, 3, 5 and 6");
    })
    .await;
}
