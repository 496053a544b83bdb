//! What a session begins with: roles, databases, and what is set for either. A session that logs in on the arm before
//! what production had changed of it by then is finished there would be another one than production's: other settings,
//! another `search_path`, no such role.
//!
//! Only what was told before the session is waited for, by the order of the log and not by the clock: nothing of that can
//! wait for what the session does. Must not count what changes tables alone: that changes nobody's beginning, and its
//! sessions would come one after the other that production had beside one another.

use std::collections::BTreeSet;

use crate::shadow::{entry::Entry, id_map::IdMap};

/// Changes of what sessions begin with that are not finished on the arm.
#[derive(Debug, Default)]
pub(super) struct Beginnings {
    /// How many were told.
    told: u64,
    /// How many were told with it, by its number; and those alone.
    unfinished: IdMap<u64, u64>,
    places: BTreeSet<u64>,
}

impl Beginnings {
    /// Production is done with an exchange.
    pub(super) fn ended(&mut self, entry: &Entry) {
        if entry.beginnings && !self.unfinished.contains_key(&entry.id) {
            self.told += 1;
            self.unfinished.insert(entry.id, self.told);
            self.places.insert(self.told);
        }
    }

    /// The arm is done with an exchange.
    pub(super) fn finished(&mut self, entry: &Entry) {
        if let Some(place) = self.unfinished.remove(&entry.id) {
            self.places.remove(&place);
        }
    }

    /// How many were told: what a session that comes now waits for.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// Whether the first so many are finished.
    pub(super) fn has_finished(&self, told: u64) -> bool {
        self.places.first().is_none_or(|first| *first > told)
    }
}
