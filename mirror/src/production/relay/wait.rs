//! What a session waits for when nothing moves: that one side can be read or written, that the gate opens, that
//! the mirror drains. It moves no bytes.

use std::sync::atomic::Ordering;

use tokio::{io::Interest, time::timeout};

use super::{DRAIN_LOOK, End, Relay};

impl Relay<'_> {
    /// Waits until something can move. What fails while it waits is what was written before and is encrypted.
    pub(super) async fn wait(&mut self) -> Result<(), End> {
        let (mut client, mut worker) = (None, None);
        let add = |interest: &mut Option<Interest>, more: Interest| {
            *interest = Some(interest.map_or(more, |i| i.add(more)));
        };
        if self.upstream.is_empty() {
            if !self.upstream.closed {
                add(&mut client, Interest::READABLE);
            }
        } else if !self.held {
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
        let Self { production, client: client_side, worker: worker_side, held, .. } = self;
        let held = *held;
        let ready = async {
            let client_ready = async {
                match client {
                    Some(interest) => client_side.ready(interest).await.is_ok(),
                    None => true,
                }
            };
            let worker_ready = async {
                match worker {
                    Some(interest) => worker_side.ready(interest).await.is_ok(),
                    None => true,
                }
            };
            tokio::select! {
                ok = client_ready, if client.is_some() => (ok, true),
                ok = worker_ready, if worker.is_some() => (true, ok),
                () = production.gate.opened(), if held => (true, true),
            }
        };
        let (client_ok, worker_ok) = if production.draining.load(Ordering::SeqCst) {
            timeout(DRAIN_LOOK, ready).await.unwrap_or((true, true))
        } else {
            let drained = production.drained.notified();
            if production.draining.load(Ordering::SeqCst) {
                return Ok(());
            }
            tokio::select! {
                ok = ready => ok,
                () = drained => (true, true),
            }
        };
        // As with a write: what the worker has said before still goes to the client.
        self.worker_deaf |= !worker_ok;
        if client_ok { Ok(()) } else { Err(End::Client) }
    }
}
