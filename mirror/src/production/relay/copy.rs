//! Forwards what is not mirrored, without a look, as sessions of replication are.

use std::sync::atomic::Ordering;

use tokio::task::yield_now;

use super::{End, ROUNDS_PER_TURN, Relay};

impl Relay<'_> {
    /// Forwards what is not mirrored, without a look.
    pub(super) async fn copy(&mut self) -> End {
        let mut rounds = 0_u32;
        loop {
            let mut moved = false;
            if self.upstream.is_empty() {
                if self.upstream.closed {
                    return End::Client;
                }
                moved |= self.upstream.take(self.client);
            }
            if self.downstream.is_empty() && self.downstream.closed {
                if !self.client.wants_write() {
                    return End::Worker;
                }
            } else if self.downstream.is_empty() {
                moved |= self.downstream.take(self.worker);
            }
            match (self.upstream.drain(self.worker), self.downstream.drain(self.client)) {
                (Ok(up), Ok(down)) => moved |= up || down,
                (Err(_), _) => return End::Worker,
                (_, Err(_)) => return End::Client,
            }
            if moved {
                rounds = rounds.wrapping_add(1);
                if rounds.is_multiple_of(ROUNDS_PER_TURN) {
                    yield_now().await;
                }
                continue;
            }
            if self.production.draining.load(Ordering::SeqCst) {
                return End::Drained;
            }
            if let Err(end) = self.wait().await {
                return end;
            }
        }
    }
}
