//! A worker that ends sessions, crashes, shuts down and comes back: clients hear what they would hear without a mirror,
//! whoever connects afterwards is served, and the arms have what production has kept.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{io, net::SocketAddr, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio_postgres::Client;
use understudy_e2e::{
    raw::{Raw, startup},
    talk::Talk,
    twins::{Twins, address},
    wire::{message, query},
};
use understudy_harness::{Cluster, wait_until};

/// How long a server may take to stop, and to be there again.
const LIMIT: Duration = Duration::from_secs(30);
const TABLES: &str = "CREATE TABLE kept (i int); CREATE TABLE copied (i int)";
const COUNT: &str = "SELECT count(*) FROM kept";

/// Who ends a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Somebody else who may (`pg_terminate_backend`).
    Command,
    /// The server, when the time is up that the session has set itself.
    Itself,
}

/// Where a session is when it is ended.
struct Case {
    name: &'static str,
    says: Vec<u8>,
    /// The type of the answer that is waited for; none: until its backend waits for something in the statement.
    hears: Option<u8>,
    by: By,
    sqlstate: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |name, says: &str, hears, by, sqlstate| Case { name, says: query(says), hears, by, sqlstate };
    let terminated = |name, says, hears| case(name, says, hears, By::Command, "C57P01");
    let timed_out = |name, says, sqlstate| case(name, says, Some(b'Z'), By::Itself, sqlstate);
    let prepares = [message(b'P', b"\0INSERT INTO kept VALUES (2)\0\0\0"), message(b'H', b"")].concat();
    vec![
        terminated("idle", "SELECT 1", Some(b'Z')),
        terminated("in a transaction", "BEGIN; INSERT INTO kept VALUES (1)", Some(b'Z')),
        terminated("in one that has failed", "BEGIN; INSERT INTO kept VALUES (1); SELECT 1/0", Some(b'Z')),
        terminated("in a statement", "INSERT INTO kept SELECT 1 FROM pg_sleep(60)", None),
        terminated("in a COPY in", "COPY copied FROM STDIN", Some(b'G')),
        Case { says: prepares, ..terminated("behind a Flush", "", Some(b'1')) },
        timed_out("idle for too long", "SET idle_session_timeout = 200", "C57P05"),
        timed_out(
            "idle in a transaction for too long",
            "SET idle_in_transaction_session_timeout = 200; BEGIN; INSERT INTO kept VALUES (1)",
            "C25P03",
        ),
    ]
}

struct Session {
    talk: Talk<TcpStream>,
    pid: i32,
}

impl Session {
    async fn login(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).await.expect("a connection");
        let (talk, key) = Talk::login(stream, "postgres").await;
        let pid = i32::from_be_bytes(*key.first_chunk().expect("a process"));
        Self { talk, pid }
    }

    async fn ask(&mut self, sql: &str) {
        self.talk.send(&query(sql)).await;
        self.talk.heard(b'Z').await;
    }

    /// All that it hears until its end, in words, and whether that was an end or a reset.
    async fn last_words(self) -> (String, Option<io::ErrorKind>) {
        let (said, end) = self.talk.end().await;
        (said.escape_ascii().to_string(), end.err().map(|error| error.kind()))
    }
}

