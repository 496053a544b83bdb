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

/// Changes that have started on the arm, as long as a read from before them may still be played.
#[derive(Debug, Default)]
pub struct Overtaken {
    /// By the moment when production had answered them, and their number. When it began them does not tell: a request
    /// that comes in parts has begun long before anything of it is done.
    started: BTreeMap<(u64, u64), (SessionId, Footprint)>,
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
        self.started.insert((entry.ended_ns(), entry.id), (exchange.session, entry.publishes.clone()));
        while self.started.len() > MAX_CHANGES {
            if let Some(((ended_ns, _), _)) = self.started.pop_first() {
                self.forgotten_ns = self.forgotten_ns.max(ended_ns.saturating_add(1));
            }
        }
    }

    /// Whether an exchange that has just finished on the arm may have seen what production answered after it. Who is still running on production has been answered before nothing.
    pub fn is(&self, entry: &Entry) -> bool {
        let answered_ns = entry.ended_ns();
        if entry.writes || answered_ns == u64::MAX {
            return false;
        }
        let session = entry.exchange.session;
        let mut later = self.started.range((answered_ns + 1, 0)..);
        let mut looked_at = later.by_ref().take(MAX_LOOKED_AT);
        answered_ns < self.forgotten_ns
            || looked_at.any(|(_, (of, publishes))| *of != session && publishes.conflicts(&entry.touches))
            || later.next().is_some()
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
        shadow::statement::footprint::TableUse,
    };

    fn entry(session: u64, begun_ns: u64, ended_ns: Option<u64>, table: &str, writes: bool) -> Entry {
        let touches = Footprint::Tables(vec![TableUse { table: table.into(), rows: None, writes }]);
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
            (entry(2, 50, Some(99), "t", false), true),
            // It came in parts, perhaps.
            (entry(2, 50, Some(109), "t", false), true),
            (entry(2, 50, Some(110), "t", false), false),
            (entry(2, 50, Some(99), "u", false), false),
            (entry(1, 50, Some(99), "t", false), false),
            (entry(2, 50, None, "t", false), false),
            (entry(2, 50, Some(99), "t", true), false),
        ] {
            assert_eq!(overtaken.is(&read), expected, "{read:?}");
        }
        overtaken.forget_before(111);
        assert!(!overtaken.is(&entry(2, 50, Some(99), "t", false)));
    }

    #[test]
    fn one_that_comes_long_after_its_time_is_not_held_against_all_that_has_changed_since() {
        let mut overtaken = Overtaken::default();
        for ended_ns in 1..=MAX_LOOKED_AT as u64 {
            overtaken.started(&entry(1, ended_ns, Some(ended_ns), "t", true));
        }
        assert!(!overtaken.is(&entry(2, 0, Some(0), "u", false)));
        overtaken.started(&entry(1, 1 + MAX_LOOKED_AT as u64, None, "t", true));
        assert!(overtaken.is(&entry(2, 0, Some(0), "u", false)));
    }

    #[test]
    fn what_had_to_be_forgotten_is_not_compared() {
        let mut overtaken = Overtaken::default();
        for ended_ns in 0..=MAX_CHANGES as u64 {
            overtaken.started(&entry(1, ended_ns, Some(ended_ns), "t", true));
        }
        let last_ns = MAX_CHANGES as u64;
        assert!(overtaken.is(&entry(2, 0, Some(0), "u", false)), "the first is forgotten");
        assert!(!overtaken.is(&entry(2, 0, Some(last_ns - 1), "u", false)));
    }
}
