//! One direction of a session: bytes that were read on one side and not yet written to the other. It does not
//! look at them.
//!
//! What is read is mostly written in the same turn, so its buffer is lent.

use std::io;

use crate::{
    buffer::{Lent, Size},
    connection::Connection,
};

/// One direction of a session.
pub(super) struct Direction {
    /// There while there are bytes in it.
    buffer: Option<Lent>,
    start: usize,
    end: usize,
    /// There is nothing more to read.
    pub(super) closed: bool,
    /// What it ended with that is no proper end.
    pub(super) broken: Option<io::ErrorKind>,
    /// There was nothing to read when it was last tried: a read waits until the side that is read from is ready.
    dry: bool,
    /// When the bytes in the buffer were read, ns.
    pub(super) read_ns: u64,
}

impl Direction {
    pub(super) fn new() -> Self {
        Self { buffer: None, start: 0, end: 0, closed: false, broken: None, dry: false, read_ns: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What waits to be written.
    pub(super) fn pending(&self) -> &[u8] {
        self.buffer.as_deref().and_then(|buffer| buffer.get(self.start..self.end)).unwrap_or_default()
    }

    /// Of what waits to be written, only so many bytes may be.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.end = self.end.min(self.start.saturating_add(bytes));
        if self.is_empty() {
            self.discard();
        }
    }

    /// Nobody wants what is in the buffer.
    pub(super) fn discard(&mut self) {
        (self.start, self.end) = (0, 0);
        self.buffer = None;
    }

    /// Its reader is gone: what is left has no use, and nothing more is taken.
    pub(super) fn abandon(&mut self) {
        self.discard();
        self.closed = true;
    }

    /// There is nothing to write, and nothing to read until the side that is read from is ready. Its end is something.
    pub(super) fn is_dry(&self) -> bool {
        self.dry && self.is_empty() && !self.closed
    }

    /// The side that is read from is ready, or may be.
    pub(super) fn refresh(&mut self) {
        self.dry = false;
    }

    /// Reads when empty, as much as there is room for. Whether there are new bytes.
    pub(super) fn fill(&mut self, from: &mut Connection, room: Size) -> io::Result<bool> {
        if self.dry {
            return Ok(false);
        }
        let buffer = self.buffer.get_or_insert_with(|| Lent::borrow(room));
        let read = from.try_read(buffer);
        self.dry = from.is_emptied_by(&read, buffer.len());
        (self.start, self.end) = (0, *read.as_ref().unwrap_or(&0));
        if self.is_empty() {
            self.discard();
        }
        match read {
            Ok(0) => {
                self.closed = true;
                Ok(false)
            }
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => {
                self.broken = Some(e.kind());
                Err(e)
            }
        }
    }

    /// Reads when empty. Whether there are new bytes, or the end of them: an error is an end too, since what came
    /// before it has to arrive all the same.
    pub(super) fn take(&mut self, from: &mut Connection, room: Size) -> bool {
        match self.fill(from, room) {
            Ok(true) => true,
            Ok(false) => self.closed,
            Err(_) => {
                self.closed = true;
                true
            }
        }
    }

    /// Writes what fits. Whether anything was written.
    pub(super) fn drain(&mut self, to: &mut Connection) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        match to.try_write(self.pending()) {
            Ok(written) => {
                self.start += written;
                if self.is_empty() {
                    self.discard();
                }
                Ok(written > 0)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}
