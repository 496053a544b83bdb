//! What the shadow path knows of one client session: its prepared statements, the transaction that is
//! open, and the prologue from which an arm that comes later can rebuild the session's state.
//!
//! Pure: it is told exchanges and outcomes in order and keeps what is needed, up to a limit. What it could not keep
//! it says when it is cut, so that no arm takes over the half of a session.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use understudy_crds::experiment::StatementClass;

pub use self::plan::Plan;
use self::{plan::OpenTransaction, portals::Portals};
use super::{
    entry::Entry,
    prologue::{Prologue, Settled},
    statement::{catalog::Analysed, isolation::sees_one_moment, template::Statement},
};
use crate::capture::exchange::SessionInfo;

mod plan;
mod portals;

/// What is kept of a session's open transaction, and of all of them while a cut is made. An arm can't take
/// over a session in a longer one.
const MAX_OPEN_BYTES: usize = 32 << 20;

/// What an entry weighs beside the bytes it carries.
const KEPT_BYTES: usize = 256;

/// What is known of one session.
#[derive(Debug)]
pub struct SessionBook {
    /// The session.
    pub info: Arc<SessionInfo>,
    prepared: HashMap<Bytes, Analysed>,
    portals: Portals,
    sql_prepared: HashMap<Arc<str>, Arc<Statement>>,
    transaction: OpenTransaction,
    /// Its transactions see one moment, where they do not say otherwise.
    sees_one_moment: bool,
    prologue: Prologue,
    recent: VecDeque<Kept>,
    /// So many at the front are over, and their transaction is not.
    in_block: usize,
    recent_bytes: usize,
    last_begun: Option<u64>,
    /// The open transaction is longer than what is kept of one.
    overgrown: bool,
    /// Whatever else was not kept had ended by then, ns.
    forgotten_until_ns: u64,
    /// The client is gone; kept only for a cut that is being made.
    pub closed: bool,
}

/// An entry whose transaction is not over, or that a cut may need.
#[derive(Debug)]
struct Kept {
    entry: Arc<Entry>,
    settled: Settled,
    /// What it counts as.
    bytes: usize,
}

impl Kept {
    /// It had committed something by then, and its transaction was followed by the next in the same breath (COMMIT AND
    /// CHAIN).
    fn goes_on_behind_a_commit(&self, at_ns: u64) -> bool {
        let ended = self.entry.outcome().is_some_and(|o| o.ended_ns <= at_ns && o.after.in_block());
        ended && self.entry.statements.iter().any(|statement| statement.class == StatementClass::Commit)
    }

    /// The clone has all that it does to tables, and it does nothing to the session.
    fn is_on_the_clone(&self) -> bool {
        let mut behind = self.entry.statements.iter().rev().take_while(|s| s.class != StatementClass::Commit);
        self.settled.is_nothing() && behind.all(|s| s.class == StatementClass::Utility)
    }

    /// Some of it is committed while it still runs.
    fn commits_before_its_end(&self) -> bool {
        let before = self.entry.statements.split_last().map_or(&[][..], |(_, before)| before);
        before.iter().any(|statement| statement.class == StatementClass::Commit)
    }
}

impl SessionBook {
    /// A book for a session that has just logged in.
    pub fn new(info: Arc<SessionInfo>) -> Self {
        let mut asked = info.startup.parameters.iter();
        let sees_one_moment =
            asked.any(|(name, level)| name == "default_transaction_isolation" && sees_one_moment(level));
        Self {
            info,
            prepared: HashMap::new(),
            portals: Portals::default(),
            sql_prepared: HashMap::new(),
            transaction: OpenTransaction::default(),
            sees_one_moment,
            prologue: Prologue::default(),
            recent: VecDeque::new(),
            in_block: 0,
            recent_bytes: 0,
            last_begun: None,
            overgrown: false,
            forgotten_until_ns: 0,
            closed: false,
        }
    }

    /// Keeps an entry until its transaction is over.
    pub fn begun(&mut self, entry: Arc<Entry>, settled: Settled) {
        self.last_begun = Some(entry.id);
        let bytes = KEPT_BYTES + entry.exchange.request.len();
        self.recent_bytes += bytes;
        self.recent.push_back(Kept { entry, settled, bytes });
        self.limit();
    }

