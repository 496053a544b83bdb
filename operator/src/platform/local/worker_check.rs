//! Asks the worker, before anything is made, whether it can be cloned: what it says of itself is judged by
//! the preflight, and whether it lets our user replicate is tried.
//!
//! `pg_hba.conf` has entries of its own for replication, and only the server can judge them. The
//! first answer to a start-up message tells: a request to authenticate (or none needed), or a refusal.

use std::{io, time::Duration};

use understudy_crds::mirror_config::SslMode;
use understudy_mirror::{
    connection::Connection,
    production::worker::{Worker as Reach, WorkerTlsFiles},
    stream::Address,
    tls::TlsError,
};

use super::{
    facts::WorkerFacts,
    preflight::{Fields, Needs, STATEFUL_SET, problems},
    worker::Worker,
};
use crate::error::{ErrorKind, Side, UserError, plain_io};

const LIMIT: Duration = Duration::from_secs(10);
const LONGEST_ANSWER_BYTES: u32 = 16 * 1024;

/// Whether the worker can be cloned; else the first thing that stands in the way.
pub async fn check_worker(worker: &Worker, facts: &WorkerFacts, needs: &Needs) -> Result<(), UserError> {
    if let Some(problem) = problems(facts, needs).into_iter().next() {
        return Err(problem);
    }
    check_replication(worker, needs.fields).await
}

/// Whether the worker's access rules let our user replicate.
async fn check_replication(worker: &Worker, fields: Fields) -> Result<(), UserError> {
    let target = worker.target();
    let refused = match tokio::time::timeout(LIMIT, refusal(worker)).await {
        Ok(Ok(refused)) => refused,
        Ok(Err(e)) => {
            return Err(UserError::new(
                ErrorKind::Unreachable,
                Side::Worker,
                "the worker can't be reached for replication",
            )
            .fact("worker", worker.label())
            .fact("reason", plain_io(&e))
            .nothing_changed());
        }
        Err(_) => {
            return Err(UserError::new(ErrorKind::TimedOut, Side::Worker, "the worker does not answer")
                .fact("worker", worker.label())
                .fact("limit", format!("{} s", LIMIT.as_secs()))
                .nothing_changed());
        }
    };
    match refused {
        None => Ok(()),
        Some(reason) => Err(UserError::new(ErrorKind::Refused, Side::Worker, "the worker refuses a base backup")
            .fact("worker", format!("{}, user {}", worker.label(), target.user))
            .fact("reason", reason)
            .remedy(hba_remedy(&target.user, &target.host, fields))
            .nothing_changed()),
    }
}

/// Why our user may not replicate; `None` when it may. Asked as `pg_basebackup` will, whose `sslmode` is
/// `prefer`: over TLS first where the worker offers it, then in plain text.
async fn refusal(worker: &Worker) -> io::Result<Option<String>> {
    let target = worker.target();
    let address = Address::new(&target.host, worker.port());
    let preferred = WorkerTlsFiles { mode: SslMode::Prefer, authorities: None, identity: None };
    if let Ok(reach) = Reach::new(address.clone(), &preferred)
        && let Ok(encrypted @ Connection::Tls(_)) = reach.connect(LIMIT, LIMIT).await
        && let Ok(None) = ask(encrypted, &target.user).await
    {
        return Ok(None);
    }
    let plain = Reach::from(address).connect(LIMIT, LIMIT).await.map_err(|error| match error {
        TlsError::Connection(error) => error,
        other => io::Error::other(other),
    })?;
    ask(plain, &target.user).await
}

fn hba_remedy(user: &str, host: &str, fields: Fields) -> String {
    let line = if host.starts_with('/') {
        format!("local replication {user} peer")
    } else if fields == STATEFUL_SET {
        // The clones are pods of their own, and so is who asks: no address of one is good for all.
        format!("host replication {user} NETWORK-OF-THE-PODS scram-sha-256")
    } else {
        format!("host replication {user} ADDRESS-OF-THIS-MACHINE/32 scram-sha-256")
    };
    format!("add to the worker's pg_hba.conf: {line}\nthen SELECT pg_reload_conf();")
}

/// The server's refusal, or `None` when it wants to go on.
async fn ask(mut worker: Connection, user: &str) -> io::Result<Option<String>> {
    worker.write_all(&start_up(user)).await?;
    let (mut kind, mut length) = ([0], [0; 4]);
    if !worker.read_exactly(&mut kind).await? || !worker.read_exactly(&mut length).await? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if kind != *b"E" {
        return Ok(None);
    }
    let length_bytes = u32::from_be_bytes(length).saturating_sub(4).min(LONGEST_ANSWER_BYTES);
    let mut body = vec![0; usize::try_from(length_bytes).unwrap_or_default()];
    // What is missing is zeros, and no part of a message.
    worker.read_exactly(&mut body).await?;
    Ok(Some(message_in(&body)))
}

fn start_up(user: &str) -> Vec<u8> {
    const PROTOCOL: u32 = 3 << 16;
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for text in ["user", user, "replication", "true", "application_name", super::worker::APPLICATION_NAME] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [length.to_be_bytes().to_vec(), body].concat()
}

/// The field `M` of an ErrorResponse.
fn message_in(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0);
    let message = fields.filter_map(|field| field.split_first()).find(|(kind, _)| **kind == b'M');
    message.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_up_message_is_framed_and_ends() {
        let message = start_up("me");
        assert_eq!(
            message.get(..8),
            Some([0, 0, 0, u8::try_from(message.len()).expect("short"), 0, 3, 0, 0].as_slice())
        );
        assert!(message.ends_with(b"understudy\0\0"));
    }

    #[test]
    fn the_message_is_found_in_any_error_response() {
        assert_eq!(message_in(b"SFATAL\0VFATAL\0C28000\0Mno entry\0\0"), "no entry");
        assert_eq!(message_in(b"SFATAL\0"), "");
        assert_eq!(message_in(b""), "");
    }
}
