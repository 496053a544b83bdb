//! A workload with a ledger: sessions that read and write like an analytics application, leave and come
//! back like the clients of a pool, and remember every commit that was acknowledged.
//!
//! It reads `PGHOST`, `PGUSER`, `PGPASSWORD` and `PGDATABASE`. `setup` makes the tables, `run` goes on until
//! it is killed, printing a [`Ledger`] every second.

use std::{
    env,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::{Parser, Subcommand};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls, Statement};
use understudy_kubernetes_tests::ledger::Ledger;

/// A statement that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const SETUP: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text, seen int NOT NULL DEFAULT 0);
    CREATE TABLE events (id bigserial PRIMARY KEY, user_id int NOT NULL, kind int NOT NULL, ts timestamptz NOT NULL,
                         payload text);
    CREATE TABLE ledger (session int, n bigint, note text, PRIMARY KEY (session, n));
";

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the tables, if they are not there.
    Setup {
        /// Rows of the table that is read. So many that an index shows, and so few that all workers and arms of a test
        /// have room on two processors.
        #[arg(long, default_value_t = 40_000)]
        rows: i32,
    },
    /// Reads and writes until it is killed.
    Run {
        /// Sessions at a time.
        #[arg(long, default_value_t = 6)]
        sessions: u32,
        /// The longest life of a connection, in milliseconds.
        #[arg(long, default_value_t = 2000)]
        life_ms: u64,
        /// Mean time between two transactions of a session, in milliseconds.
        #[arg(long, default_value_t = 80)]
        think_ms: u64,
    },
}

type Trouble = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup { rows } => setup(rows).await,
        Command::Run { sessions, life_ms, think_ms } => {
            run(sessions, Duration::from_millis(life_ms), think_ms).await;
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{{\"failed\":\"{error}\"}}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "its output is what it is there for")]
fn say(line: &str) {
    println!("{line}");
}

async fn connect() -> Result<Client, Trouble> {
    let get = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut config = Config::new();
    config
        .host(get("PGHOST", "localhost"))
        .user(get("PGUSER", "postgres"))
        .password(get("PGPASSWORD", ""))
        .dbname(get("PGDATABASE", "postgres"))
        .application_name("workload")
        .connect_timeout(Duration::from_secs(10));
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A Service whose worker has just become ready leads there a moment later.
async fn connect_patiently() -> Result<Client, Trouble> {
    let until = Instant::now() + PATIENCE;
    loop {
        match connect().await {
            Err(_) if Instant::now() < until => sleep(Duration::from_millis(200)).await,
            result => return result,
        }
    }
}

async fn setup(rows: i32) -> Result<(), Trouble> {
    let client = connect_patiently().await?;
    if client.query_one("SELECT to_regclass('ledger')::text", &[]).await?.get::<_, Option<String>>(0).is_some() {
        return Ok(());
    }
    client.batch_execute(SETUP).await?;
    let users = "INSERT INTO users SELECT i, 'user ' || i FROM generate_series(0, 999) i";
    client.execute(users, &[]).await?;
    let events = "INSERT INTO events (user_id, kind, ts, payload)
                  SELECT (i * 7919) % 1000, i % 10, now() - i * interval '1 second', repeat('x', 60)
                    FROM generate_series(1, $1) i";
    client.execute(events, &[&rows]).await?;
    client.batch_execute("VACUUM ANALYZE users, events").await?;
    Ok(())
}

async fn run(sessions: u32, life: Duration, think_ms: u64) {
    let books = Arc::new(Mutex::new(Ledger::default()));
    for session in 0..sessions {
        tokio::spawn(live(session, life, think_ms, Arc::clone(&books)));
    }
    loop {
        let line = serde_json::to_string(&*books.lock().unwrap_or_else(PoisonError::into_inner));
        say(&line.unwrap_or_default());
        sleep(Duration::from_secs(1)).await;
    }
}

async fn live(session: u32, life: Duration, think_ms: u64, books: Arc<Mutex<Ledger>>) {
    let mut rng = StdRng::seed_from_u64(u64::from(session));
    let mut next = 1;
    loop {
        let outcome = one_connection(session, life, think_ms, &mut rng, &mut next, &books).await;
        if let Err(error) = outcome {
            note(&books, |ledger| {
                ledger.errors += 1;
                ledger.last_error = Some(error.to_string());
            });
            sleep(Duration::from_millis(200)).await;
        }
    }
}

fn note(books: &Mutex<Ledger>, write: impl FnOnce(&mut Ledger)) {
    write(&mut books.lock().unwrap_or_else(PoisonError::into_inner));
}

struct Prepared {
    read: Statement,
    insert: Statement,
    enter: Statement,
    touch: Statement,
}

async fn one_connection(
    session: u32,
    life: Duration,
    think_ms: u64,
    rng: &mut StdRng,
    next: &mut i64,
    books: &Mutex<Ledger>,
) -> Result<(), Trouble> {
    let mut client = timeout(PATIENCE, connect()).await??;
    note(books, |ledger| ledger.connections += 1);
    let prepared = Prepared {
        read: client.prepare("SELECT count(*), max(payload) FROM events WHERE user_id = $1 AND kind = $2").await?,
        insert: client.prepare("INSERT INTO events (user_id, kind, ts, payload) VALUES ($1, $2, now(), 'new')").await?,
        enter: client.prepare("INSERT INTO ledger VALUES ($1, $2, 'entered') ON CONFLICT DO NOTHING").await?,
        touch: client.prepare("UPDATE users SET seen = seen + 1 WHERE id = $1").await?,
    };
    let until = Instant::now() + life.mul_f64(rng.random_range(0.5..1.0));
    while Instant::now() < until {
        let (user, kind) = (rng.random_range(0..1000_i32), rng.random_range(0..10_i32));
        let choice = rng.random_range(0..10);
        let done = async {
            match choice {
                0..6 => client.query(&prepared.read, &[&user, &kind]).await.map(drop),
                6..8 => client.execute(&prepared.insert, &[&user, &kind]).await.map(drop),
                _ => {
                    let entry = client.transaction().await?;
                    let number = i32::try_from(session).unwrap_or(i32::MAX);
                    entry.execute(&prepared.enter, &[&number, &*next]).await?;
                    entry.execute(&prepared.touch, &[&user]).await?;
                    entry.commit().await
                }
            }
        };
        timeout(PATIENCE, done).await??;
        note(books, |ledger| {
            ledger.transactions += 1;
            if choice >= 8 {
                ledger.acknowledged.insert(session, *next);
                *next += 1;
            }
        });
        let pause = -(1.0 - rng.random::<f64>()).ln();
        sleep(Duration::from_millis(think_ms).mul_f64(pause.min(5.0))).await;
    }
    Ok(())
}
