//! Clients that vanish in the middle of anything, with a reset or as a process that has ended: their backend ends
//! as soon as it would without a mirror, nothing of them is left in the mirror, and nobody else notices.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;
use tokio_postgres::Client;
use understudy_e2e::{
    load::{Load, ROWS, TABLES},
    raw::{Raw, startup},
    stage::Servers,
    wire::{execute, message, query},
};
use understudy_harness::wait_until;

/// How much longer than direct a backend may stay.
const LATER: Duration = Duration::from_secs(2);
const MORE: &str = "CREATE TABLE held (i int PRIMARY KEY); INSERT INTO held VALUES (1);
    CREATE TABLE copied (i int);
    CREATE TABLE written (with_reset boolean PRIMARY KEY, n int); INSERT INTO written VALUES (true, 0), (false, 0);
    CREATE ROLE asked LOGIN PASSWORD 'asked'";

/// Where the client was when it vanished.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Nothing,
    Startup,
    Password,
    Idle,
    Message,
    Pipeline,
    Committed,
    Write,
    CopyIn,
    CopyOut,
    Lock,
    Sleep,
    Call,
    Replication,
}

const MOMENTS: [Moment; 14] = [
    Moment::Nothing,
    Moment::Startup,
    Moment::Password,
    Moment::Idle,
    Moment::Message,
    Moment::Pipeline,
    Moment::Committed,
    Moment::Write,
    Moment::CopyIn,
    Moment::CopyOut,
    Moment::Lock,
    Moment::Sleep,
    Moment::Call,
    Moment::Replication,
];
/// `pg_sleep(float8)` by its number, which is the same in every server.
const PG_SLEEP: u32 = 2626;

impl Moment {
    /// What is said after the login, and what is waited for before the client goes.
    fn said(self, with_reset: bool) -> (Vec<u8>, Option<u8>) {
        match self {
            Self::Nothing | Self::Startup | Self::Password | Self::Idle => (Vec::new(), None),
            Self::Message => (vec![b'Q', 0, 0, 1, 0, b'S', b'E'], None),
            Self::Pipeline => (execute("SELECT 1", &[]).repeat(100), None),
            // The one is committed, the other is not: there is no Sync.
            Self::Committed => {
                let update = query("BEGIN; UPDATE held SET i = 5");
                let undone = execute("UPDATE held SET i = 6 RETURNING i", &[]);
                ([update, execute("COMMIT", &[]), message(b'H', &[]), undone, message(b'H', &[])].concat(), Some(b'D'))
            }
            // The worker commits it when its client has long gone; direct it does what it has done already.
            Self::Write => {
                let sql = format!("UPDATE written SET n = 1 FROM pg_sleep(1.5) WHERE with_reset = {with_reset}");
                (query(&sql), None)
            }
            Self::CopyIn => ([query("COPY copied FROM STDIN"), message(b'd', b"1\n2\n")].concat(), Some(b'G')),
            Self::CopyOut => {
                (query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"), Some(b'd'))
            }
            Self::Lock => (query("BEGIN; UPDATE held SET i = i; LOCK TABLE copied"), Some(b'Z')),
            Self::Sleep => (query("SELECT pg_sleep(1.5)"), None),
            Self::Call => {
                let body = [&PG_SLEEP.to_be_bytes()[..], b"\0\0\0\x01\0\0\0\x031.5\0\0"];
                (message(b'F', &body.concat()), None)
            }
            // From the first segment that there is: so soon no server has put it away.
            Self::Replication => (query("START_REPLICATION 0/1000000"), Some(b'd')),
        }
    }

    /// Whether the worker is at something then.
    fn sleeps(self) -> bool {
        matches!(self, Self::Write | Self::Sleep | Self::Call)
    }

    async fn reach(self, address: SocketAddr, with_reset: bool) -> Raw {
        match self {
            Self::Nothing => Raw::connect(address).await,
            Self::Startup => {
                let mut raw = Raw::connect(address).await;
                let packet = startup("postgres");
                raw.send(packet.split_at(packet.len() / 2).0).await;
                raw
            }
            Self::Replication => {
                let mut raw = Raw::connect(address).await;
                raw.send(REPLICATION_STARTUP).await;
                raw.until(b'Z').await;
                self.say(raw, with_reset).await
            }
            Self::Password => {
                let mut raw = Raw::connect(address).await;
                raw.send(&startup("asked")).await;
                raw.until(b'R').await;
                raw
            }
            _ => self.say(Raw::login(address).await, with_reset).await,
        }
    }

    async fn say(self, mut raw: Raw, with_reset: bool) -> Raw {
        let (said, heard) = self.said(with_reset);
        raw.send(&said).await;
        if let Some(kind) = heard {
            raw.until(kind).await;
        }
        raw
    }
}

/// Of a walsender that is in a database: `all` of a server's rules lets it in.
const REPLICATION_STARTUP: &[u8] = b"\0\0\0\x3e\0\x03\0\0user\0postgres\0database\0postgres\0replication\0database\0\0";

/// Backends and walsenders that clients have, and locks of tables and rows that they hold, but for the looker's.
async fn left(looker: &Client) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')
                           AND pid <> pg_backend_pid())
                    + (SELECT count(*) FROM pg_locks WHERE relation IN ('held'::regclass, 'copied'::regclass))";
    looker.query_one(sql, &[]).await.expect("a look").get(0)
}

async fn sleeping(looker: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    looker.query_one(sql, &[]).await.expect("a look").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_client_that_vanished() {
    let servers = Servers::start_asking("asked", 2, &format!("{TABLES}; {MORE}")).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let worker = stage.servers.worker.connect().await;
    let others = Load::start(stage.through, 2, Duration::from_millis(50)).await;
    for name in ["baseline", "candidate"] {
        // Their sessions are open files of the mirror too.
        stage.arm_until(name, "playing", |arm| arm.exchanges.played > 10).await;
    }
    let before = left(&worker).await;
    let (files, sessions) = (stage.open_files(), stage.metric("understudy_sessions").await);
    println!("{before} backends, {sessions} sessions, {files} open files of the mirror");
    for moment in MOMENTS {
        for with_reset in [true, false] {
            let mut took = Vec::new();
            for address in [stage.direct, stage.through] {
                let client = moment.reach(address, with_reset).await;
                if moment.sleeps() {
                    wait_until("it runs", || async { sleeping(&worker).await == 1 }).await;
                }
                client.vanish(with_reset);
                let began = Instant::now();
                wait_until(&format!("{moment:?}: its backend and its locks are gone"), || async {
                    left(&worker).await == before
                })
                .await;
                took.push(began.elapsed());
            }
            println!("{moment:?}, reset: {with_reset}: gone after {:?} direct, {:?} through", took[0], took[1]);
            assert!(took[1] < took[0] + LATER, "{moment:?}, reset: {with_reset}: {took:?}");
            wait_until(&format!("{moment:?}: the mirror has forgotten it"), || async {
                // The question itself comes through a socket of the mirror's.
                stage.metric("understudy_sessions").await == sessions && stage.open_files() <= files + 2
            })
            .await;
        }
    }
    others.expect_kept(&worker).await;
    let tables = [ROWS[0], ROWS[1], ("held", "t::text"), ("copied", "t::text"), ("written", "t::text")];
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &tables).await;
        println!("{name}: {:?} {:?}", arm.exchanges, arm.divergence);
    }
    wait_until("the arms' sessions are gone too", || async { stage.open_files() <= files + 2 }).await;
    stage.end().await;
}
