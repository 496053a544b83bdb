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

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use self::{spare_ready::SpareReady, unsynced::Unsynced};
use super::{
    copy_in::CopyIn,
    digest::RowDigest,
    exchange::{Exchange, Outcome, SessionId, StatementOutcome},
    growing::Growing,
};
use crate::wire::{
    backend::{self, TransactionStatus, tag as b},
    encode,
    frame::{FrameError, Piece, Splitter},
    frontend::tag as f,
};

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

/// Follows one session.
#[derive(Debug)]
pub struct Tracker {
    session: SessionId,
    keep: Keep,
    /// No more than this is ever kept of a session.
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
}

impl Building {
    fn at(begun_ns: u64) -> Self {
        let (request, copy) = (Growing::default(), CopyIn::default());
        Self { begun_ns, request, whole_bytes: 0, copy, asks: false, unsynced: Unsynced::default() }
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
fn append(to: &mut Growing, piece: &Piece<'_>, room_bytes: usize) {
    if piece.first {
        let [a, b, c, d] = u32::try_from(piece.message_bytes - 1).unwrap_or(u32::MAX).to_be_bytes();
        to.extend(&[piece.tag, a, b, c, d], room_bytes);
    }
    to.extend(piece.payload, room_bytes);
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
            spare: SpareReady::default(),
            copy_bytes: 0,
            backend_pid: 0,
            backend_key: Vec::new(),
        }
    }

    /// The same, of which no more than so many bytes are ever kept.
    #[must_use]
    pub fn with_room(self, room_bytes: usize) -> Self {
        Self { room_bytes, ..self }
    }

    /// From now on only boundaries are followed. What was kept of exchanges under way is handed back: to give up much
    /// memory takes time.
    pub fn keep_boundaries(&mut self) -> impl Send + use<> {
        self.keep = Keep::Boundaries;
        let request = self.building.as_mut().map(|building| std::mem::take(&mut building.request));
        let give_up = |awaiting: &mut Awaiting| (awaiting.exchange.take(), std::mem::take(&mut awaiting.copy_data));
        let awaiting: Vec<_> = self.awaiting.iter_mut().map(give_up).collect();
        self.rows = RowDigest::default();
        self.copy_bytes = 0;
        (request, awaiting, std::mem::take(&mut self.statements))
    }

    /// Bytes that are kept of requests, of COPY data and of outcomes that nobody has been handed yet.
    pub fn kept_bytes(&self) -> usize {
        self.building.as_ref().map_or(0, |b| b.request.len())
            + self.copy_bytes
            + self.statements.len() * size_of::<StatementOutcome>()
    }

