//! The state of a session that was there before an arm: prepared statements and settings, kept as
//! requests that make it again. What it can't make again it says; it never makes the half of it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

pub use self::settled::{Change, Cursor, Settled, State, Unnamed};
use self::settled::{Fate, fate};
use super::{entry::Entry, statement::template::Variable};
use crate::{
    capture::exchange::Outcome,
    wire::{
        encode, frame,
        frontend::{self, Request, tag},
    },
};

mod settled;

/// A session whose prologue grows beyond this is not rebuilt.
const MAX_STEPS: usize = 5_000;

/// The state of a session.
#[derive(Debug, Default, Clone)]
pub struct Prologue {
    steps: Vec<Step>,
    /// The Parse of the unnamed statement, where somebody may still want to bind it.
    unnamed: Option<Bytes>,
    /// Cursors that outlive their transaction: while there are some, the session can't be made again.
    cursors: BTreeSet<Arc<str>>,
    /// It may have locks.
    locked: bool,
    bound: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Makes this prepared statement and nothing else.
    Prepare { name: Bytes, request: Bytes },
    /// Sets this variable and nothing else.
    Set { variable: Variable, request: Bytes },
    /// Does several things, or others. `prepares`: SQL makes or takes away prepared statements in it.
    Play { request: Bytes, prepares: bool },
}

impl Step {
    /// Prepared statements before it and after it are not the same.
    fn prepares(&self) -> bool {
        matches!(self, Self::Prepare { .. } | Self::Play { prepares: true, .. })
    }

    /// It binds a prepared statement of such a name.
    fn binds(&self, is_named: impl Fn(&[u8]) -> bool) -> bool {
        let (Self::Set { request, .. } | Self::Play { request, .. }) = self else { return false };
        frame::messages(request).any(|message| {
            matches!(frontend::request(message.tag, message.payload), Request::Bind { statement, .. } if is_named(statement))
        })
    }

    /// With it behind, the other has no effect.
    fn replaces(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Set { variable: mine, .. }, Self::Set { variable: theirs, .. }) => mine == theirs,
            (Self::Play { request: mine, .. }, Self::Play { request: theirs, .. }) => mine == theirs,
            _ => false,
        }
    }
}

impl Prologue {
    /// Takes in one whole transaction.
    pub fn settle(&mut self, unit: &[(Arc<Entry>, Settled)]) {
        let fate = fate(unit);
        for (entry, settled) in unit {
            let Some(outcome) = entry.outcome() else { continue };
            let lent = self.unnamed.clone();
            self.statements(settled, outcome);
            if outcome.broken || outcome.error().is_some() {
                // What ran before the failure may have stayed, and the request can't be played up to there.
                self.bound |= settled.stays() && executed(outcome) > 0;
            } else {
                self.state(entry, settled, fate, lent);
            }
        }
        if self.steps.len() + self.cursors.len() > MAX_STEPS {
            self.give_up();
        }
    }

    /// An exchange was not kept that would have to be settled: what it changes can't be made again.
    pub fn miss(&mut self, entry: &Entry, settled: &Settled) {
        match entry.outcome() {
            _ if !settled.is_nothing() => self.give_up(),
            Some(outcome) => self.unnamed(settled, outcome),
            None if matches!(settled.unnamed, Unnamed::Made { .. }) => self.give_up(),
            None => {}
        }
    }

    fn give_up(&mut self) {
        self.bound = true;
        self.steps.clear();
        self.cursors.clear();
    }

    /// What the protocol prepares and closes stands outside of transactions, and outlives the failure of what
    /// follows it.
    fn statements(&mut self, settled: &Settled, outcome: &Outcome) {
        let executed = executed(outcome);
        for change in &settled.statements {
            match change {
                Change::Prepare { name, parse, parses } if *parses < outcome.parsed => {
                    self.forget(name);
                    self.steps.push(Step::Prepare { name: name.clone(), request: synced(parse) });
                }
                Change::Close { name, executes } if *executes <= executed => {
                    self.forget(name);
                }
                Change::CloseAll { executes } if *executes <= executed => self.forget_all(),
                Change::Prepare { .. } | Change::Close { .. } | Change::CloseAll { .. } => {}
            }
        }
        self.unnamed(settled, outcome);
    }

    fn unnamed(&mut self, settled: &Settled, outcome: &Outcome) {
        match &settled.unnamed {
            Unnamed::Untouched => {}
            Unnamed::Gone => self.unnamed = None,
            // Copied: a part would keep the whole request.
            Unnamed::Made { parse, parses } => {
                self.unnamed = (*parses < outcome.parsed).then(|| Bytes::copy_from_slice(parse));
            }
        }
    }

