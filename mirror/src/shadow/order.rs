//! When an exchange may start on an arm. Pure: it is told what was captured and what the arm has
//! finished, and says what starts now.
//!
//! An exchange starts when all of this holds:
//!
//! 1. **Session**: the exchange before it in its session is finished on the arm.
//! 2. **Due**: production began it at least the shift ago. All arms play the same moment at once, with
//!    production's spacing.
//! 3. **Known**: everything that production finished before this exchange began is known here; for a
//!    write, everything that production finished before it ended, and its own outcome.
//! 4. **Real time**: every write that production had finished before this exchange began is finished
//!    on the arm.
//! 5. **Conflicts**: a write waits for every overlapping write that production finished earlier and that changes or locks
//!    what it changes or locks. What it merely reads it saw as it was when it began, and sees so here.
//!
//! A session itself logs in when the arm has fewer than production had then (`order/room.rs`), and has finished what
//! production had changed of roles and settings (`order/beginnings.rs`).
//!
//! Production *finished* an exchange when its answer came, with one exception. Two answers may come in the other
//! order than the commits that they tell of: a transaction gets a row's lock the moment another has committed, and
//! the answer to what it did with it may be seen first. When the transaction goes on after the late answer, it held
//! the lock all the time, so the other had committed before: it is taken to have finished just before the write that
//! got the lock, or, where that runs on the arm already, is not waited for until its transaction is over (`order/late.rs`).
//!
//! All waits are for exchanges that ended earlier on production than the one that waits, so they can't
//! form a circle among themselves. A lock on the arm can still close one where a footprint was
//! incomplete (a foreign key, a trigger, a read that blocks DDL): who has it is released when the arm's server tells of it
//! (`order/circle.rs`), or, where it tells of nobody and something runs on the arm for much longer than it did on
//! production, one that may have it (`order/stuck.rs`). That is counted as divergence where it can make a difference.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use self::{
    beginnings::Beginnings,
    lane::{Lane, Stands},
    late::Unsettled,
    room::Room,
};
use super::{
    entry::Entry,
    id_map::{IdMap, IdSet},
};
use crate::capture::exchange::{SessionId, SessionInfo};

mod beginnings;
mod circle;
mod lane;
mod late;
mod room;
mod standing;
mod stuck;

/// An answer is not seen later than this after the commit that it tells of, as far as anything here is held up by it.
const ANSWERED_LATE_NS: u64 = 1_000_000_000;

/// What is to be done now.
#[derive(Debug, Clone)]
pub enum Action {
    /// Let the session log in.
    Open(Arc<SessionInfo>),
    /// Play it.
    Start {
        /// What.
        entry: Arc<Entry>,
        /// When it was due, ns since the mirror's epoch.
        due_ns: u64,
        /// It is played out of order, since what it waited for waited for it: that may make a difference.
        released: bool,
    },
    /// The session is over and everything of it has been played. Whoever closes it says when it has
    /// [`left`](Order::left).
    Close(SessionId),
}

/// The order on one arm.
#[derive(Debug)]
pub struct Order {
    shift_ns: u64,
    wait_limit_ns: u64,
    lanes: IdMap<SessionId, Lane>,
    room: Room,
    beginnings: Beginnings,
    due: BinaryHeap<Reverse<(u64, SessionId)>>,
    blocked: IdSet<SessionId>,
    /// Who is looked at in a turn; kept for its room.
    candidates: Vec<SessionId>,
    /// By when production finished them, and number.
    unfinished_writes: BTreeMap<(u64, u64), Arc<Entry>>,
    /// By number: when unfinished writes had finished whose answer came late, ns.
    late_answers: IdMap<u64, u64>,
    /// Sessions that wait on the arm for a lock that came to another too early: since which number, and whose it is.
    locked_out: BTreeSet<(SessionId, u64, SessionId)>,
    /// By when the transaction went on, and the number of what it went on with.
    unsettled: BTreeMap<(u64, u64), Unsettled>,
    /// By when production began them, and number; with what each is held to take of the memory budget, bytes.
    outstanding: BTreeMap<(u64, u64), (Arc<Entry>, usize)>,
    /// Those of them that production is done with: by when it was, and number.
    ended: BTreeSet<(u64, u64)>,
    /// What the outstanding take of the memory budget.
    held_bytes: usize,
    known_ns: u64,
    hold_from_ns: u64,
    released_ns: u64,
    /// Nothing can be stuck before, ns.
    stuck_from_ns: u64,
    changed: bool,
}

