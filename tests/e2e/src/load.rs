//! Production's clients, beside which something goes wrong: each writes, changes rows that all of them change,
//! and reads what it has written. They count what was acknowledged and how long it took.

#![expect(clippy::print_stdout, reason = "what was measured, or left out, is for who reads the test's output")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_postgres::{Client, Error};

use crate::{application::connect, tables::Rows};

/// How long one step may take before the test has failed.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// What each entry of the ledger carries, so that the log has something to keep.
const NOTE_BYTES: usize = 1500;

/// A disk that is busy with others keeps a commit waiting for seconds; an arm that production waited for would do so
/// for as long as it is ill.
const UNEXPLAINED_MS: f64 = 10_000.0;

/// The tables it works with.
pub const TABLES: &str = "CREATE TABLE ledger (session bigint, entry bigint, note text, PRIMARY KEY (session, entry));
    CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL);
    INSERT INTO counters SELECT i, 0 FROM generate_series(0, 7) i";
/// What is compared of them.
pub const ROWS: [Rows; 2] = [("ledger", "t::text"), ("counters", "t::text")];

/// What clients saw for a while.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Steps a second.
    pub rate: f64,
    /// Their 99th percentile, ms.
    pub p99_ms: f64,
    /// The slowest, ms.
    pub slowest_ms: f64,
}

impl Figures {
    /// Prints them. What production feels is judged by benchmarks: only what nobody's noise explains fails here.
    pub fn expect_fair(&self, when: &str) {
        let Self { rate, p99_ms, slowest_ms } = self;
        println!("{when}: {rate:.0} steps a second, p99 {p99_ms:.1} ms, slowest {slowest_ms:.1} ms");
        assert!(*rate > 0.0, "{when}: nothing was answered");
        assert!(*slowest_ms < UNEXPLAINED_MS, "{when}: a client waited {slowest_ms:.0} ms");
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Acknowledged {
    entries: i64,
    counted: i64,
}

type Latencies = Arc<Mutex<Histogram<u64>>>;

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    sessions: Vec<JoinHandle<Result<Acknowledged, String>>>,
    latencies: Latencies,
    since: Instant,
}

impl Load {
    /// Opens the sessions; each takes a step every `period`, unless the one before took longer.
    pub async fn start(through: SocketAddr, sessions: i64, period: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let latencies = Arc::new(Mutex::new(Histogram::new(3).expect("a histogram")));
        let mut started = Vec::new();
        for number in 0..sessions {
            let client = connect(through).await.expect("a session through the mirror");
            started.push(tokio::spawn(serve(client, number, period, stopped.clone(), Arc::clone(&latencies))));
        }
        Self { stop, sessions: started, latencies, since: Instant::now() }
    }

    /// What the clients saw since the last call.
    pub fn figures(&mut self) -> Figures {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = std::mem::replace(&mut self.since, Instant::now()).elapsed().as_secs_f64();
        let ms = |us: u64| us as f64 / 1000.0;
        let figures = Figures {
            rate: latencies.len() as f64 / seconds,
            p99_ms: ms(latencies.value_at_quantile(0.99)),
            slowest_ms: ms(latencies.max()),
        };
        latencies.reset();
        figures
    }

    /// Ends the sessions: none has seen an error, and the worker has what it acknowledged, no more and no less.
    pub async fn expect_kept(self, worker: &Client) {
        self.stop.send_replace(true);
        let mut all = Acknowledged::default();
        for session in self.sessions {
            let served = timeout(STEP_LIMIT * 2, session).await.expect("the session's end").expect("a session");
            let served = served.unwrap_or_else(|error| panic!("a client saw an error: {error}"));
            all.entries += served.entries;
            all.counted += served.counted;
        }
        let sql = "SELECT (SELECT count(*) FROM ledger), (SELECT sum(n)::bigint FROM counters)";
        let row = worker.query_one(sql, &[]).await.expect("the ledger");
        println!("{} entries and {} changes of rows were acknowledged", all.entries, all.counted);
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (all.entries, all.counted), "on the worker");
    }
}

async fn serve(
    client: Client,
    number: i64,
    period: Duration,
    mut stopped: watch::Receiver<bool>,
    latencies: Latencies,
) -> Result<Acknowledged, String> {
    let mut client = client;
    let mut acknowledged = Acknowledged::default();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0.. {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {}
        }
        let began = Instant::now();
        let stepped = timeout(STEP_LIMIT, step(&mut client, number, n, &mut acknowledged)).await;
        let stepped = stepped.map_err(|_| format!("session {number}: no answer within {STEP_LIMIT:?}"))?;
        stepped.map_err(|error| format!("session {number}: {error:?}"))?;
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        latencies.lock().unwrap_or_else(PoisonError::into_inner).record(us).expect("a latency");
    }
    Ok(acknowledged)
}

async fn step(client: &mut Client, number: i64, n: i64, acknowledged: &mut Acknowledged) -> Result<(), Error> {
    const INSERT: &str = "INSERT INTO ledger VALUES ($1, $2, $3)";
    const COUNT: &str = "UPDATE counters SET n = n + 1 WHERE id = $1";
    // Stand-alone updates and transactions wait for one another's rows.
    let row = i32::try_from((n / 4 + number) % 4).unwrap_or(0);
    let note = "x".repeat(NOTE_BYTES);
    match n % 4 {
        0 => {
            client.execute(INSERT, &[&number, &acknowledged.entries, &note]).await?;
            acknowledged.entries += 1;
        }
        1 => {
            client.execute(COUNT, &[&row]).await?;
            acknowledged.counted += 1;
        }
        2 => {
            let sql = "SELECT length(note) FROM ledger WHERE session = $1 AND entry = $2";
            client.query_one(sql, &[&number, &(acknowledged.entries - 1)]).await?;
        }
        _ => {
            let transaction = client.transaction().await?;
            transaction.execute(COUNT, &[&row]).await?;
            transaction.execute(INSERT, &[&number, &acknowledged.entries, &note]).await?;
            transaction.commit().await?;
            acknowledged.counted += 1;
            acknowledged.entries += 1;
        }
    }
    Ok(())
}
