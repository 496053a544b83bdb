//! The state of a session that was there before an arm: prepared statements and settings, kept as
//! requests that make it again.

use std::sync::Arc;

use bytes::Bytes;

use super::entry::Entry;
use crate::wire::{backend::TransactionStatus, encode};

/// A session whose prologue grows beyond this is not rebuilt.
const MAX_STEPS: usize = 5_000;

/// What one exchange means for the state of its session.
#[expect(clippy::struct_excessive_bools, reason = "independent observations about one request")]
#[derive(Debug, Default, Clone)]
pub struct Settled {
    /// Named statements that it prepares.
    pub prepared: Vec<Prepared>,
    /// Named statements that it closes.
    pub closed: Vec<Bytes>,
    /// It closes all of them.
    pub closes_all: bool,
    /// It makes the session as new: DISCARD ALL.
    pub discards: bool,
    /// It changes settings or the like.
    pub state: bool,
    /// It leaves something that can't be made again from its text.
    pub bound: bool,
    /// It rolls its transaction back.
    pub rolls_back: bool,
    /// It changes data: it can't be played again.
    pub writes: bool,
}

/// A named statement that an exchange prepares.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its name.
    pub name: Bytes,
    /// The Parse message.
    pub parse: Bytes,
    /// How many Parse messages of the exchange come before it.
    pub after: usize,
}

impl Settled {
    /// It leaves the session as it was.
    pub fn is_nothing(&self) -> bool {
        let Self { prepared, closed, closes_all, discards, state, bound, rolls_back: _, writes: _ } = self;
        prepared.is_empty() && closed.is_empty() && !(*closes_all || *discards || *state || *bound)
    }
}

/// The state of a session.
#[derive(Debug, Default, Clone)]
pub struct Prologue {
    steps: Vec<Step>,
    bound: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Prepare { name: Bytes, parse: Bytes },
    Play(Bytes),
}

impl Prologue {
    /// Takes in one whole transaction.
    pub fn settle(&mut self, unit: &[(Arc<Entry>, Settled)]) {
        let rolled_back = unit.iter().any(|(entry, settled)| {
            settled.rolls_back || entry.outcome().is_some_and(|o| o.after == TransactionStatus::Failed)
        });
        for (entry, settled) in unit {
            let failed = entry.outcome().is_none_or(|o| o.broken || o.error().is_some());
            for name in &settled.closed {
                self.forget(name);
            }
            // A Parse outlives the transaction it stands in, and the failure of what follows it.
            let parsed = entry.outcome().map_or(0, |o| o.parsed);
            for Prepared { name, parse, .. } in settled.prepared.iter().filter(|p| p.after < parsed) {
                self.forget(name);
                self.steps.push(Step::Prepare { name: name.clone(), parse: parse.clone() });
            }
            // So does DEALLOCATE.
            if settled.closes_all && !failed {
                self.steps.retain(|step| !matches!(step, Step::Prepare { .. }));
            }
            if failed || rolled_back {
                continue;
            }
            if settled.discards {
                self.steps.clear();
                self.bound = false;
            }
            self.bound |= settled.bound || (settled.state && settled.writes);
            if settled.state && !settled.writes {
                let step = Step::Play(entry.exchange.request.clone());
                self.steps.retain(|s| *s != step);
                self.steps.push(step);
            }
        }
        if self.steps.len() > MAX_STEPS {
            self.give_up();
        }
    }

    /// Something was not kept that would be needed: the state can't be made again.
    pub fn give_up(&mut self) {
        self.bound = true;
        self.steps.clear();
    }

    fn forget(&mut self, closed: &Bytes) {
        self.steps.retain(|step| !matches!(step, Step::Prepare { name, .. } if name == closed));
    }

    /// Requests that make the state again, each an exchange by itself.
    pub fn messages(&self) -> Vec<Bytes> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Prepare { parse, .. } => Bytes::from([parse.as_ref(), &encode::SYNC].concat()),
                Step::Play(request) => request.clone(),
            })
            .collect()
    }

    /// The session holds something that can't be made again.
    pub fn bound(&self) -> bool {
        self.bound
    }
}
