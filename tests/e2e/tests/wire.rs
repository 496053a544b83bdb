//! What a client gets through the mirror is, byte for byte, what it gets directly: with COPY,
//! pipelines, cancels, notifications, large values and many sessions.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tokio_postgres::{NoTls, error::SqlState};
use understudy_e2e::{
    application::connect,
    child::{Running, start},
    turn::{Turn, take_turn},
    twins::contents,
    wire::{Message, Wire, execute, kinds, message, query, sync},
};
use understudy_harness::Cluster;
use understudy_mirror::wire::frame::messages;

const LARGE_BYTES: usize = 20 << 20;

struct Stage {
    worker: Cluster,
    arms: [Cluster; 2],
    mirror: Running,
    direct: SocketAddr,
    through: SocketAddr,
    _turn: Turn,
}

impl Stage {
    async fn set() -> Self {
        let turn = take_turn().await;
        let worker = Cluster::builder().setting("max_connections", "250").start().await;
        let direct: SocketAddr = ([127, 0, 0, 1], worker.port()).into();
        let arms = [arm().await, arm().await];
        let named = |name: &str, arm: &Cluster| format!("{name}=127.0.0.1:{}", arm.port());
        let (baseline, candidate) = (named("baseline", &arms[0]), named("candidate", &arms[1]));
        let sides = ["--worker", &direct.to_string(), "--arm", &baseline, "--arm", &candidate];
        let mut mirror = start("understudy-mirror", ["--listen", "127.0.0.1:0"].into_iter().chain(sides));
        let through = mirror.mirror().await;
        Self { worker, arms, mirror, direct, through, _turn: turn }
    }

    /// The answers to the same bytes, directly and through the mirror. `reset` is run before each.
    async fn both(&self, reset: &str, bytes: &[u8], ready: usize) -> [Vec<Message>; 2] {
        let mut answers = Vec::new();
        for address in [self.direct, self.through] {
            // Through the mirror the arms have it too.
            connect(address).await.expect("a session").batch_execute(reset).await.expect("a fresh start");
            answers.push(Wire::connect(address).await.exchange(bytes, ready).await);
        }
        answers.try_into().expect("two answers")
    }

    /// Waits until the arms hold what the worker does.
    async fn expect_level(&self) {
        let wanted = contents(&self.worker.connect().await, &[]).await;
        for arm in &self.arms {
            understudy_harness::wait_until("the arm holds what the worker does", || async {
                contents(&arm.connect().await, &[]).await == wanted
            })
            .await;
        }
    }

    async fn end(self) {
        self.mirror.signal(Signal::TERM);
        let ended = self.mirror.ended_within(Duration::from_secs(20)).await;
        ended.expect_code(0);
        for word in ["WARN", "ERROR", "panicked"] {
            assert!(!ended.stderr.contains(word), "{}", ended.stderr);
        }
    }
}

async fn arm() -> Cluster {
    Cluster::builder().setting("max_connections", "250").start().await
}

/// The same messages; what differs is said without printing megabytes.
fn assert_same([direct, through]: &[Vec<Message>; 2]) {
    assert_eq!(kinds(direct), kinds(through));
    for (index, (a, b)) in direct.iter().zip(through).enumerate() {
        assert!(a == b, "message {index} ({}) differs: {} and {} bytes", char::from(a.0), a.1.len(), b.1.len());
    }
}

