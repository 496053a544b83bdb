//! Keeps the worker from removing WAL that a clone has still to follow.
//!
//! A *temporary* replication slot of a session of our own: when we are gone, for whatever reason, the
//! worker drops it by itself. A permanent one that is forgotten fills production's disk. It keeps no
//! more than a limit, and lets go of what all clones have received.

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle};

use super::{preflight::mebibytes, session::Session, worker::Worker};
use crate::error::{ErrorKind, Side, UserError};

const TEND_EVERY: Duration = Duration::from_secs(1);

/// Holds WAL on the worker until it is dropped.
#[derive(Debug)]
pub struct WalHold {
    pid: i32,
    slot: String,
    task: JoinHandle<()>,
    gave_up: watch::Receiver<Option<UserError>>,
}

impl WalHold {
    /// Begins to hold WAL from now on, at most `limit_bytes`, for so many clones of a `run`.
    pub async fn take(worker: &Worker, run: &RunTag, clones: usize, limit_bytes: u64) -> Result<Self, UserError> {
        let session = worker.connect().await?;
        let pid = session.pid();
        let slot = format!("understudy_{}_{pid}", run.0);
        let created = session.rows("SELECT pg_create_physical_replication_slot($1, true, true)", &[&slot]).await;
        created.map_err(|e| {
            e.remedy("see max_replication_slots and pg_replication_slots on the worker").nothing_changed()
        })?;
        let (tell, gave_up) = watch::channel(None);
        let (tended, standbys) = (slot.clone(), run.standby_name(""));
        let task = tokio::spawn(async move {
            let error = tend(&session, &tended, &standbys, clones, limit_bytes).await;
            // The session ends here, and with it the slot: production comes first.
            drop(session);
            tell.send_replace(Some(error));
        });
        Ok(Self { pid, slot, task, gave_up })
    }

    /// The number of its backend on the worker.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The slot's name on the worker.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// Waits until it does not hold any more, and says why.
    pub async fn gave_up(&self) -> UserError {
        let mut gave_up = self.gave_up.clone();
        match gave_up.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            Ok(None) | Err(_) => UserError::new(ErrorKind::Cancelled, Side::Host, "WAL is not kept any more"),
        }
    }
}

impl Drop for WalHold {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What tells the clones of one run from all others on the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunTag(String);

impl RunTag {
    /// The clones are servers of this process.
    pub fn of_this_process() -> Self {
        Self(std::process::id().to_string())
    }

    /// The clones are pods of an experiment. Only what may stand in a slot's name is kept.
    pub fn of_experiment(namespace: &str, name: &str) -> Self {
        let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
        Self(format!("{namespace}_{name}").chars().map(plain).take(40).collect())
    }

    /// The name by which the worker knows a clone.
    pub(super) fn standby_name(&self, arm: &str) -> String {
        format!("understudy_{}_{arm}", self.0)
    }
}

async fn tend(session: &Session, slot: &str, standbys: &str, clones: usize, limit_bytes: u64) -> UserError {
    loop {
        match held_bytes(session, slot).await {
            Err(error) => return error,
            Ok(held) if held > limit_bytes => {
                return UserError::new(ErrorKind::Unfit, Side::Worker, "the clones keep too much WAL on the worker")
                    .fact("kept", mebibytes(held))
                    .fact("limit", mebibytes(limit_bytes))
                    .remedy("clone when the worker writes less, or over a faster network");
            }
            Ok(_) => {}
        }
        if let Err(error) = let_go(session, slot, standbys, clones).await {
            return error;
        }
        tokio::time::sleep(TEND_EVERY).await;
    }
}

/// Bytes of WAL that the worker keeps for us.
async fn held_bytes(session: &Session, slot: &str) -> Result<u64, UserError> {
    let sql =
        "SELECT (pg_current_wal_insert_lsn() - restart_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1";
    match session.value::<i64>(sql, &[&slot]).await? {
        Some(held) => Ok(u64::try_from(held).unwrap_or(0)),
        None => Err(UserError::new(ErrorKind::Unfit, Side::Worker, "the worker gave up the WAL that the clones need")
            .fact("reason", "max_slot_wal_keep_size is exceeded")
            .remedy("raise max_slot_wal_keep_size on the worker, or clone when it writes less")),
    }
}

/// Once all clones follow live, what they have is not needed any more.
async fn let_go(session: &Session, slot: &str, standbys: &str, clones: usize) -> Result<(), UserError> {
    let sql = "SELECT pg_replication_slot_advance($1, s.flushed)
                 FROM (SELECT min(flush_lsn) AS flushed, count(flush_lsn) AS standbys FROM pg_stat_replication
                        WHERE starts_with(application_name, $2) AND state = 'streaming') s,
                      pg_replication_slots r
                WHERE r.slot_name = $1 AND s.standbys = $3 AND r.restart_lsn < s.flushed";
    let clones = i64::try_from(clones).unwrap_or(i64::MAX);
    session.rows(sql, &[&slot, &standbys, &clones]).await.map(|_| ())
}
