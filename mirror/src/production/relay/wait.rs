//! What a session waits for when nothing moves: that one side can be read or written, that the gate opens, that
//! the mirror drains. It moves no bytes.

use std::{future::poll_fn, io, sync::atomic::Ordering, task::Poll};

use tokio::{
    io::Interest,
    time::{Instant, sleep, sleep_until},
};

use super::{DRAIN_LOOK, End, Goodbye, Relay};

/// Nothing failed while it was waited for.
const FINE: (bool, bool) = (true, true);

impl Relay<'_> {
    /// From now on the task is woken when the mirror drains, whatever it waits for then: it has one waker for as long as
    /// it lives.
    pub(super) async fn hear_of_draining(&self) {
        poll_fn(|context| {
            self.state.drained.register(context.waker());
            Poll::Ready(())
        })
        .await;
    }

    /// Waits until something can move. What fails while it waits is what was written before and is encrypted.
    pub(super) async fn wait(&mut self) -> Result<(), End> {
        let (client_interest, worker_interest) = self.interests();
        let gathers_until = self.gathers_until();
        let until = gathers_until.or(match self.goodbye {
            Goodbye::Awaited(until) => Some(until),
            Goodbye::Unsaid | Goodbye::Said => None,
        });
        let answers = self.tracker.owes_answer();
        let Self { production, client, worker, held, worker_deaf, upstream, downstream, .. } = self;
        let draining = production.draining.load(Ordering::SeqCst);
        // One look at both sides and one place for the task to be woken from, without a list that threads share:
        // this is on the way of every message.
        let mut woken = false;
        let ready = poll_fn(|context| {
            if !draining && production.draining.load(Ordering::SeqCst) {
                return Poll::Ready(FINE);
            }
            if std::mem::replace(&mut woken, true) {
                // Both sides wake the task since the first look. That which is expected to is looked at alone, where the
                // order of what both may have said does not matter; the other has its look before the next wait.
                if answers
                    && let Some(interest) = worker_interest
                    && let Poll::Ready(fine) = worker.poll_ready(context, interest)
                {
                    downstream.refresh();
                    return Poll::Ready((true, fine.is_ok()));
                }
                if !answers
                    && let Some(interest) = client_interest
                    && let Poll::Ready(fine) = client.poll_ready(context, interest)
                {
                    upstream.refresh();
                    return Poll::Ready((fine.is_ok(), true));
                }
            }
            let client = client_interest.map_or(Poll::Pending, |interest| client.poll_ready(context, interest));
            let worker = worker_interest.map_or(Poll::Pending, |interest| worker.poll_ready(context, interest));
            if client.is_ready() {
                upstream.refresh();
            }
            if worker.is_ready() {
                downstream.refresh();
            }
            if client.is_pending() && worker.is_pending() {
                Poll::Pending
            } else {
                Poll::Ready((fine(&client), fine(&worker)))
            }
        });
        let mut is_time = false;
        let (client_fine, worker_fine) = if *held || draining || until.is_some() {
            tokio::select! {
                fine = ready => fine,
                () = production.gate.opened(), if *held => FINE,
                () = sleep(DRAIN_LOOK), if draining => FINE,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    is_time = true;
                    FINE
                }
            }
        } else {
            ready.await
        };
        // As with a write: what the worker has said before still goes to the client.
        *worker_deaf |= !worker_fine;
        match gathers_until {
            Some(_) if is_time => self.gather_no_more(),
            None if is_time => self.send_no_more(),
            _ => {}
        }
        if client_fine { Ok(()) } else { Err(End::Client) }
    }

    /// What the client's and the worker's connection are waited for; `None`: nothing.
    fn interests(&self) -> (Option<Interest>, Option<Interest>) {
        let (mut client, mut worker) = (None, None);
        let add = |interest: &mut Option<Interest>, more: Interest| {
            *interest = Some(interest.map_or(more, |i| i.add(more)));
        };
        if self.may_read_client() {
            add(&mut client, Interest::READABLE);
        } else if !self.upstream.is_empty() && !self.held {
            add(&mut worker, Interest::WRITABLE);
        }
        if !self.downstream.is_empty() {
            add(&mut client, Interest::WRITABLE);
        } else if !self.downstream.closed {
            add(&mut worker, Interest::READABLE);
        }
        // What was written and waits, encrypted, goes out as soon as the network takes it.
        if self.client.wants_write() {
            add(&mut client, Interest::WRITABLE);
        }
        if self.worker.wants_write() && !self.worker_deaf {
            add(&mut worker, Interest::WRITABLE);
        }
        (client, worker)
    }
}

fn fine(ready: &Poll<io::Result<()>>) -> bool {
    !matches!(ready, Poll::Ready(Err(_)))
}
