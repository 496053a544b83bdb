//! What a session begins with: roles, databases, and what is set for either. A session that logs in on the arm before
//! what production had changed of it by then is finished there would be another one than production's: other settings,
//! another `search_path`, no such role. Its first exchange waits for all of that in any case.
//!
//! Only what was told before the session is waited for, by the order of the log and not by the clock: nothing of that can
//! wait for what the session does. What changes tables alone changes nobody's beginning.

use std::collections::BTreeMap;

use crate::shadow::{entry::Entry, statement::footprint::Footprint};

/// Changes of what sessions begin with that are not finished on the arm.
#[derive(Debug, Default)]
pub(super) struct Beginnings {
    /// How many were told.
    told: u64,
    /// By how many were told with it: its number.
    unfinished: BTreeMap<u64, u64>,
}

impl Beginnings {
    /// Production is done with an exchange.
    pub(super) fn ended(&mut self, entry: &Entry) {
        if entry.writes && entry.publishes == Footprint::Anything {
            self.told += 1;
            self.unfinished.insert(self.told, entry.id);
        }
    }

    /// The arm is done with an exchange.
    pub(super) fn finished(&mut self, entry: &Entry) {
        if entry.writes && entry.publishes == Footprint::Anything {
            self.unfinished.retain(|_, id| *id != entry.id);
        }
    }

    /// How many were told: what a session that comes now waits for.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// Whether the first so many are finished.
    pub(super) fn has_finished(&self, told: u64) -> bool {
        self.unfinished.first_key_value().is_none_or(|(first, _)| *first > told)
    }
}
