//! Forwards what is not mirrored, without a look, as sessions of replication are.

use std::sync::atomic::Ordering;

use super::{End, ROUNDS_PER_TURN, Relay};
use crate::buffer::Size;

impl Relay<'_> {
    /// Forwards what is not mirrored, without a look.
    pub(super) async fn copy(&mut self) -> End {
        let mut rounds = 0_u32;
        loop {
            let mut moved = false;
            if self.downstream.is_empty() {
                if !self.downstream.closed {
                    moved |= self.downstream.take(self.worker, Size::Usual);
                } else if !self.client.wants_write() {
                    return End::Worker;
                }
            }
            let Ok(down) = self.downstream.drain(self.client) else { return End::Client };
            if self.upstream.is_empty() && !self.upstream.closed {
                let Ok(filled) = self.upstream.fill(self.client, Size::Usual) else { return End::Client };
                moved |= filled;
                if self.upstream.closed {
                    // It may still read, and the worker may still have something to say.
                    self.worker.shutdown_write();
                }
            }
            // The worker takes nothing any more; its last words still go to the client.
            let up = self.upstream.drain(self.worker).unwrap_or_else(|_| {
                self.upstream.abandon();
                self.worker_deaf = true;
                true
            });
            moved |= up || down;
            if moved {
                rounds = rounds.wrapping_add(1);
                if !rounds.is_multiple_of(ROUNDS_PER_TURN) {
                    continue;
                }
                self.give_way().await;
            }
            // A stream may have something to say for as long as it lasts.
            if self.production.draining.load(Ordering::SeqCst) {
                return End::DrainedUnseen;
            }
            if !moved && let Err(end) = self.wait().await {
                return end;
            }
        }
    }
}