/// Answers name the table by its number: it is made once.
const COPIED: &str = "CREATE TABLE IF NOT EXISTS copied (i int PRIMARY KEY, t text); TRUNCATE copied";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_goes_both_ways_and_fails_as_it_does_directly() {
    let stage = Stage::set().await;
    let rows = (0..50_000).map(|i| format!("{i}\trow {i}\n")).collect::<Vec<_>>().concat();
    let data: Vec<u8> = rows.as_bytes().chunks(8000).flat_map(|chunk| message(b'd', chunk)).collect();
    let copy_in = query("COPY copied FROM STDIN");
    let done = message(b'c', &[]);
    let good = [copy_in.clone(), data.clone(), done.clone(), query("COPY copied TO STDOUT")].concat();
    let answers = stage.both(COPIED, &good, 2).await;
    assert_same(&answers);
    assert_eq!(kinds(&answers[1]).matches('d').count(), 50_000);

    // The client gives up in the middle.
    let given_up = [copy_in.clone(), data.clone(), message(b'f', b"changed my mind\0"), query("TABLE copied")].concat();
    let answers = stage.both(COPIED, &given_up, 2).await;
    assert_same(&answers);
    assert!(kinds(&answers[1]).starts_with("GEZ"), "{}", kinds(&answers[1]));

    // The server refuses a row in the middle, while the client goes on sending.
    let refused = [copy_in, data, message(b'd', b"1\tagain\n"), done, query("SELECT count(*) FROM copied")].concat();
    let answers = stage.both(COPIED, &refused, 2).await;
    assert_same(&answers);
    assert!(kinds(&answers[1]).starts_with("GEZ"), "{}", kinds(&answers[1]));
    stage.expect_level().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_of_a_thousand_statements_and_errors_in_it_are_answered_in_order() {
    let stage = Stage::set().await;
    let each_synced: Vec<u8> =
        (0..1000).flat_map(|i| [execute(&format!("SELECT {i}, repeat('x', {i})"), &[]), sync()].concat()).collect();
    assert_same(&stage.both("SELECT 1", &each_synced, 1000).await);

    let one_sync: Vec<u8> =
        (0..1000).flat_map(|i| execute("INSERT INTO copied VALUES ($1, 'x')", &[i.to_string().as_bytes()])).collect();
    let good = [one_sync, sync(), query("SELECT count(*) FROM copied")].concat();
    let answers = stage.both(COPIED, &good, 2).await;
    assert_same(&answers);
    assert_eq!(kinds(&answers[1]).matches('C').count(), 1001);

    // What follows an error is skipped up to the next Sync, and everything before it is undone.
    let failing = [
        execute("INSERT INTO copied VALUES (1, 'x')", &[]),
        execute("SELECT 1 / 0", &[]),
        execute("INSERT INTO copied VALUES (2, 'x')", &[]),
        sync(),
        execute("INSERT INTO copied VALUES (3, 'x')", &[]),
        sync(),
        query("TABLE copied"),
    ]
    .concat();
    let answers = stage.both(COPIED, &failing, 3).await;
    assert_same(&answers);
    assert_eq!(answers[1].iter().filter(|(kind, _)| *kind == b'E').count(), 1);
    stage.expect_level().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_result_and_a_large_parameter_pass_whole() {
    let stage = Stage::set().await;
    let rows = query("SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, 20480) i");
    assert_same(&stage.both("SELECT 1", &rows, 1).await);
    let one_value = query(&format!("SELECT repeat('y', {LARGE_BYTES})"));
    assert_same(&stage.both("SELECT 1", &one_value, 1).await);
    let large = vec![b'z'; LARGE_BYTES];
    let parameter = [execute("SELECT $1::text, md5($1::text)", &[&large]), sync()].concat();
    let answers = stage.both("SELECT 1", &parameter, 1).await;
    assert_same(&answers);
    assert!(answers[1].iter().any(|(_, body)| body.len() > LARGE_BYTES));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_reaches_the_right_session_and_no_other() {
    let stage = Stage::set().await;
    let (one, other) =
        (connect(stage.through).await.expect("a session"), connect(stage.through).await.expect("a session"));
    let watcher = stage.worker.connect().await;
    let cancel = one.cancel_token();
    let (long, beside) = tokio::join!(
        async {
            let (slept, cancelled) = tokio::join!(one.batch_execute("SELECT pg_sleep(60)"), async {
                understudy_harness::wait_until("both sleep", || async {
                    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
                    watcher.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 2)
                })
                .await;
                cancel.cancel_query(NoTls).await
            });
            cancelled.expect("the cancel request is taken");
            slept
        },
        other.batch_execute("SELECT pg_sleep(3)")
    );
    assert_eq!(long.expect_err("it is cancelled").code(), Some(&SqlState::QUERY_CANCELED));
    beside.expect("the other session is left alone");
    one.batch_execute("SELECT 1").await.expect("the session goes on");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_arrive_while_a_session_is_idle() {
    let stage = Stage::set().await;
    let mut heard = Vec::new();
    for address in [stage.direct, stage.through] {
        let mut listener = Wire::connect(address).await;
        listener.exchange(&query("LISTEN news"), 1).await;
        let teller = connect(stage.through).await.expect("a session");
        teller.batch_execute("NOTIFY news, 'hello'").await.expect("told");
        let messages = listener.until(b'A', 1).await;
        // Who told it differs; what was told does not.
        let body = messages.last().map(|(_, body)| body.get(4..).expect("after the process").to_vec());
        heard.push((kinds(&messages), body));
    }
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[1].1.as_deref(), Some(b"news\0hello\0".as_slice()));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_on_sending_still_learns_why_its_session_ended() {
    let stage = Stage::set().await;
    let mut wire = Wire::connect(stage.through).await;
    // A message of length 0 is none; what follows is never read as messages.
    let flood = [vec![b'Q', 0, 0, 0, 0], vec![b'x'; 64 << 10]].concat();
    let last_words = wire.last_words(&flood).await;
    assert!(last_words.windows(6).any(|w| w == b"C08P01"), "{}", String::from_utf8_lossy(&last_words));
    stage.end().await;
}

/// One packet may hold a request and, after it, what is no message: the server takes them in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_a_malformed_message_is_done_and_answered_first() {
    let stage = Stage::set().await;
    let worker = stage.worker.connect().await;
    worker.batch_execute(COPIED).await.expect("a table");
    let no_message = vec![b'Q', 0, 0, 0, 0];
    let insert = |i: i32| query(&format!("INSERT INTO copied VALUES ({i}) RETURNING i"));
    let cases = [
        ("queries", [query("BEGIN"), insert(1), query("COMMIT")].concat()),
        ("a pipeline", [execute("INSERT INTO copied VALUES (2) RETURNING i", &[]), sync()].concat()),
        ("no Sync", execute("INSERT INTO copied VALUES (3)", &[])),
        ("no more data", [insert(4), query("COPY copied FROM STDIN"), message(b'd', b"5\tx\n")].concat()),
        ("nothing", Vec::new()),
    ];
    for (name, before) in cases {
        let mut said = Vec::new();
        for address in [stage.direct, stage.through] {
            worker.batch_execute(COPIED).await.expect("an empty table");
            let last_words =
                Wire::connect(address).await.last_words(&[before.clone(), no_message.clone()].concat()).await;
            let answers: String = messages(&last_words).map(|message| char::from(message.tag)).collect();
            let kept = worker.query("SELECT i FROM copied ORDER BY i", &[]).await.expect("the table");
            let kept: Vec<i32> = kept.iter().map(|row| row.get(0)).collect();
            said.push((answers, kept));
        }
        println!("{name}: {said:?}");
        let [direct, through] = said.try_into().expect("two");
        assert_eq!(through.1, direct.1, "{name}");
        // The server closes without a word; the mirror says why.
        assert_eq!(through.0, format!("{}E", direct.0), "{name}");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_keep_their_own_state() {
    let stage = Stage::set().await;
    let mut sessions = Vec::new();
    for number in 0..200 {
        let through = stage.through;
        sessions.push(tokio::spawn(async move {
            let client = connect(through).await.expect("a session");
            let own =
                format!("SET application_name = 'session-{number}'; CREATE TEMP TABLE own AS SELECT {number} AS i");
            client.batch_execute(&own).await.expect("its own state");
            client
        }));
    }
    let mut clients = Vec::new();
    for session in sessions {
        clients.push(session.await.expect("a session"));
    }
    let sql = "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE application_name LIKE 'session-%'";
    let seen: i64 = stage.worker.connect().await.query_one(sql, &[]).await.expect("the sessions").get(0);
    assert_eq!(seen, 200);
    for (number, client) in clients.iter().enumerate() {
        let row =
            client.query_one("SELECT i, current_setting('application_name') FROM own", &[]).await.expect("its own");
        assert_eq!(usize::try_from(row.get::<_, i32>(0)).ok(), Some(number));
        assert_eq!(row.get::<_, String>(1), format!("session-{number}"));
    }
    drop(clients);
    stage.end().await;
}
