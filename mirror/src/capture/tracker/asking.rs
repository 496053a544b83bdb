//! What a tracker makes of what the client sends: where a request begins, and where it is complete. Data of a COPY is
//! taken in `copying.rs`; must not end an exchange.

use std::sync::{Arc, OnceLock};

use super::{Awaiting, Building, Keep, Malformed, Step, Tracker, append, next};
use crate::{
    capture::{exchange::Exchange, growing::Growing},
    wire::frontend::tag as f,
};

impl Tracker {
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
                self.keep.if_room(append(&mut building.request, &piece, self.room_bytes));
            }
            if piece.last && building.unsynced.ignores(piece.tag) {
                // An arm that has not failed would not ignore it.
                building.request.truncate(building.whole_bytes);
            } else if piece.last {
                building.copy.sent(piece.tag);
                building.unsynced.sent(piece.tag);
                building.executing += usize::from(piece.tag == f::EXECUTE);
                building.asks |= !matches!(piece.tag, f::SYNC | f::FLUSH);
                building.whole_bytes = building.request.len();
                match piece.tag {
                    f::QUERY | f::FUNCTION_CALL => self.complete(false, steps),
                    f::SYNC => self.complete(true, steps),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn complete(&mut self, by_sync: bool, steps: &mut Vec<Step>) {
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
}
