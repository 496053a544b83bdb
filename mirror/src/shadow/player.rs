//! One session on an arm: plays the client's exchanges and reads the answers, which nobody else ever sees. Every
//! wait is bounded; whatever goes wrong ends this session on this arm.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::Interest,
    time::{Instant, Sleep, timeout},
};

use self::{
    patience::{LOOK, Patience, gives_up, is_cancelled, patience},
    request::{given_up, prepared_first},
};
use super::{arm::address::ArmAddress, entry::Entry};
use crate::{
    buffer::{Lent, Size},
    capture::{
        exchange::{Exchange, Outcome, is_circumstance},
        tracker::{Malformed, Step, Tracker},
    },
    clock::now_ns,
    connection::Connection,
    tls::TlsError,
    wire::{backend::TransactionStatus, encode},
};

pub mod login;
mod numbers;
mod patience;
mod request;
mod timeouts;

/// How long a session is held to be there still that has said goodbye: as long as one that logs in may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(60);

/// Why a session on an arm ended.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The arm could not be reached, or broke the connection.
    #[error("the arm's connection: {0}")]
    Connection(#[from] io::Error),
    /// There is no TLS with the arm.
    #[error("the arm: {0}")]
    Tls(TlsError),
    /// The arm did not answer in time.
    #[error("the arm did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The arm sent what is no PostgreSQL message.
    #[error("the arm sent a malformed message: {0}")]
    Frame(#[from] Malformed),
    /// The arm refused the login.
    #[error("the arm refused the login with SQLSTATE {0}; it must let the mirror in without a password")]
    Refused(String),
    /// The prologue failed.
    #[error("the session's state could not be rebuilt: SQLSTATE {0}")]
    Prologue(String),
}

impl From<TlsError> for PlayError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Connection(error) => Self::Connection(error),
            other => Self::Tls(other),
        }
    }
}

/// A session on an arm.
#[derive(Debug)]
pub struct Player {
    stream: Connection,
    address: ArmAddress,
    tracker: Tracker,
    /// What the tracker says; kept for its room.
    steps: Vec<Step>,
    /// By which its backend is cancelled.
    key: Vec<u8>,
    /// When it is looked next whether what runs takes too long. Set anew when it has come, not for each exchange:
    /// nearly all of them end before.
    look: Pin<Box<Sleep>>,
}

impl Player {
    /// Process id of its backend.
    pub fn backend_pid(&self) -> i32 {
        self.tracker.backend_pid
    }

    /// Plays one exchange as production had it.
    pub async fn play(&mut self, entry: &Entry) -> Result<Outcome, PlayError> {
        let outcome = entry.outcome();
        let copy_in = match outcome {
            // Where production failed before it had all the data, the client did not send the rest.
            Some(o) if o.broken || o.error().is_some() => given_up(&entry.exchange.request, &o.copy_in),
            Some(o) => o.copy_in.clone(),
            None => Bytes::new(),
        };
        // What failed on production for reasons of the moment (cancelled, deadlock) may succeed here.
        // It is load all the same, so it is played and rolled back.
        let undo = outcome.is_some_and(|o| {
            o.before == TransactionStatus::Idle && (o.broken || o.error().is_some_and(is_circumstance))
        }) && self.tracker.status() == TransactionStatus::Idle;
        if undo {
            self.command("BEGIN").await?;
        }
        let parts = outcome.and_then(|production| prepared_first(&entry.exchange.request, production));
        if let Some((prepares, _)) = &parts {
            self.exchange(prepares, &Bytes::new(), || entry.outcome()).await?;
        }
        let request = parts.as_ref().map_or(&entry.exchange.request, |(_, behind)| behind);
        let played = self.exchange(request, &copy_in, || entry.outcome()).await?;
        if undo {
            self.command("ROLLBACK").await?;
        }
        Ok(played)
    }

    /// Brings the transaction to where production's is: a transaction that failed there must not be committed here,
    /// and what stands in one there must not be committed by itself. Whether anything had to be done.
    pub async fn align(&mut self, production: TransactionStatus) -> Result<bool, PlayError> {
        match (production, self.tracker.status()) {
            (TransactionStatus::Failed, TransactionStatus::InTransaction) => {
                self.fail().await?;
                Ok(true)
            }
            // What began it was not played.
            (status, TransactionStatus::Idle) if status.in_block() => {
                self.command("BEGIN").await?;
                if status == TransactionStatus::Failed {
                    self.fail().await?;
                }
                Ok(true)
            }
            (TransactionStatus::Idle, status) if status.in_block() => {
                self.command("ROLLBACK").await?;
                Ok(true)
            }
            (production, status) => Ok(production != status),
        }
    }

    async fn fail(&mut self) -> Result<Outcome, PlayError> {
        self.command("DO $$ BEGIN RAISE EXCEPTION 'as on production'; END $$").await
    }

    async fn command(&mut self, sql: &str) -> Result<Outcome, PlayError> {
        // Rare; what plays an exchange has no room for it.
        Box::pin(self.ask(&Bytes::from(encode::query(sql)))).await
    }

    async fn ask(&mut self, request: &Bytes) -> Result<Outcome, PlayError> {
        let at_once = Outcome::default();
        self.exchange(request, &Bytes::new(), || Some(&at_once)).await
    }

