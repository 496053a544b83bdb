//! A client that speaks the protocol byte by byte, so that what comes through the mirror can be held
//! against what comes directly.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{BufMut, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Protocol 3.0.
const VERSION: i32 = 196_608;

/// A session.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
}

/// A message of the server: its type and its body.
pub type Message = (u8, Vec<u8>);

impl Wire {
    /// Logs in as `postgres`.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = timeout(LIMIT, TcpStream::connect(address)).await.expect("in time").expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut wire = Self { stream };
        let mut body = BytesMut::new();
        body.put_i32(VERSION);
        body.put_slice(b"user\0postgres\0database\0postgres\0\0");
        let mut startup = BytesMut::new();
        startup.put_i32(i32::try_from(body.len() + 4).expect("short"));
        startup.put_slice(&body);
        wire.send(&startup).await;
        wire.until_ready(1).await;
        wire
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(LIMIT, self.stream.write_all(bytes)).await.expect("in time").expect("sent");
    }

    /// Sends bytes and collects the answers until `ready` ReadyForQuery, while sending goes on.
    pub async fn exchange(&mut self, bytes: &[u8], ready: usize) -> Vec<Message> {
        let (mut read, mut write) = self.stream.split();
        let sent = async { write.write_all(bytes).await };
        let (sent, answers) = timeout(LIMIT, async { tokio::join!(sent, collect(&mut read, b'Z', ready)) })
            .await
            .expect("answers in time");
        sent.expect("sent");
        answers.expect("answers")
    }

    /// Sends a request and throws its answers away, up to ReadyForQuery; how many bytes they were.
    pub async fn discard(&mut self, request: &[u8]) -> u64 {
        self.send(request).await;
        let (mut buffer, mut header, mut rest, mut bytes) = (vec![0; 1 << 16], Vec::with_capacity(5), 0, 0);
        loop {
            let read = timeout(LIMIT, self.stream.read(&mut buffer)).await.expect("answers in time").expect("answers");
            assert_ne!(read, 0, "the connection ended in the middle of an answer");
            bytes += read as u64;
            let mut chunk = buffer.get(..read).unwrap_or_default();
            while !chunk.is_empty() {
                let skipped = chunk.len().min(rest);
                (rest, chunk) = (rest - skipped, chunk.split_at(skipped).1);
                let taken = chunk.len().min(5 - header.len());
                header.extend_from_slice(chunk.split_at(taken).0);
                chunk = chunk.split_at(taken).1;
                if let [kind, a, b, c, d] = *header.as_slice() {
                    rest = u32::from_be_bytes([a, b, c, d]) as usize - 4;
                    header.clear();
                    // Its body is one byte, which comes with it.
                    if kind == b'Z' {
                        return bytes;
                    }
                }
            }
        }
    }

    /// Sends what ends the session, and reads what is said to that until the connection is closed.
    pub async fn last_words(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes).await;
        let mut said = Vec::new();
        let heard = timeout(LIMIT, self.stream.read_to_end(&mut said)).await.expect("the end in time");
        heard.expect("an orderly end");
        said
    }

    /// The answers until `ready` ReadyForQuery.
    pub async fn until_ready(&mut self, ready: usize) -> Vec<Message> {
        self.until(b'Z', ready).await
    }

    /// The answers until a message of this type has come so often.
    pub async fn until(&mut self, kind: u8, times: usize) -> Vec<Message> {
        timeout(LIMIT, collect(&mut self.stream, kind, times)).await.expect("answers in time").expect("answers")
    }
}

async fn collect(from: &mut (impl AsyncReadExt + Unpin), kind: u8, times: usize) -> io::Result<Vec<Message>> {
    let (mut messages, mut seen) = (Vec::new(), 0);
    while seen < times {
        let found = from.read_u8().await?;
        let length = from.read_i32().await?;
        let mut body = vec![0; usize::try_from(length - 4).map_err(io::Error::other)?];
        from.read_exact(&mut body).await?;
        seen += usize::from(found == kind);
        messages.push((found, body));
    }
    Ok(messages)
}

/// The types of messages, as letters.
pub fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|(kind, _)| char::from(*kind)).collect()
}

/// A message of a client.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(i32::try_from(body.len() + 4).expect("short").to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &zero_ended(sql))
}

/// Parse, Bind, Describe and Execute of the unnamed statement with text parameters; no Sync.
pub fn execute(sql: &str, parameters: &[&[u8]]) -> Vec<u8> {
    let mut bytes = message(b'P', &[&[0], zero_ended(sql).as_slice(), &[0, 0]].concat());
    let mut bind = vec![0, 0, 0, 0];
    bind.extend(i16::try_from(parameters.len()).expect("few").to_be_bytes());
    for parameter in parameters {
        bind.extend(i32::try_from(parameter.len()).expect("short").to_be_bytes());
        bind.extend(*parameter);
    }
    bind.extend([0, 0]);
    bytes.extend(message(b'B', &bind));
    bytes.extend(message(b'D', b"P\0"));
    bytes.extend(message(b'E', &[0, 0, 0, 0, 0]));
    bytes
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

fn zero_ended(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
