//! A check of a login whose channel can't be bound. Both sides have said everything before it is passed on; what
//! becomes of it is told from their bytes alone.

use std::{future::pending, io};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use understudy_mirror::{
    connection::Connection,
    production::{
        counters::Side,
        login::{self, LoginError},
    },
    stream::Stream,
};

use super::capture::chunks;

/// More than this need not fit into a socket before somebody reads it.
const SOCKET_BYTES: usize = 32 * 1024;
const BOUND: &[u8] = b"SCRAM-SHA-256-PLUS";

/// A login passes as it comes but for the offer to bind the channel, and what comes after it is left where it is.
/// The conversation is one of [`super::capture`].
pub fn login(data: &[u8]) {
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for (from_server, chunk) in chunks(data) {
        if from_server { &mut server } else { &mut client }.extend_from_slice(chunk);
    }
    if client.len().max(server.len()) > SOCKET_BYTES {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let passed = runtime.and_then(|runtime| runtime.block_on(pass(&client, &server)));
    match passed {
        Ok(passed) => judge(&client, &server, &passed),
        Err(error) => panic!("no sockets: {error}"),
    }
}

/// What became of a login.
struct Passed {
    result: Result<login::Passed, LoginError>,
    /// What the client got, and what is left of its own words.
    client: (Vec<u8>, Vec<u8>),
    /// The same of the server.
    server: (Vec<u8>, Vec<u8>),
}

async fn pass(client: &[u8], server: &[u8]) -> io::Result<Passed> {
    let (mut client_end, to_client) = ready(client).await?;
    let (mut server_end, to_server) = ready(server).await?;
    let (mut to_client, mut to_server) = (to_client, to_server);
    let result = login::pass(&mut to_client, &mut to_server, login::LIMIT, pending()).await;
    let left = (rest(&mut to_client).await?, rest(&mut to_server).await?);
    drop((to_client, to_server));
    let (mut heard, mut got) = (Vec::new(), Vec::new());
    client_end.read_to_end(&mut heard).await?;
    server_end.read_to_end(&mut got).await?;
    Ok(Passed { result, client: (heard, left.0), server: (got, left.1) })
}

/// An end that has said everything, and the mirror's end of it.
async fn ready(said: &[u8]) -> io::Result<(UnixStream, Connection)> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.write_all(said).await?;
    ours.shutdown().await?;
    Ok((ours, Connection::Plain(Stream::Unix(theirs))))
}

async fn rest(of: &mut Connection) -> io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match of.read(&mut buffer).await? {
            0 => return Ok(all),
            read => all.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    }
}

fn judge(client: &[u8], server: &[u8], passed: &Passed) {
    let Passed { result, client: (heard, client_left), server: (got, server_left) } = passed;
    assert!(client.starts_with(got), "the server got what the client did not send");
    assert!(client.ends_with(client_left) && server.ends_with(server_left));
    let (mut expected, ends) = without_offer(server);
    // The server may have been about to say more.
    expected.extend_from_slice(cut(server));
    assert!(expected.starts_with(heard), "the client got what the server did not send: {heard:?} of {expected:?}");
    match result {
        Ok(login::Passed::Truncated) => assert!(!cut(client).is_empty(), "the client has said whole messages"),
        Ok(answer) => {
            assert!(*answer == login::Passed::Answered || holds(server, b"C08P01"), "refused, and was not");
            let Some((taken, told)) = ends else { panic!("a login that has no end is over") };
            assert_eq!((server.len() - server_left.len(), heard.len()), (taken, told), "up to its end and no further");
            assert_eq!(client.len() - client_left.len(), got.len(), "all that was read of the client goes on");
        }
        Err(LoginError::Malformed(side)) => {
            let said = if *side == Side::Client { client } else { server };
            assert!(messages(said).1, "nothing that this side said is malformed");
        }
        Err(LoginError::Truncated) => assert!(!cut(server).is_empty(), "the server has said whole messages"),
        Err(LoginError::Downgrade) => assert!(holds(server, BOUND), "a downgrade of what was not offered"),
        Err(LoginError::Unheard(_)) => assert!(server.is_empty(), "the server has said something"),
        Err(LoginError::Connection(_)) => {}
        Err(LoginError::Late | LoginError::Leaving) => panic!("nobody kept it waiting or goes away"),
    }
}

/// What the client has to hear of a server's words; and where the login ends in both.
fn without_offer(server: &[u8]) -> (Vec<u8>, Option<(usize, usize)>) {
    let (mut told, mut taken, mut ends) = (Vec::new(), 0, None);
    for (tag, payload) in messages(server).0 {
        taken += payload.len() + 5;
        let code = payload.first_chunk::<4>().map(|code| u32::from_be_bytes(*code));
        let mut payload = payload.to_vec();
        if tag == b'R' && code == Some(10) {
            let offered: Vec<&[u8]> = payload.get(4..).unwrap_or_default().split_inclusive(|byte| *byte == 0).collect();
            let is_bound = |one: &&[u8]| one.strip_suffix(&[0]) == Some(BOUND);
            if offered.iter().any(is_bound) {
                // What is not terminated is no mechanism.
                let kept = offered.into_iter().filter(|one| !is_bound(one) && one.ends_with(&[0]));
                payload = [&10_u32.to_be_bytes()[..], &kept.collect::<Vec<_>>().concat()].concat();
            }
        }
        told.push(tag);
        told.extend_from_slice(&u32::try_from(payload.len() + 4).unwrap_or(0).to_be_bytes());
        told.extend_from_slice(&payload);
        if ends.is_none() && (tag == b'E' || (tag == b'R' && code == Some(0))) {
            ends = Some((taken, told.len()));
        }
    }
    (told, ends)
}

/// The whole messages at the front, and whether one follows that no login has.
fn messages(mut bytes: &[u8]) -> (Vec<(u8, &[u8])>, bool) {
    let mut whole = Vec::new();
    while let Some(([tag, length @ ..], rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        if !(4..=1 << 16).contains(&length) {
            return (whole, true);
        }
        let Some((payload, rest)) = rest.split_at_checked(length - 4) else { break };
        whole.push((*tag, payload));
        bytes = rest;
    }
    (whole, false)
}

/// What follows the whole messages at the front.
fn cut(bytes: &[u8]) -> &[u8] {
    let whole = messages(bytes).0.iter().map(|(_, payload)| payload.len() + 5).sum();
    bytes.get(whole..).unwrap_or_default()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
