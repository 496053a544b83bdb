//! TLS over [`Stream`], as a client and as a server: the same reads and writes that never wait, with the
//! bytes in between encrypted.
//!
//! Whom it trusts and which certificate it shows is said by whoever opens it.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName},
};
use tokio::io::Interest;

use crate::{stream::Stream, wire::encode};

pub mod provider;
pub mod verify;

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
    session: Connection,
    /// The other side takes nothing any more; what it said before can still be read.
    deaf: bool,
    /// What it sends is no TLS any more; what came before that can still be read.
    broken: Option<rustls::Error>,
}

/// So often the network is asked for more in one read: records that hold nothing would hold up all others of the thread.
const MOST_ASKED: usize = 16;

/// Asks a server whether it speaks TLS (`SSLRequest`). After a no it goes on in plain text.
pub async fn is_offered(stream: &Stream) -> Result<bool, TlsError> {
    stream.write_all(&encode::SSL_REQUEST).await?;
    // One byte and no more: what came behind it would be plain text that somebody slipped in.
    let mut answer = [0];
    if stream.read(&mut answer).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    match answer {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        [other] => Err(TlsError::NoAnswer(other)),
    }
}

impl TlsStream {
    /// Asks the server for TLS and agrees with it; a server that offers none is an error. Whoever calls sets
    /// the limit.
    pub async fn open(stream: Stream, client: &TlsClient) -> Result<Self, TlsError> {
        if is_offered(&stream).await? { Self::agree(stream, client).await } else { Err(TlsError::NotOffered) }
    }

    /// Agrees with a server that waits for it.
    pub async fn agree(stream: Stream, client: &TlsClient) -> Result<Self, TlsError> {
        let session = ClientConnection::new(Arc::clone(&client.config), client.name.clone())?;
        let mut this = Self { stream, session: session.into(), deaf: false, broken: None };
        this.handshake().await?;
        Ok(this)
    }

    /// Agrees with a client, of whose first words some may have been read already.
    pub async fn accept(stream: Stream, config: &Arc<ServerConfig>, mut read: &[u8]) -> Result<Self, TlsError> {
        let mut session = ServerConnection::new(Arc::clone(config))?;
        while !read.is_empty() {
            session.read_tls(&mut read)?;
        }
        let mut this = Self { stream, session: session.into(), deaf: false, broken: None };
        this.handshake().await?;
        Ok(this)
    }

    /// The certificate that the other side has shown.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.session.peer_certificates()?.first()
    }

    /// What it goes over.
    pub fn network(&self) -> &Stream {
        &self.stream
    }

    /// The protocol that both agreed to speak inside (ALPN).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
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
                        // The other side is told why; it may be gone already.
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
        // That it takes nothing any more is told when it is written to; its last words are still to be had.
        let _ = self.push();
        let mut asked = 0;
        loop {
            match self.session.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if let Some(error) = &self.broken {
                return Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()));
            }
            // Not before what the last one brought was looked at: the network may have nothing more to wake anybody for.
            if asked == MOST_ASKED {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            asked += 1;
            // At the end of the stream the next look tells whether it was meant to end.
            self.session.read_tls(&mut Reading(&self.stream))?;
            if let Err(error) = self.session.process_new_packets() {
                let _ = self.push();
                self.broken = Some(error);
            }
        }
    }

    /// Takes what it can send now or very soon. [`Self::poll_ready`] sends what is left.
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

    /// Whether it can be read or written, as asked, or what was taken could be sent; the task is woken when it can.
    pub fn poll_ready(&mut self, context: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        let interest = if self.wants_write() { interest.add(Interest::WRITABLE) } else { interest };
        ready!(self.stream.poll_ready(context, interest))?;
        Poll::Ready(if self.deaf { Ok(()) } else { self.push() })
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

    /// Whether bytes that were taken wait for the network.
    pub fn wants_write(&self) -> bool {
        !self.deaf && self.session.wants_write()
    }

    /// Says that nothing more will be written, as far as the network takes it now.
    pub fn shutdown_write(&mut self) {
        self.session.send_close_notify();
        // The other side may be gone already. What does not fit now is lost with the goodbye: a client that
        // does not read has no use for it.
        if self.push().is_ok() && !self.session.wants_write() {
            self.stream.shutdown_write();
        }
    }

    /// Ends what is written without a goodbye, as who breaks off does.
    pub fn cut(&mut self) {
        self.deaf = true;
        self.stream.shutdown_write();
    }

    /// Says that nothing more will be written.
    pub async fn close(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        self.flush().await
    }

    /// Sends what was taken, as far as the network takes it.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.deaf {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match self.session.write_tls(&mut Writing(&self.stream)) {
                Ok(1..) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                failed => {
                    self.deaf = true;
                    return Err(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                }
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
