//! The demo's data: an analytics database of users and their events, the same on every machine.
//!
//! Events are indexed by type and time but not by user: the question that the demo's experiment
//! asks. Loading must leave nothing for autovacuum to do, since that would disturb the measurement.

mod sql;

use tokio_postgres::{Client, SimpleQueryMessage};

/// Users, numbered from 1.
pub const USERS: u32 = 50_000;
/// Accounts that users belong to, numbered from 1.
pub const ACCOUNTS: u32 = 500;
/// Events, numbered from 1, in the order in which they happened.
pub const EVENTS: u64 = 1_500_000;
/// When the first event happened, seconds since 1970: 2026-01-01 UTC.
pub const FIRST_EVENT_S: i64 = 1_767_225_600;
/// Days over which the events are spread evenly.
pub const DAYS: i64 = 90;
/// When the data ends and the application's own time begins, seconds since 1970.
pub const LAST_EVENT_S: i64 = FIRST_EVENT_S + DAYS * 86_400;
/// Types of events; the first is the most frequent.
pub const EVENT_TYPES: [&str; 5] = ["page_view", "click", "search", "signup", "purchase"];

/// Rows that one statement inserts.
const BATCH: u64 = 50_000;

/// The data set could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the demo's data could not be loaded ({step}); start the demo with an empty directory and 2 GB of free disk")]
pub struct LoadError {
    /// What was being done.
    pub step: &'static str,
    /// What the server said.
    #[source]
    pub source: tokio_postgres::Error,
}

/// What has been loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Rows of `events`.
    pub events: u64,
    /// Size of the database, bytes.
    pub bytes: u64,
}

/// Loads the data set into an empty database, as a superuser.
///
/// `progress` is called with rows done and rows to do; indexes and statistics follow after the last
/// row and take about a third of the time.
pub async fn load(client: &Client, progress: impl Fn(u64, u64)) -> Result<Loaded, LoadError> {
    let total = EVENTS + u64::from(USERS) + u64::from(ACCOUNTS);
    let run = async |step: &'static str, sql: &str| {
        client.batch_execute(sql).await.map_err(|source| LoadError { step, source })
    };
    progress(0, total);
    run("creating tables", sql::TABLES).await?;
    run("loading accounts", &sql::accounts()).await?;
    run("loading users", &sql::users()).await?;
    let mut done = total - EVENTS;
    progress(done, total);
    for first in (1..=EVENTS).step_by(usize::try_from(BATCH).unwrap_or(usize::MAX)) {
        let last = EVENTS.min(first + BATCH - 1);
        run("loading events", &sql::events(first, last)).await?;
        done += last - first + 1;
        progress(done, total);
    }
    run("creating indexes", sql::KEYS).await?;
    for statement in sql::SETTLE {
        run("collecting statistics", statement).await?;
    }
    Ok(Loaded { events: EVENTS, bytes: database_bytes(client).await? })
}

async fn database_bytes(client: &Client) -> Result<u64, LoadError> {
    let failed = |source| LoadError { step: "reading the size", source };
    let answer = client.simple_query("SELECT pg_database_size(current_database())").await.map_err(failed)?;
    let size = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    Ok(size.unwrap_or(0))
}
