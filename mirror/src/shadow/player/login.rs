//! How a session comes to be on an arm: a login as the client's own, and its state as it was. Must not let a session
//! play whose state could not be rebuilt.

use std::{io, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{
    PlayError, Player,
    patience::LOOK,
    timeouts::{self, Login, without_timeouts},
};
use crate::{
    capture::{
        exchange::SessionInfo,
        tracker::{Keep, Step, Tracker},
    },
    clock::{moments, now_ns},
    shadow::{arm::address::ArmAddress, prologue::may_fail},
    wire::{
        backend::{self, SqlState, TransactionStatus},
        frame,
        startup::Startup,
    },
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// An arm that hangs for a while is not given up for having been asked for a session just then.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
const LOGIN_BYTES: usize = 8 * 1024;
/// An arm that is behind still has sessions that production has closed: so long a new one waits for its place.
const PLACE_LIMIT: Duration = Duration::from_secs(60);
const PLACE_LOOK: Duration = Duration::from_millis(100);
/// `too_many_connections`.
pub const FULL: &str = "53300";
/// `in_failed_sql_transaction`.
const FAILED: SqlState = *b"25P02";

impl Player {
    /// Logs in as the client did and rebuilds its state. Where the arm has no place left, it waits for one.
    pub async fn open(address: &ArmAddress, info: &SessionInfo, prologue: &[Bytes]) -> Result<Self, PlayError> {
        let until = Instant::now() + PLACE_LIMIT;
        // So many as another session has found out.
        let mut unknown = address.unknown_timeouts.load(Ordering::Relaxed);
        loop {
            match Self::opened(address, info, prologue).await {
                Err(PlayError::Refused(sqlstate)) if sqlstate == FULL && Instant::now() < until => {
                    sleep(PLACE_LOOK).await;
                }
                Err(PlayError::Refused(sqlstate)) if sqlstate == timeouts::UNKNOWN && unknown < timeouts::COUNT => {
                    unknown += 1;
                    address.unknown_timeouts.fetch_max(unknown, Ordering::Relaxed);
                }
                result => return result,
            }
        }
    }

    async fn opened(address: &ArmAddress, info: &SessionInfo, prologue: &[Bytes]) -> Result<Self, PlayError> {
        let stream = address.connect(CONNECT_LIMIT).await?;
        let tracker = Tracker::new(info.id, Keep::Outcomes).without(moments());
        let look = Box::pin(sleep(LOOK));
        let mut player = Self { stream, address: address.clone(), tracker, steps: Vec::new(), key: Vec::new(), look };
        timeout(LOGIN_LIMIT, player.login(&info.startup)).await.map_err(|_| PlayError::Silent(LOGIN_LIMIT))??;
        player.key.clone_from(&player.tracker.backend_key);
        for request in prologue {
            player.rebuild(request).await?;
            player.switch_off_what_was_set(request).await?;
        }
        Ok(player)
    }

    /// Whatever timeouts of a session a request may have set, none of them strikes here. Where its transaction has failed
    /// they go with it.
    pub async fn switch_off_what_was_set(&mut self, request: &[u8]) -> Result<(), PlayError> {
        if timeouts::may_be_set_by(request) {
            let off = timeouts::switched_off(self.address.unknown_timeouts.load(Ordering::Relaxed));
            self.command(&off).await?;
        }
        Ok(())
    }

    /// Plays one request of the prologue, and commits what that begins: the first exchange would roll it back, with
    /// what was set in it.
    async fn rebuild(&mut self, request: &Bytes) -> Result<(), PlayError> {
        let outcome = self.ask(request).await?;
        let mut error = outcome.error().filter(|_| !may_fail(request));
        if error.is_none() {
            error = match outcome.after {
                TransactionStatus::Idle => None,
                TransactionStatus::InTransaction => self.command("COMMIT").await?.error(),
                TransactionStatus::Failed => Some(FAILED),
            };
        }
        match error {
            Some(sqlstate) => Err(PlayError::Prologue(String::from_utf8_lossy(&sqlstate).into_owned())),
            None => Ok(()),
        }
    }

    async fn login(&mut self, startup: &Startup) -> Result<(), PlayError> {
        let Login { packet, then } = without_timeouts(startup, self.address.unknown_timeouts.load(Ordering::Relaxed));
        self.let_in(&packet).await?;
        match then {
            Some(sql) => match self.command(sql).await?.error() {
                Some(sqlstate) => Err(PlayError::Prologue(String::from_utf8_lossy(&sqlstate).into_owned())),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    async fn let_in(&mut self, packet: &[u8]) -> Result<(), PlayError> {
        self.stream.write_all(packet).await?;
        let (mut steps, mut said) = (Vec::new(), Vec::new());
        loop {
            let mut buffer = vec![0; LOGIN_BYTES];
            let read = self.stream.read(&mut buffer).await?;
            let chunk = buffer.get(..read).unwrap_or_default();
            if chunk.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            // A message may come in two reads.
            said.extend_from_slice(chunk);
            let mut whole = 0;
            for message in frame::messages(&said) {
                whole += message.bytes.len();
                if message.tag == backend::tag::ERROR {
                    return Err(PlayError::Refused(
                        String::from_utf8_lossy(&backend::sqlstate(message.payload)).into_owned(),
                    ));
                }
                // Any authentication request but "done" asks for what the mirror does not have.
                if message.tag == backend::tag::AUTHENTICATION && !message.payload.starts_with(&[0, 0, 0, 0]) {
                    return Err(PlayError::Refused("28000".to_owned()));
                }
            }
            said.drain(..whole);
            self.tracker.server(chunk, now_ns(), &mut steps)?;
            if matches!(steps.last(), Some(Step::LoggedIn)) {
                return Ok(());
            }
            // Nothing that a server says in a login is longer.
            if said.len() > LOGIN_BYTES {
                return Err(PlayError::Refused("08P01".to_owned()));
            }
        }
    }
}
