//! The one door from the production path to the shadow path. Handing an event over never waits: the
//! queue is lock-free, and when the budget is used up capture ends, with a count, and production goes on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use crossbeam_queue::SegQueue;

use super::per_thread::PerThread;
use crate::{
    capture::exchange::{Event, Outcome},
    clock::now_ns,
};

/// A production thread is not handling anything.
const QUIET: u64 = u64::MAX;
/// A production thread has begun to handle something and has not said when.
const JUST_BEGUN: u64 = 0;
/// What an event weighs beside the bytes it carries.
const EVENT_BYTES: usize = 512;

/// The door.
#[derive(Debug)]
pub struct Tap {
    queue: SegQueue<Event>,
    pending_bytes: AtomicUsize,
    limit_bytes: usize,
    capturing: AtomicBool,
    overflowed: AtomicBool,
    dropped: AtomicU64,
    stamps: PerThread<Stamp>,
}

/// From when on what a production thread is handling may carry a time, ns.
#[derive(Debug)]
struct Stamp(AtomicU64);

impl Default for Stamp {
    fn default() -> Self {
        Self(AtomicU64::new(QUIET))
    }
}

impl Tap {
    /// A tap for as many production threads, that holds at most `limit_bytes` for the shadow path.
    pub fn new(threads: usize, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: SegQueue::new(),
            pending_bytes: AtomicUsize::new(0),
            limit_bytes,
            capturing: AtomicBool::new(true),
            overflowed: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            stamps: PerThread::new(threads),
        })
    }

    /// A production thread begins to handle something; the moment, ns.
    pub fn begin(&self, thread: usize) -> u64 {
        let Some(Stamp(stamp)) = self.stamps.of(thread).filter(|_| self.is_capturing()) else { return now_ns() };
        stamp.store(JUST_BEGUN, Ordering::SeqCst);
        let now = now_ns();
        stamp.store(now.max(1), Ordering::SeqCst);
        now
    }

    /// All that it was handling has been handed over.
    pub fn end(&self, thread: usize) {
        // Nobody else writes it.
        if let Some(Stamp(stamp)) = self.stamps.of(thread).filter(|stamp| stamp.0.load(Ordering::Relaxed) != QUIET) {
            stamp.store(QUIET, Ordering::SeqCst);
        }
    }

    /// Whether anything is captured.
    pub fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Relaxed)
    }

    /// Ends capture for good: sessions have to be captured from their beginning.
    pub fn end_capture(&self) {
        self.capturing.store(false, Ordering::Relaxed);
    }

    /// Something that had to be captured was not: it is counted, capture ends, and says so. What comes after the end of
    /// capture is not captured, so not counted.
    pub fn fail(&self) {
        if self.is_capturing() {
            // First: who sees that capture has ended sees why.
            self.overflowed.store(true, Ordering::SeqCst);
            let was_capturing = self.capturing.swap(false, Ordering::SeqCst);
            self.dropped.fetch_add(u64::from(was_capturing), Ordering::Relaxed);
        }
    }

    /// Hands an event over.
    pub fn push(&self, event: Event) {
        if !self.is_capturing() {
            return;
        }
        let bytes = weight(&event);
        if self.pending_bytes.fetch_add(bytes, Ordering::Relaxed) > self.limit_bytes {
            self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.fail();
            return;
        }
        self.queue.push(event);
    }

    /// Requests and COPY data that a session keeps and has not handed over yet: so many bytes before,
    /// so many now. They count as if they had been handed over.
    pub fn kept(&self, before_bytes: usize, now_bytes: usize) {
        match now_bytes.checked_sub(before_bytes) {
            Some(more) => {
                let pending = self.pending_bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more);
                if more > 0 && pending > self.limit_bytes {
                    self.fail();
                }
            }
            None => {
                self.pending_bytes.fetch_sub(before_bytes - now_bytes, Ordering::Relaxed);
            }
        }
    }

    /// Takes the next event. Shadow side.
    pub fn pop(&self) -> Option<Event> {
        let event = self.queue.pop()?;
        self.pending_bytes.fetch_sub(weight(&event), Ordering::Relaxed);
        Some(event)
    }

    /// Bytes that count against the limit: of events that wait, and of requests that sessions still keep.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// What may wait at most, bytes.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Events that wait. Shadow side.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether events were dropped since the shadow path did not take them in time.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Events that were dropped, and requests too long to become one: with the first of them capture ended.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A moment before which everything is in the queue; `None` when nobody can say right now.
    pub fn settled_until_ns(&self) -> Option<u64> {
        // The clock is read before the stamps: a thread that is quiet now will read a later clock.
        let now = now_ns();
        self.stamps.iter().try_fold(now, |until, stamp| match stamp.0.load(Ordering::SeqCst) {
            JUST_BEGUN => None,
            QUIET => Some(until),
            at => Some(until.min(at - 1)),
        })
    }
}

fn weight(event: &Event) -> usize {
    EVENT_BYTES
        + match event {
            Event::Begun(exchange) => exchange.request.len(),
            Event::Ended(exchange) => exchange.outcome.get().map_or(0, Outcome::kept_bytes),
            Event::SessionOpened(_) | Event::SessionClosed(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::exchange::SessionId;

    #[test]
    fn a_full_tap_ends_capture_and_says_so() {
        let tap = Tap::new(1, 2 * EVENT_BYTES);
        for n in 0..5 {
            tap.push(Event::SessionClosed(SessionId(n)));
        }
        assert!(tap.has_overflowed() && !tap.is_capturing());
        assert_eq!(std::iter::from_fn(|| tap.pop()).count(), 3);
        assert_eq!(tap.dropped(), 1);
    }

    #[test]
    fn nothing_is_settled_that_a_thread_may_still_hand_over() {
        let tap = Tap::new(2, 1);
        let before = now_ns();
        assert!(tap.settled_until_ns().unwrap() >= before);
        let begun = tap.begin(1);
        assert!(tap.settled_until_ns().unwrap() < begun.max(1));
        tap.end(1);
        assert!(tap.settled_until_ns().unwrap() >= begun);
    }
}
