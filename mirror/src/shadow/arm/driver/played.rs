//! What came of an exchange on the arm: counted, held against production's, and recorded. Must not start anything.

use std::sync::atomic::Ordering;

use understudy_crds::condition::{DivergenceKind, SkipReason};

use super::{Driver, Early};
use crate::{
    capture::exchange::Outcome,
    shadow::{
        arm::{lock, session::Done},
        compare::compare,
        entry::Entry,
        measured,
        order::Action,
        overtaken::Overtaking,
        player::PlayError,
    },
};

impl Driver {
    pub(super) fn lost_exchange(&self, why: &str) {
        self.shared.count(|c| c.lost += 1);
        self.shared.lose(why);
    }

    pub(super) fn finished(&mut self, done: Done, actions: &mut Vec<Action>) {
        let Done { session, entry, due_ns, played } = done;
        self.finished_ns = self.turn_ns;
        match played {
            Ok((outcome, misaligned)) => {
                self.shared.count(|c| {
                    c.played += 1;
                    if misaligned {
                        *c.divergence.entry(DivergenceKind::TransactionState).or_default() += 1;
                    }
                });
                let overtaking = self.overtaken.by(&entry);
                // What a write has changed is looked at whatever it may have seen.
                let overtaken = overtaking == Overtaking::Later && !entry.writes;
                if overtaking != Overtaking::Nothing && !overtaken {
                    // It was not told yet when the read had ended: of a request that comes in parts nobody knows.
                    entry.overlapped.store(true, Ordering::Relaxed);
                }
                if entry.taken_in.get().is_some() {
                    self.judge(&entry, &outcome, due_ns, overtaken);
                } else {
                    self.early.insert(entry.id, Early { begun_ns: entry.exchange.begun_ns, due_ns, outcome });
                }
            }
            Err(PlayError::Prologue(_)) => {
                self.unplayable.insert(session);
                self.shared.count(|c| *c.skipped.entry(SkipReason::UnknownSession).or_default() += 1);
                if entry.writes {
                    self.shared.lose("a session whose state could not be rebuilt has written");
                }
            }
            // As production's server did, which sent what ended both.
            Err(PlayError::Connection(_)) if entry.outcome().is_some_and(|o| o.broken && o.error().is_some()) => {
                self.shared.count(|c| c.played += 1);
            }
            Err(error) => self.lost_exchange(&error.to_string()),
        }
        actions.extend(self.order.finished(session));
    }

    pub(super) fn judge(&self, entry: &Entry, arm: &Outcome, due_ns: u64, overtaken: bool) {
        let Some(production) = entry.outcome() else { return };
        let compared = compare(entry, production, arm, overtaken);
        self.shared.count(|c| {
            c.compared += compared.statements;
            c.ambiguous += compared.ambiguous;
            for kind in compared.divergences {
                *c.divergence.entry(kind).or_default() += 1;
            }
        });
        measured::record_arm(&mut lock(&self.shared.recorder), entry, production, arm, due_ns);
    }
}
