//! What a session still runs when its time is up and the mirror goes away: it is cancelled, and the client hears what came
//! of it before it is told to connect again.
//!
//! Who is told that a server shuts down (57P01) takes it that nothing was done, and does it once more. A statement that is
//! merely left alone goes on, though, and commits. Must not send the worker what the client sends meanwhile.

use std::{io, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::{End, Relay};
use crate::wire::encode;

/// How long the worker may take to cancel it, and the client to read what it is told.
const CANCEL_LIMIT: Duration = Duration::from_millis(1500);

impl Relay<'_> {
    /// Cancels what runs. Whether all that was asked is answered now, and the answers are with the client's network.
    pub(super) async fn settle(&mut self) -> Result<bool, End> {
        if !self.tracker.runs() {
            // What has come of a request without its end is given up with the connection.
            return Ok(true);
        }
        if std::mem::take(&mut self.held) {
            self.upstream.abandon();
        }
        self.upstream.closed = true;
        let until = Instant::now() + CANCEL_LIMIT;
        // What can't be cancelled may end by itself.
        let _ = timeout(CANCEL_LIMIT, self.cancel()).await;
        while self.tracker.runs() || !self.client_has_all() {
            let moved = self.turn()?;
            if Instant::now() >= until {
                // Whatever it still says: it may have as much to say as it likes.
                return Ok(!self.tracker.runs() && self.client_has_all());
            }
            if moved {
                self.give_way().await;
            } else if let Ok(waited) = timeout_at(until, self.wait()).await {
                waited?;
            }
        }
        Ok(true)
    }

    async fn cancel(&self) -> io::Result<()> {
        let connecting = self.production.worker.connect(CANCEL_LIMIT, CANCEL_LIMIT);
        let mut worker = connecting.await.map_err(io::Error::other)?;
        worker.write_all(&encode::cancel(&self.tracker.backend_key)).await?;
        // It closes the connection when it has sent the signal.
        worker.read(&mut [0; 16]).await.map(drop)
    }
}
