//! What an exchange means for the state of its session, and what its transaction leaves of that. Pure, and knows
//! nothing of how the state is kept.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    shadow::{entry::Entry, statement::template::Variable},
    wire::backend::TransactionStatus,
};

/// What one exchange means for the state of its session, if it succeeds.
#[expect(clippy::struct_excessive_bools, reason = "independent observations about one request")]
#[derive(Debug, Default, Clone)]
pub struct Settled {
    /// What it does to named statements, in order.
    pub statements: Vec<Change>,
    /// What they do to the unnamed one.
    pub unnamed: Unnamed,
    /// It binds an unnamed statement that an earlier exchange made.
    pub borrows: bool,
    /// What its SQL does that can be made again.
    pub state: State,
    /// What it does to cursors that outlive their transaction, in order.
    pub cursors: Vec<Cursor>,
    /// It makes the session as new: DISCARD ALL.
    pub discards: bool,
    /// It leaves something that can't be made again from its text.
    pub bound: bool,
    /// It takes a lock for the session, which no ROLLBACK gives back.
    pub locks: bool,
    /// It gives all such locks back.
    pub unlocks_all: bool,
    /// It commits a transaction.
    pub commits: bool,
    /// It rolls one back.
    pub rolls_back: bool,
    /// It rolls a part of one back.
    pub rolls_back_to: bool,
    /// It changes data: it can't be played again.
    pub writes: bool,
}

/// What is done to a named statement.
#[derive(Debug, Clone)]
pub enum Change {
    /// Prepares it.
    Prepare {
        /// Its name.
        name: Bytes,
        /// The Parse message.
        parse: Bytes,
        /// How many Parse messages of the exchange come before it.
        parses: usize,
    },
    /// Closes it.
    Close {
        /// Its name.
        name: Bytes,
        /// How many statements of the exchange are executed before it.
        executes: usize,
    },
    /// Closes all: DEALLOCATE ALL.
    CloseAll {
        /// It is among the first so many statements of the exchange.
        executes: usize,
    },
}

/// What is done to cursors that outlive their transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// It is opened, and can't be opened again from its text.
    Held(Arc<str>),
    /// A cursor is closed, which need not be such a one.
    Closed(Arc<str>),
    /// All are.
    AllClosed,
}

/// What becomes of the unnamed statement.
#[derive(Debug, Clone, Default)]
pub enum Unnamed {
    /// It stays.
    #[default]
    Untouched,
    /// A simple query or a Close took it away, or who made it has bound it already.
    Gone,
    /// It is another one, which nobody has bound yet.
    Made {
        /// The Parse message.
        parse: Bytes,
        /// How many Parse messages of the exchange come before it.
        parses: usize,
    },
}

/// What the SQL of an exchange does to its session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing that lasts.
    #[default]
    Nothing,
    /// It sets one variable.
    Sets(Variable),
    /// It prepares one statement.
    Prepares(Arc<str>),
    /// It deallocates one.
    Deallocates(Arc<str>),
    /// Several things, or others. `prepares`: prepared statements are among them.
    Other {
        /// Statements are prepared or deallocated.
        prepares: bool,
    },
}

impl State {
    /// Takes in what a further statement does.
    pub fn add(&mut self, further: Self) {
        *self = match (std::mem::take(self), further) {
            (Self::Nothing, only) | (only, Self::Nothing) => only,
            (Self::Sets(one), Self::Sets(other)) if one == other => Self::Sets(one),
            (one, other) => Self::Other { prepares: one.prepares() || other.prepares() },
        }
    }

    /// Statements are prepared or deallocated.
    pub fn prepares(&self) -> bool {
        matches!(self, Self::Prepares(_) | Self::Deallocates(_) | Self::Other { prepares: true })
    }
}

impl Settled {
    /// It leaves the session as it was, but for the unnamed statement.
    pub fn is_nothing(&self) -> bool {
        let is_as_it_was = self.statements.is_empty() && self.cursors.is_empty() && self.state == State::Nothing;
        is_as_it_was && !(self.discards || self.bound || self.locks)
    }

    /// Some of it may stay when the rest fails or is rolled back: no transaction holds prepared statements and locks.
    pub fn stays(&self) -> bool {
        let closes_all = self.statements.iter().any(|change| matches!(change, Change::CloseAll { .. }));
        self.state.prepares() || closes_all || self.locks || (self.commits && self.is_state())
    }

    fn is_state(&self) -> bool {
        let holds = self.cursors.iter().any(|cursor| matches!(cursor, Cursor::Held(_)));
        self.state != State::Nothing || self.bound || holds
    }
}

/// What became of what a transaction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Kept,
    /// All of it is undone.
    Undone,
    /// Some of it may be.
    Unclear,
}

/// What became of one whole transaction, or of several that went over into one another.
pub(super) fn fate(unit: &[(Arc<Entry>, Settled)]) -> Fate {
    let (mut undone, mut unclear, mut chained) = (false, false, false);
    for (index, (entry, settled)) in unit.iter().enumerate() {
        let Some(outcome) = entry.outcome() else { continue };
        let ends = !outcome.after.in_block();
        // A COMMIT that fails has rolled back, where it was that which failed.
        let failed_commit = outcome.before.in_block() && ends && outcome.error().is_some();
        let first_failed = outcome.statements.first().is_some_and(|statement| statement.error.is_some());
        let failed = outcome.before == TransactionStatus::Failed || outcome.after == TransactionStatus::Failed;
        undone |= settled.rolls_back || failed || failed_commit;
        let recovered =
            outcome.before == TransactionStatus::Failed && outcome.after == TransactionStatus::InTransaction;
        unclear |= settled.rolls_back_to || recovered || (failed_commit && settled.commits && !first_failed);
        chained |= index + 1 < unit.len() && (settled.commits || settled.rolls_back);
    }
    match (undone, unclear || (undone && chained)) {
        (_, true) => Fate::Unclear,
        (true, false) => Fate::Undone,
        (false, false) => Fate::Kept,
    }
}
