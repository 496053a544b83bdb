//! The first packet of a connection: it has no type byte.

use serde::{Deserialize, Serialize};

use super::frontend::cstr;

/// The longest first packet PostgreSQL accepts, bytes: `MAX_STARTUP_PACKET_LENGTH`, which does not count the four of
/// the length.
pub const MAX_STARTUP_BYTES: usize = 10_004;

/// What a client that speaks TLS without asking names as the protocol inside (ALPN).
pub const PROTOCOL_NAME: &[u8] = b"postgresql";

/// Codes that stand where a protocol version would: 1234 in the upper half.
pub const CANCEL: u32 = (1234 << 16) + 5678;
/// Asks for TLS.
pub const SSL: u32 = (1234 << 16) + 5679;
/// Asks for GSSAPI's encryption.
pub const GSSENC: u32 = (1234 << 16) + 5680;

/// What a connection begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// The client asks for TLS.
    SslRequest,
    /// The client asks for GSS encryption.
    GssEncRequest,
    /// The client wants another session's statement cancelled.
    Cancel,
    /// The client wants a session.
    Startup(Startup),
}

/// What a client says about the session it wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Startup {
    /// Protocol version: major in the upper, minor in the lower half.
    pub protocol: u32,
    /// Parameters in order: `user`, `database`, settings.
    pub parameters: Vec<(String, String)>,
}

impl Startup {
    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether this is a replication connection, which is relayed and never mirrored.
    /// As PostgreSQL reads it: the last value counts, and it is `database` or a boolean.
    pub fn is_replication(&self) -> bool {
        let last = self.parameters.iter().rfind(|(name, _)| name == "replication");
        last.is_some_and(|(_, value)| value == "database" || !is_false(value))
    }
}

/// Whether `parse_bool` of PostgreSQL's `bool.c` reads it as false: any beginning of `false` and `no`, `of`, `off`, `0`.
/// What it can't read at all the server refuses.
fn is_false(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0"
}

/// What is wrong with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// Its length is below 8 or above PostgreSQL's limit.
    #[error("invalid length of startup packet")]
    Length,
    /// Its parameters are not pairs of zero-terminated strings.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// It asks for a protocol that is not 3.
    #[error("unsupported frontend protocol")]
    Protocol,
}

/// The length of a first packet whose first four bytes these are.
pub fn packet_bytes(length: [u8; 4]) -> Result<usize, StartupError> {
    let length = u32::from_be_bytes(length) as usize;
    if (8..=MAX_STARTUP_BYTES).contains(&length) { Ok(length) } else { Err(StartupError::Length) }
}

/// Reads a whole first packet, its length included.
pub fn first(packet: &[u8]) -> Result<First, StartupError> {
    let (_, rest) = packet.split_first_chunk::<4>().ok_or(StartupError::Length)?;
    let (code, mut rest) = rest.split_first_chunk::<4>().ok_or(StartupError::Length)?;
    let protocol = u32::from_be_bytes(*code);
    match protocol {
        CANCEL => return Ok(First::Cancel),
        SSL => return Ok(First::SslRequest),
        GSSENC => return Ok(First::GssEncRequest),
        _ if protocol >> 16 != 3 => return Err(StartupError::Protocol),
        _ => {}
    }
    let mut parameters = Vec::new();
    loop {
        match rest {
            [0] => return Ok(First::Startup(Startup { protocol, parameters })),
            [] => return Err(StartupError::Layout),
            _ => {}
        }
        let (name, tail) = cstr(rest).ok_or(StartupError::Layout)?;
        let (value, tail) = cstr(tail).ok_or(StartupError::Layout)?;
        parameters.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()));
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(8 + body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn first_packets_are_told_apart() {
        assert_eq!(first(&packet(SSL, b"")), Ok(First::SslRequest));
        assert_eq!(first(&packet(GSSENC, b"")), Ok(First::GssEncRequest));
        assert_eq!(first(&packet(CANCEL, &[0; 8])), Ok(First::Cancel));
        let Ok(First::Startup(startup)) = first(&packet(3 << 16, b"user\0ann\0database\0app\0\0")) else { panic!() };
        assert_eq!(startup.get("database"), Some("app"));
        assert!(!startup.is_replication());
    }

    #[test]
    fn a_replication_connection_is_what_postgresql_takes_for_one() {
        let asks = |values: &[&str]| {
            let parameters = values.iter().map(|value| ("replication".to_owned(), (*value).to_owned())).collect();
            Startup { protocol: 3 << 16, parameters }.is_replication()
        };
        for yes in ["true", "TRUE", "t", "on", "1", "y", "Yes", "database"] {
            assert!(asks(&[yes]), "{yes}");
        }
        for no in ["false", "F", "fal", "no", "N", "of", "OFF", "0"] {
            assert!(!asks(&[no]), "{no}");
        }
        assert!(!asks(&[]) && !asks(&["true", "off"]) && asks(&["off", "database"]), "the last one counts");
    }

    #[test]
    fn what_is_no_first_packet_is_refused() {
        assert_eq!(first(&packet(2 << 16, b"\0")), Err(StartupError::Protocol));
        assert_eq!(first(&packet(3 << 16, b"user\0ann\0")), Err(StartupError::Layout));
        assert_eq!(first(&packet(3 << 16, b"user\0ann")), Err(StartupError::Layout));
        assert_eq!(first(&[0, 0, 0, 9]), Err(StartupError::Length));
        assert_eq!(packet_bytes([0, 0, 0, 7]), Err(StartupError::Length));
        assert_eq!(packet_bytes([0, 1, 0, 0]), Err(StartupError::Length));
    }
}
