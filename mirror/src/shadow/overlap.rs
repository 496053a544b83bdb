//! Which reads overlapped, on production, something that changed what they read. Both answers to such
//! a read are right, so its rows are not compared. Pure.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use super::entry::Entry;

/// Exchanges that made changes visible, as long as a read that runs may have overlapped them.
#[derive(Debug, Default)]
pub struct Overlaps {
    changes: BTreeMap<u64, Arc<Entry>>,
}

impl Overlaps {
    /// An exchange has begun.
    pub fn begun(&mut self, entry: &Arc<Entry>) {
        if entry.publishes != super::statement::footprint::Footprint::NOTHING {
            self.changes.insert(entry.id, Arc::clone(entry));
        }
    }

    /// An exchange has ended: whether a change overlapped it is known now.
    pub fn ended(&mut self, entry: &Arc<Entry>) {
        let (begun_ns, ended_ns) = (entry.exchange.begun_ns, entry.ended_ns());
        let overlapped = self.changes.values().any(|change| {
            change.exchange.session != entry.exchange.session
                && change.exchange.begun_ns <= ended_ns
                && change.ended_ns() >= begun_ns
                && change.publishes.conflicts(&entry.touches)
        });
        if overlapped && !entry.writes {
            entry.overlapped.store(true, Ordering::Relaxed);
        }
    }

    /// Nothing that runs began before this moment.
    pub fn forget_before(&mut self, oldest_ns: u64) {
        self.changes.retain(|_, change| change.ended_ns() >= oldest_ns);
    }
}
