//! Follows both directions of one session and says where exchanges begin and end.
//!
//! A state machine over message pieces: it is told what the client sent and what the server sent, and
//! hands out events. It knows no socket and never waits. One tracker serves a client session on the
//! production path, another follows a session on an arm: both sides are measured by the same code.
//!
//! ```text
//!            client bytes                    Query | Sync | FunctionCall
//!   idle ───────────────────► building ─────────────────────────────────► awaiting (a queue: pipelines)
//!                                                                           │ ReadyForQuery
//!                                       ◄───────────────────────────────────┘ the front one has ended
//! ```

use std::{collections::VecDeque, sync::Arc};

use self::{spare_ready::SpareReady, unsynced::Unsynced};
use super::{
    copy_in::CopyIn,
    digest::RowDigest,
    exchange::{Exchange, SessionId, StatementOutcome},
    growing::{Growing, NoRoom},
    moments::Moments,
};
use crate::wire::{
    backend::TransactionStatus,
    frame::{FrameError, Piece, Splitter},
};

mod answering;
mod asking;
mod copying;
mod spare_ready;
mod unsynced;

/// Payload bytes that are kept of a message whose contents matter.
const KEPT_BYTES: usize = 1024;
/// Room for a large request, where nobody says how much is kept at most.
const ROOM_BYTES: usize = 256 << 20;

/// What a chunk brought about.
#[derive(Debug, Clone)]
pub enum Step {
    /// A request is complete.
    Begun(Arc<Exchange>),
    /// An exchange is over.
    Ended(Arc<Exchange>),
    /// The login is over: the first ReadyForQuery.
    LoggedIn,
    /// The client has said goodbye.
    Terminated,
}

/// One side has sent what is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Malformed {
    /// What is wrong.
    pub error: FrameError,
    /// Bytes of the chunk that come before it, and that were taken.
    pub before_bytes: usize,
}

/// How much of a session is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Exchanges with their requests, for the arms.
    Requests,
    /// Exchanges with their outcomes alone.
    Outcomes,
    /// No exchanges: only where they begin and end is followed.
    Boundaries,
}

impl Keep {
    /// Where there was no room, nothing more is kept: what is not whole must not be handed out.
    fn if_room(&mut self, kept: Result<(), NoRoom>) {
        if kept.is_err() {
            *self = Self::Boundaries;
        }
    }
}

/// Follows one session.
#[derive(Debug)]
pub struct Tracker {
    session: SessionId,
    keep: Keep,
    /// No more than this is kept of a request, or of a COPY's data; 0: as much as there is memory for.
    room_bytes: usize,
    sequence: u64,
    client: Splitter,
    server: Splitter,
    server_has_spoken: bool,
    logged_in: bool,
    building: Option<Building>,
    awaiting: VecDeque<Awaiting>,
    status: TransactionStatus,
    last_ended_ns: u64,
    statements: Vec<StatementOutcome>,
    parsed: usize,
    rows: RowDigest,
    kept: Vec<u8>,
    refuses: bool,
    spare: SpareReady,
    /// Data of COPYs that is kept, bytes.
    copy_bytes: usize,
    /// Process id of the server's backend, once it has said it.
    pub backend_pid: i32,
    /// The payload of the server's BackendKeyData.
    pub backend_key: Vec<u8>,
}

#[derive(Debug)]
struct Building {
    begun_ns: u64,
    request: Growing,
    /// So much of it is whole messages.
    whole_bytes: usize,
    copy: CopyIn,
    /// It asks for something, and does not only say Sync.
    asks: bool,
    unsynced: Unsynced,
    /// So many Executes of it are not answered.
    executing: usize,
}

impl Building {
    fn at(begun_ns: u64) -> Self {
        let (request, copy) = (Growing::default(), CopyIn::default());
        Self { begun_ns, request, whole_bytes: 0, copy, asks: false, unsynced: Unsynced::default(), executing: 0 }
    }
}

#[derive(Debug)]
struct Awaiting {
    /// Nothing where only boundaries are followed.
    exchange: Option<Arc<Exchange>>,
    copy: CopyIn,
    copy_data: Growing,
    /// A Sync that may be the end of the COPY before it: [`super::copy_in::SyncIs::Open`].
    is_open_sync: bool,
    /// It is a Sync and nothing else: the server has nothing to answer but ReadyForQuery.
    is_sync_alone: bool,
}

/// Appends a piece of a message, with the message's header before its first piece.
fn append(to: &mut Growing, piece: &Piece<'_>, room_bytes: usize) -> Result<(), NoRoom> {
    if piece.first {
        let [a, b, c, d] = u32::try_from(piece.message_bytes - 1).unwrap_or(u32::MAX).to_be_bytes();
        to.extend(&[piece.tag, a, b, c, d], room_bytes)?;
    }
    to.extend(piece.payload, room_bytes)
}

