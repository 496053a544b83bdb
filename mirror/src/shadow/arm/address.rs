//! Where an arm is, and how it is spoken to: plain where it is reached through this machine's own sockets,
//! over mutual TLS where there is a network in between. Which of the two is data, decided by whoever made
//! the arm; what is to be encrypted is never sent in plain text.

use std::{
    io,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    connection::Connection,
    open_files,
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
    /// So many of the timeouts that a player switches off its server was found not to know.
    pub unknown_timeouts: Arc<AtomicUsize>,
}

impl From<Address> for ArmAddress {
    /// An arm that is spoken to in plain text.
    fn from(address: Address) -> Self {
        Self::new(address, None)
    }
}

impl ArmAddress {
    /// An arm of whose server nothing is known.
    pub fn new(address: Address, tls: Option<TlsClient>) -> Self {
        Self { address, tls, unknown_timeouts: Arc::default() }
    }

    /// Connects, TLS included, or fails within `limit`.
    pub async fn connect(&self, limit: Duration) -> Result<Connection, TlsError> {
        let opening = async {
            let stream = Stream::connect(&self.address, limit).await?;
            open_files::spare(&stream)?;
            Ok(match &self.tls {
                None => Connection::Plain(stream),
                Some(client) => Connection::Tls(Box::new(TlsStream::open(stream, client).await?)),
            })
        };
        timeout(limit, opening).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}
