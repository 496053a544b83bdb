//! Answers that were seen in another order than the commits that they tell of: which they are, and what follows for
//! who waits for whom. Must not guess: where production did not show who had the lock, the answers' order stands.

use std::sync::Arc;

use super::{Lane, Order, in_block};
use crate::{capture::exchange::SessionId, shadow::entry::Entry};

/// So many writes of one transaction are remembered for the locks that they took.
const MOST_LOCKS: usize = 64;

/// A transaction has gone on: what was answered meanwhile is to be held against the locks that it had.
#[derive(Debug)]
pub(super) struct Unsettled {
    session: SessionId,
    locks: Vec<Arc<Entry>>,
    from_ns: u64,
}

impl Lane {
    /// What production's session has locked after `before`.
    pub(super) fn note_locks(&mut self, before: Arc<Entry>) {
        if !in_block(&before) {
            self.locks.clear();
        } else if before.writes && changed_rows(&before) && self.locks.len() < MOST_LOCKS {
            if self.locks.is_empty() {
                self.settled_ns = before.ended_ns();
            }
            self.locks.push(before);
        }
    }

    /// What was played is kept no longer than somebody may ask for its locks: it may be large, and a session may be idle
    /// for days.
    pub(super) fn let_go_of(&mut self, played: &Entry) {
        let is_over = played.outcome().is_some_and(|outcome| !outcome.after.in_block());
        if is_over && self.last.as_ref().is_some_and(|last| last.id == played.id) {
            self.last = None;
            self.locks.clear();
        }
    }

    /// What is to be settled once all is known that was answered before its transaction goes on with `next`.
    pub(super) fn goes_on(&mut self, next: &Entry) -> Option<((u64, u64), Unsettled)> {
        let (from_ns, until_ns) = (self.settled_ns, next.exchange.begun_ns);
        // Sent before the answers to what locked: when it went on, nobody saw.
        if self.locks.is_empty() || until_ns <= from_ns {
            return None;
        }
        self.settled_ns = until_ns;
        let unsettled = Unsettled { session: next.exchange.session, locks: self.locks.clone(), from_ns };
        Some(((until_ns, next.id), unsettled))
    }
}

impl Order {
    /// When production finished it.
    pub(super) fn finished_ns(&self, entry: &Entry) -> u64 {
        self.late_answers.get(&entry.id).copied().unwrap_or_else(|| entry.ended_ns())
    }

    /// Sessions tell of themselves one beside the other: only when it is known until then has all been told that was
    /// answered before a transaction went on.
    pub(super) fn settle_late_answers(&mut self) {
        let known_ns = self.known_ns;
        while let Some(next) = self.unsettled.first_entry().filter(|next| next.key().0 <= known_ns) {
            let ((until_ns, _), unsettled) = next.remove_entry();
            self.settle(until_ns, &unsettled);
        }
    }

    /// A transaction went on at `until_ns`: what changed a row that it has locked, began before it got the lock, and
    /// was answered before it went on, had committed before.
    fn settle(&mut self, until_ns: u64, unsettled: &Unsettled) {
        let Unsettled { session, locks, from_ns } = unsettled;
        let mut late = Vec::new();
        for (key, other) in self.unfinished_writes.range((*from_ns, 0)..(until_ns, 0)) {
            let write = locks.iter().find(|write| {
                let got_ns = self.finished_ns(write);
                key.0 > got_ns && other.exchange.begun_ns < got_ns && other.touches.locks_a_row_of(&write.touches)
            });
            if let Some(write) = write.filter(|_| other.exchange.session != *session && changed_rows(other)) {
                late.push((*key, Arc::clone(other), Arc::clone(write)));
            }
        }
        for (key, other, write) in late {
            if self.is_waiting(&write) {
                self.put_before(key, &other, self.finished_ns(&write));
            } else {
                // Here the lock came to the wrong one: it goes on first, and nobody waits for who waits for it.
                self.locked_out.insert((other.exchange.session, other.id, *session));
            }
            self.changed = true;
        }
    }

    /// A write whose answer came late had finished before `got_ns`, and so had what its client had sent before it
    /// without waiting for an answer.
    fn put_before(&mut self, key: (u64, u64), other: &Entry, got_ns: u64) {
        let until_it = self.unfinished_writes.range((got_ns, 0)..=key);
        let of_its_session = until_it.filter(|(_, one)| one.exchange.session == other.exchange.session);
        for key in of_its_session.map(|(key, _)| *key).collect::<Vec<_>>() {
            if let Some(one) = self.unfinished_writes.remove(&key) {
                self.late_answers.insert(one.id, got_ns - 1);
                self.unfinished_writes.insert((got_ns - 1, one.id), one);
            }
        }
    }

    /// Whether it has not started on the arm.
    fn is_waiting(&self, entry: &Entry) -> bool {
        let lane = self.lanes.get(&entry.exchange.session);
        lane.and_then(|lane| lane.queue.front()).is_some_and(|next| next.id <= entry.id)
    }

    /// Whether it waits, or will, for a lock of a transaction that goes on without it.
    pub(super) fn is_locked_out(&self, entry: &Entry) -> bool {
        let session = entry.exchange.session;
        let since = (session, 0, SessionId(0))..=(session, entry.id, SessionId(u64::MAX));
        self.locked_out.range(since).next().is_some()
    }

    /// A write starts. Who did not wait for one that is locked out may lock it out as well.
    pub(super) fn lock_out_behind(&mut self, entry: &Entry) {
        if self.locked_out.is_empty() || !entry.writes || !in_block(entry) {
            return;
        }
        let session = entry.exchange.session;
        let others = self.unfinished_writes.values().filter(|other| other.exchange.session != session);
        let out = others.filter(|other| self.is_locked_out(other) && other.touches.changes_conflict(&entry.touches));
        let out: Vec<_> = out.map(|other| (other.exchange.session, other.id, session)).collect();
        // Whoever waited for one of them waits no longer.
        self.changed |= !out.is_empty();
        self.locked_out.extend(out);
    }

    /// An exchange is finished on the arm: what it waited for it has got, and with its transaction its locks are gone.
    pub(super) fn let_in(&mut self, entry: &Entry) {
        let (session, is_over) = (entry.exchange.session, !in_block(entry));
        self.locked_out.retain(|(out, since_id, holder)| {
            let has_got_it = *out == session && *since_id <= entry.id;
            !(has_got_it || is_over && *holder == session)
        });
    }
}

/// Whether each of its statements that looked for rows found some, so that it has their locks.
fn changed_rows(entry: &Entry) -> bool {
    entry.outcome().is_some_and(|outcome| {
        let mut rows = outcome.statements.iter().filter_map(|statement| statement.tag_rows).peekable();
        outcome.error().is_none() && rows.peek().is_some() && rows.all(|rows| rows > 0)
    })
}
