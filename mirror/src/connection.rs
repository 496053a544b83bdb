//! A connection, in plain text or encrypted, behind the same few verbs. Reads and writes never wait, but
//! for those that say so. It must not know who is at the other end.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use rustls::pki_types::CertificateDer;
use tokio::io::Interest;

use crate::{keepalive::Keepalive, stream::Stream, tls::TlsStream};

/// A connection to a client, to the worker or to an arm.
#[derive(Debug)]
pub enum Connection {
    /// In plain text.
    Plain(Stream),
    /// Encrypted.
    Tls(Box<TlsStream>),
}

impl Connection {
    /// The certificate that the other side has shown.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.peer_certificate(),
        }
    }

    /// Sets when the other side is given up that says nothing any more.
    pub fn keep_alive(&self, keepalive: Keepalive) {
        match self {
            Self::Plain(stream) => keepalive.apply(stream),
            Self::Tls(stream) => keepalive.apply(stream.network()),
        }
    }

    /// It is ready to be read, from now on, when so many bytes are there, and at its end.
    pub fn wake_for(&self, bytes: u32) {
        match self {
            Self::Plain(stream) => stream.wake_for(bytes),
            Self::Tls(stream) => stream.network().wake_for(bytes),
        }
    }

    /// Reads what is there; 0 at the end.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_read(buffer),
            Self::Tls(stream) => stream.try_read(buffer),
        }
    }

    /// Whether there is nothing more to read after such a read into so many bytes, until it is ready again.
    pub fn is_emptied_by(&self, read: &io::Result<usize>, bytes: usize) -> bool {
        match read {
            // What was decrypted already is nothing that readiness tells of.
            Ok(read) => *read < bytes && matches!(self, Self::Plain(_)),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Writes what fits.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(stream) => stream.try_write(bytes),
        }
    }

    /// Whether bytes that were written wait here, encrypted, for the network to take them.
    pub fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.wants_write(),
        }
    }

    /// Waits until it can be read or written, as asked.
    pub async fn ready(&mut self, interest: Interest) -> io::Result<()> {
        poll_fn(|context| self.poll_ready(context, interest)).await
    }

    /// Whether it can be read or written, as asked; the task is woken when it can be.
    pub fn poll_ready(&mut self, context: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_ready(context, interest),
            Self::Tls(stream) => stream.poll_ready(context, interest),
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

    /// Waits until the buffer is full. Whether it is: the other side may have ended before.
    pub async fn read_exactly(&mut self, mut buffer: &mut [u8]) -> io::Result<bool> {
        while !buffer.is_empty() {
            let read = self.read(buffer).await?;
            if read == 0 {
                return Ok(false);
            }
            buffer = buffer.get_mut(read..).unwrap_or_default();
        }
        Ok(true)
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
        self.flush().await
    }

    /// Waits until what was written is with the network.
    pub async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush().await,
        }
    }

    /// Says that nothing more will be written; what was written still arrives. The other side may be gone.
    pub fn shutdown_write(&mut self) {
        match self {
            Self::Plain(stream) => stream.shutdown_write(),
            Self::Tls(stream) => stream.shutdown_write(),
        }
    }

    /// Ends what is written without a goodbye, where there is one: what came before may not have been all.
    pub fn cut(&mut self) {
        match self {
            Self::Plain(stream) => stream.shutdown_write(),
            Self::Tls(stream) => stream.cut(),
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
