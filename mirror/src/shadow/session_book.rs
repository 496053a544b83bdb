//! What the shadow path knows of one client session: its prepared statements, the transaction that is
//! open, and the prologue from which an arm that comes later can rebuild the session's state.
//!
//! Pure: it is told exchanges and outcomes in order and keeps what is needed.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use understudy_crds::{condition::SkipReason, experiment::StatementClass};

use super::{
    entry::{Answer, Entry, PlannedStatement},
    prologue::{Prepared, Prologue, Settled},
    statement::{
        catalog::{self, Analysed, Catalog},
        footprint::Footprint,
        template::{Kind, Statement},
    },
};
use crate::{
    capture::exchange::{Exchange, SessionInfo},
    wire::{
        frame,
        frontend::{self, Request},
    },
};

/// What is kept of a session's open transaction, and of all of them while a cut is made. An arm can't take
/// over a session in a longer one.
const MAX_OPEN_BYTES: usize = 32 << 20;

fn weight(entry: &Entry) -> usize {
    256 + entry.exchange.request.len()
}

/// What is known of one session.
#[derive(Debug)]
pub struct SessionBook {
    /// The session.
    pub info: Arc<SessionInfo>,
    prepared: HashMap<Bytes, Analysed>,
    portals: HashMap<Bytes, Vec<(Statement, Footprint)>>,
    sql_prepared: HashMap<Arc<str>, Statement>,
    transaction: OpenTransaction,
    prologue: Prologue,
    recent: VecDeque<(Arc<Entry>, Settled)>,
    /// So many at the front are over, and their transaction is not.
    in_block: usize,
    recent_bytes: usize,
    last_begun: Option<u64>,
    /// The open transaction is longer than what is kept of one.
    overgrown: bool,
    /// The client is gone; kept only for a cut that is being made.
    pub closed: bool,
}

#[derive(Debug, Default)]
struct OpenTransaction {
    open: bool,
    wrote: bool,
    touched: Option<Footprint>,
}

/// What an exchange is, as far as its request tells.
#[derive(Debug)]
pub struct Plan {
    /// Its statements.
    pub statements: Vec<PlannedStatement>,
    /// It may write or lock.
    pub writes: bool,
    /// What it touches.
    pub touches: Footprint,
    /// What becomes visible when it ends.
    pub publishes: Footprint,
    /// Why it is not played.
    pub skip: Option<SkipReason>,
    /// What it means for the prologue.
    pub settled: Settled,
}

impl SessionBook {
    /// A book for a session that has just logged in.
    pub fn new(info: Arc<SessionInfo>) -> Self {
        Self {
            info,
            prepared: HashMap::new(),
            portals: HashMap::new(),
            sql_prepared: HashMap::new(),
            transaction: OpenTransaction::default(),
            prologue: Prologue::default(),
            recent: VecDeque::new(),
            in_block: 0,
            recent_bytes: 0,
            last_begun: None,
            overgrown: false,
            closed: false,
        }
    }

    /// Reads a request: what will be executed, and what that touches.
    pub fn plan(&mut self, exchange: &Exchange, catalog: &mut Catalog) -> Plan {
        let mut executed: Vec<(Statement, Footprint)> = Vec::new();
        let mut settled = Settled::default();
        let mut parses = 0;
        for message in frame::messages(&exchange.request) {
            match frontend::request(message.tag, message.payload) {
                Request::Query(sql) => {
                    let analysed = catalog.analyse(sql);
                    executed.extend(bound(&analysed, None));
                }
                Request::Parse { statement, sql } => {
                    let name = Bytes::copy_from_slice(statement);
                    if !statement.is_empty() {
                        let parse = Bytes::copy_from_slice(message.bytes);
                        settled.prepared.push(Prepared { name: name.clone(), parse, after: parses });
                    }
                    parses += 1;
                    self.prepared.insert(name, catalog.analyse(sql));
                }
                Request::Bind { portal, statement, values } => {
                    let bound = self.bind(statement, values);
                    self.portals.insert(Bytes::copy_from_slice(portal), bound);
                }
                Request::Execute { portal } => {
                    match self.portals.get(portal) {
                        Some(bound) => executed.extend(bound.iter().cloned()),
                        // A cursor that SQL declared, perhaps.
                        None => executed.push((Statement::unknown(), Footprint::Anything)),
                    }
                }
                Request::CloseStatement(name) => {
                    self.prepared.remove(name);
                    settled.closed.push(Bytes::copy_from_slice(name));
                }
                Request::ClosePortal(name) => {
                    self.portals.remove(name);
                }
                Request::FunctionCall => executed.push((Statement::unknown(), Footprint::Anything)),
                Request::Other => {}
            }
        }
        self.weigh(&executed, settled)
    }

