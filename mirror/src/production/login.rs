//! A login whose channel can't be bound: the client's TLS ends at the mirror and the worker's begins there,
//! so that a client which offered to bind its channel to the worker's could not finish
//! (`SCRAM-SHA-256-PLUS`). The offer is left out; all else passes as it comes.
//!
//! Not used when the mirror shows the worker's own certificate: the binding is to that certificate
//! (`tls-server-end-point`, RFC 5929), and holds through the mirror.
//!
//! Passwords and proofs pass through here. They must not be kept, logged or counted.

use std::{io, pin::pin, time::Duration};

use tokio::{io::Interest, select, time::timeout};

use super::counters::Side;
use crate::{
    connection::Connection,
    wire::{
        backend::{is_refusal, tag as b},
        encode,
        frame::HEADER_BYTES,
        frontend::tag as f,
        sasl::{believes_that_binding_is_missing, request, without_binding},
    },
};

/// How long a login may take here: the longest `authentication_timeout` that PostgreSQL takes. The worker ends a login, not
/// the mirror.
pub const LIMIT: Duration = Duration::from_secs(600);
/// No message of a login is longer; PostgreSQL's own limit for a client's is 64 KiB.
const MESSAGE_BYTES: usize = 1 << 16;
/// The login is over.
const AUTHENTICATION_OK: u32 = 0;
/// The server's last word of SASL: it asks for nothing.
const SASL_FINAL: u32 = 12;

/// Why a login does not come to its end here.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// One of the two is gone.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// The worker has ended the connection before it said anything. Of a certificate of ours that it does not take it tells
    /// only now (TLS 1.3).
    #[error("the worker has not said anything: {0}")]
    Unheard(io::Error),
    /// The worker would take the client's words for an attack.
    #[error("the client could bind its channel and was not offered to")]
    Downgrade,
    /// What comes is no message of a login.
    #[error("a message that belongs to no login")]
    Malformed(Side),
    /// The worker has ended the connection in the middle of a message.
    #[error("the worker ends the connection in the middle of a message")]
    Truncated,
    /// The mirror is going away.
    #[error("the mirror is going away")]
    Leaving,
    /// It has taken too long.
    #[error("the login has taken too long")]
    Late,
}

/// How a login has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The worker has said yes, or no.
    Answered,
    /// The worker could not make sense of what the client has sent, and has said so.
    Refused,
    /// The client sends no more, in the middle of a message. What the worker says to that is still to come.
    Truncated,
}

/// Passes a login on until it has succeeded or failed, has taken too long, or the mirror is `leaving`.
pub async fn pass(
    client: &mut Connection,
    worker: &mut Connection,
    limit: Duration,
    leaving: impl Future<Output = ()>,
) -> Result<Passed, LoginError> {
    timeout(limit, exchange(client, worker, leaving)).await.unwrap_or(Err(LoginError::Late))
}

async fn exchange(
    client: &mut Connection,
    worker: &mut Connection,
    leaving: impl Future<Output = ()>,
) -> Result<Passed, LoginError> {
    let mut leaving = pin!(leaving);
    let (mut left_out, mut asked, mut heard) = (false, false, false);
    loop {
        let unheard = |error: io::Error| if heard { error.into() } else { LoginError::Unheard(error) };
        // Some clients send their first request along with the password: it is no part of the login, and is left
        // where it is for whoever follows the session.
        let next = async {
            if asked { first_byte(client, worker).await } else { Ok((false, tag(worker).await.map_err(unheard)?)) }
        };
        let (from_client, tag) = select! {
            biased;
            next = next => next?,
            () = &mut leaving => return Err(LoginError::Leaving),
        };
        heard = true;
        let sender = if from_client { &mut *client } else { &mut *worker };
        let side = if from_client { Side::Client } else { Side::Worker };
        let (message, is_whole) = message(sender, tag, side).await?;
        if !is_whole {
            if from_client {
                worker.write_all(&message).await?;
                return Ok(Passed::Truncated);
            }
            client.write_all(&message).await?;
            return Err(LoginError::Truncated);
        }
        let payload = message.get(HEADER_BYTES..).unwrap_or_default();
        if from_client {
            if tag == f::PASSWORD && left_out && believes_that_binding_is_missing(payload) {
                return Err(LoginError::Downgrade);
            }
            asked = false;
            worker.write_all(&message).await?;
            continue;
        }
        match (tag, without_binding(payload)) {
            (b::AUTHENTICATION, Some(payload)) => {
                left_out = true;
                client.write_all(&encode::message_bytes(b::AUTHENTICATION, &payload)).await?;
            }
            _ => client.write_all(&message).await?,
        }
        match (tag, request(payload)) {
            (b::AUTHENTICATION, Some((AUTHENTICATION_OK, _))) => return Ok(Passed::Answered),
            (b::ERROR, _) => return Ok(if is_refusal(payload) { Passed::Refused } else { Passed::Answered }),
            (b::AUTHENTICATION, Some((code, _))) => asked = code != SASL_FINAL,
            _ => {}
        }
    }
}