/// The next piece of a chunk, of which `rest` is left.
fn next<'a>(from: &mut Splitter, chunk: &'a [u8], rest: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Malformed> {
    from.next(rest).map_err(|error| Malformed { error, before_bytes: chunk.len() - rest.len() })
}

impl Tracker {
    /// A tracker for a session that has sent its startup packet.
    pub fn new(session: SessionId, keep: Keep) -> Self {
        Self {
            session,
            keep,
            room_bytes: ROOM_BYTES,
            sequence: 0,
            client: Splitter::default(),
            server: Splitter::default(),
            server_has_spoken: false,
            logged_in: false,
            building: None,
            awaiting: VecDeque::new(),
            status: TransactionStatus::Idle,
            last_ended_ns: 0,
            statements: Vec::new(),
            parsed: 0,
            rows: RowDigest::default(),
            kept: Vec::new(),
            refuses: false,
            spare: SpareReady::default(),
            copy_bytes: 0,
            backend_pid: 0,
            backend_key: Vec::new(),
        }
    }

    /// The same, with a second digest of rows without these moments.
    #[must_use]
    pub fn without(self, moments: Moments) -> Self {
        Self { rows: RowDigest::without(moments), ..self }
    }

    /// The same, of whose requests, and COPYs' data, no more than so many bytes are kept each; 0: as much as there is
    /// memory for.
    #[must_use]
    pub fn with_room(self, room_bytes: usize) -> Self {
        Self { room_bytes, ..self }
    }

    /// From now on only boundaries are followed. What was kept of exchanges under way is handed back, with its bytes: to
    /// give up much memory takes time.
    pub fn keep_boundaries(&mut self) -> (usize, impl Send + use<>) {
        self.keep = Keep::Boundaries;
        let asked = self.awaiting.iter().filter_map(|awaiting| awaiting.exchange.as_ref());
        let bytes = self.kept_bytes() + asked.map(|exchange| exchange.request.len()).sum::<usize>();
        let request = self.building.as_mut().map(|building| std::mem::take(&mut building.request));
        let give_up = |awaiting: &mut Awaiting| (awaiting.exchange.take(), std::mem::take(&mut awaiting.copy_data));
        let awaiting: Vec<_> = self.awaiting.iter_mut().map(give_up).collect();
        self.rows = RowDigest::default();
        self.copy_bytes = 0;
        (bytes, (request, awaiting, std::mem::take(&mut self.statements)))
    }

    /// Bytes that are kept of requests, of COPY data and of outcomes that nobody has been handed yet.
    pub fn kept_bytes(&self) -> usize {
        self.building.as_ref().map_or(0, |b| b.request.len())
            + self.copy_bytes
            + self.statements.len() * size_of::<StatementOutcome>()
    }

    /// Only boundaries are followed: somebody wants it so, or there was no room for what was to be kept.
    pub fn keeps_nothing(&self) -> bool {
        self.keep == Keep::Boundaries
    }

    /// The login is over.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// What the client has sent ends with a whole message.
    pub fn client_at_boundary(&self) -> bool {
        self.client.at_boundary()
    }

    /// The server ends the session for a message that it can't make sense of.
    pub fn refuses(&self) -> bool {
        self.refuses
    }

    /// Nothing is being asked or answered: the next client byte begins an exchange.
    pub fn is_idle(&self) -> bool {
        let rests = self.building.as_ref().is_none_or(|building| building.unsynced.rests());
        self.logged_in && rests && self.awaiting.is_empty() && self.client.at_boundary()
    }

    /// The server may have something to say that it was asked for, or that is one ReadyForQuery too many.
    pub fn owes_answer(&self) -> bool {
        !self.is_idle() || self.spare.is_due()
    }

    /// The server has not said anything yet that is a message.
    pub fn server_is_new(&self) -> bool {
        !self.server_has_spoken
    }

    /// What the server has sent ends with a whole message.
    pub fn server_at_boundary(&self) -> bool {
        self.server.at_boundary()
    }

    /// Transaction status at the last ReadyForQuery.
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Exchanges whose request is complete or under way and whose answer is not.
    pub fn in_flight(&self) -> usize {
        // A message that has begun counts: what it begins may run before the next look.
        let building = self.building.as_ref().is_some_and(|building| !building.unsynced.rests());
        self.awaiting.len() + usize::from(building || (self.logged_in && !self.client.at_boundary()))
    }

    /// Requests that are complete and whose answer is not.
    pub fn awaited(&self) -> usize {
        self.awaiting.len()
    }

    /// The server may be at something: a request that is complete, or what came of one so far.
    pub fn runs(&self) -> bool {
        !self.awaiting.is_empty() || self.building.as_ref().is_some_and(|building| building.executing > 0)
    }

    /// The server is waiting for the data of a COPY.
    pub fn wants_copy_data(&self) -> bool {
        self.awaiting.front().is_some_and(|front| front.copy.wants_data())
    }
}

#[cfg(test)]
mod tests;
