//! A client's first words, up to its startup packet: requests for encryption are answered, TLS is agreed
//! on, and what begins a session or cancels another one's statement is handed on as it came.
//!
//! What the worker would refuse is refused by the worker, in its own words. ("Message Flow", "SSL Session
//! Encryption" and "GSSAPI Session Encryption" of the protocol.)

use std::{io, sync::Arc};

use rustls::pki_types::CertificateDer;

use super::client_tls::{ClientTls, Shown};
use crate::{
    connection::Connection,
    stream::Stream,
    tls::{TlsError, TlsStream},
    wire::startup::{self, PROTOCOL_NAME, Startup, StartupError},
};

/// The first byte of a TLS handshake record: the client speaks TLS without asking (PostgreSQL 17).
const HANDSHAKE: u8 = 0x16;

/// A client that has said what it wants.
#[derive(Debug)]
pub struct Greeted {
    /// The connection, encrypted where they agreed to.
    pub client: Connection,
    /// The packet, as it came.
    pub packet: Vec<u8>,
    /// What it is.
    pub wish: Wish,
    /// The certificate that the client was shown, where the connection is encrypted.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What a client wants.
#[derive(Debug)]
pub enum Wish {
    /// A session.
    Session(Startup),
    /// Another session's statement is to be cancelled.
    Cancel,
    /// Something that only the worker has words for: another protocol, a packet that can't be read.
    Refusal,
}

/// Why a connection ends before its startup packet.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// The client broke it.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// No TLS could be agreed on.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The packet has no length that a packet may have. The worker would close without a word.
    #[error("invalid length of startup packet")]
    Length,
    /// The client speaks TLS without asking, and there is none for it here, or not for this protocol.
    #[error("the client speaks TLS that it was not offered")]
    Unasked,
    /// The client asks for an encryption a second time. It has not been told yet.
    #[error("encryption is asked for a second time")]
    Again {
        /// Who asks.
        client: Box<Connection>,
        /// What it asks with, which PostgreSQL takes for a protocol that it does not know.
        protocol: u32,
    },
    /// Clients have to use TLS here, and this one does not. It has not been told yet.
    #[error("the client does not use TLS")]
    Plain(Box<Connection>),
}

/// Listens to a client until it has said what it wants, in front of a worker that shows this certificate. `None`: it
/// went away. Whoever calls sets the limit.
pub async fn greet(
    stream: Stream,
    tls: Option<&ClientTls>,
    worker: Option<&CertificateDer<'_>>,
) -> Result<Option<Greeted>, GreetError> {
    let shown = tls.map(|tls| tls.beside(worker));
    let mut asked = Asked::default();
    let mut start = [0; 4];
    // The first four bytes are read from the stream itself: they tell whether it is TLS.
    let mut client = Connection::Plain(stream);
    if !client.read_exactly(&mut start).await? {
        return Ok(None);
    }
    let mut certificate = None;
    if let [HANDSHAKE, ..] = start {
        let stream = plain(client).ok_or(GreetError::Unasked)?;
        let encrypted = encrypt(stream, shown.as_ref(), &start).await?;
        if encrypted.protocol() != Some(PROTOCOL_NAME) {
            return Err(GreetError::Unasked);
        }
        client = Connection::Tls(Box::new(encrypted));
        certificate = shown.as_ref().map(|shown| shown.certificate.clone());
        asked = Asked { tls: true, gss: true };
        if !client.read_exactly(&mut start).await? {
            return Ok(None);
        }
    }
    loop {
        let Some(packet) = packet(&mut client, start).await? else { return Ok(None) };
        match startup::first(&packet) {
            Ok(startup::First::SslRequest) if !asked.tls => {
                asked.tls = true;
                match (&shown, plain(client)) {
                    (Some(_), Some(stream)) => {
                        stream.write_all(b"S").await?;
                        client = Connection::Tls(Box::new(encrypt(stream, shown.as_ref(), &[]).await?));
                        certificate = shown.as_ref().map(|shown| shown.certificate.clone());
                        asked.gss = true;
                    }
                    (None, Some(stream)) => {
                        stream.write_all(b"N").await?;
                        client = Connection::Plain(stream);
                    }
                    (_, None) => return Err(GreetError::Unasked),
                }
            }
            Ok(startup::First::GssEncRequest) if !asked.gss => {
                asked.gss = true;
                client.write_all(b"N").await?;
            }
            Ok(startup::First::Cancel) => return Ok(Some(Greeted { client, packet, wish: Wish::Cancel, certificate })),
            Ok(startup::First::Startup(startup)) => {
                if certificate.is_none() && tls.is_some_and(|tls| tls.is_required) {
                    return Err(GreetError::Plain(Box::new(client)));
                }
                return Ok(Some(Greeted { client, packet, wish: Wish::Session(startup), certificate }));
            }
            Err(StartupError::Length) => return Err(GreetError::Length),
            // The worker can't be asked for its words: it was not asked for encryption before.
            Ok(startup::First::SslRequest) => return Err(again(client, startup::SSL)),
            Ok(startup::First::GssEncRequest) => return Err(again(client, startup::GSSENC)),
            Err(StartupError::Layout | StartupError::Protocol) => {
                return Ok(Some(Greeted { client, packet, wish: Wish::Refusal, certificate }));
            }
        }
        if !client.read_exactly(&mut start).await? {
            return Ok(None);
        }
    }
}

/// What a client has asked for: once is allowed.
#[derive(Debug, Default)]
struct Asked {
    tls: bool,
    gss: bool,
}

fn again(client: Connection, protocol: u32) -> GreetError {
    GreetError::Again { client: Box::new(client), protocol }
}

fn plain(client: Connection) -> Option<Stream> {
    match client {
        Connection::Plain(stream) => Some(stream),
        Connection::Tls(_) => None,
    }
}

async fn encrypt(stream: Stream, shown: Option<&Arc<Shown>>, read: &[u8]) -> Result<TlsStream, GreetError> {
    let shown = shown.ok_or(GreetError::Unasked)?;
    Ok(TlsStream::accept(stream, &shown.config, read).await?)
}

/// A packet whose first four bytes are known. `None`: the client went away in the middle of it.
async fn packet(client: &mut Connection, length: [u8; 4]) -> Result<Option<Vec<u8>>, GreetError> {
    let bytes = startup::packet_bytes(length).map_err(|_| GreetError::Length)?;
    let mut packet = length.to_vec();
    packet.resize(bytes, 0);
    let whole = client.read_exactly(packet.get_mut(4..).unwrap_or_default()).await?;
    Ok(whole.then_some(packet))
}
