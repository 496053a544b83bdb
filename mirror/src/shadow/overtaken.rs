//! Which reads were overtaken on an arm by a change that production had not answered when it answered them. Nothing
//! waits for a read on an arm: a slow one would hold up everybody's writes there, as it did not on production. What it
//! then sees may be newer than what production saw, so it is not compared. Pure.

use std::collections::BTreeMap;

use super::{entry::Entry, statement::footprint::Footprint};
use crate::capture::exchange::SessionId;

/// Changes that are kept for reads that are not finished.
const MAX_CHANGES: usize = 50_000;

/// Changes that are looked at for one read. One that is played long after its time would have to be held against all
/// that production has changed since: it counts as overtaken.
const MAX_LOOKED_AT: usize = 5_000;

/// A change that has started on the arm.
#[derive(Debug)]
struct Change {
    session: SessionId,
    begun_ns: u64,
    publishes: Footprint,
}

/// What an exchange may have seen on the arm that production answered after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Overtaking {
    /// Nothing.
    Nothing,
    /// Something that ran beside it there.
    Beside,
    /// Something that production had not even begun: what it read may be there no more.
    Later,
}

/// Changes that have started on the arm, as long as a read from before them may still be played.
#[derive(Debug, Default)]
pub struct Overtaken {
    /// By the moment when production had answered them, and their number. When it began them does not tell: a request
    /// that comes in parts has begun long before anything of it is done.
    started: BTreeMap<(u64, u64), Change>,
    /// What production answered before may have been forgotten, ns.
    forgotten_ns: u64,
}

impl Overtaken {
    /// An exchange starts on the arm.
    pub fn started(&mut self, entry: &Entry) {
        if entry.publishes == Footprint::NOTHING {
            return;
        }
        let exchange = &entry.exchange;
        let (session, begun_ns) = (exchange.session, exchange.begun_ns);
        let change = Change { session, begun_ns, publishes: entry.publishes.clone() };
        // One that is let go before production has answered it must not stay for ever.
        let answered_ns = entry.outcome().map_or(exchange.begun_ns, |outcome| outcome.ended_ns);
        self.started.insert((answered_ns, entry.id), change);
        while self.started.len() > MAX_CHANGES {
            if let Some(((ended_ns, _), _)) = self.started.pop_first() {
                self.forgotten_ns = self.forgotten_ns.max(ended_ns.saturating_add(1));
            }
        }
    }

    /// What an exchange that has just finished on the arm may have seen of what production answered after it. Who is still
    /// running on production has been answered before nothing.
    pub fn by(&self, entry: &Entry) -> Overtaking {
        let answered_ns = entry.ended_ns();
        let sees = entry.touches.seen(entry.writes);
        if *sees == Footprint::NOTHING || answered_ns == u64::MAX {
            return Overtaking::Nothing;
        }
        let session = entry.exchange.session;
        let mut later = self.started.range((answered_ns + 1, 0)..);
        let looked_at = later.by_ref().take(MAX_LOOKED_AT).map(|(_, change)| change);
        let seen = looked_at.filter(|of| of.session != session && of.publishes.conflicts(&sees));
        let most =
            seen.map(|change| if change.begun_ns > answered_ns { Overtaking::Later } else { Overtaking::Beside }).max();
        if answered_ns < self.forgotten_ns || later.next().is_some() {
            return Overtaking::Later;
        }
        most.unwrap_or(Overtaking::Nothing)
    }

    /// Nothing is left to be played that production began before this moment.
    pub fn forget_before(&mut self, oldest_ns: u64) {
        while self.started.first_key_value().is_some_and(|((ended_ns, _), _)| *ended_ns < oldest_ns) {
            self.started.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use bytes::Bytes;

    use super::*;
    use crate::{
        capture::exchange::{Exchange, Outcome},
        shadow::statement::footprint::{Access, TableUse},
    };

    fn entry(session: u64, begun_ns: u64, ended_ns: Option<u64>, table: &str, writes: bool) -> Entry {
        let access = if writes { Access::Write } else { Access::Read };
        let touches = Footprint::Tables(vec![TableUse { table: table.into(), rows: None, access }]);
        let outcome = OnceLock::new();
        if let Some(ended_ns) = ended_ns {
            outcome.set(Outcome { ended_ns, ..Outcome::default() }).unwrap();
        }
        let exchange = Exchange { session: SessionId(session), sequence: 0, begun_ns, request: Bytes::new(), outcome };
        Entry { id: begun_ns, writes, publishes: touches.writes(), touches, ..Entry::unplanned(exchange) }
    }

    #[test]
    fn a_read_is_overtaken_by_what_was_answered_after_it_and_changes_what_it_reads() {
        let mut overtaken = Overtaken::default();
        overtaken.started(&entry(1, 100, Some(110), "t", true));
        for (read, expected) in [
            (entry(2, 50, Some(99), "t", false), Overtaking::Later),
            // It came in parts, perhaps.
            (entry(2, 50, Some(109), "t", false), Overtaking::Beside),
            (entry(2, 50, Some(110), "t", false), Overtaking::Nothing),
            (entry(2, 50, Some(99), "u", false), Overtaking::Nothing),
            (entry(1, 50, Some(99), "t", false), Overtaking::Nothing),
            (entry(2, 50, None, "t", false), Overtaking::Nothing),
            (entry(2, 50, Some(99), "t", true), Overtaking::Nothing),
        ] {
            assert_eq!(overtaken.by(&read), expected, "{read:?}");
        }
        let mut writes = entry(2, 50, Some(99), "u", true);
        assert_eq!(overtaken.by(&writes), Overtaking::Nothing);
        writes.touches.merge(&entry(2, 0, None, "t", false).touches);
        assert_eq!(overtaken.by(&writes), Overtaking::Later, "it reads what was changed");
        overtaken.forget_before(111);
        assert_eq!(overtaken.by(&entry(2, 50, Some(99), "t", false)), Overtaking::Nothing);
    }

    #[test]
    fn one_that_comes_long_after_its_time_is_not_held_against_all_that_has_changed_since() {
        let mut overtaken = Overtaken::default();
        for ended_ns in 1..=MAX_LOOKED_AT as u64 {
            overtaken.started(&entry(1, ended_ns, Some(ended_ns), "t", true));
        }
        assert_eq!(overtaken.by(&entry(2, 0, Some(0), "u", false)), Overtaking::Nothing);
        overtaken.started(&entry(1, 1 + MAX_LOOKED_AT as u64, None, "t", true));
        assert_eq!(overtaken.by(&entry(2, 0, Some(0), "u", false)), Overtaking::Later);
    }

    #[test]
    fn what_had_to_be_forgotten_is_not_compared() {
        let mut overtaken = Overtaken::default();
        for ended_ns in 0..=MAX_CHANGES as u64 {
            overtaken.started(&entry(1, ended_ns, Some(ended_ns), "t", true));
        }
        let last_ns = MAX_CHANGES as u64;
        assert_eq!(overtaken.by(&entry(2, 0, Some(0), "u", false)), Overtaking::Later, "the first is forgotten");
        assert_eq!(overtaken.by(&entry(2, 0, Some(last_ns - 1), "u", false)), Overtaking::Nothing);
    }
}
