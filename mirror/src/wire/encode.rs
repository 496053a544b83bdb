//! The few messages that the mirror itself sends: errors to clients, and what it needs to log in to
//! an arm and to put an arm's session right.

use super::startup::{CANCEL, Startup};

/// An ErrorResponse with severity FATAL; the connection is closed after it.
pub fn fatal(sqlstate: &str, message: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + message.len());
    for (code, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', sqlstate), (b'M', message)] {
        body.push(code);
        body.extend(value.bytes());
        body.push(0);
    }
    body.push(0);
    message_bytes(b'E', &body)
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    let mut body = sql.as_bytes().to_vec();
    body.push(0);
    message_bytes(b'Q', &body)
}

/// CopyFail.
pub fn copy_fail(why: &str) -> Vec<u8> {
    let mut body = why.as_bytes().to_vec();
    body.push(0);
    message_bytes(b'f', &body)
}

/// Sync.
pub const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];
/// Describe of a prepared statement that nobody has: it fails the transaction that it is in.
pub const FAIL: &[u8] = b"D\0\0\0\x19Sunderstudy: no Sync\0";
/// `SSLRequest`, "Message Formats" of the protocol: length 8, code 80877103.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Terminate.
pub const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// A startup packet with the parameters of another session. Protocol 3.0: what the arm's session
/// needs of later minors, nobody sees.
pub fn startup(of: &Startup) -> Vec<u8> {
    let mut body = (3_u32 << 16).to_be_bytes().to_vec();
    for (name, value) in &of.parameters {
        if name.starts_with("_pq_.") {
            continue;
        }
        body.extend(name.bytes());
        body.push(0);
        body.extend(value.bytes());
        body.push(0);
    }
    body.push(0);
    let mut packet = length(body.len() + 4).to_vec();
    packet.extend(body);
    packet
}

/// A cancel request with the key of a backend (the payload of its BackendKeyData).
pub fn cancel(key: &[u8]) -> Vec<u8> {
    let mut packet = length(8 + key.len()).to_vec();
    packet.extend(CANCEL.to_be_bytes());
    packet.extend(key);
    packet
}

/// A message of any type.
pub fn message_bytes(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.push(tag);
    bytes.extend(length(body.len() + 4));
    bytes.extend(body);
    bytes
}

/// Lengths of messages made here are far below the limit; a longer one would be refused by its reader.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{backend, frame, startup as read};

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = fatal("57P01", "going away");
        let message = frame::messages(&bytes).next().unwrap();
        assert_eq!(message.tag, b'E');
        assert_eq!(backend::sqlstate(message.payload), *b"57P01");
        assert_eq!(backend::field(message.payload, b'M'), Some(&b"going away"[..]));

        let of = Startup { protocol: (3 << 16) | 2, parameters: vec![("user".into(), "ann".into())] };
        let read::First::Startup(back) = read::first(&startup(&of)).unwrap() else { panic!() };
        assert_eq!(back.parameters, of.parameters);
        assert_eq!(read::first(&cancel(&[0; 8])), Ok(read::First::Cancel));
        assert_eq!(read::first(&SSL_REQUEST), Ok(read::First::SslRequest));
        assert_eq!(frame::messages(FAIL).map(|m| m.bytes.len()).collect::<Vec<_>>(), [FAIL.len()]);
    }
}
