//! Circles that a lock on the arm closes: whoever runs waits for a lock, and who has it waits in the order for whoever runs.
//! The lock is one that no statement names (a foreign key's, a trigger's, a table's that is being altered), or came to
//! another than on production. The arm's server tells who waits for whom. Must not let anybody go who waits for no circle.

use std::sync::Arc;

use super::{Order, Stands};
use crate::{
    capture::exchange::{SessionId, is_circumstance},
    shadow::{entry::Entry, id_map::IdSet, order::Action},
};

/// Nobody is asked about what has been running for less, ns: by far most locks are let go of before, and a server looks
/// for deadlocks of its own after a second.
const UNASKED_NS: u64 = 100_000_000;
/// So many are asked about at a time.
const MOST_ASKED: usize = 16;

impl Order {
    /// Sessions of what has been running here for a while, where somebody waits for the order in the middle of a
    /// transaction, and may have a lock that they wait for.
    pub fn may_wait_for_locks(&self, now_ns: u64) -> Vec<SessionId> {
        let holds = |session: &SessionId| self.lanes.get(session).is_some_and(|lane| lane.in_block);
        if !self.blocked.iter().any(holds) {
            return Vec::new();
        }
        let inside = self.lanes.iter().filter(|(_, lane)| lane.stands == Stands::Inside);
        let running = inside.filter_map(|(session, lane)| Some((lane.running.as_ref()?.1, *session)));
        let mut long: Vec<_> = running.filter(|(since_ns, _)| since_ns.saturating_add(UNASKED_NS) <= now_ns).collect();
        long.sort_unstable();
        long.into_iter().take(MOST_ASKED).map(|(_, session)| session).collect()
    }

    /// Starts, out of order, who has a lock that is waited for here and waits in the order for whoever waits for it.
    /// `locks`: who waits, and for whom.
    pub fn let_go(&mut self, locks: &[(SessionId, SessionId)], now_ns: u64, actions: &mut Vec<Action>) {
        let mut holders: Vec<_> = locks.iter().map(|(_, holder)| *holder).collect();
        holders.sort_unstable();
        holders.dedup();
        for holder in holders {
            let waits = |next: &&Arc<Entry>| self.blocked.contains(&holder) && self.is_known(next);
            let Some(next) = self.next(holder).filter(waits) else { continue };
            if self.waits_for_itself(holder, locks) {
                let released = self.is_before_its_turn(next);
                self.start(holder, now_ns, released, actions);
            }
        }
    }

    /// Whether what it waits for in the order waits for it, by whatever way.
    fn waits_for_itself(&self, session: SessionId, locks: &[(SessionId, SessionId)]) -> bool {
        let (mut seen, mut left) = (IdSet::default(), self.waited_for_by(session, locks));
        while let Some(next) = left.pop() {
            if next == session {
                return true;
            }
            if seen.insert(next) {
                left.extend(self.waited_for_by(next, locks));
            }
        }
        false
    }

    fn waited_for_by(&self, session: SessionId, locks: &[(SessionId, SessionId)]) -> Vec<SessionId> {
        match self.next(session).filter(|_| self.blocked.contains(&session)) {
            Some(next) => self.waits_for(next).map(|other| other.exchange.session).collect(),
            None => locks.iter().filter(|(waits, _)| *waits == session).map(|(_, holder)| *holder).collect(),
        }
    }

    /// Whether it makes a difference that it starts now: it has to do with something that comes before it, and both have
    /// changed something on production.
    fn is_before_its_turn(&self, entry: &Entry) -> bool {
        let before = |other: &Arc<Entry>| !came_to_nothing(other) && other.touches.conflicts(&entry.touches);
        !came_to_nothing(entry) && self.waits_for(entry).any(before)
    }
}

/// Whether it failed for a reason of the moment.
fn came_to_nothing(entry: &Entry) -> bool {
    entry.outcome().is_some_and(|outcome| outcome.error().is_some_and(is_circumstance))
}