/// The type of the next message of either side, and whether it is the client's. Whoever speaks is heard: the
/// worker may lose its patience while the client is silent.
async fn first_byte(client: &mut Connection, worker: &mut Connection) -> Result<(bool, u8), LoginError> {
    let mut tag = [0];
    loop {
        for (from_client, side) in [(false, &mut *worker), (true, &mut *client)] {
            match side.try_read(&mut tag) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => return Ok((from_client, tag[0])),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        select! {
            ready = client.ready(Interest::READABLE) => ready?,
            ready = worker.ready(Interest::READABLE) => ready?,
        }
    }
}

/// The type of the next message of one side.
async fn tag(from: &mut Connection) -> io::Result<u8> {
    let mut tag = [0];
    match from.read(&mut tag).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(tag[0]),
    }
}

/// A message of this type, and whether that is all of it: its sender may have ended before.
async fn message(from: &mut Connection, tag: u8, side: Side) -> Result<(Vec<u8>, bool), LoginError> {
    let mut message = vec![tag];
    if !take(from, &mut message, HEADER_BYTES).await? {
        return Ok((message, false));
    }
    let length = message.last_chunk().map_or(0, |length| u32::from_be_bytes(*length)) as usize;
    if !(4..=MESSAGE_BYTES).contains(&length) {
        return Err(LoginError::Malformed(side));
    }
    let is_whole = take(from, &mut message, length + 1).await?;
    Ok((message, is_whole))
}

/// Reads until there are so many bytes. Whether there are.
async fn take(from: &mut Connection, message: &mut Vec<u8>, bytes: usize) -> io::Result<bool> {
    let mut buffer = [0; 512];
    while message.len() < bytes {
        let most = buffer.len().min(bytes - message.len());
        let piece = buffer.get_mut(..most).unwrap_or_default();
        match from.read(piece).await? {
            0 => return Ok(false),
            read => message.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::{io::AsyncWriteExt as _, net::UnixStream};

    use super::*;
    use crate::stream::Stream;

    #[tokio::test]
    async fn a_login_that_nobody_goes_on_with_is_over_when_its_time_is_up() {
        let (_silent, client) = UnixStream::pair().unwrap();
        let (mut server, worker) = UnixStream::pair().unwrap();
        let [mut client, mut worker] = [client, worker].map(|stream| Connection::Plain(Stream::Unix(stream)));
        // A password is asked for, and the client says none.
        server.write_all(&encode::message_bytes(b::AUTHENTICATION, &[0, 0, 0, 3])).await.unwrap();
        let passed = pass(&mut client, &mut worker, Duration::from_millis(50), pending()).await;
        assert!(matches!(passed, Err(LoginError::Late)), "{passed:?}");
        let passed = pass(&mut client, &mut worker, LIMIT, ready(())).await;
        assert!(matches!(passed, Err(LoginError::Leaving)), "{passed:?}");
    }
}