    /// An outcome is known: the transaction is as the server says it is.
    pub fn ended(&mut self, entry: &Entry) {
        let Some(outcome) = entry.outcome() else { return };
        // The data of a COPY comes after the request. What had ended before that was told may have been settled.
        if let Ok(index) = self.recent.binary_search_by_key(&entry.id, |kept| kept.entry.id)
            && let Some(kept) = self.recent.get_mut(index)
        {
            kept.bytes += outcome.kept_bytes();
            self.recent_bytes += outcome.kept_bytes();
        }
        if self.last_begun == Some(entry.id) {
            if outcome.after.in_block() {
                self.transaction.open = true;
            } else {
                self.transaction = OpenTransaction::default();
                self.portals.clear();
                if std::mem::take(&mut self.overgrown) {
                    self.forgotten_until_ns = outcome.ended_ns;
                }
            }
        }
    }

    /// Forgets what is over. `retain_from_ns` keeps everything that had not ended by then.
    pub fn settle(&mut self, retain_from_ns: Option<u64>) {
        while let Some(count) = self.first_unit(retain_from_ns.unwrap_or(u64::MAX)) {
            let mut unit = Vec::with_capacity(count);
            for Kept { entry, settled, bytes } in self.recent.drain(..count) {
                self.recent_bytes -= bytes;
                unit.push((entry, settled));
            }
            self.in_block = 0;
            self.prologue.settle(&unit);
        }
        self.limit();
    }

    /// No more is kept than is allowed; of an overgrown transaction nothing.
    fn limit(&mut self) {
        if self.overgrown || self.recent_bytes > MAX_OPEN_BYTES {
            self.shed();
        }
    }

    /// Lets go of everything it keeps. A cut that would need it is told that the session can't be taken over.
    pub fn shed(&mut self) {
        let ended = |kept: &Kept| kept.entry.outcome().filter(|o| !o.after.in_block()).map(|o| o.ended_ns);
        match self.recent.back().map(ended) {
            None => {}
            Some(Some(ended_ns)) if !self.overgrown => self.forgotten_until_ns = ended_ns,
            // More of it is to come.
            Some(_) => self.overgrown = true,
        }
        for Kept { entry, settled, .. } in self.recent.drain(..) {
            self.prologue.miss(&entry, &settled);
        }
        self.in_block = 0;
        self.recent_bytes = 0;
    }

    /// How many entries at the front make up one whole transaction that had ended by `by_ns`.
    fn first_unit(&mut self, by_ns: u64) -> Option<usize> {
        // Looked at once: a transaction may have 80,000 of them. Whatever ends it ended later than these.
        while let Some(Kept { entry, .. }) = self.recent.get(self.in_block) {
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
        // Of transactions that went over into one another the clone has those before the last that had committed.
        let chained = self.recent.iter().rposition(|kept| kept.goes_on_behind_a_commit(at_ns)).map_or(0, |at| at + 1);
        let torn = self.recent.range(..chained).any(|kept| !kept.settled.is_nothing())
            || chained
                .checked_sub(1)
                .and_then(|last| self.recent.get(last))
                .is_some_and(|last| !last.is_on_the_clone());
        let entries: Vec<Arc<Entry>> = self.recent.range(chained..).map(|kept| Arc::clone(&kept.entry)).collect();
        let in_doubt = entries
            .iter()
            .position(|e| e.ended_ns() > at_ns)
            .filter(|index| entries.get(*index).is_some_and(|e| e.exchange.begun_ns <= sealed_ns));
        let in_part =
            in_doubt.and_then(|index| self.recent.get(chained + index)).is_some_and(Kept::commits_before_its_end);
        SessionSeed {
            info: Arc::clone(&self.info),
            prologue: self.prologue.messages(),
            bound: self.prologue.bound() || self.overgrown || self.forgotten_until_ns > at_ns || torn || in_part,
            entries,
            in_doubt,
            closed: self.closed,
        }
    }

    /// Entries kept.
    pub fn kept(&self) -> usize {
        self.recent.len()
    }

    /// What they take, bytes.
    pub fn kept_bytes(&self) -> usize {
        self.recent_bytes
    }
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

impl SessionSeed {
    /// Whether what is played first may have drawn from a sequence on production before the cut: it draws once more.
    pub fn may_have_drawn(&self) -> bool {
        !self.bound && self.entries.iter().any(|entry| entry.touches.may_draw())
    }
}

#[cfg(test)]
mod tests;
