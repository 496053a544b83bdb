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
    /// Named statements that it prepares: name and Parse message.
    pub prepared: Vec<(Bytes, Bytes)>,
    /// Named statements that it closes.
    pub closed: Vec<Bytes>,
    /// It changes settings or the like.
    pub state: bool,
    /// It leaves something that can't be made again from its text.
    pub bound: bool,
    /// It rolls its transaction back.
    pub rolls_back: bool,
    /// It changes data: it can't be played again.
    pub writes: bool,
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
            // A Parse outlives the transaction it stands in, but not its own failure.
            if !failed {
                for (name, parse) in &settled.prepared {
                    self.forget(name);
                    self.steps.push(Step::Prepare { name: name.clone(), parse: parse.clone() });
                }
            }
            if failed || rolled_back {
                continue;
            }
            self.bound |= settled.bound || (settled.state && settled.writes);
            if settled.state && !settled.writes {
                let step = Step::Play(entry.exchange.request.clone());
                self.steps.retain(|s| *s != step);
                self.steps.push(step);
            }
        }
        if self.steps.len() > MAX_STEPS {
            self.bound = true;
            self.steps.clear();
        }
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
