//! A session that is spoken byte by byte over any stream, encrypted or not.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{
    raw::startup,
    wire::{Message, kinds, query},
};

const LIMIT: Duration = Duration::from_secs(60);

/// A session.
#[derive(Debug)]
pub struct Talk<S> {
    /// What it is spoken over.
    pub stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// Logs in as a user who is not asked for a password; the session, and the process and key that name it.
    pub async fn login(stream: S, user: &str) -> (Self, Vec<u8>) {
        let mut talk = Self { stream };
        talk.send(&startup(user)).await;
        let key = talk.heard(b'Z').await.into_iter().find(|(kind, _)| *kind == b'K');
        (talk, key.expect("a key").1)
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(LIMIT, sent).await.expect("in time").expect("sent");
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
                    return io::Result::Ok(());
                }
            }
        };
        timeout(LIMIT, hear).await.expect("in time").expect("answers");
        messages
    }

    /// Asks, and is answered.
    pub async fn expect_alive(&mut self) {
        self.send(&query("SELECT 1")).await;
        assert_eq!(kinds(&self.heard(b'Z').await), "TDCZ");
    }

    /// All that is said until the other side ends it, and how that was.
    pub async fn end(mut self) -> (Vec<u8>, io::Result<()>) {
        let mut said = Vec::new();
        let end = timeout(LIMIT, self.stream.read_to_end(&mut said)).await.expect("the end in time");
        (said, end.map(drop))
    }
}
