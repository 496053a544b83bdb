//! Which reads overlapped, on production, something that changed what they read. Both answers to such
//! a read are right, so its rows are not compared. So with rows that were added to one table at once, and the numbers that
//! they got. Pure.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use super::{
    entry::{Answer, Entry},
    id_map::IdMap,
    statement::footprint::Footprint,
};
use crate::capture::exchange::SessionId;

/// Changes that have ended and are kept for reads that still run. One statement may run for hours, and
/// thousands of changes end in each second of it.
const MAX_CHANGES: usize = 50_000;

/// Exchanges that made changes visible, as long as a read that runs may have overlapped them.
#[derive(Debug, Default)]
pub struct Overlaps {
    running: IdMap<u64, Arc<Entry>>,
    /// By the moment of their end and their number. Nothing of the exchange itself is kept: it may be
    /// large, and it would count as memory that an arm is behind with.
    ended: BTreeMap<(u64, u64), Change>,
    /// What ended before is forgotten although something that runs may have overlapped it, ns.
    forgotten_ns: u64,
}

#[derive(Debug)]
struct Change {
    session: SessionId,
    begun_ns: u64,
    is_call: bool,
    publishes: Footprint,
}

/// Whether it does nothing but read, as far as it can be told of what calls functions of which nothing is known.
fn is_call(entry: &Entry) -> bool {
    !entry.statements.is_empty() && entry.statements.iter().all(|statement| statement.answer == Answer::Called)
}

impl Overlaps {
    /// An exchange has begun.
    pub fn begun(&mut self, entry: &Arc<Entry>) {
        if entry.publishes != Footprint::NOTHING {
            self.running.insert(entry.id, Arc::clone(entry));
        }
    }

    /// An exchange has ended: whether a change overlapped it is known now.
    pub fn ended(&mut self, entry: &Arc<Entry>) {
        let (session, begun_ns, ended_ns) = (entry.exchange.session, entry.exchange.begun_ns, entry.ended_ns());
        if entry.publishes != Footprint::NOTHING && self.running.remove(&entry.id).is_some() {
            let change = Change { session, begun_ns, is_call: is_call(entry), publishes: entry.publishes.clone() };
            self.ended.insert((ended_ns, entry.id), change);
            while self.ended.len() > MAX_CHANGES {
                if let Some(((ended_ns, _), _)) = self.ended.pop_first() {
                    self.forgotten_ns = self.forgotten_ns.max(ended_ns + 1);
                }
            }
        }
        // What a write changes, the order decides. What it reads it sees as a read does, and so does a read that may be a
        // write. Two of these are not held against each other: most are none, and nothing would ever be compared.
        let calls = is_call(entry);
        let writes = entry.writes && !calls;
        let seen = entry.touches.seen(writes);
        if writes && *seen == Footprint::NOTHING && !entry.touches.adds_beside(&entry.touches) {
            return;
        }
        // Of what it adds, the numbers that its rows get are nobody's to decide.
        let touches =
            |publishes: &Footprint| publishes.conflicts(&seen) || writes && publishes.adds_beside(&entry.touches);
        let overlaps = |of: SessionId, since_ns: u64, is_call: bool, publishes: &Footprint| {
            of != session && since_ns <= ended_ns && !(calls && is_call) && touches(publishes)
        };
        let runs = |c: &Arc<Entry>| overlaps(c.exchange.session, c.exchange.begun_ns, is_call(c), &c.publishes);
        let overlapped = begun_ns < self.forgotten_ns
            || self.running.values().any(runs)
            || self.ended.range((begun_ns, 0)..).any(|(_, c)| overlaps(c.session, c.begun_ns, c.is_call, &c.publishes));
        if overlapped {
            entry.overlapped.store(true, Ordering::Relaxed);
        }
    }

    /// Nothing that runs began before this moment.
    pub fn forget_before(&mut self, oldest_ns: u64) {
        while let Some(first) = self.ended.first_entry().filter(|first| first.key().0 < oldest_ns) {
            let ((ended_ns, _), _) = first.remove_entry();
            // A request that came in parts may be told later with an earlier beginning.
            self.forgotten_ns = self.forgotten_ns.max(ended_ns.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests;
