//! Reads from the worker what a cut needs, on connections that are open already: production waits
//! meanwhile, so it takes as few round trips as can be.

use std::{collections::BTreeSet, time::Duration};

use tokio_postgres::{Row, Statement};

use super::{
    cut::{Activity, CutProbe, SequenceValue, full_xid},
    lsn::Lsn,
    session::{Names, Session},
    worker::Worker,
};
use crate::error::{ErrorKind, Side, UserError};

/// More databases than this are not probed: each needs a connection of its own.
const MOST_DATABASES: usize = 64;
/// Longest time for a probe. The gate is shut meanwhile; the caller's own limit is far shorter.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

const ACTIVITY: &str = "SELECT pid, backend_xid::text,
       (extract(epoch FROM xact_start) * 1000000)::bigint,
       (extract(epoch FROM query_start) * 1000000)::bigint,
       (extract(epoch FROM state_change) * 1000000)::bigint,
       coalesce(query ~* '\\mprepare(d\\M|\\s+transaction)', false),
       backend_xmin IS NOT NULL OR wait_event_type IS NOT DISTINCT FROM 'Lock',
       pg_snapshot_xmax(pg_current_snapshot())::text
  FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
const POSITION: &str = "SELECT pg_current_wal_insert_lsn()::text";
const SEQUENCES: &str = "SELECT schemaname::text, sequencename::text, last_value FROM pg_sequences
                          WHERE last_value IS NOT NULL AND schemaname NOT LIKE 'pg\\_temp\\_%'";

/// Open connections with prepared statements, one for each database.
#[derive(Debug)]
pub struct CutProber {
    databases: Vec<(String, Session, Statement)>,
    main: Session,
    activity: Statement,
    position: Statement,
}

impl CutProber {
    /// Opens the connections.
    pub async fn open(worker: &Worker, databases: &[String]) -> Result<Self, UserError> {
        if databases.len() > MOST_DATABASES {
            return Err(UserError::new(ErrorKind::Unfit, Side::Worker, "the worker has too many databases")
                .fact("databases", databases.len())
                .fact("at most", MOST_DATABASES)
                .nothing_changed());
        }
        let main = worker.connect().await?;
        let (activity, position) = (main.prepare(ACTIVITY).await?, main.prepare(POSITION).await?);
        let mut open = Vec::with_capacity(databases.len());
        for database in databases {
            let session = worker.connect_to(database, Names::System).await?;
            let statement = session.prepare(SEQUENCES).await?;
            open.push((database.clone(), session, statement));
        }
        let prober = Self { databases: open, main, activity, position };
        // The first run of each statement fills the backends' caches, while nobody waits.
        prober.probe().await?;
        Ok(prober)
    }

    /// Takes a cut: two round trips.
    pub async fn probe(&self) -> Result<CutProbe, UserError> {
        let read = async {
            let client = self.main.client();
            // Sent together, run one after the other: before, the position, after.
            let (before, position, after) = tokio::join!(
                client.query(&self.activity, &[]),
                client.query(&self.position, &[]),
                client.query(&self.activity, &[]),
            );
            Ok((before?, position?, after?))
        };
        let (before, position, after) = self.main.within(PROBE_LIMIT, read).await?;
        let text: String = position
            .first()
            .map(|row| row.try_get(0))
            .transpose()
            .map_err(|e| self.main.failed(&e))?
            .unwrap_or_default();
        let lsn: Lsn = text.parse().map_err(|_| {
            UserError::new(ErrorKind::CutFailed, Side::Worker, "the worker does not say where it is in its WAL")
        })?;
        // After the position: a value drawn by something before the cut must never be drawn again.
        let sequences = self.sequences().await?;
        Ok(CutProbe { before: self.activities(&before)?, lsn, after: self.activities(&after)?, sequences })
    }

    /// The sessions of the probe itself.
    pub fn own_pids(&self) -> BTreeSet<i32> {
        self.databases.iter().map(|(_, session, _)| session.pid()).chain([self.main.pid()]).collect()
    }

    /// A session to the worker that stays open: for nudging.
    pub fn session(&self) -> &Session {
        &self.main
    }

    async fn sequences(&self) -> Result<Vec<SequenceValue>, UserError> {
        let mut asked = tokio::task::JoinSet::new();
        for (index, (_, session, statement)) in self.databases.iter().enumerate() {
            let (client, statement) = (session.shared_client(), statement.clone());
            asked.spawn(async move { (index, tokio::time::timeout(PROBE_LIMIT, client.query(&statement, &[])).await) });
        }
        let mut all = Vec::new();
        while let Some(answer) = asked.join_next().await {
            let Ok((index, rows)) = answer else { continue };
            let Some((database, session, _)) = self.databases.get(index) else { continue };
            let rows = rows.map_err(|_| {
                UserError::new(ErrorKind::TimedOut, Side::Worker, "the worker takes too long to list its sequences")
                    .fact("database", database)
            })?;
            for row in rows.map_err(|e| session.failed(&e))? {
                all.push(sequence(database, &row).map_err(|e| session.failed(&e))?);
            }
        }
        all.sort();
        Ok(all)
    }

    fn activities(&self, rows: &[Row]) -> Result<Vec<Activity>, UserError> {
        rows.iter().map(activity).collect::<Result<_, _>>().map_err(|e| self.main.failed(&e))
    }
}

fn activity(row: &Row) -> Result<Activity, tokio_postgres::Error> {
    let low: Option<String> = row.try_get(1)?;
    let next: String = row.try_get(7)?;
    let next = next.parse().unwrap_or(0);
    Ok(Activity {
        pid: row.try_get(0)?,
        xid: low.and_then(|low| low.parse().ok()).map(|low| full_xid(low, next)),
        xact_start_us: row.try_get(2)?,
        query_start_us: row.try_get(3)?,
        state_change_us: row.try_get(4)?,
        prepared: row.try_get(5)?,
        runs: row.try_get(6)?,
    })
}

fn sequence(database: &str, row: &Row) -> Result<SequenceValue, tokio_postgres::Error> {
    Ok(SequenceValue {
        database: database.to_owned(),
        schema: row.try_get(0)?,
        name: row.try_get(1)?,
        last_value: row.try_get(2)?,
    })
}
