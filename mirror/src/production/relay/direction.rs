//! One direction of a session: bytes that were read on one side and not yet written to the other. It does not
//! look at them.

use std::io;

use crate::connection::Connection;

const BUFFER_BYTES: usize = 16 * 1024;

pub(super) struct Direction {
    pub(super) buffer: Box<[u8]>,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) closed: bool,
    /// When the bytes in the buffer were read, ns.
    pub(super) read_ns: u64,
}

impl Direction {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0, closed: false, read_ns: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Its reader is gone: what is left has no use, and nothing more is taken.
    pub(super) fn abandon(&mut self) {
        self.start = self.end;
        self.closed = true;
    }

    fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads when empty. Whether there are new bytes.
    pub(super) fn fill(&mut self, from: &mut Connection) -> io::Result<bool> {
        match from.try_read(&mut self.buffer) {
            Ok(0) => {
                self.closed = true;
                Ok(false)
            }
            Ok(read) => {
                (self.start, self.end) = (0, read);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads when empty. Whether there are new bytes, or the end of them: an error is an end too, since what came
    /// before it has to arrive all the same.
    pub(super) fn take(&mut self, from: &mut Connection) -> bool {
        match self.fill(from) {
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
                Ok(written > 0)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}