impl Order {
    /// An order in which the arm lives `shift_ns` behind production, and in which a write
    /// that runs `wait_limit_ns` longer than it should is taken to be stuck.
    pub fn new(shift_ns: u64, wait_limit_ns: u64) -> Self {
        Self {
            shift_ns,
            wait_limit_ns,
            lanes: IdMap::default(),
            room: Room::default(),
            beginnings: Beginnings::default(),
            due: BinaryHeap::new(),
            blocked: IdSet::default(),
            candidates: Vec::new(),
            unfinished_writes: BTreeMap::new(),
            late_answers: IdMap::default(),
            locked_out: BTreeSet::new(),
            unsettled: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            ended: BTreeSet::new(),
            held_bytes: 0,
            known_ns: 0,
            hold_from_ns: u64::MAX,
            released_ns: 0,
            stuck_from_ns: 0,
            changed: false,
        }
    }

    /// Production has a session that can't be played here.
    pub fn left_out(&mut self) {
        self.room.left_out();
    }

    /// Production has let a session in. It plays nothing before it has logged in here.
    pub fn opened(&mut self, info: Arc<SessionInfo>) {
        self.lanes.entry(info.id).or_default().stands = Stands::Outside;
        self.room.opened(info, self.beginnings.told());
    }

    /// It has, or could not: what was started in it runs from now on.
    pub fn logged_in(&mut self, session: SessionId, now_ns: u64) -> Option<Action> {
        let lane = self.lanes.get_mut(&session).filter(|lane| lane.stands == Stands::AtTheDoor)?;
        lane.stands = Stands::Inside;
        lane.running = lane.running.take().map(|(entry, _)| (entry, now_ns));
        self.room.logged_in();
        self.close_if_done(session)
    }

    /// Takes an exchange in, after all earlier ones of its session.
    pub fn begun(&mut self, entry: &Arc<Entry>) {
        let bytes = entry.charged_bytes();
        self.outstanding.insert((entry.exchange.begun_ns, entry.id), (Arc::clone(entry), bytes));
        self.held_bytes += bytes;
        let session = entry.exchange.session;
        if entry.outcome().is_some() {
            self.note_end(entry);
        }
        let lane = self.lanes.entry(session).or_default();
        if let Some(before) = lane.last.replace(Arc::clone(entry)) {
            lane.note_locks(before);
        }
        self.unsettled.extend(lane.goes_on(entry));
        lane.queue.push_back(Arc::clone(entry));
        if lane.queue.len() == 1 && lane.running.is_none() && lane.stands != Stands::Outside {
            self.head(session);
        }
    }

    /// Production's outcome of an exchange is known now.
    pub fn ended(&mut self, entry: &Arc<Entry>) {
        if let Some((_, bytes)) = self.outstanding.get_mut(&(entry.exchange.begun_ns, entry.id)) {
            // What its outcome takes is known now.
            let before = std::mem::replace(bytes, entry.charged_bytes());
            self.held_bytes = (self.held_bytes + *bytes).saturating_sub(before);
            self.note_end(entry);
            self.beginnings.ended(entry);
            self.changed = true;
        } else if let Some(lane) = self.lanes.get_mut(&entry.exchange.session).filter(|lane| lane.played == entry.id) {
            // It was played before production was done with it.
            lane.in_block = in_block(entry);
        }
    }

    fn note_end(&mut self, entry: &Arc<Entry>) {
        self.ended.insert((entry.ended_ns(), entry.id));
        if entry.writes {
            self.unfinished_writes.insert((entry.ended_ns(), entry.id), Arc::clone(entry));
        }
    }

    /// The session is over on production.
    pub fn closed(&mut self, session: SessionId) -> Option<Action> {
        self.room.closed();
        let lane = self.lanes.entry(session).or_default();
        lane.closing = true;
        self.close_if_done(session)
    }

    /// Everything that production did until `known_ns` has been told.
    pub fn known_until(&mut self, known_ns: u64) {
        self.changed |= known_ns > self.known_ns;
        self.known_ns = known_ns;
        self.settle_late_answers();
    }

    /// Nothing that production began at this moment or later starts, until told otherwise.
    pub fn hold_from(&mut self, hold_from_ns: Option<u64>) {
        let hold_from_ns = hold_from_ns.unwrap_or(u64::MAX);
        self.changed |= hold_from_ns != self.hold_from_ns;
        self.hold_from_ns = hold_from_ns;
    }

    /// The arm is done with the exchange that ran in a session.
    pub fn finished(&mut self, session: SessionId) -> Option<Action> {
        let lane = self.lanes.get_mut(&session)?;
        let (entry, _) = lane.running.take()?;
        (lane.played, lane.in_block) = (entry.id, in_block(&entry));
        lane.holds = lane.in_block && (lane.holds || entry.writes);
        lane.let_go_of(&entry);
        let held = self.outstanding.remove(&(entry.exchange.begun_ns, entry.id));
        self.held_bytes = self.held_bytes.saturating_sub(held.map_or(0, |(_, bytes)| bytes));
        self.ended.remove(&(entry.ended_ns(), entry.id));
        if entry.writes {
            self.unfinished_writes.remove(&(self.finished_ns(&entry), entry.id));
            self.late_answers.remove(&entry.id);
            self.changed = true;
        }
        self.beginnings.finished(&entry);
        self.let_in(&entry);
        self.head(session);
        self.close_if_done(session)
    }