    /// What SQL does to the session in an exchange that did not fail.
    fn state(&mut self, entry: &Entry, settled: &Settled, fate: Fate, lent: Option<Bytes>) {
        if settled.discards {
            self.steps.clear();
            self.cursors.clear();
            (self.bound, self.locked) = (false, false);
        }
        // A request that rolls back does so when it is played as well, and what it sets after that stays.
        let kept = fate == Fate::Kept || (fate == Fate::Undone && settled.rolls_back);
        self.locked = settled.locks || self.locked && !settled.unlocks_all;
        self.bound |= settled.bound && (kept || fate == Fate::Unclear);
        for cursor in &settled.cursors {
            match cursor {
                Cursor::Held(name) if kept || fate == Fate::Unclear => {
                    self.cursors.insert(Arc::clone(name));
                }
                Cursor::Held(_) => {}
                // No transaction takes that back.
                Cursor::Closed(name) => {
                    self.cursors.remove(name);
                }
                Cursor::AllClosed => self.cursors.clear(),
            }
        }
        match &settled.state {
            State::Nothing => {}
            State::Deallocates(name) if self.forget(name.as_bytes()) => {}
            // No transaction can take these back.
            State::Deallocates(_) => self.play(entry, settled, lent, |request| Step::Play { request, prepares: true }),
            State::Prepares(name) => {
                let name = Bytes::copy_from_slice(name.as_bytes());
                self.play(entry, settled, lent, |request| Step::Prepare { name, request });
            }
            _ if fate == Fate::Unclear => self.bound = true,
            State::Sets(variable) if kept && !settled.rolls_back => {
                self.play(entry, settled, lent, |request| Step::Set { variable: variable.clone(), request });
            }
            state if kept => {
                let prepares = state.prepares();
                self.play(entry, settled, lent, |request| Step::Play { request, prepares });
            }
            _ => self.bound |= settled.stays(),
        }
    }

    /// Keeps a request to be played again, if that can be done.
    fn play(&mut self, entry: &Entry, settled: &Settled, lent: Option<Bytes>, step: impl FnOnce(Bytes) -> Step) {
        if settled.writes || (settled.borrows && lent.is_none()) {
            self.bound = true;
            return;
        }
        let request = self.again(&entry.exchange.request, settled, lent.filter(|_| settled.borrows));
        self.push(step(request));
    }

    /// A request as it is played again: with the Parse that it borrowed, and without those that are steps of their own.
    /// What changes nothing is left out: it may fail where its statement is gone, and the rest be skipped for it.
    fn again(&self, request: &Bytes, settled: &Settled, lent: Option<Bytes>) -> Bytes {
        let own = |name: &[u8]| {
            let made = settled.statements.iter().any(|c| matches!(c, Change::Prepare { name: n, .. } if n == name));
            made && self.steps.iter().any(|step| matches!(step, Step::Prepare { name: n, .. } if n == name))
        };
        let binds = frame::messages(request).any(|message| message.tag == tag::BIND);
        let mut again = lent.map_or_else(Vec::new, Vec::from);
        for message in frame::messages(request) {
            match frontend::request(message.tag, message.payload) {
                Request::Parse { statement: name, .. } | Request::CloseStatement(name) if own(name) => {}
                Request::Parse { statement, .. } if statement.is_empty() && !binds => {}
                _ if matches!(message.tag, tag::DESCRIBE | tag::FLUSH) => {}
                _ => again.extend(message.bytes),
            }
        }
        again.into()
    }

    fn push(&mut self, step: Step) {
        // What has been prepared since was prepared under what stands before it.
        let from = self.steps.iter().rposition(Step::prepares).map_or(0, |at| at + 1);
        let later = self.steps.split_off(from);
        self.steps.extend(later.into_iter().filter(|earlier| !step.replaces(earlier)));
        self.steps.push(step);
    }

    /// Whether it was there.
    fn forget(&mut self, closed: &[u8]) -> bool {
        let before = self.steps.len();
        self.steps.retain(|step| !matches!(step, Step::Prepare { name, .. } if name == closed));
        let gone = self.steps.len() < before;
        // What was set through it can't be set again without it.
        self.bound |= gone && self.steps.iter().any(|step| step.binds(|name| name == closed));
        gone
    }

    fn forget_all(&mut self) {
        self.steps.retain(|step| !matches!(step, Step::Prepare { .. }));
        self.bound |= self.steps.iter().any(|step| step.binds(|name| !name.is_empty()));
        for step in &mut self.steps {
            if let Step::Play { prepares, .. } = step {
                *prepares = false;
            }
        }
    }

    /// Requests that make the state again, each an exchange by itself.
    pub fn messages(&self) -> Vec<Bytes> {
        let requests = self.steps.iter().map(|step| match step {
            Step::Prepare { request, .. } | Step::Set { request, .. } | Step::Play { request, .. } => request.clone(),
        });
        // Last of all: any simple query takes it away.
        requests.chain(self.unnamed.as_ref().map(synced)).collect()
    }

    /// The session holds something that can't be made again.
    pub fn bound(&self) -> bool {
        self.bound || self.locked || !self.cursors.is_empty()
    }
}

/// Whether a request of a prologue may fail: an unnamed statement by itself may be one that nobody binds any more, of a
/// table that is gone.
pub fn may_fail(request: &[u8]) -> bool {
    let mut messages = frame::messages(request);
    let parse = messages.next().is_some_and(|first| {
        matches!(frontend::request(first.tag, first.payload), Request::Parse { statement, .. } if statement.is_empty())
    });
    parse && messages.all(|rest| rest.bytes == encode::SYNC)
}

fn synced(parse: &Bytes) -> Bytes {
    [parse.as_ref(), &encode::SYNC].concat().into()
}

/// How many statements of an exchange were executed: all, or those before the one that failed.
fn executed(outcome: &Outcome) -> usize {
    let failed = outcome.statements.iter().position(|statement| statement.error.is_some());
    failed.unwrap_or(if outcome.broken { outcome.statements.len() } else { usize::MAX })
}
