//! Recognises messages in a byte stream without rebuilding or buffering them.
//!
//! A [`Splitter`] is fed chunks as they arrive from a socket and hands out [`Piece`]s: slices of the
//! chunk that belong to one message. A message of any size passes through in pieces; nothing is copied
//! but the five bytes of a header that a chunk's end cuts apart.

/// Length of a message's header: one byte of type and four of length.
pub const HEADER_BYTES: usize = 5;
/// PostgreSQL's own limit of a message, bytes: the longest body that a `StringInfo` holds (`MaxAllocSize` without the
/// zero behind it), and the header.
pub const MAX_MESSAGE_BYTES: usize = 0x3fff_fffe + HEADER_BYTES;

/// What is wrong with a stream of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is smaller than itself.
    #[error("a message's length is less than 4")]
    TooShort,
    /// The length field is above PostgreSQL's limit.
    #[error("a message is longer than 1 GB")]
    TooLong,
}

/// A part of one message, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The message's type.
    pub tag: u8,
    /// Length of the whole message, header included, bytes.
    pub message_bytes: usize,
    /// The message begins with this piece.
    pub first: bool,
    /// The message ends with this piece.
    pub last: bool,
    /// Payload bytes in this piece (the header is never part of it).
    pub payload: &'a [u8],
    /// Bytes of the chunk that this piece takes, header bytes included.
    pub chunk_bytes: usize,
}

/// Where a stream stands between two chunks.
#[derive(Debug, Default, Clone)]
pub struct Splitter {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    tag: u8,
    message_bytes: usize,
    remaining: usize,
    begun: bool,
}

impl Splitter {
    /// Whether the next byte begins a message.
    pub fn at_boundary(&self) -> bool {
        !self.begun && self.header_len == 0
    }

    /// Takes the next piece off the front of `chunk`. `None`: the chunk is used up. After an error the chunk begins
    /// with what is wrong, and the stream stands where it stood before it.
    pub fn next<'a>(&mut self, chunk: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        let (before, mut header_taken) = (*chunk, 0);
        if !self.begun {
            if self.header_len == 0
                && let Some((header, rest)) = chunk.split_first_chunk()
            {
                // As nearly always: the whole header is there.
                (self.header, self.header_len, header_taken) = (*header, HEADER_BYTES, HEADER_BYTES);
                *chunk = rest;
            }
            while self.header_len < HEADER_BYTES {
                let Some((byte, rest)) = chunk.split_first() else {
                    return Ok(None);
                };
                if let Some(slot) = self.header.get_mut(self.header_len) {
                    *slot = *byte;
                }
                self.header_len += 1;
                header_taken += 1;
                *chunk = rest;
            }
            let [tag, a, b, c, d] = self.header;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let wrong = match length {
                ..4 => Some(FrameError::TooShort),
                MAX_MESSAGE_BYTES.. => Some(FrameError::TooLong),
                _ => None,
            };
            if let Some(error) = wrong {
                *chunk = before;
                self.header_len -= header_taken;
                return Err(error);
            }
            self.tag = tag;
            self.message_bytes = length + 1;
            self.remaining = length - 4;
            self.header_len = 0;
        } else if chunk.is_empty() {
            return Ok(None);
        }
        let first = !self.begun;
        let take = self.remaining.min(chunk.len());
        let (payload, rest) = chunk.split_at(take);
        *chunk = rest;
        self.remaining -= take;
        let last = self.remaining == 0;
        self.begun = !last;
        Ok(Some(Piece {
            tag: self.tag,
            message_bytes: self.message_bytes,
            first,
            last,
            payload,
            chunk_bytes: header_taken + take,
        }))
    }
}

/// One whole message in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The message's type.
    pub tag: u8,
    /// What follows the header.
    pub payload: &'a [u8],
    /// The whole message, header included.
    pub bytes: &'a [u8],
}

/// The whole messages in a buffer, in order; stops at the first that is not whole or not right.
pub fn messages(mut buffer: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = buffer.split_first_chunk::<HEADER_BYTES>()?;
        let [tag, a, b, c, d] = *header;
        let total = (u32::from_be_bytes([a, b, c, d]) as usize).checked_add(1)?;
        let (bytes, rest) = buffer.split_at_checked(total)?;
        let payload = bytes.get(HEADER_BYTES..)?;
        buffer = rest;
        Some(Message { tag, payload, bytes })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(payload.len() + 4).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn split(stream: &[u8], chunk_bytes: usize) -> Result<Vec<(u8, Vec<u8>)>, FrameError> {
        let mut splitter = Splitter::default();
        let mut found: Vec<(u8, Vec<u8>)> = Vec::new();
        for chunk in stream.chunks(chunk_bytes) {
            let mut rest = chunk;
            let mut used = 0;
            while let Some(piece) = splitter.next(&mut rest)? {
                if piece.first {
                    found.push((piece.tag, Vec::new()));
                }
                found.last_mut().unwrap().1.extend(piece.payload);
                used += piece.chunk_bytes;
            }
            assert!(rest.is_empty() && used <= chunk.len());
        }
        Ok(found)
    }

    #[test]
    fn messages_are_the_same_however_the_stream_is_cut() {
        let mut stream = message(b'Q', b"select 1\0");
        stream.extend(message(b'S', b""));
        stream.extend(message(b'D', &[7; 300]));
        let whole = split(&stream, stream.len()).unwrap();
        assert_eq!(whole.iter().map(|m| m.0).collect::<Vec<_>>(), [b'Q', b'S', b'D']);
        for chunk_bytes in 1..40 {
            assert_eq!(split(&stream, chunk_bytes).unwrap(), whole, "chunks of {chunk_bytes}");
        }
    }

    #[test]
    fn a_length_below_four_or_above_the_limit_is_an_error() {
        assert_eq!(split(&[b'Q', 0, 0, 0, 3], 5), Err(FrameError::TooShort));
        assert_eq!(split(&[b'Q', 0x7f, 0, 0, 0], 5), Err(FrameError::TooLong));
        // The longest body is 0x3ffffffe bytes.
        assert_eq!(split(&[b'D', 0x40, 0, 0, 3], 5), Err(FrameError::TooLong));
        assert!(split(&[b'D', 0x40, 0, 0, 2], 5).is_ok());
    }

    #[test]
    fn whole_messages_are_iterated_and_a_torn_one_ends_it() {
        let mut stream = message(b'P', b"\0select\0\0\0");
        stream.extend(message(b'S', b""));
        stream.extend([b'Q', 0, 0]);
        assert_eq!(messages(&stream).map(|m| m.tag).collect::<Vec<_>>(), [b'P', b'S']);
        assert_eq!(messages(&[b'Q', 0, 0, 0, 1, 9]).count(), 0);
    }
}
