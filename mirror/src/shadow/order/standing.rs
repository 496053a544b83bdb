//! How an arm stands with what it was told: how much of it is outstanding, how far it is level with production, and
//! whether more could help. Changes nothing.

use std::cmp::Reverse;

use super::{ANSWERED_LATE_NS, Order};
use crate::shadow::measured::is_too_long;

impl Order {
    /// Everything that production began before the hold is finished on the arm.
    pub fn has_reached(&self, moment_ns: u64) -> bool {
        self.known_ns >= moment_ns && self.oldest_ns().is_none_or(|begun_ns| begun_ns >= moment_ns)
    }

    /// When the next exchange is due, ns since the mirror's epoch.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// What it holds of the memory budget, about: data of a COPY whose outcome came later is left out, bytes.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether something that is told later could let go on what waits now. What runs may wait on the arm for a
    /// lock, and whoever holds that ended in production before what runs did, and was answered little later: that far
    /// it must be told. How far that is nobody knows of what production itself still runs; there it is for who is
    /// `stalled`, where nothing has come to its end for a while.
    pub fn needs_more(&self, stalled: bool) -> bool {
        let mut running = self.lanes.values().filter_map(|lane| lane.running.as_ref()).peekable();
        if running.peek().is_none() {
            // What is not due yet waits for the clock alone.
            let waits = !self.blocked.is_empty() || self.outstanding.is_empty();
            return waits && !self.has_reached(self.hold_from_ns);
        }
        running.any(|(entry, _)| {
            entry.outcome().map_or(stalled, |o| o.ended_ns.saturating_add(ANSWERED_LATE_NS) > self.known_ns)
        })
    }

    /// Exchanges that are captured and not finished.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Whether something may start before this moment.
    pub fn may_start_before(&self, moment_ns: u64) -> bool {
        !self.blocked.is_empty() || self.next_due_ns().is_some_and(|due_ns| due_ns < moment_ns)
    }

    /// When production began the oldest exchange that is not finished here.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.outstanding.first_key_value().map(|((begun_ns, _), _)| *begun_ns)
    }

    /// The same, of those that are measured.
    pub fn oldest_measured_ns(&self) -> Option<u64> {
        let mut outstanding = self.outstanding.iter();
        outstanding.find(|(_, (entry, _))| !is_too_long(entry, self.known_ns)).map(|((begun_ns, _), _)| *begun_ns)
    }

    /// Everything that production was done with by then is finished here. What production itself still runs, the arm
    /// is not behind with.
    pub fn level_ns(&self) -> Option<u64> {
        let known = Some(self.known_ns).filter(|known_ns| *known_ns > 0);
        let oldest = self.ended.first().map(|(ended_ns, _)| *ended_ns);
        known.into_iter().chain(oldest).min()
    }
}