    /// What a portal executes. SQL's PREPARE and the protocol's Parse share their names.
    fn bind(&self, statement: &[u8], values: &[u8]) -> Vec<(Statement, Footprint)> {
        if let Some(analysed) = self.prepared.get(statement) {
            return bound(analysed, Some(values));
        }
        let by_sql = std::str::from_utf8(statement).ok().and_then(|name| self.sql_prepared.get(name));
        vec![by_sql.map_or((Statement::unknown(), Footprint::Anything), |inner| {
            (inner.clone(), catalog::footprint(inner, &[], Some(values)))
        })]
    }

    /// What DEALLOCATE and DISCARD ALL take away.
    fn take_away(&mut self, kind: &Kind, settled: &mut Settled) {
        match kind {
            Kind::Deallocate(Some(name)) => {
                // What SQL prepared was kept as a request to play again; so is this one then.
                settled.state |= self.sql_prepared.remove(name).is_some();
                self.prepared.remove(name.as_bytes());
                settled.closed.push(Bytes::copy_from_slice(name.as_bytes()));
            }
            Kind::Deallocate(None) => {
                settled.state |= !self.sql_prepared.is_empty();
                settled.closes_all = true;
                self.prepared.clear();
                self.sql_prepared.clear();
            }
            Kind::DiscardAll => {
                settled.discards = true;
                self.prepared.clear();
                self.sql_prepared.clear();
                self.portals.clear();
            }
            _ => {}
        }
    }

    fn weigh(&mut self, executed: &[(Statement, Footprint)], mut settled: Settled) -> Plan {
        let mut statements = Vec::with_capacity(executed.len());
        let (mut touches, mut publishes) = (Footprint::NOTHING, Footprint::NOTHING);
        let (mut writes, mut skip) = (false, None);
        for (statement, footprint) in executed {
            let Planned { class, fingerprint, answer, wrote } = self.step(statement, footprint, &mut publishes);
            statements.push(PlannedStatement { class, fingerprint, answer });
            touches.merge(footprint);
            writes |= wrote;
            skip = skip.or(statement.skip);
            self.take_away(&statement.kind, &mut settled);
            settled.state |= matches!(statement.kind, Kind::SessionState | Kind::Prepare(..));
            settled.rolls_back |= matches!(statement.kind, Kind::Rollback);
            settled.bound |= matches!(statement.kind, Kind::SessionBound);
            settled.writes |= statement.writes && !matches!(statement.kind, Kind::Commit);
        }
        Plan { statements, writes, touches, publishes, skip, settled }
    }

    /// One statement's effect on the transaction.
    fn step(&mut self, statement: &Statement, footprint: &Footprint, publishes: &mut Footprint) -> Planned {
        let mut planned = Planned {
            class: statement.class,
            fingerprint: statement.fingerprint,
            answer: statement.answer,
            wrote: statement.writes,
        };
        match &statement.kind {
            Kind::Begin => self.transaction.open = true,
            Kind::Commit => {
                let OpenTransaction { open: _, wrote, touched } = std::mem::take(&mut self.transaction);
                planned.wrote = wrote;
                if wrote {
                    publishes.merge(&touched.unwrap_or(Footprint::NOTHING).writes());
                } else {
                    planned.class = StatementClass::Utility;
                }
            }
            Kind::Rollback => self.transaction = OpenTransaction::default(),
            Kind::Prepare(name, inner) => {
                self.sql_prepared.insert(Arc::clone(name), (**inner).clone());
            }
            Kind::ExecutePrepared(name) => {
                let inner = self.sql_prepared.get(name).cloned();
                if let Some(inner) = inner {
                    let footprint = catalog::footprint(&inner, &[], None);
                    return self.step(&inner, &footprint, publishes);
                }
                self.touched(footprint, true, publishes);
            }
            Kind::Plain | Kind::SessionState | Kind::SessionBound | Kind::Deallocate(_) | Kind::DiscardAll => {
                self.touched(footprint, statement.writes, publishes);
            }
        }
        planned
    }

    fn touched(&mut self, footprint: &Footprint, writes: bool, publishes: &mut Footprint) {
        if !writes {
            return;
        }
        if self.transaction.open {
            self.transaction.wrote = true;
            self.transaction.touched.get_or_insert(Footprint::NOTHING).merge(footprint);
        } else {
            publishes.merge(&footprint.writes());
        }
    }

