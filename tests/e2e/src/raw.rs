//! A client without manners: it reads as slowly as it likes, sends messages of any size, stops in the middle of
//! one, and leaves without a word.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::wire::{Message, message};

const LIMIT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

/// How many bytes were read, and a digest of them.
pub type Digest = (u64, u64);

/// The startup packet of a session in the database `postgres`.
pub fn startup(user: &str) -> Vec<u8> {
    let body = [&[0, 3, 0, 0], format!("user\0{user}\0database\0postgres\0\0").as_bytes()].concat();
    let length = u32::try_from(body.len() + 4).expect("short");
    [length.to_be_bytes().to_vec(), body].concat()
}

impl Raw {
    /// Connects and says nothing. The network keeps no more for it than it must.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1 << 16).expect("a size");
        let stream = timeout(LIMIT, socket.connect(address)).await.expect("in time").expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self { stream }
    }

    /// Connects and logs in as `postgres`.
    pub async fn login(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(&startup("postgres")).await;
        raw.until(b'Z').await;
        raw
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(LIMIT, self.stream.write_all(bytes)).await.expect("in time").expect("sent");
    }

    /// Sends a message of one long body in pieces: `before`, so many times `piece`, `after`.
    pub async fn send_long(&mut self, kind: u8, before: &[u8], piece: &[u8], times: usize, after: &[u8]) {
        let length = u32::try_from(4 + before.len() + piece.len() * times + after.len()).expect("a length");
        self.send(&[&[kind], length.to_be_bytes().as_slice(), before].concat()).await;
        for _ in 0..times {
            self.send(piece).await;
        }
        self.send(after).await;
    }

    /// Reads messages until one of this type has come; a digest of all of them.
    pub async fn until(&mut self, kind: u8) -> Digest {
        let read = async {
            let (mut bytes, mut digest) = (0, 0xcbf2_9ce4_8422_2325);
            let mut buffer = vec![0; 1 << 16];
            loop {
                let found = self.stream.read_u8().await?;
                let length = self.stream.read_u32().await?;
                let mut left = u64::from(length) - 4;
                (bytes, digest) =
                    (bytes + 5 + left, fnv(digest, &[&[found], length.to_be_bytes().as_slice()].concat()));
                while left > 0 {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let read = self.stream.read(buffer.get_mut(..most).unwrap_or_default()).await?;
                    assert!(read > 0, "it ended in the middle of a message");
                    digest = fnv(digest, buffer.get(..read).unwrap_or_default());
                    left -= read as u64;
                }
                if found == kind {
                    return std::io::Result::Ok((bytes, digest));
                }
            }
        };
        timeout(LIMIT, read).await.expect("in time").expect("answers")
    }

    /// Reads messages until one of this type has come, and keeps them.
    pub async fn heard(&mut self, kind: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        let hear = async {
            loop {
                let found = self.stream.read_u8().await?;
                let length = self.stream.read_u32().await? as usize;
                let mut body = vec![0; length - 4];
                self.stream.read_exact(&mut body).await?;
                messages.push((found, body));
                if found == kind {
                    return std::io::Result::Ok(());
                }
            }
        };
        timeout(LIMIT, hear).await.expect("in time").expect("answers");
        messages
    }

    /// The type of the first thing that is said.
    pub async fn first(&mut self) -> u8 {
        let mut kind = [0];
        let read = timeout(LIMIT, self.stream.peek(&mut kind)).await.expect("in time").expect("an answer");
        assert!(read == 1, "it ended without a word");
        kind[0]
    }

    /// Reads so many bytes, whatever they are.
    pub async fn sip(&mut self, bytes: usize) {
        let mut buffer = vec![0; bytes.min(1 << 16)];
        let mut left = bytes;
        while left > 0 {
            let most = left.min(buffer.len());
            let read = self.stream.read(buffer.get_mut(..most).unwrap_or_default());
            let read = timeout(LIMIT, read).await.expect("in time").expect("answers");
            assert!(read > 0, "it ended before that");
            left -= read;
        }
    }

    /// Says that it sends no more, and may still read.
    pub async fn send_no_more(&mut self) {
        // The other side may be gone.
        let _ = self.stream.shutdown().await;
    }

    /// Reads until the other side has closed or broken the connection; what it has said.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        match timeout(LIMIT, self.stream.read_to_end(&mut said)).await.expect("the end in time") {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
        said
    }

    /// Leaves without reading what was said: with a reset, or as a process that has ended does.
    pub fn vanish(self, with_reset: bool) {
        if with_reset {
            self.stream.set_zero_linger().expect("no lingering");
        }
    }

    /// Says goodbye.
    pub async fn leave(mut self) {
        self.send(&message(b'X', &[])).await;
    }
}

fn fnv(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest, |digest, byte| (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
