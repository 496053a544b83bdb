//! Room for sessions on the arm: as many as production had logged in when it let one in, and a few that are logging in.
//! Clients that come and go would else be let in as soon as they are told of, beside all those that the arm, which lives
//! behind production, has not played to their end: more than its `max_connections`, and more than production's server
//! ever had to serve.
//!
//! It must not be what an arm hangs by: who waits for a lock that another holds may be waited for here by who is to let
//! that one go on. Where nobody has come or gone for a while the next ones are let in all the same: so many as log in at a
//! time, and beyond that one by one, since it may be the arm itself that hangs.

use std::{collections::VecDeque, sync::Arc};

use super::beginnings::Beginnings;
use crate::capture::exchange::SessionInfo;

/// So many sessions log in at a time: what else wanted in would overrun the arm, and production beside it where they
/// share a machine.
pub(super) const LOGINS_AT_ONCE: usize = 16;
/// Nobody waits longer for room while nobody comes or goes, ns.
const STALLED_NS: u64 = 1_000_000_000;

/// How many sessions there are, and who waits to be one.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Sessions that production has, as far as it was told.
    on_production: usize,
    /// Sessions that the arm has, and those that are logging in there.
    inside: usize,
    at_the_door: usize,
    /// In the order in which production let them in.
    waiting: VecDeque<Waiting>,
    /// Somebody has come or gone since it was looked at last; when that was seen, ns.
    moved: bool,
    moved_ns: u64,
}

/// A session that is to log in.
#[derive(Debug)]
struct Waiting {
    info: Arc<SessionInfo>,
    /// How many there were on production when it came.
    there: usize,
    /// How many changes of what it begins with were told before it.
    told: u64,
}

impl Room {
    /// Production has let a session in, behind so many changes of what it begins with.
    pub(super) fn opened(&mut self, info: Arc<SessionInfo>, told: u64) {
        self.on_production += 1;
        self.waiting.push_back(Waiting { info, there: self.on_production, told });
    }

    /// Production has one that can't be played: it counts on both sides.
    pub(super) fn left_out(&mut self) {
        self.on_production += 1;
        self.inside += 1;
    }

    /// Production has ended a session.
    pub(super) fn closed(&mut self) {
        self.on_production = self.on_production.saturating_sub(1);
    }

    /// One has logged in on the arm, or could not.
    pub(super) fn logged_in(&mut self) {
        self.at_the_door = self.at_the_door.saturating_sub(1);
        self.inside += 1;
        self.moved = true;
    }

    /// One that had has left.
    pub(super) fn left(&mut self) {
        self.inside = self.inside.saturating_sub(1);
        self.moved = true;
    }

    /// Who is to log in now.
    pub(super) fn next(&mut self, now_ns: u64, beginnings: &Beginnings) -> Option<Arc<SessionInfo>> {
        let waits_for_room = self.waiting.front().is_some_and(|next| beginnings.has_finished(next.told));
        if std::mem::take(&mut self.moved) || !waits_for_room {
            self.moved_ns = now_ns;
        }
        let stalled = now_ns >= self.moved_ns.saturating_add(STALLED_NS);
        let on_the_arm = self.inside + self.at_the_door;
        let has_room = |next: &mut Waiting| {
            let beyond = self.at_the_door == 0 || on_the_arm < next.there + LOGINS_AT_ONCE;
            self.inside < next.there || stalled && beyond
        };
        let may_come = waits_for_room && self.at_the_door < LOGINS_AT_ONCE;
        let next = self.waiting.pop_front_if(|next| may_come && has_room(next))?;
        self.at_the_door += 1;
        Some(next.info)
    }
}
