//! How a relay ends, and what the client is told of it. It decides nothing about exchanges.

use std::io::ErrorKind;

use tokio::time::timeout;

use super::{FLUSH_LIMIT, Relay};
use crate::{
    capture::tracker::Malformed,
    production::{
        counters::{Side, Wrong},
        session::{LEAVING, refuse},
    },
    wire::frame::FrameError,
};

/// Why a relay ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client is done or gone.
    Client,
    /// The worker closed the connection.
    Worker,
    /// The client sent what is no PostgreSQL message.
    ClientMalformed(FrameError),
    /// The worker has no process for this client, and says so in words without a length, as servers did before
    /// protocol 3 (PostgreSQL's `report_fork_failure_to_client`).
    WorkerUnable,
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

/// What a client has sent that is no message, and that is refused when everything before it is answered.
#[derive(Debug)]
pub(super) struct Refused {
    error: FrameError,
    /// The worker knows that nothing more comes.
    told: bool,
}

impl Relay<'_> {
    /// The client has sent what is no message. What came before it is asked and answered, as it would be without a
    /// mirror; nothing more is read.
    pub(super) fn refuse_the_rest(&mut self, malformed: Malformed) {
        let Malformed { error, before_bytes } = malformed;
        self.upstream.keep(before_bytes);
        self.upstream.closed = true;
        self.refused = Some(Refused { error, told: false });
    }

    /// Whether the session ends after this turn, for what its client has sent.
    pub(super) fn refusal(&mut self, turned: &Result<bool, End>) -> Option<End> {
        let Refused { error, told } = self.refused.as_mut()?;
        let error = *error;
        if self.upstream.is_empty() && !std::mem::replace(told, true) {
            // Nothing more comes, of a COPY's data or of anything. It answers what it was asked, as it would.
            self.worker.shutdown_write();
        }
        let answered = self.tracker.awaited() == 0
            && self.upstream.is_empty()
            && self.client_has_all()
            && self.tracker.server_at_boundary();
        (answered || matches!(turned, Err(End::Worker))).then_some(End::ClientMalformed(error))
    }

    /// Counts what has ended it and takes leave of the client.
    pub(super) async fn part(&mut self, end: End) {
        self.count(&end);
        match end {
            End::Client => self.last_answer().await,
            End::Worker | End::DrainedUnseen => {}
            End::ClientMalformed(error) => {
                self.tell(self.tracker.server_at_boundary(), "08P01", &error.to_string()).await;
            }
            End::WorkerUnable => {
                tracing::warn!("the worker has no process for a client");
                self.pass_on().await;
            }
            End::WorkerMalformed { error, whole } => {
                tracing::warn!(%error, "the worker sent a malformed message");
                self.pass_on().await;
                self.tell(whole, "08P01", &error.to_string()).await;
            }
            // In a place of its own: what each session has room for, all of them keep.
            End::Drained => match Box::pin(self.settle()).await {
                Ok(true) => self.tell(self.tracker.server_at_boundary(), LEAVING.0, LEAVING.1).await,
                // Nobody knows what comes of it: so does the client, which hears no more of it.
                Ok(false) => self.client.cut(),
                // The worker has ended it, and said why.
                Err(_) => {}
            },
        }
    }

    /// Counts what one side has sent that ended it.
    fn count(&self, end: &End) {
        let Self { upstream, downstream, tracker, .. } = self;
        let is_record = |broken: Option<ErrorKind>| broken == Some(ErrorKind::InvalidData);
        let is_cut = !tracker.client_at_boundary();
        let wrong = match end {
            End::ClientMalformed(_) => Some((Side::Client, Wrong::Length)),
            End::WorkerMalformed { .. } | End::WorkerUnable => Some((Side::Worker, Wrong::Length)),
            End::Client if is_record(upstream.broken) => Some((Side::Client, Wrong::Record)),
            End::Worker if is_record(downstream.broken) => Some((Side::Worker, Wrong::Record)),
            End::Client if is_cut => Some((Side::Client, Wrong::Truncated)),
            // It had said that it sends no more. A worker that takes nothing any more cuts its client short.
            End::Worker if is_cut && upstream.closed && !self.worker_deaf => Some((Side::Client, Wrong::Truncated)),
            End::Worker if tracker.refuses() => Some((Side::Client, Wrong::Protocol)),
            End::Worker if !tracker.server_at_boundary() => Some((Side::Worker, Wrong::Truncated)),
            End::Client | End::Worker | End::Drained | End::DrainedUnseen => None,
        };
        if let Some((side, wrong)) = wrong {
            self.production.counters.malform(side, wrong);
        }
    }

    /// What the worker said last goes to the client; one that does not read it is not told more either.
    async fn pass_on(&mut self) {
        let Self { client, downstream, .. } = self;
        if matches!(timeout(FLUSH_LIMIT, client.write_all(downstream.pending())).await, Ok(Ok(()))) {
            downstream.discard();
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
