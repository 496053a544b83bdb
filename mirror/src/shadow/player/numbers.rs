//! A question of our own to an arm's server, whose answer is rows of numbers. Must not be asked in a client's session.

use std::io;

use super::{PlayError, Player};
use crate::wire::{backend, encode, frame};

/// No answer is longer, bytes.
const ANSWER_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 8 * 1024;

impl Player {
    /// Asks it. Whoever calls sets the limit.
    pub async fn numbers(&mut self, sql: &str) -> Result<Vec<Vec<i32>>, PlayError> {
        self.stream.write_all(&encode::query(sql)).await?;
        let (mut said, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
        loop {
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 || said.len() > ANSWER_BYTES {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            said.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let mut rows = Vec::new();
            for message in frame::messages(&said) {
                match message.tag {
                    backend::tag::DATA_ROW => rows.extend(backend::numbers(message.payload)),
                    backend::tag::ERROR => {
                        let sqlstate = String::from_utf8_lossy(&backend::sqlstate(message.payload)).into_owned();
                        return Err(PlayError::Refused(sqlstate));
                    }
                    backend::tag::READY_FOR_QUERY => return Ok(rows),
                    _ => {}
                }
            }
        }
    }
}
