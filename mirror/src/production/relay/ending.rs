//! How a relay ends, and what the client is told of it. It decides nothing about exchanges.

use std::sync::atomic::Ordering;

use super::Relay;
use crate::{production::session::refuse, wire::frame::FrameError};

/// Why a relay ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client is done or gone.
    Client,
    /// The worker closed the connection.
    Worker,
    /// The client sent what is no PostgreSQL message.
    ClientMalformed(FrameError),
    /// The worker sent what is no PostgreSQL message.
    WorkerMalformed {
        /// What is wrong with it.
        error: FrameError,
        /// What the client was sent ends with a whole message.
        whole: bool,
    },
    /// The mirror is going away.
    Drained,
    /// The same, in a session that is not followed: nobody knows where its messages end.
    DrainedUnseen,
}

impl Relay<'_> {
    /// Counts what has ended it and takes leave of the client.
    pub(super) async fn part(&mut self, end: End) {
        let malformed = &self.production.counters.malformed;
        match end {
            End::Client => self.last_answer().await,
            End::Worker | End::DrainedUnseen => {}
            End::ClientMalformed(error) => {
                malformed.fetch_add(1, Ordering::Relaxed);
                self.tell(self.tracker.server_at_boundary(), "08P01", &error.to_string()).await;
            }
            End::WorkerMalformed { error, whole } => {
                malformed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "the worker sent a malformed message");
                self.tell(whole, "08P01", &error.to_string()).await;
            }
            End::Drained => {
                let whole = self.tracker.server_at_boundary();
                self.tell(whole, "57P01", "understudy: the mirror is going away; connect again").await;
            }
        }
    }

    /// Tells the client why its session ends. In the middle of a message of the worker's it would take the words
    /// for a part of that: then they are left unsaid.
    async fn tell(&mut self, whole: bool, sqlstate: &str, why: &str) {
        if whole && self.downstream.is_empty() {
            refuse(self.client, sqlstate, why).await;
        }
    }
}
