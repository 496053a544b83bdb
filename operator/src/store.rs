//! The results of experiments, in a SQLite file: what was asked, measured, found and done.
//!
//! Everything the report shows can be made again from it. It is written in batches, a transaction for
//! each, by the control plane alone; the path of production never waits for it.

mod encode;
mod error;
mod read;
mod write;

use std::{path::PathBuf, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use understudy_crds::{
    ShadowExperiment, ShadowExperimentStatus,
    report::{Environment, FingerprintReport, TimelineEvent},
    status::{PromotionOutcome, Verdict},
};
use understudy_mirror::measure::interval::Interval;

pub use self::error::StoreError;

/// For how long a statement waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The results of experiments.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    path: PathBuf,
}

/// One run of an experiment in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run(i64);

/// When an interval was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// While the experiment observed.
    Observing,
    /// After the promotion: production has the change.
    Promoted,
}

/// What is written in one transaction. What is empty or unset is left as it was.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Intervals, with their stage.
    pub intervals: Vec<(Stage, Interval)>,
    /// The whole status, its arms and outcomes.
    pub status: Option<ShadowExperimentStatus>,
    /// The environment, when more of it is known.
    pub environment: Option<Environment>,
    /// All statements so far; they take the place of those before.
    pub fingerprints: Option<Vec<FingerprintReport>>,
    /// Changes of the verdict, with their time (RFC 3339).
    pub verdicts: Vec<(String, Verdict)>,
    /// What happened.
    pub events: Vec<TimelineEvent>,
    /// When the experiment ended, RFC 3339.
    pub ended_at: Option<String>,
}

/// Everything that is kept of one run.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The experiment as it was asked for.
    pub experiment: ShadowExperiment,
    /// The last status.
    pub status: ShadowExperimentStatus,
    /// Where it ran.
    pub environment: Environment,
    /// Intervals of observation, in order.
    pub observed: Vec<Interval>,
    /// Intervals after the promotion, in order.
    pub promoted: Vec<Interval>,
    /// Statements, those that took most of production's time first.
    pub fingerprints: Vec<FingerprintReport>,
    /// Changes of the verdict, with their time.
    pub verdicts: Vec<(String, Verdict)>,
    /// What happened, in order.
    pub timeline: Vec<TimelineEvent>,
    /// After a promotion: what was predicted, and what happened.
    pub outcomes: Vec<PromotionOutcome>,
}

impl Store {
    /// Opens the store, and makes it if there is none: `sqlite:PATH`, or a path.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let path = path_of(url)?;
        let failed = |source| StoreError::Open { path: path.clone(), source };
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(failed)?;
        let store = Self { pool, path };
        sqlx::migrate!("./migrations")
            .run(&store.pool)
            .await
            .map_err(|source| StoreError::Migrate { path: store.path.clone(), source: Box::new(source) })?;
        Ok(store)
    }

    /// Writes what is pending and closes the file.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

/// The file that a URL names.
fn path_of(url: &str) -> Result<PathBuf, StoreError> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    match scheme {
        Some("postgres" | "postgresql") => Err(StoreError::PostgresNotSupported),
        Some("sqlite") => {
            let path = url.trim_start_matches("sqlite:");
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() { Err(StoreError::NoFile) } else { Ok(PathBuf::from(path)) }
        }
        _ if url.is_empty() => Err(StoreError::NoFile),
        _ => Ok(PathBuf::from(url)),
    }
}

#[cfg(test)]
mod tests;