    /// `production` says what came of it there, as soon as that is known: a read may begin here before it.
    async fn exchange<'a>(
        &mut self,
        request: &Bytes,
        copy_in: &Bytes,
        production: impl Fn() -> Option<&'a Outcome>,
    ) -> Result<Outcome, PlayError> {
        let (stream, tracker, steps) = (&mut self.stream, &mut self.tracker, &mut self.steps);
        let mut running = std::pin::pin!(Self::run(stream, tracker, steps, request, copy_in));
        let (began, mut cancelled) = (Instant::now(), None);
        let gives_up = production().is_some_and(|outcome| gives_up(outcome, request));
        if production().is_some_and(is_cancelled) {
            self.look.as_mut().reset(began);
        }
        loop {
            tokio::select! {
                biased;
                ended = &mut running => return Ok(outcome_of(ended?)),
                () = &mut self.look => {}
            }
            let wait = match patience(production(), gives_up, began.elapsed(), cancelled) {
                Patience::Wait(long) => long.min(LOOK),
                Patience::Cancel => {
                    cancelled = Some(began.elapsed());
                    Box::pin(cancel(&self.address, &self.key)).await;
                    Duration::ZERO
                }
                Patience::Over(limit) => return Err(PlayError::Silent(limit)),
            };
            self.look.as_mut().reset(Instant::now() + wait);
        }
    }

    /// Sends a request and reads its answer, both at once: a long pipeline and a large result must
    /// not wait for one another.
    async fn run(
        stream: &mut Connection,
        tracker: &mut Tracker,
        steps: &mut Vec<Step>,
        request: &Bytes,
        copy_in: &Bytes,
    ) -> Result<Arc<Exchange>, PlayError> {
        steps.clear();
        tracker.client(request, now_ns(), steps)?;
        let (mut unsent, mut copy_unsent) = (request.as_ref(), copy_in.as_ref());
        let no_data = OnceLock::new();
        loop {
            // Data of a COPY follows when the arm asks for it; where production was asked for none, there is none.
            if unsent.is_empty() && tracker.wants_copy_data() {
                if copy_unsent.is_empty() {
                    copy_unsent = no_data.get_or_init(|| given_up(request, &Bytes::new()));
                }
                tracker.client(copy_unsent, now_ns(), steps)?;
                unsent = std::mem::take(&mut copy_unsent);
            }
            if !unsent.is_empty() {
                match stream.try_write(unsent) {
                    Ok(written) => unsent = unsent.get(written..).unwrap_or_default(),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e.into()),
                }
            }
            let mut buffer = Lent::borrow(Size::Usual);
            match stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => {
                    tracker.server(buffer.get(..read).unwrap_or_default(), now_ns(), steps)?;
                    for step in steps.drain(..) {
                        if let Step::Ended(exchange) = step {
                            // An arm that fails a COPY answers before it has all the data. It ignores the
                            // rest, which may be in the middle of a message.
                            stream.write_all(unsent).await?;
                            return Ok(exchange);
                        }
                    }
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
            drop(buffer);
            let interest =
                if unsent.is_empty() { Interest::READABLE } else { Interest::READABLE.add(Interest::WRITABLE) };
            stream.ready(interest).await?;
        }
    }

    /// Takes what the server says unasked, until it says no more: why. Where nobody took its notifications it would wait to
    /// send them, in the middle of a transaction whose snapshot keeps VACUUM from everything that came after.
    pub async fn listen(&mut self) -> PlayError {
        loop {
            if let Err(error) = self.take_what_is_there() {
                return error;
            }
            if let Err(error) = self.stream.ready(Interest::READABLE).await {
                return error.into();
            }
        }
    }

    fn take_what_is_there(&mut self) -> Result<(), PlayError> {
        let mut buffer = Lent::borrow(Size::Usual);
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => {
                    self.tracker.server(buffer.get(..read).unwrap_or_default(), now_ns(), &mut self.steps)?;
                    self.steps.clear();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Says goodbye, and waits until the server has no such session any more: it has only so many places.
    pub async fn close(mut self) {
        let goodbye = async {
            self.stream.write_all(&encode::TERMINATE).await?;
            self.stream.close().await?;
            while self.stream.read(&mut [0; 64]).await? > 0 {}
            io::Result::Ok(())
        };
        // The arm may be gone; there is nothing more to be had from it.
        let _ = timeout(GOODBYE_LIMIT, goodbye).await;
    }
}

/// What came of an exchange that nobody else holds.
fn outcome_of(exchange: Arc<Exchange>) -> Outcome {
    match Arc::try_unwrap(exchange) {
        Ok(exchange) => exchange.outcome.into_inner(),
        Err(exchange) => exchange.outcome.get().cloned(),
    }
    .unwrap_or_default()
}

/// Cancels what runs behind a key. When that fails the statement runs to its end, which is waited for
/// in any case.
async fn cancel(address: &ArmAddress, key: &[u8]) {
    if let Ok(mut stream) = address.connect(Duration::from_secs(1)).await {
        // The server closes the connection when it has sent the signal. Not to wait for that would let the
        // signal hit whatever the session does next.
        let cancelled = async {
            stream.write_all(&encode::cancel(key)).await?;
            stream.read(&mut [0; 16]).await
        };
        let _ = timeout(Duration::from_secs(1), cancelled).await;
    }
}

#[cfg(test)]
mod tests;
