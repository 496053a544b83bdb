//! Who reaches the worker without passing the mirror: their writes would be missing on the clones.

use std::collections::BTreeSet;

use super::{cut_probe::CutProber, session::Session, wal_hold::WalHold, worker::Worker};
use crate::error::UserError;

/// Something that may write to the worker and does not come through the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectSession {
    /// Its backend on the worker.
    pub pid: i32,
    /// `client backend`, `logical replication worker`, `pg_cron` …
    pub kind: String,
    /// Its role.
    pub user: String,
    /// Its database.
    pub database: String,
    /// What it calls itself.
    pub application: String,
    /// Where it comes from; empty for a unix socket or a background process.
    pub address: String,
    /// Whether it has written in the transaction that is open now.
    pub writing: bool,
    /// Whether a transaction is open now.
    pub in_transaction: bool,
}

impl DirectSession {
    /// Whether it comes from another machine or pod; what sits beside the server (an exporter, `pg_cron`)
    /// does not.
    pub fn comes_over_the_network(&self) -> bool {
        let host = self.address.split('/').next().unwrap_or_default();
        host.parse::<std::net::IpAddr>().is_ok_and(|address| !address.is_loopback())
    }
}

/// Background processes that never write for anybody.
const HARMLESS: &str = "'walwriter', 'checkpointer', 'background writer', 'autovacuum launcher', 'autovacuum worker', \
    'archiver', 'startup', 'logger', 'walsender', 'walreceiver', 'walsummarizer', 'slotsync worker', 'io worker', \
    'logical replication launcher', 'parallel worker', 'stats collector'";

/// Finds them, on either platform: `mirrored` are the backends of the mirror's sessions; what prepares the
/// cut has sessions of its own.
pub async fn around_the_mirror(
    worker: &Worker,
    mirrored: &[i32],
    prober: Option<&CutProber>,
    hold: Option<&WalHold>,
) -> Result<Vec<DirectSession>, UserError> {
    let mut ours: BTreeSet<i32> = mirrored.iter().copied().collect();
    ours.extend(prober.into_iter().flat_map(CutProber::own_pids));
    ours.extend(hold.map(WalHold::pid));
    let session = worker.connect().await?;
    direct_sessions(&session, &ours).await
}

/// Finds them. `ours` are the backends of the mirror's sessions and of our own control sessions.
pub async fn direct_sessions(session: &Session, ours: &BTreeSet<i32>) -> Result<Vec<DirectSession>, UserError> {
    let sql = format!(
        "SELECT pid, backend_type, coalesce(usename::text, ''), coalesce(datname::text, ''),
                coalesce(application_name, ''), coalesce(host(client_addr), ''),
                backend_xid IS NOT NULL, xact_start IS NOT NULL
           FROM pg_stat_activity
          WHERE pid <> pg_backend_pid() AND pid <> ALL ($1) AND backend_type NOT IN ({HARMLESS})
          ORDER BY pid"
    );
    let ours: Vec<i32> = ours.iter().copied().collect();
    let rows = session.rows(&sql, &[&ours]).await?;
    rows.iter()
        .map(|row| {
            Ok(DirectSession {
                pid: row.try_get(0)?,
                kind: row.try_get(1)?,
                user: row.try_get(2)?,
                database: row.try_get(3)?,
                application: row.try_get(4)?,
                address: row.try_get(5)?,
                writing: row.try_get(6)?,
                in_transaction: row.try_get(7)?,
            })
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|e| session.failed(&e))
}

/// Ends them, for `capture.direct: Terminate`. Says how many there were to end; clients only.
pub async fn terminate(session: &Session, found: &[DirectSession]) -> Result<usize, UserError> {
    let pids: Vec<i32> = found.iter().filter(|s| s.kind == "client backend").map(|s| s.pid).collect();
    // The number may have gone to another backend since; only the same kind of thing is ended.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE pid = ANY ($1) AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    session.rows(sql, &[&pids]).await.map(|rows| rows.len())
}
