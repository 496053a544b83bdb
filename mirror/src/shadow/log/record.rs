//! Events of the traffic log as they lie on disk, and back. Each is one [`Record`] in postcard's format
//! (<https://postcard.jamesmunns.com/wire-format>), fields in the order in which they stand here. A test pins the
//! bytes: who changes them gives [`super::segment`] a new version.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::LogEvent;
use crate::{
    capture::exchange::{Exchange, Outcome, SessionId, SessionInfo},
    shadow::{
        entry::{Budget, ENTRY_BYTES, Entry, PlannedStatement, Skip},
        statement::footprint::Footprint,
    },
    wire::startup::Startup,
};

/// One event. An exchange is known by the entry's number from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A client has logged in: session, what it asked for, process id of production's backend.
    SessionOpened(u64, Startup, i32),
    /// A request is on its way to the worker.
    Begun(Begun),
    /// Its outcome is known: the entry's number, whether it overlapped what changed what it reads, the outcome.
    Ended(u64, bool, Outcome),
    /// The session is over.
    SessionClosed(u64),
    /// All that production did until then has been told, ns since the mirror's epoch.
    KnownUntil(u64),
}

/// A request, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The entry's number.
    pub id: u64,
    /// The session.
    pub session: u64,
    /// The exchange's number in it, from 0.
    pub sequence: u64,
    /// When its first byte came, ns since the mirror's epoch.
    pub begun_ns: u64,
    /// The messages as the client sent them.
    pub request: Bytes,
    /// The statements it executes.
    pub statements: Vec<PlannedStatement>,
    /// It takes part in the order.
    pub writes: bool,
    /// What it touches.
    pub touches: Footprint,
    /// What becomes visible when it ends.
    pub publishes: Footprint,
    /// When it ends, sessions may begin with something else: roles, databases, or what is set for either.
    pub beginnings: bool,
    /// Why it is not played.
    pub skip: Option<Skip>,
}

impl Record {
    /// An event as it is written.
    pub fn of(event: &LogEvent) -> Self {
        match event {
            LogEvent::SessionOpened(info) => Self::SessionOpened(info.id.0, info.startup.clone(), info.backend_pid),
            LogEvent::Begun(entry) => Self::Begun(Begun {
                id: entry.id,
                session: entry.exchange.session.0,
                sequence: entry.exchange.sequence,
                begun_ns: entry.exchange.begun_ns,
                request: entry.exchange.request.clone(),
                statements: entry.statements.clone(),
                writes: entry.writes,
                touches: entry.touches.clone(),
                publishes: entry.publishes.clone(),
                beginnings: entry.beginnings,
                skip: entry.skip,
            }),
            LogEvent::Ended(entry) => {
                Self::Ended(entry.id, entry.is_ambiguous(), entry.outcome().cloned().unwrap_or_default())
            }
            LogEvent::SessionClosed(session) => Self::SessionClosed(session.0),
            LogEvent::KnownUntil(known_ns) => Self::KnownUntil(*known_ns),
        }
    }

    /// Appends it.
    pub fn write(&self, to: Vec<u8>) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(self, to)
    }

    /// The first one in `bytes`, and what is behind it.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), postcard::Error> {
        postcard::take_from_bytes(bytes)
    }
}

/// One reader's way from records and shared entries to entries of its own: an exchange that it met on disk when it
/// began is the same one to it when it ends, wherever that was told.
#[derive(Debug, Default)]
pub struct Resolver {
    open: HashMap<u64, Arc<Entry>>,
}

impl Resolver {
    /// A resolver for a reader that knows these entries already.
    pub fn new(open: impl IntoIterator<Item = Arc<Entry>>) -> Self {
        Self { open: open.into_iter().map(|entry| (entry.id, entry)).collect() }
    }

    /// An event that was never on disk. `None`: it ends what this reader has not seen begin.
    pub fn shared(&mut self, event: &LogEvent) -> Option<LogEvent> {
        match event {
            LogEvent::Begun(entry) => {
                self.open.insert(entry.id, Arc::clone(entry));
                Some(event.clone())
            }
            LogEvent::Ended(entry) => {
                let own = self.open.remove(&entry.id)?;
                if !Arc::ptr_eq(&own, entry) {
                    let outcome = entry.outcome().cloned().unwrap_or_default();
                    end(&own, entry.is_ambiguous(), outcome, own.charge.budget());
                }
                Some(LogEvent::Ended(own))
            }
            other => Some(other.clone()),
        }
    }

    /// An event that comes from disk; its bytes are charged again.
    pub fn read(&mut self, record: Record, budget: &Arc<Budget>) -> Option<LogEvent> {
        Some(match record {
            Record::SessionOpened(id, startup, backend_pid) => {
                LogEvent::SessionOpened(Arc::new(SessionInfo { id: SessionId(id), startup, backend_pid }))
            }
            Record::Begun(begun) => {
                let entry = Arc::new(entry(begun, budget));
                self.open.insert(entry.id, Arc::clone(&entry));
                LogEvent::Begun(entry)
            }
            Record::Ended(id, overlapped, outcome) => {
                let own = self.open.remove(&id)?;
                end(&own, overlapped, outcome, budget);
                LogEvent::Ended(own)
            }
            Record::SessionClosed(id) => LogEvent::SessionClosed(SessionId(id)),
            Record::KnownUntil(known_ns) => LogEvent::KnownUntil(known_ns),
        })
    }
}

fn entry(begun: Begun, budget: &Arc<Budget>) -> Entry {
    let Begun { id, session, sequence, begun_ns, request, statements, writes, touches, publishes, beginnings, skip } =
        begun;
    Entry {
        id,
        statements,
        writes,
        touches,
        publishes,
        beginnings,
        skip,
        overlapped: AtomicBool::new(false),
        charge: budget.charge(ENTRY_BYTES + request.len()),
        taken_in: OnceLock::new(),
        exchange: Arc::new(Exchange {
            session: SessionId(session),
            sequence,
            begun_ns,
            request,
            outcome: OnceLock::new(),
        }),
    }
}

fn end(entry: &Entry, overlapped: bool, outcome: Outcome, budget: &Arc<Budget>) {
    entry.overlapped.store(overlapped, Ordering::Relaxed);
    let bytes = outcome.kept_bytes();
    // Where the entry is shared, the ingest has set both, to the same.
    let _ = entry.exchange.outcome.set(outcome);
    let _ = entry.taken_in.set(budget.charge(bytes));
}

#[cfg(test)]
mod tests;