    /// Nothing is being asked or answered: the next client byte begins an exchange.
    pub fn is_idle(&self) -> bool {
        let rests = self.building.as_ref().is_none_or(|building| building.unsynced.rests());
        self.logged_in && rests && self.awaiting.is_empty() && self.client.at_boundary()
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

    /// Takes what the client sent.
    pub fn client(&mut self, chunk: &[u8], now_ns: u64, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let mut rest = chunk;
        while let Some(piece) = next(&mut self.client, chunk, &mut rest)? {
            // Some clients send their first request along with the password.
            if !self.logged_in && piece.tag == f::PASSWORD {
                continue;
            }
            if piece.tag == f::TERMINATE {
                // What it had begun and not ended is over now, with what came of it so far.
                if piece.last {
                    steps.push(Step::Terminated);
                }
                continue;
            }
            if self.is_of_a_copy(piece.tag) {
                self.copy_piece(&piece);
                continue;
            }
            // A Flush by itself asks for nothing.
            if piece.tag == f::FLUSH && self.building.is_none() {
                continue;
            }
            let building = self.building.get_or_insert_with(|| Building::at(now_ns));
            if piece.first && building.unsynced.rests() {
                // Nobody waited for what came before.
                building.begun_ns = now_ns;
            }
            if self.keep == Keep::Requests {
                append(&mut building.request, &piece, self.room_bytes);
            }
            if piece.last {
                building.copy.sent(piece.tag);
                building.unsynced.sent(piece.tag);
                building.asks |= !matches!(piece.tag, f::SYNC | f::FLUSH);
                building.whole_bytes = building.request.len();
                match piece.tag {
                    // Such a server has not come to it.
                    f::QUERY | f::FUNCTION_CALL if building.unsynced.has_failed() => {}
                    f::QUERY | f::FUNCTION_CALL => self.complete(false, steps),
                    f::SYNC => self.complete(true, steps),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, by_sync: bool, steps: &mut Vec<Step>) {
        let Some(Building { begun_ns, request, mut copy, asks, .. }) = self.building.take() else { return };
        if by_sync {
            copy.request_ends_with_sync();
        }
        let exchange = (self.keep != Keep::Boundaries).then(|| {
            Arc::new(Exchange {
                session: self.session,
                sequence: self.sequence,
                begun_ns,
                request: request.into(),
                outcome: OnceLock::new(),
            })
        });
        self.sequence += 1;
        let (copy_data, is_sync_alone) = (Growing::default(), !asks);
        let awaiting = Awaiting { exchange: exchange.clone(), copy, copy_data, is_open_sync: false, is_sync_alone };
        self.awaiting.push_back(awaiting);
        // Nobody knows the session before its login; what it asked for until then is told after that.
        if self.logged_in {
            steps.extend(exchange.map(Step::Begun));
        }
    }

    /// Whether an answer belongs to an exchange: to one whose request is complete, or, after a Flush, to the one
    /// whose Sync is still to come.
    fn is_asked(&self) -> bool {
        !self.awaiting.is_empty() || self.building.is_some()
    }

    /// Takes what the server sent.
    pub fn server(&mut self, chunk: &[u8], now_ns: u64, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let mut rest = chunk;
        while let Some(piece) = next(&mut self.server, chunk, &mut rest)? {
            self.server_has_spoken = true;
            self.spare.said(piece.tag);
            if let Some(building) = self.building.as_mut().filter(|_| self.awaiting.is_empty()) {
                building.unsynced.answered(piece.tag);
            }
            match piece.tag {
                b::DATA_ROW | b::COPY_DATA | b::FUNCTION_RESULT if self.keep != Keep::Boundaries => {
                    self.rows.piece(piece.payload, piece.first, piece.last);
                }
                b::PARSE_COMPLETE => self.parsed += usize::from(piece.last && self.is_asked()),
                b::READY_FOR_QUERY
                | b::COMMAND_COMPLETE
                | b::ERROR
                | b::BACKEND_KEY
                | b::EMPTY_QUERY
                | b::PORTAL_SUSPENDED
                | b::COPY_IN => {
                    if piece.first && piece.last {
                        self.answer(piece.tag, piece.payload, now_ns, steps);
                    } else {
                        if piece.first {
                            self.kept.clear();
                        }
                        let room = KEPT_BYTES.saturating_sub(self.kept.len());
                        self.kept.extend_from_slice(piece.payload.get(..room).unwrap_or(piece.payload));
                        if piece.last {
                            let kept = std::mem::take(&mut self.kept);
                            self.answer(piece.tag, &kept, now_ns, steps);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, tag: u8, payload: &[u8], now_ns: u64, steps: &mut Vec<Step>) {
        match tag {
            b::BACKEND_KEY => {
                self.backend_pid = backend::backend_pid(payload).unwrap_or(0);
                self.backend_key = payload.to_vec();
            }
            b::COPY_IN => self.copy_asked(),
            b::COMMAND_COMPLETE => self.statement(now_ns, backend::tag_rows(payload), None),
            b::EMPTY_QUERY | b::PORTAL_SUSPENDED => self.statement(now_ns, None, None),
            b::ERROR => {
                if let Some(front) = self.awaiting.front_mut() {
                    front.copy.failed();
                } else if let Some(building) = &mut self.building {
                    // Told after a Flush.
                    building.copy.failed();
                }
                self.statement(now_ns, None, Some(backend::sqlstate(payload)));
            }
            b::READY_FOR_QUERY => {
                let after = TransactionStatus::from_byte(payload.first().copied().unwrap_or(b'I'));
                let is_spare = self.spare.is_here(self.awaiting.front());
                if self.logged_in {
                    if !is_spare {
                        self.ready(after, now_ns, false, steps);
                    }
                } else {
                    self.logged_in = true;
                    self.status = after;
                    self.last_ended_ns = now_ns;
                    self.statements.clear();
                    steps.push(Step::LoggedIn);
                    steps.extend(self.awaiting.iter().filter_map(|a| a.exchange.clone()).map(Step::Begun));
                }
            }
            _ => {}
        }
    }

    fn statement(&mut self, ended_ns: u64, tag_rows: Option<u64>, error: Option<backend::SqlState>) {
        if self.keep == Keep::Boundaries {
            return;
        }
        let (digest, rows) = self.rows.take();
        // Errors that belong to no exchange (a FATAL on shutdown) have nowhere to go.
        if self.logged_in && self.is_asked() {
            self.statements.push(StatementOutcome { ended_ns, tag_rows, rows, digest, error });
        }
    }

    fn ready(&mut self, after: TransactionStatus, ended_ns: u64, broken: bool, steps: &mut Vec<Step>) {
        // Rows of a function call come without a CommandComplete.
        let (digest, rows) = self.rows.take();
        if rows > 0 {
            self.statements.push(StatementOutcome { ended_ns, tag_rows: None, rows, digest, error: None });
        }
        let front = self.awaiting.pop_front();
        let copied = front.as_ref().map_or(0, |front| front.copy_data.len());
        self.spare.may_come(front.as_ref());
        self.copy_bytes = self.copy_bytes.saturating_sub(copied);
        let Some(Awaiting { exchange: Some(exchange), copy_data, .. }) = front else {
            // Nothing was asked for, or nobody wants to know what came of it.
            self.status = after;
            return;
        };
        let outcome = Outcome {
            served_from_ns: exchange.begun_ns.max(self.last_ended_ns),
            ended_ns,
            statements: std::mem::take(&mut self.statements),
            parsed: std::mem::take(&mut self.parsed),
            before: self.status,
            after,
            copy_in: copy_data.into(),
            broken,
        };
        self.status = after;
        self.last_ended_ns = ended_ns;
        // The outcome is set by this tracker alone, once.
        let _ = exchange.outcome.set(outcome);
        steps.push(Step::Ended(exchange));
    }

    /// The connection is gone: whatever was under way ends broken.
    pub fn broken(&mut self, now_ns: u64, steps: &mut Vec<Step>) {
        // What was answered after a Flush has taken effect there, a COMMIT above all, although its Sync never came. What
        // a server ends a session for is not told: an arm would be ended by it as well.
        let done = |statement: &StatementOutcome| statement.error.is_none();
        let answered = self.awaiting.is_empty() && !self.statements.is_empty() && self.statements.iter().all(done);
        if let Some(building) = self.building.as_mut().filter(|_| answered) {
            if self.keep == Keep::Requests {
                // What it was sending when it went is no message.
                building.request.truncate(building.whole_bytes);
                building.request.extend(&encode::SYNC, self.room_bytes);
            }
            self.complete(true, steps);
        } else {
            self.building = None;
            if self.awaiting.is_empty() {
                self.statements.clear();
            }
        }
        if !self.logged_in {
            self.awaiting.clear();
            self.copy_bytes = 0;
        }
        while !self.awaiting.is_empty() {
            self.ready(TransactionStatus::Idle, now_ns, true, steps);
        }
    }

    /// The server is waiting for the data of a COPY.
    pub fn wants_copy_data(&self) -> bool {
        self.awaiting.front().is_some_and(|front| front.copy.wants_data())
    }
}

#[cfg(test)]
mod tests;