/// Waits until its backend does nothing but wait: for its client, or in `pg_sleep`. What a COPY has come to stands in its
/// last words.
async fn expect_waiting(looker: &Client, pid: i32, event: &str) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = $2";
    wait_until("its backend waits", || async {
        looker.query_one(waits, &[&pid, &event]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
}

/// What a client in this place hears when it is ended.
async fn ended(at: SocketAddr, looker: &Client, case: &Case) -> (String, Option<io::ErrorKind>) {
    let mut session = Session::login(at).await;
    session.talk.send(&case.says).await;
    if let Some(kind) = case.hears {
        session.talk.heard(kind).await;
    }
    if case.by == By::Command {
        expect_waiting(looker, session.pid, if case.hears.is_some() { "ClientRead" } else { "PgSleep" }).await;
        looker.query_one("SELECT pg_terminate_backend($1)", &[&session.pid]).await.expect("terminated");
    }
    session.last_words().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_the_worker_ends_hear_why() {
    let twins = Twins::start(|builder| builder, TABLES).await;
    let (direct, worker) = (twins.direct.connect().await, twins.worker.connect().await);
    for case in cases() {
        let directly = ended(address(&twins.direct), &direct, &case).await;
        let through = ended(twins.through, &worker, &case).await;
        assert_eq!(through, directly, "{}", case.name);
        assert!(directly.0.contains("SFATAL") && directly.0.contains(case.sqlstate), "{}: {directly:?}", case.name);
        Session::login(twins.through).await.ask("INSERT INTO kept VALUES (0)").await;
        Session::login(address(&twins.direct)).await.ask("INSERT INTO kept VALUES (0)").await;
    }
    twins.expect_level(&[]).await;
    let rows: i64 = worker.query_one(COUNT, &[]).await.expect("rows").get(0);
    assert_eq!(rows, i64::try_from(cases().len()).expect("few"), "what was under way was undone");
    twins.end().await;
}

/// A login that is refused for want of room; the others stay as long as they are wanted.
async fn refused(at: SocketAddr) -> String {
    let mut room = Vec::new();
    loop {
        let mut client = Raw::connect(at).await;
        client.send(&startup("postgres")).await;
        match client.first().await {
            b'E' => return client.rest().await.escape_ascii().to_string(),
            _ => room.push(client),
        }
        assert!(room.len() < 50, "nobody is refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_full_refuses_in_its_own_words() {
    let twins = Twins::start(|builder| builder.setting("max_connections", "12"), "").await;
    let directly = refused(address(&twins.direct)).await;
    let through = refused(twins.through).await;
    assert_eq!(through, directly);
    assert!(directly.contains("C53300"), "{directly}");
    twins.end().await;
}

/// Sessions of a server that is about to go: idle, in a transaction that has written, and in a statement.
async fn three(at: SocketAddr, looker: &Client) -> [Session; 3] {
    let (idle, mut writer, mut runs) = (Session::login(at).await, Session::login(at).await, Session::login(at).await);
    writer.ask("BEGIN; INSERT INTO kept VALUES (7)").await;
    runs.talk.send(&query("SELECT pg_sleep(60)")).await;
    expect_waiting(looker, runs.pid, "PgSleep").await;
    [idle, writer, runs]
}

/// Waits until somebody who connects has a session; whoever is turned away meanwhile is told why.
async fn expect_served_again(at: SocketAddr) {
    wait_until("it is served again", || async {
        let mut client = Raw::connect(at).await;
        client.send(&startup("postgres")).await;
        if client.first().await == b'R' {
            return true;
        }
        let said = client.rest().await.escape_ascii().to_string();
        assert!(said.contains("C57P03"), "{said}");
        false
    })
    .await;
    Session::login(at).await.ask("INSERT INTO kept VALUES (8)").await;
}

/// A server that is ready, which its superuser can tell without the mirror.
async fn expect_up(server: &Cluster) {
    wait_until("it is up", || async {
        let config = server.server().config("postgres", "postgres");
        config.connect(tokio_postgres::NoTls).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_crashes_or_shuts_down_and_comes_back_is_what_its_clients_see() {
    let mut twins = Twins::start(|builder| builder, TABLES).await;

    // One of its processes is killed: it throws everybody out and recovers.
    let mut heard = Vec::new();
    for (at, server) in [(address(&twins.direct), &twins.direct), (twins.through, &twins.worker)] {
        let [idle, writer, runs] = three(at, &server.connect().await).await;
        kill_process(Pid::from_raw(runs.pid).expect("a process"), Signal::KILL).expect("killed");
        let (idle, writer, runs) = tokio::join!(idle.last_words(), writer.last_words(), runs.last_words());
        heard.push([idle, writer, runs]);
    }
    assert_eq!(heard[1], heard[0], "after a crash");
    assert!(heard[0][0].0.contains("C57P02") && heard[0][2].0.is_empty(), "{heard:?}");
    expect_up(&twins.direct).await;
    expect_served_again(twins.through).await;
    expect_served_again(address(&twins.direct)).await;

    // It shuts down, as for a restart.
    let direct = three(address(&twins.direct), &twins.direct.connect().await).await;
    let through = three(twins.through, &twins.worker.connect().await).await;
    twins.direct.server_mut().stop(LIMIT).await;
    twins.worker.server_mut().stop(LIMIT).await;
    for (direct, through) in direct.into_iter().zip(through) {
        let (direct, through) = tokio::join!(direct.last_words(), through.last_words());
        assert_eq!(through, direct, "at a shutdown");
        assert!(direct.0.contains("C57P01"), "{direct:?}");
    }
    let mut client = Raw::connect(twins.through).await;
    client.send(&startup("postgres")).await;
    let said = client.rest().await.escape_ascii().to_string();
    assert!(said.contains("SFATAL") && said.contains("C57P03"), "{said}");
    twins.worker.server_mut().start_again(LIMIT).await.expect("a worker");
    expect_served_again(twins.through).await;

    for arm in twins.expect_level(&[]).await {
        assert!(arm.divergence.values().all(|count| *count == 0), "{arm:#?}");
    }
    let rows: i64 = twins.worker.connect().await.query_one(COUNT, &[]).await.expect("rows").get(0);
    assert_eq!(rows, 2, "what was acknowledged, and nothing else");
    twins.end_warned_of("the worker can't be reached").await;
}
