//! A connection to an arm: plain where the arm is reached through this machine's own sockets, over mutual
//! TLS where there is a network in between. Which of the two is data, decided by whoever made the arm;
//! what is to be encrypted is never sent in plain text.

use std::{io, time::Duration};

use tokio::{io::Interest, time::timeout};

use crate::{
    stream::{Address, Stream},
    tls::{TlsClient, TlsError, TlsStream},
};

/// Where an arm's PostgreSQL is, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct ArmAddress {
    /// Where it is.
    pub address: Address,
    /// Whom to expect there and who to be, over TLS; plain text without it.
    pub tls: Option<TlsClient>,
}

impl From<Address> for ArmAddress {
    /// An arm that is spoken to in plain text.
    fn from(address: Address) -> Self {
        Self { address, tls: None }
    }
}

/// A connection to an arm. Reads and writes never wait, but for those that say so.
#[derive(Debug)]
pub enum Connection {
    /// In plain text.
    Plain(Stream),
    /// Encrypted.
    Tls(Box<TlsStream>),
}

impl Connection {
    /// Connects, TLS included, or fails within `limit`.
    pub async fn open(to: &ArmAddress, limit: Duration) -> Result<Self, TlsError> {
        let opening = async {
            let stream = Stream::connect(&to.address, limit).await?;
            Ok(match &to.tls {
                None => Self::Plain(stream),
                Some(client) => Self::Tls(Box::new(TlsStream::open(stream, client).await?)),
            })
        };
        timeout(limit, opening).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    /// Reads what is there; 0 at the end.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_read(buffer),
            Self::Tls(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what fits.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(stream) => stream.try_write(bytes),
        }
    }

    /// Waits until it can be read or written, as asked.
    pub async fn ready(&mut self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.ready(interest).await.map(drop),
            Self::Tls(stream) => stream.ready(interest).await,
        }
    }

    /// Waits until something can be read; 0 at the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.try_read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.ready(Interest::READABLE).await?,
                other => return other,
            }
        }
    }

    /// Waits until all of it is sent.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.ready(Interest::WRITABLE).await?,
                Err(e) => return Err(e),
            }
        }
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush().await,
        }
    }

    /// Says that nothing more will be sent, where there is a way to say it.
    pub async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.close().await,
        }
    }
}
