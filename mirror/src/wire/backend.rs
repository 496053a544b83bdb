//! Messages that a server sends: their types, and the few whose contents matter here.

use serde::{Deserialize, Serialize};

/// Types of backend messages.
pub mod tag {
    /// The server is ready for the next exchange.
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// A statement is done.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// A query string had nothing in it.
    pub const EMPTY_QUERY: u8 = b'I';
    /// A row-limited portal has more to give.
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// A row.
    pub const DATA_ROW: u8 = b'D';
    /// Data of a COPY.
    pub const COPY_DATA: u8 = b'd';
    /// The server wants the data of a COPY.
    pub const COPY_IN: u8 = b'G';
    /// An error.
    pub const ERROR: u8 = b'E';
    /// Process id and secret of this session's backend.
    pub const BACKEND_KEY: u8 = b'K';
    /// An authentication request, or that it is done.
    pub const AUTHENTICATION: u8 = b'R';
    /// A Parse has succeeded.
    pub const PARSE_COMPLETE: u8 = b'1';
    /// The answer to a function call.
    pub const FUNCTION_RESULT: u8 = b'V';
    /// A notice.
    pub const NOTICE: u8 = b'N';
    /// What another session has notified.
    pub const NOTIFICATION: u8 = b'A';
    /// A setting has another value.
    pub const PARAMETER_STATUS: u8 = b'S';
}

/// Whether a server may send such a message at any moment, whatever it was asked (chapter "Message Flow",
/// "Asynchronous Operations").
pub fn is_asynchronous(tag: u8) -> bool {
    matches!(tag, tag::NOTICE | tag::NOTIFICATION | tag::PARAMETER_STATUS)
}

/// Where a session stands in a transaction, as ReadyForQuery says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TransactionStatus {
    /// Not in a transaction block.
    #[default]
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a transaction block that has failed.
    Failed,
}

impl TransactionStatus {
    /// From the byte of a ReadyForQuery; anything unknown counts as idle.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            b'T' => Self::InTransaction,
            b'E' => Self::Failed,
            _ => Self::Idle,
        }
    }

    /// Whether a transaction block is open.
    pub fn in_block(self) -> bool {
        self != Self::Idle
    }
}

/// The five characters of an error's class and kind.
pub type SqlState = [u8; 5];

/// The SQLSTATE of an ErrorResponse's payload; `XX000` when it names none.
pub fn sqlstate(payload: &[u8]) -> SqlState {
    field(payload, b'C').and_then(|v| v.try_into().ok()).unwrap_or(*b"XX000")
}

/// `protocol_violation`: what the client has sent is no message, or none that belongs there.
const PROTOCOL_VIOLATION: &[u8] = b"08P01";

/// Whether an ErrorResponse's payload ends the session for a message that the server can't make sense of.
pub fn is_refusal(payload: &[u8]) -> bool {
    field(payload, b'C') == Some(PROTOCOL_VIOLATION) && field(payload, b'V') == Some(b"FATAL")
}

/// Whether an ErrorResponse's payload says no to a login (class 28, `invalid_authorization_specification`).
pub fn denies_login(payload: &[u8]) -> bool {
    sqlstate(payload).starts_with(b"28")
}

/// The text of one field of an ErrorResponse or NoticeResponse.
pub fn field(payload: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = payload;
    loop {
        let (kind, tail) = rest.split_first()?;
        if *kind == 0 {
            return None;
        }
        let (value, tail) = super::frontend::cstr(tail)?;
        if *kind == code {
            return Some(value);
        }
        rest = tail;
    }
}

/// The number of rows in a command tag: the last word of `INSERT 0 5`, `UPDATE 3`, `SELECT 7`.
pub fn tag_rows(payload: &[u8]) -> Option<u64> {
    let text = payload.strip_suffix(&[0]).unwrap_or(payload);
    let word = text.rsplit(|b| *b == b' ').next()?;
    if word.is_empty() || word.len() == text.len() || word.len() > 19 {
        return None;
    }
    word.iter().try_fold(0_u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

/// The numbers of a DataRow's payload, in text format; `None`: it holds something else.
pub fn numbers(payload: &[u8]) -> Option<Vec<i32>> {
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

/// Process id of a BackendKeyData's payload.
pub fn backend_pid(payload: &[u8]) -> Option<i32> {
    payload.first_chunk::<4>().map(|pid| i32::from_be_bytes(*pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_rows() {
        for (tag, rows) in [
            (&b"INSERT 0 5\0"[..], Some(5)),
            (b"UPDATE 3\0", Some(3)),
            (b"SELECT 70\0", Some(70)),
            (b"BEGIN\0", None),
            (b"CREATE TABLE\0", None),
            (b"", None),
            (b"SELECT 99999999999999999999\0", None),
        ] {
            assert_eq!(tag_rows(tag), rows, "{}", String::from_utf8_lossy(tag));
        }
    }

    #[test]
    fn a_row_of_numbers_is_read_and_anything_else_is_none() {
        assert_eq!(numbers(b"\0\x02\0\0\0\x0242\0\0\0\x02-7"), Some(vec![42, -7]));
        assert_eq!(numbers(b"\0\0"), Some(Vec::new()));
        for other in [&b""[..], b"\0\x01", b"\0\x01\xff\xff\xff\xff", b"\0\x01\0\0\0\x01x", b"\0\x01\0\0\0\x0312"] {
            assert_eq!(numbers(other), None, "{other:?}");
        }
    }

    #[test]
    fn errors_tell_their_sqlstate() {
        assert_eq!(sqlstate(b"SERROR\0VERROR\0C23505\0Mduplicate key\0\0"), *b"23505");
        assert_eq!(sqlstate(b"SERROR\0\0"), *b"XX000");
        assert_eq!(sqlstate(b""), *b"XX000");
        assert_eq!(field(b"SERROR\0Mtext\0\0", b'M'), Some(&b"text"[..]));
        assert!(is_refusal(b"SFATAL\0VFATAL\0C08P01\0Minvalid frontend message type 1\0\0"));
        // A Bind of too few parameters is an error like others, and a shutdown is nobody's message.
        assert!(denies_login(b"SFATAL\0VFATAL\0C28P01\0\0") && !denies_login(b"SFATAL\0VFATAL\0C57014\0\0"));
        assert!(!is_refusal(b"SERROR\0VERROR\0C08P01\0\0") && !is_refusal(b"SFATAL\0VFATAL\0C57P01\0\0"));
    }
}
