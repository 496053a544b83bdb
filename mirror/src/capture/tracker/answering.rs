//! What a tracker makes of what the server says: which exchange it answers, what came of that, and when it is over. Must
//! not begin an exchange.

use super::{Awaiting, KEPT_BYTES, Keep, Malformed, Step, Tracker, next};
use crate::{
    capture::{
        digest::Rows,
        exchange::{Outcome, StatementOutcome},
        growing::Growing,
    },
    wire::{
        backend::{self, TransactionStatus, tag as b},
        encode,
    },
};

impl Tracker {
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
                building.executing = match piece.tag {
                    // It ignores what is behind.
                    b::ERROR => 0,
                    b::COMMAND_COMPLETE | b::EMPTY_QUERY | b::PORTAL_SUSPENDED => {
                        building.executing.saturating_sub(usize::from(piece.last))
                    }
                    _ => building.executing,
                };
            }
            match piece.tag {
                b::DATA_ROW | b::COPY_DATA | b::FUNCTION_RESULT if self.keep != Keep::Boundaries => {
                    let has_columns = piece.tag == b::DATA_ROW;
                    self.rows.piece(piece.payload, piece.first, piece.last, has_columns);
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
                // Of a login's message that is too long it does not hear the end, and says no.
                let unheard = !self.logged_in && !self.client.at_boundary() && backend::denies_login(payload);
                self.refuses |= backend::is_refusal(payload) || unheard;
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
        let Rows { rows, digest, lasting } = self.rows.take();
        // Errors that belong to no exchange (a FATAL on shutdown) have nowhere to go.
        if self.logged_in && self.is_asked() {
            self.statements.push(StatementOutcome { ended_ns, tag_rows, rows, digest, lasting, error });
        }
    }

    fn ready(&mut self, after: TransactionStatus, ended_ns: u64, broken: bool, steps: &mut Vec<Step>) {
        // Rows of a function call come without a CommandComplete.
        let Rows { rows, digest, lasting } = self.rows.take();
        if rows > 0 {
            self.statements.push(StatementOutcome { ended_ns, tag_rows: None, rows, digest, lasting, error: None });
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

    /// The connection is gone: whatever was under way ends broken. A request that nobody is told of is handed back: to
    /// give up much memory takes time.
    pub fn broken(&mut self, now_ns: u64, steps: &mut Vec<Step>) -> Growing {
        // A COMMIT that was answered after a Flush has taken effect, although its Sync never came; what is behind it has
        // not. What a server ends a session for is not told: an arm would be ended by it as well.
        let done = |statement: &StatementOutcome| statement.error.is_none();
        let answered = self.awaiting.is_empty() && self.statements.first().is_some_and(done);
        let mut given_up = Growing::default();
        if let Some(building) = self.building.as_mut().filter(|_| answered) {
            if self.keep == Keep::Requests {
                // What it was sending when it went is no message.
                building.request.truncate(building.whole_bytes);
                // In the middle of a COPY it would end the session; that is ended by its data.
                if !building.copy.wants_data() {
                    self.keep.if_room(building.request.extend(encode::FAIL, self.room_bytes));
                }
                self.keep.if_room(building.request.extend(&encode::SYNC, self.room_bytes));
            }
            self.complete(true, steps);
        } else {
            if let Some(building) = self.building.take() {
                given_up = building.request;
            }
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
        given_up
    }
}
