//! What waits on the arm in a circle that nothing here tells of, and who is let go: a lock that the arm's server gave is
//! one half of it, the order the other. Must not let anybody go who merely waits his turn on an arm that is slow.

use super::{Action, Order, Stands};
use crate::capture::exchange::SessionId;

impl Order {
    /// Starts, out of order, a waiting exchange that what is stuck may be waiting for: the one that production finished
    /// first, of those that may hold a lock if there are any.
    pub(super) fn release(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if now_ns < self.released_ns.saturating_add(self.wait_limit_ns) || now_ns < self.stuck_from_ns {
            return;
        }
        let stuck: Vec<_> = self.stuck().filter(|(.., at_ns)| *at_ns <= now_ns).collect();
        if stuck.is_empty() {
            // What starts from now on is not stuck within the limit. There may be thousands of sessions to look at.
            let next_ns = self.stuck().map(|(.., at_ns)| at_ns).min().unwrap_or(u64::MAX);
            self.stuck_from_ns = next_ns.min(now_ns.saturating_add(self.wait_limit_ns));
            return;
        }
        let writes = stuck.iter().any(|(_, writes, _)| *writes);
        let waiting = |session: &SessionId| {
            let lane = self.lanes.get(session)?;
            let (next, holds) = (lane.queue.front()?, lane.holds);
            let ended_ns = next.outcome()?.ended_ns;
            // A read may just be slow here: it is in a circle only with who holds a lock and waits for what is behind it.
            let for_a_read = || {
                let mut others = self.waits_for(next);
                holds && others.any(|other| stuck.iter().any(|(session, ..)| *session == other.exchange.session))
            };
            (writes || for_a_read()).then_some((!holds, ended_ns, *session))
        };
        if let Some((.., session)) = self.blocked.iter().filter_map(waiting).min() {
            self.released_ns = now_ns;
            self.start(session, now_ns, true, actions);
        }
    }

    /// What runs here, and when it will have been running for so much longer than on production that it must be waiting
    /// for a lock whose holder waits for it, ns: the session, and whether it is a write.
    fn stuck(&self) -> impl Iterator<Item = (SessionId, bool, u64)> {
        let inside = self.lanes.values().filter(|lane| lane.stands == Stands::Inside);
        let running = inside.filter_map(|lane| lane.running.as_ref());
        running.map(|(entry, started_ns)| {
            let served_ns = entry.outcome().map_or(0, |o| o.ended_ns.saturating_sub(o.served_from_ns));
            let at_ns = started_ns.saturating_add(2 * served_ns).saturating_add(self.wait_limit_ns);
            (entry.exchange.session, entry.writes, at_ns)
        })
    }
}
