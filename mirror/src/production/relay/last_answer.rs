//! What the worker still answers to a client that has gone: the arms must do what production did.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{
    io::Interest,
    time::{Instant, timeout},
};

use super::{DRAIN_LOOK, Relay};
use crate::buffer::Size;

/// How long the answer to a client that has vanished is waited for, so that its outcome is known. The
/// worker has been told that the client is gone, so it works on for exactly as long as it would have.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(3600);
/// How much of it is read: an outcome is short. Rows beyond it nobody wants, and the worker gives them
/// up as it would have when it finds that nobody takes them, which is at the second of its buffers of 8 KiB.
const LAST_ANSWER_BYTES: usize = 1 << 14;

impl Relay<'_> {
    /// The client is gone in the middle of an exchange: the worker goes on with it as it would without
    /// a mirror, and its outcome decides what the arms have to do. Where nothing is captured nobody has to know it.
    pub(super) async fn last_answer(&mut self) {
        if self.held {
            self.upstream.abandon();
        }
        self.gather_no_more();
        let until = Instant::now() + LAST_ANSWER_LIMIT;
        let (mut read_bytes, mut told) = (0, false);
        while self.tracker.in_flight() > 0 && !self.downstream.closed && read_bytes < LAST_ANSWER_BYTES {
            // What the client had sent still goes to the worker; then it learns that this was all. It
            // would otherwise wait for more, and keep its locks.
            let mut moved = self.upstream.drain(self.worker).unwrap_or_else(|_| {
                self.upstream.abandon();
                true
            });
            if self.upstream.is_empty() && !told {
                if !self.captured {
                    return;
                }
                self.worker.shutdown_write();
                told = true;
            }
            self.downstream.discard();
            match self.downstream.fill(self.worker, Size::Usual) {
                Ok(true) => {
                    read_bytes += self.downstream.pending().len();
                    moved = true;
                    if self.look_at_worker().is_err() {
                        return;
                    }
                }
                Ok(false) => {}
                Err(_) => return,
            }
            if moved || self.downstream.closed {
                continue;
            }
            if Instant::now() > until || self.production.draining.load(Ordering::SeqCst) {
                return;
            }
            let interest =
                if self.upstream.is_empty() { Interest::READABLE } else { Interest::READABLE.add(Interest::WRITABLE) };
            // The time-out is for the look at the drain.
            let _ = timeout(DRAIN_LOOK, self.worker.ready(interest)).await;
            self.downstream.refresh();
        }
    }
}
