//! A TLS client over [`Stream`]: the same reads and writes that never wait, with the bytes in between
//! encrypted. There is no way back to plain text: a server that offers no TLS is an error.
//!
//! It checks the server's certificate, and shows its own. Which ones is said by whoever connects.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use tokio::io::Interest;

use crate::{stream::Stream, wire::encode};

/// Whom we take for the server, and who we are for it.
#[derive(Clone)]
pub struct TlsClient {
    /// The authority that the server's certificate must come from, and our own certificate.
    pub config: Arc<ClientConfig>,
    /// The name that the server's certificate must have.
    pub name: ServerName<'static>,
}

impl fmt::Debug for TlsClient {
    // Not the configuration: it holds a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsClient({})", self.name.to_str())
    }
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It could not be reached, or broke the connection.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// It offers none.
    #[error("it offers no TLS; nothing is said to it in plain text")]
    NotOffered,
    /// It answers with something else than yes or no.
    #[error("it answers a request for TLS with the byte {0:#04x}")]
    NoAnswer(u8),
    /// The two could not agree, or one does not trust the other.
    #[error("no TLS with it: {0}")]
    Handshake(#[from] rustls::Error),
}

/// An encrypted connection.
#[derive(Debug)]
pub struct TlsStream {
    stream: Stream,
    session: ClientConnection,
}

impl TlsStream {
    /// Asks the server for TLS and agrees with it. Whoever calls sets the limit.
    pub async fn open(stream: Stream, client: &TlsClient) -> Result<Self, TlsError> {
        stream.write_all(&encode::SSL_REQUEST).await?;
        // One byte and no more: what came behind it would be plain text that somebody slipped in.
        let mut answer = [0];
        if stream.read(&mut answer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match answer {
            [b'S'] => {}
            [b'N'] => return Err(TlsError::NotOffered),
            [other] => return Err(TlsError::NoAnswer(other)),
        }
        let session = ClientConnection::new(Arc::clone(&client.config), client.name.clone())?;
        let mut this = Self { stream, session };
        this.handshake().await?;
        Ok(this)
    }

    async fn handshake(&mut self) -> Result<(), TlsError> {
        loop {
            self.flush().await?;
            if !self.session.is_handshaking() {
                return Ok(());
            }
            self.stream.ready(Interest::READABLE).await?;
            match self.session.read_tls(&mut Reading(&self.stream)) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => {
                    if let Err(error) = self.session.process_new_packets() {
                        // The server is told why; it may be gone already.
                        let _ = self.push();
                        return Err(error.into());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Reads what is there; 0 at the end.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.push()?;
        loop {
            match self.session.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            // At the end of the stream the next look tells whether it was meant to end.
            self.session.read_tls(&mut Reading(&self.stream))?;
            if let Err(error) = self.session.process_new_packets() {
                let _ = self.push();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    /// Takes what it can send now or very soon. [`Self::ready`] sends what is left.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        // What was taken before comes first, and no more is taken than one buffer holds.
        if self.session.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.session.writer().write(bytes)?;
        self.push()?;
        Ok(taken)
    }

    /// Waits until it can be read or written, as asked, or until what was taken could be sent.
    pub async fn ready(&mut self, interest: Interest) -> io::Result<()> {
        let interest = if self.session.wants_write() { interest.add(Interest::WRITABLE) } else { interest };
        self.stream.ready(interest).await?;
        self.push()
    }

    /// Sends everything that was taken.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.push()?;
        while self.session.wants_write() {
            self.stream.ready(Interest::WRITABLE).await?;
            self.push()?;
        }
        Ok(())
    }

    /// Says that nothing more will be written.
    pub async fn close(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        self.flush().await
    }

    /// Sends what was taken, as far as the network takes it.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Writing(&self.stream)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// What comes over the network.
struct Reading<'a>(&'a Stream);

impl io::Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

/// What goes over the network.
struct Writing<'a>(&'a Stream);

impl io::Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
