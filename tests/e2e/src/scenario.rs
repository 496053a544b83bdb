//! A whole connection, from the first byte to the end, over any stream: what is sent, and what is heard as it can be
//! compared. What names a backend (its process, its key) is left out; everything else must be the same.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use crate::wire::message;

/// Protocol 3.0.
pub const V3_0: u32 = 3 << 16;
/// Protocol 3.2.
pub const V3_2: u32 = 3 << 16 | 2;
/// A request for TLS.
pub const SSL_REQUEST: u32 = 80_877_103;
/// A request for GSSAPI's encryption.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// Whose session it is.
pub const WHO: [(&str, &str); 2] = [("user", "postgres"), ("database", "postgres")];

/// How the client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It says goodbye.
    Terminate,
    /// It sends no more, and goes on reading.
    HalfClose,
    /// It waits for the server to end it.
    Server,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What happens.
    pub name: &'static str,
    /// What is sent, in pieces; each waits for so many bytes of the answer before it: the server must have said
    /// something first, as with an answer to a request for encryption.
    pub sent: Vec<(usize, Vec<u8>)>,
    /// How it ends.
    pub end: End,
}

/// What a client has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Every byte.
    pub said: Vec<u8>,
    /// What the end was, where it was no orderly one.
    pub cut: Option<ErrorKind>,
}

/// A first packet.
pub fn packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("short");
    [length.to_be_bytes().to_vec(), body].concat()
}

/// The first packet of a session with more parameters.
pub fn with(more: &[(&'static str, &'static str)]) -> Vec<u8> {
    packet(V3_0, &[&WHO, more].concat())
}

/// A connection that logs in and then says all of this at once.
pub fn session(name: &'static str, said: &[Vec<u8>], end: End) -> Scenario {
    Scenario { name, sent: vec![(0, [with(&[]), said.concat()].concat())], end }
}

/// A request for encryption.
pub fn request(code: u32) -> Vec<u8> {
    [8_u32.to_be_bytes(), code.to_be_bytes()].concat()
}

/// A request for encryption, and what follows when there is none.
pub fn asked(name: &'static str, code: u32) -> Scenario {
    Scenario { name, sent: vec![(0, request(code)), (1, with(&[]))], end: End::Terminate }
}

impl Scenario {
    /// Holds the connection; everything that the server says. Whoever calls sets the limit.
    pub async fn held(&self, stream: impl AsyncRead + AsyncWrite) -> Heard {
        let (mut from, mut to) = split(stream);
        let mut said = Vec::new();
        let Some(((awaited, last), earlier)) = self.sent.split_last() else { panic!("{}: nothing is sent", self.name) };
        for (awaited, bytes) in earlier {
            hear(&mut from, &mut said, *awaited).await;
            to.write_all(bytes).await.expect("sent");
            to.flush().await.expect("sent");
        }
        hear(&mut from, &mut said, *awaited).await;
        let speaking = async {
            to.write_all(last).await?;
            match self.end {
                End::Terminate => to.write_all(&message(b'X', &[])).await?,
                End::HalfClose => to.shutdown().await?,
                End::Server => {}
            }
            to.flush().await
        };
        // Both at once: neither side may wait for the other to read.
        let (spoken, heard) = tokio::join!(speaking, from.read_to_end(&mut said));
        spoken.unwrap_or_else(|error| panic!("{}: not sent: {error}", self.name));
        let cut = heard.err().map(|error| error.kind());
        Heard { said, cut }
    }

    /// The messages of an answer, with what names a backend left out, and its end; a byte that answers a request for
    /// encryption stands by itself.
    pub fn comparable(&self, heard: &Heard) -> Vec<String> {
        let single = self.sent.iter().map(|(before, _)| *before).max().unwrap_or(0);
        let (answer, mut rest) = heard.said.split_at(single.min(heard.said.len()));
        let mut messages = vec![format!("{answer:?}")];
        while let [kind, a, b, c, d, behind @ ..] = rest {
            let length = (u32::from_be_bytes([*a, *b, *c, *d]) as usize).saturating_sub(4).min(behind.len());
            let (body, next) = behind.split_at(length);
            let named = match kind {
                b'K' => body.len(),
                b'A' => 4,
                _ => 0,
            };
            let body = body.get(named..).unwrap_or_default();
            messages.push(format!("{} {length} {}", char::from(*kind), body.escape_ascii()));
            rest = next;
        }
        messages.push(format!("{rest:?}"));
        // Who is closed upon without a word may be told so in several ways, when not all it sent was read.
        // So may who is ended by the server while he is still speaking: by chance its kernel has read all of it or not.
        let ended_amid = self.end != End::Server
            && messages.iter().any(|message| message.starts_with("E ") && message.contains(" SFATAL"));
        if !heard.said.is_empty() && !ended_amid {
            messages.push(format!("{:?}", heard.cut));
        }
        messages
    }
}

async fn hear(from: &mut (impl AsyncRead + Unpin), said: &mut Vec<u8>, bytes: usize) {
    while said.len() < bytes {
        said.push(from.read_u8().await.expect("an answer"));
    }
}
