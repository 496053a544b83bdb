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
                    backend::tag::DATA_ROW => rows.extend(row(message.payload)),
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

/// The numbers of a DataRow; `None`: it holds something else.
fn row(payload: &[u8]) -> Option<Vec<i32>> {
    let (count, mut rest) = payload.split_first_chunk()?;
    let mut numbers = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, behind) = rest.split_first_chunk()?;
        let (text, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        numbers.push(std::str::from_utf8(text).ok()?.parse().ok()?);
        rest = behind;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_numbers_is_read_and_anything_else_is_none() {
        assert_eq!(row(b"\0\x02\0\0\0\x0242\0\0\0\x02-7"), Some(vec![42, -7]));
        assert_eq!(row(b"\0\0"), Some(Vec::new()));
        for other in [&b""[..], b"\0\x01", b"\0\x01\xff\xff\xff\xff", b"\0\x01\0\0\0\x01x", b"\0\x01\0\0\0\x0312"] {
            assert_eq!(row(other), None, "{other:?}");
        }
    }
}
