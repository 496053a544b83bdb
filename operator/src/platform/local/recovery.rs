//! The clone's side of the cut: it recovers to exactly the cut, is asked about transactions in
//! doubt, and becomes a server of its own.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    arm::{Arm, CONSISTENCY_LIMIT, POLL, Standstill, blame_parameters, is_paused, replayed},
    arm_config::Stage,
    lsn::Lsn,
    server::START_LIMIT,
    session::{STATEMENT_LIMIT, Session},
};
use crate::error::{ErrorKind, Side, UserError};

/// A page header stands between the end of a record and the next position at a page's beginning.
const PAGE_HEADER_BYTES: u64 = 40;
/// How often the worker is nudged while a clone waits for a record behind the cut.
const NUDGE_EVERY: Duration = Duration::from_millis(250);
const PROMOTION_LIMIT: Duration = Duration::from_secs(120);

/// What a clone found at the cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The end of the last record that it replayed.
    pub replayed: Lsn,
    /// For each transaction asked about, by number: whether it was committed before the cut.
    pub committed: BTreeMap<u64, bool>,
}

impl Arm {
    /// Recovers to just before `cut`, asks about transactions in doubt (`ask`, 64-bit numbers) and
    /// ends recovery. The clone must be paused before the cut. `worker` is an open session to the
    /// worker: recovery ends only when a record behind the cut arrives, so it is nudged.
    ///
    /// `started` is told of every process that is made.
    pub async fn recover_to(
        &mut self,
        cut: Lsn,
        ask: &[u64],
        worker: &Session,
        mut started: impl FnMut(&'static str, u32, u64) -> Result<(), UserError>,
    ) -> Result<Recovered, UserError> {
        self.spec.write_config(&Stage::Recover { primary_conninfo: self.spec.conninfo(), cut })?;
        self.relaunch(&mut started, CONSISTENCY_LIMIT, Some(worker)).await?;
        let session = self.connect().await?;
        let recovered = self.at_the_cut(&session, cut, ask, worker).await?;
        self.end_recovery(&session).await?;
        drop(session);
        // All arms start their own life in the same way: a new start, with the final configuration.
        self.spec.write_config(&Stage::Own { door: self.door.clone() })?;
        self.relaunch(&mut started, START_LIMIT, None).await?;
        Ok(recovered)
    }

    async fn relaunch(
        &mut self,
        started: &mut impl FnMut(&'static str, u32, u64) -> Result<(), UserError>,
        limit: Duration,
        nudge: Option<&Session>,
    ) -> Result<(), UserError> {
        self.server.stop(super::server::STOP_LIMIT).await;
        self.server.launch_again().await?;
        started("postgres", self.server.pid(), self.server.start_time())?;
        let ready = self.server.wait_ready(limit);
        let result = match nudge {
            None => ready.await,
            Some(worker) => {
                tokio::select! {
                    result = ready => result,
                    error = nudge_forever(worker) => Err(error),
                }
            }
        };
        result.map_err(|e| blame_parameters(e, &self.spec))
    }

    async fn at_the_cut(
        &self,
        session: &Session,
        cut: Lsn,
        ask: &[u64],
        worker: &Session,
    ) -> Result<Recovered, UserError> {
        let mut watch = Standstill::new();
        let mut nudged = Instant::now();
        loop {
            let in_recovery = session.value::<bool>("SELECT pg_is_in_recovery()", &[]).await?.unwrap_or(false);
            // Where nobody could connect in time the server passes over the pause; the stop is the same.
            if !in_recovery || is_paused(session, self.spec.facts.version.major).await? {
                break;
            }
            if watch.stands_still_at(replayed(session).await?) {
                return Err(self.missed("did not reach the cut", cut, replayed(session).await?));
            }
            self.check_running("stopped before it reached the cut")?;
            if nudged.elapsed() >= NUDGE_EVERY {
                nudge(worker).await?;
                nudged = Instant::now();
            }
            tokio::time::sleep(POLL).await;
        }
        let replayed = replayed(session).await?;
        if !stopped_at(replayed, cut) {
            return Err(self.missed("stopped elsewhere than at the cut", cut, replayed));
        }
        let mut committed = BTreeMap::new();
        for xid in ask {
            committed.insert(*xid, was_committed(session, *xid).await?);
        }
        Ok(Recovered { replayed, committed })
    }

    async fn end_recovery(&self, session: &Session) -> Result<(), UserError> {
        let in_recovery = "SELECT pg_is_in_recovery()";
        if session.value::<bool>(in_recovery, &[]).await? == Some(true) {
            session.rows("SELECT pg_wal_replay_resume()", &[]).await?;
        }
        let end = Instant::now() + PROMOTION_LIMIT;
        while session.value::<bool>(in_recovery, &[]).await? != Some(false) {
            self.check_running("stopped while it left the worker's WAL")?;
            if Instant::now() >= end {
                return Err(self.server.failed("does not leave the worker's WAL", ErrorKind::TimedOut));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn missed(&self, what: &str, cut: Lsn, replayed: Lsn) -> UserError {
        UserError::new(ErrorKind::CutFailed, Side::Arm, format!("the clone {} {what}", self.name()))
            .fact("cut", cut)
            .fact("replayed to", replayed)
            .fact("log", self.spec.log_file().display())
    }
}

/// Whether a server that replayed to the end of a record has stopped at the cut.
fn stopped_at(replayed: Lsn, cut: Lsn) -> bool {
    replayed <= cut && cut.bytes_since(replayed) <= PAGE_HEADER_BYTES
}

/// Makes the worker write and flush one tiny record: a transaction number and its end, no data. No
/// consumer of logical replication sees an empty transaction.
pub async fn nudge(worker: &Session) -> Result<(), UserError> {
    worker.within(STATEMENT_LIMIT, worker.client().query("SELECT pg_current_xact_id()", &[])).await.map(|_| ())
}

async fn nudge_forever(worker: &Session) -> UserError {
    loop {
        if let Err(error) = nudge(worker).await {
            return error;
        }
        tokio::time::sleep(NUDGE_EVERY).await;
    }
}

/// Whether a transaction was committed before the place where the clone rests.
async fn was_committed(session: &Session, xid: u64) -> Result<bool, UserError> {
    let xid_text = xid.to_string();
    let sql = "SELECT CASE WHEN $1::text::xid8 >= pg_snapshot_xmax(pg_current_snapshot()) THEN 'in progress'
                           ELSE pg_xact_status($1::text::xid8) END";
    match session.value::<String>(sql, &[&xid_text]).await?.as_deref() {
        Some("committed") => Ok(true),
        Some("aborted" | "in progress") => Ok(false),
        other => {
            Err(UserError::new(ErrorKind::CutFailed, Side::Arm, "the fate of a transaction is not known any more")
                .fact("transaction", xid)
                .fact("status", other.unwrap_or("too old")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_header_may_lie_between_the_last_record_and_the_cut() {
        for (replayed, cut, expected) in [
            (0x1000, 0x1000, true),
            (0x1FE8, 0x2018, false),
            (0x2000, 0x2018, true),
            (0x100_0000, 0x100_0028, true),
            (0x2000, 0x1FF0, false),
        ] {
            assert_eq!(stopped_at(Lsn(replayed), Lsn(cut)), expected, "{replayed:x} {cut:x}");
        }
    }
}