    /// A session that was over has left the arm.
    pub fn left(&mut self) {
        self.room.left();
    }

    fn close_if_done(&mut self, session: SessionId) -> Option<Action> {
        let lane = self.lanes.get(&session)?;
        if lane.closing && lane.queue.is_empty() && lane.running.is_none() && lane.stands == Stands::Inside {
            self.lanes.remove(&session);
            return Some(Action::Close(session));
        }
        None
    }

    fn head(&mut self, session: SessionId) {
        if let Some(next) = self.lanes.get(&session).and_then(|lane| lane.queue.front()) {
            self.due.push(Reverse((next.exchange.begun_ns.saturating_add(self.shift_ns), session)));
        }
    }

    /// What starts now.
    pub fn poll(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        while let Some(info) = self.room.next(now_ns, &self.beginnings) {
            let session = info.id;
            if let Some(lane) = self.lanes.get_mut(&session) {
                lane.stands = Stands::AtTheDoor;
            }
            actions.push(Action::Open(info));
            self.head(session);
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        while let Some(Reverse((due_ns, session))) = self.due.peek().copied() {
            if due_ns > now_ns {
                break;
            }
            self.due.pop();
            self.blocked.insert(session);
            candidates.push(session);
        }
        // Starting something never lets another start, so one round is enough.
        if std::mem::take(&mut self.changed) {
            candidates.clear();
            candidates.extend(&self.blocked);
            // What becomes free at once starts as production began it.
            candidates.sort_by_cached_key(|session| (self.next(*session).map(|next| next.exchange.begun_ns), *session));
        }
        for session in candidates.drain(..) {
            self.consider(session, now_ns, actions);
        }
        self.candidates = candidates;
        if actions.is_empty() && !self.blocked.is_empty() {
            self.release(now_ns, actions);
        }
    }

    fn next(&self, session: SessionId) -> Option<&Arc<Entry>> {
        self.lanes.get(&session)?.queue.front()
    }

    fn consider(&mut self, session: SessionId, now_ns: u64, actions: &mut Vec<Action>) {
        let Some(entry) = self.next(session) else { return };
        if self.is_known(entry) && !self.must_wait(entry) {
            self.start(session, now_ns, false, actions);
        }
    }

    /// Whether all is known of it that has to be, and nothing holds it back but the order.
    fn is_known(&self, entry: &Entry) -> bool {
        // An outcome is seen here as soon as production has it. What production finished before it may
        // still be on its way: a write waits until that is known too.
        let known = self.known_ns >= entry.exchange.begun_ns
            && (!entry.writes || (entry.outcome().is_some() && self.known_ns >= entry.ended_ns()));
        entry.exchange.begun_ns < self.hold_from_ns && known
    }

    fn start(&mut self, session: SessionId, now_ns: u64, released: bool, actions: &mut Vec<Action>) {
        self.blocked.remove(&session);
        let Some(entry) = self.lanes.get_mut(&session).and_then(|lane| lane.queue.pop_front()) else { return };
        self.lock_out_behind(&entry);
        if let Some(lane) = self.lanes.get_mut(&session) {
            lane.running = Some((Arc::clone(&entry), now_ns));
        }
        let due_ns = entry.exchange.begun_ns.saturating_add(self.shift_ns);
        actions.push(Action::Start { entry, due_ns, released });
    }

    fn must_wait(&self, entry: &Entry) -> bool {
        self.waits_for(entry).next().is_some()
    }

    /// Rules 4 and 5. An entry never waits for its own session: what came before it is finished.
    fn waits_for<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Arc<Entry>> {
        let began = (entry.exchange.begun_ns, 0);
        let finished = if entry.writes { (self.finished_ns(entry), entry.id) } else { began };
        // What failed may have failed for rows that another had added. In a transaction rows are added one after the other,
        // so that sequences are drawn from in the order of the answers; where the answer comes behind a COMMIT, it tells
        // nothing of that order, and arms would commit one by one what production did together.
        let strictly = entry.writes && (in_block(entry) || entry.outcome().is_some_and(|o| o.error().is_some()));
        let touches = if strictly { Cow::Owned(entry.touches.strictly()) } else { Cow::Borrowed(&entry.touches) };
        let before = self.unfinished_writes.range(..began);
        // Nothing ends before it begins, whatever the clocks say.
        let beside = self.unfinished_writes.range((Included(began), Excluded(finished.max(began))));
        let beside = beside.filter(move |(_, other)| other.touches.changes_conflict(&touches));
        before.chain(beside).map(|(_, other)| other).filter(|other| !self.is_locked_out(other))
    }
}

/// Whether a transaction is open after it on production.
fn in_block(entry: &Entry) -> bool {
    entry.outcome().is_some_and(|outcome| outcome.after.in_block())
}

#[cfg(test)]
mod tests;
