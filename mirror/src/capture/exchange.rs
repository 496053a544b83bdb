//! An exchange: what a client sends until the server owes it a ReadyForQuery, and what came of it.
//! The unit that is mirrored. Its statements are the units that are measured.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::wire::{
    backend::{SqlState, TransactionStatus},
    startup::Startup,
};

/// A client session, unique while the mirror runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What is known of a client session from its beginning.
#[derive(Debug)]
pub struct SessionInfo {
    /// Which session.
    pub id: SessionId,
    /// What the client asked for.
    pub startup: Startup,
    /// Process id of production's backend.
    pub backend_pid: i32,
}

/// One exchange. The request is known when it is made, the outcome is added once.
#[derive(Debug)]
pub struct Exchange {
    /// The session it belongs to.
    pub session: SessionId,
    /// Its number in the session, from 0.
    pub sequence: u64,
    /// When its first byte came, ns since the mirror's epoch.
    pub begun_ns: u64,
    /// The messages as the client sent them.
    pub request: Bytes,
    /// What came of it; empty while it runs.
    pub outcome: OnceLock<Outcome>,
}

/// What came of an exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When the server began to work on it: when its first byte was sent, or the answer to the
    /// exchange before it had come, whichever is later; ns since the mirror's epoch.
    pub served_from_ns: u64,
    /// When its ReadyForQuery came, ns since the mirror's epoch.
    pub ended_ns: u64,
    /// The statements in the order in which they were executed.
    pub statements: Vec<StatementOutcome>,
    /// Parse messages of it that succeeded: the first so many.
    pub parsed: usize,
    /// Transaction status before it.
    pub before: TransactionStatus,
    /// Transaction status after it.
    pub after: TransactionStatus,
    /// Data of a COPY that the client sent after the request.
    pub copy_in: Bytes,
    /// The connection broke before the answer was complete: nobody knows what came of it.
    pub broken: bool,
}

impl Outcome {
    /// What it takes of the memory budget, bytes.
    pub fn kept_bytes(&self) -> usize {
        self.copy_in.len() + self.statements.len() * size_of::<StatementOutcome>()
    }

    /// The first error in it.
    pub fn error(&self) -> Option<SqlState> {
        self.statements.iter().find_map(|s| s.error)
    }
}

/// What came of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatementOutcome {
    /// When it was done, ns since the mirror's epoch.
    pub ended_ns: u64,
    /// Rows in the command tag, where it has any.
    pub tag_rows: Option<u64>,
    /// Rows that were returned.
    pub rows: u64,
    /// Digest of these rows.
    pub digest: u64,
    /// The same without what is of the moment: what `now()` was on the server that made them.
    pub lasting: u64,
    /// Why it failed, if it did.
    pub error: Option<SqlState>,
}

/// What the production path tells the shadow path, in the order in which it happened per session.
#[derive(Debug, Clone)]
pub enum Event {
    /// A client has logged in.
    SessionOpened(Arc<SessionInfo>),
    /// A request is complete and on its way to the worker.
    Begun(Arc<Exchange>),
    /// Its outcome is known.
    Ended(Arc<Exchange>),
    /// The session is over.
    SessionClosed(SessionId),
}

/// SQLSTATEs that tell of circumstances and not of the statement: the same statement at the same
/// point may well succeed elsewhere. Cancelled, timed out, deadlock, serialization, lock not
/// available, shutdown.
pub fn is_circumstance(sqlstate: SqlState) -> bool {
    matches!(
        &sqlstate,
        b"57014" | b"40P01" | b"40001" | b"55P03" | b"25P03" | b"25P04" | b"57P01" | b"57P02" | b"57P05"
    )
}

/// Cancelled or timed out: excluded from latency and counted.
pub fn is_cancelled(sqlstate: SqlState) -> bool {
    matches!(&sqlstate, b"57014" | b"55P03")
}
