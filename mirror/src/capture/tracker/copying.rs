//! What a tracker makes of COPY from the client: to which exchange the messages belong, and when the server asks for
//! data. Where a COPY stands is in `copy_in.rs`; must not end an exchange.

use super::{Awaiting, Keep, Tracker, append};
use crate::{
    capture::{
        copy_in::{CopyIn, SyncIs},
        growing::Growing,
    },
    wire::{encode, frame::Piece, frontend::tag as f},
};

impl Tracker {
    /// Whether a client message belongs to a COPY, and so to an exchange whose request is complete: the last one, which
    /// may be asked for the data only later. What comes of a COPY after its end (the server failed it while the client
    /// was still sending) belongs to nothing: the server ignores it.
    ///
    /// A server in copy-in mode ignores Sync and Flush, and fails the COPY at whatever else belongs to none; in the
    /// extended protocol the Sync that counts is the one after CopyDone or CopyFail (chapter "Message Flow", "COPY
    /// Operations").
    pub(super) fn is_of_a_copy(&self, tag: u8) -> bool {
        if self.building.is_some() {
            return false;
        }
        let copy = self.awaiting.back().map(|back| back.copy);
        match tag {
            f::COPY_DATA | f::COPY_DONE | f::COPY_FAIL => true,
            f::SYNC => copy.is_some_and(|copy| copy.wants_data() || copy.next_sync() != SyncIs::Own),
            f::FLUSH => copy.is_some_and(|copy| copy.wants_data() || copy.next_sync() == SyncIs::Part),
            _ => copy.is_some_and(|copy| copy.wants_data()),
        }
    }

    pub(super) fn copy_piece(&mut self, piece: &Piece<'_>) {
        let Some(back) = self.awaiting.back_mut() else { return };
        let is_sync = piece.tag == f::SYNC && !back.copy.wants_data();
        if is_sync && back.copy.next_sync() == SyncIs::Open {
            if piece.last {
                let (copy, copy_data) = (CopyIn::default(), Growing::default());
                // It has an answer of its own, and does nothing: no arm needs to know of it.
                let (is_open_sync, is_sync_alone) = (true, true);
                self.awaiting.push_back(Awaiting { exchange: None, copy, copy_data, is_open_sync, is_sync_alone });
            }
            return;
        }
        // What ends a server's session in the middle of a COPY would end an arm's as well.
        let is_data = matches!(piece.tag, f::COPY_DATA | f::COPY_DONE | f::COPY_FAIL | f::SYNC | f::FLUSH);
        if self.keep == Keep::Requests && is_data && back.exchange.is_some() {
            let before_bytes = back.copy_data.len();
            self.keep.if_room(append(&mut back.copy_data, piece, self.room_bytes));
            self.copy_bytes += back.copy_data.len() - before_bytes;
        }
        if piece.last {
            back.copy.sent(piece.tag);
            if is_sync {
                back.copy.synced();
            } else if !is_data {
                back.copy.disturbed();
            }
        }
    }

    /// The server asks for the data of a COPY.
    pub(super) fn copy_asked(&mut self) {
        let Some(front) = self.awaiting.front_mut() else {
            // Asked after a Flush.
            if let Some(building) = &mut self.building {
                building.copy.asked();
            }
            return;
        };
        front.copy.asked();
        if front.copy.next_sync() != SyncIs::Part || !self.awaiting.get(1).is_some_and(|next| next.is_open_sync) {
            return;
        }
        // The server has ignored the Sync of the request: the one behind the data is no exchange.
        self.awaiting.remove(1);
        if let Some(front) = self.awaiting.front_mut() {
            front.copy.synced();
            if self.keep == Keep::Requests {
                let before_bytes = front.copy_data.len();
                self.keep.if_room(front.copy_data.extend(&encode::SYNC, self.room_bytes));
                self.copy_bytes += front.copy_data.len() - before_bytes;
            }
        }
    }
}