    /// Keeps an entry until its transaction is over.
    pub fn begun(&mut self, entry: Arc<Entry>, settled: Settled) {
        self.last_begun = Some(entry.id);
        self.recent_bytes += weight(&entry);
        self.recent.push_back((entry, settled));
        if self.overgrown || self.recent_bytes > MAX_OPEN_BYTES {
            self.overgrown = true;
            if self.recent.iter().any(|(_, settled)| !settled.is_nothing()) {
                self.prologue.give_up();
            }
            self.recent.clear();
            self.in_block = 0;
            self.recent_bytes = 0;
        }
    }

    /// An outcome is known: the transaction is as the server says it is.
    pub fn ended(&mut self, entry: &Entry) {
        let Some(outcome) = entry.outcome() else { return };
        if self.last_begun == Some(entry.id) {
            if !outcome.after.in_block() {
                self.transaction = OpenTransaction::default();
                self.portals.clear();
                self.overgrown = false;
            } else if !self.transaction.open {
                self.transaction.open = true;
            }
        }
    }

    /// Forgets what is over. `retain_from_ns` keeps everything that had not ended by then.
    pub fn settle(&mut self, retain_from_ns: Option<u64>) {
        loop {
            let Some(count) = self.first_unit(retain_from_ns.unwrap_or(u64::MAX)) else { return };
            let unit: Vec<_> = self.recent.drain(..count).collect();
            self.in_block = 0;
            let bytes: usize = unit.iter().map(|(entry, _)| weight(entry)).sum();
            self.recent_bytes = self.recent_bytes.saturating_sub(bytes);
            self.prologue.settle(&unit);
        }
    }

    /// How many entries at the front make up one whole transaction that had ended by `by_ns`.
    fn first_unit(&mut self, by_ns: u64) -> Option<usize> {
        // Looked at once: a transaction may have 80,000 of them. Whatever ends it ended later than these.
        while let Some((entry, _)) = self.recent.get(self.in_block) {
            let outcome = entry.outcome()?;
            if outcome.ended_ns > by_ns {
                return None;
            }
            if !outcome.after.in_block() {
                return Some(self.in_block + 1);
            }
            self.in_block += 1;
        }
        None
    }

    /// What an arm needs that left the WAL at `at_ns`: how to rebuild the session, and everything that
    /// was not committed by then, from the beginning of its transaction. An exchange that was under way then
    /// began before the gate opened again, at `sealed_ns`.
    pub fn cut(&mut self, at_ns: u64, sealed_ns: u64) -> SessionSeed {
        self.settle(Some(at_ns));
        let entries: Vec<Arc<Entry>> = self.recent.iter().map(|(entry, _)| Arc::clone(entry)).collect();
        let in_doubt = entries
            .iter()
            .position(|e| e.ended_ns() > at_ns)
            .filter(|index| entries.get(*index).is_some_and(|e| e.exchange.begun_ns <= sealed_ns));
        SessionSeed {
            info: Arc::clone(&self.info),
            prologue: self.prologue.messages(),
            bound: self.prologue.bound() || self.overgrown,
            entries,
            in_doubt,
            closed: self.closed,
        }
    }

    /// Entries kept.
    pub fn kept(&self) -> usize {
        self.recent.len()
    }
}

struct Planned {
    class: StatementClass,
    fingerprint: crate::measure::interval::Fingerprint,
    answer: Answer,
    wrote: bool,
}

/// A session as an arm takes it over at the cut.
#[derive(Debug, Clone)]
pub struct SessionSeed {
    /// The session.
    pub info: Arc<SessionInfo>,
    /// Requests that rebuild its state, each an exchange by itself.
    pub prologue: Vec<Bytes>,
    /// It holds something that can't be rebuilt: it is not mirrored.
    pub bound: bool,
    /// What is played first.
    pub entries: Vec<Arc<Entry>>,
    /// Index of the entry that was under way at the cut.
    pub in_doubt: Option<usize>,
    /// The client has gone since.
    pub closed: bool,
}

fn bound(analysed: &Analysed, values: Option<&[u8]>) -> Vec<(Statement, Footprint)> {
    analysed
        .template
        .statements
        .iter()
        .map(|statement| (statement.clone(), catalog::footprint(statement, &analysed.literals, values)))
        .collect()
}

#[cfg(test)]
mod tests;
