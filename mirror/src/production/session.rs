//! One client connection, from its first byte to its last: the first packet, the worker's connection,
//! then the relay.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{select, task::yield_now, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    client_tls::ClientTls,
    counters::{Cause, Counters, NoTls, Side, Wrong},
    gate::Gate,
    greeting::{GreetError, Greeted, Wish, greet},
    held::HeldHistogram,
    login::{self, LoginError, Passed},
    per_thread::PerThread,
    relay,
    sessions::{SessionState, Sessions},
    tap::Tap,
    worker::Worker,
};
use crate::{
    clock::now_ns, connection::Connection, keepalive::Keepalive, reservation, stream::Stream, tls::TlsError,
    wire::encode,
};

/// How long a client may take to say what it wants, unless told otherwise (PostgreSQL's `authentication_timeout`).
pub const FIRST_PACKET_LIMIT: Duration = Duration::from_secs(60);
const WORKER_LIMIT: Duration = Duration::from_secs(10);
/// What the worker says to a client that it refuses is short.
const REFUSAL_BYTES: usize = 8192;
/// What clients are told when the mirror goes away: the SQLSTATE (`admin_shutdown`) and the words.
pub(super) const LEAVING: (&str, &str) = ("57P01", "understudy: the mirror is going away; connect again");
const UNBOUND: &str = "understudy: this client would bind its channel to the worker's TLS (SCRAM-SHA-256-PLUS), \
                       which ends at the mirror; use channel_binding=disable, or give the mirror the worker's own \
                       certificate";
/// How long a client may take to be told why its connection ends.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// How long a client that was told may take to close its end.
const LINGER_LIMIT: Duration = Duration::from_millis(500);

/// What the production threads share.
#[derive(Debug)]
pub struct Production {
    /// The worker.
    pub worker: Worker,
    /// TLS for clients, where it is offered.
    pub client_tls: Option<ClientTls>,
    /// How long a client may take to say what it wants, the TLS handshake included.
    pub first_packet_limit: Duration,
    /// The door to the shadow path.
    pub tap: Arc<Tap>,
    /// Addresses that are reserved for a large request, bytes.
    pub room_bytes: usize,
    /// Holds exchanges back during a cut.
    pub gate: Gate,
    /// The sessions that are open.
    pub sessions: Sessions,
    /// No new connections; sessions end between two transactions.
    pub draining: AtomicBool,
    /// Cancelled together with it: nobody is waited for who has not said what they want, or their password.
    greets_nobody: CancellationToken,
    /// From then on they end in the middle of one too, ns since the mirror's epoch.
    pub drain_ends_ns: AtomicU64,
    /// When who says nothing any more is given up, on both sides. Locked for a copy.
    keepalive: RwLock<Keepalive>,
    /// What is counted.
    pub counters: Counters,
    /// What the mirror added to exchanges, by power of two of microseconds.
    pub held_us: PerThread<HeldHistogram>,
}

impl Production {
    /// The production path of so many threads in front of a worker.
    pub fn new(
        worker: Worker,
        client_tls: Option<ClientTls>,
        first_packet_limit: Duration,
        tap: Arc<Tap>,
        threads: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            worker,
            client_tls,
            first_packet_limit,
            room_bytes: reservation::room_bytes(tap.limit_bytes()),
            tap,
            gate: Gate::new(threads),
            sessions: Sessions::default(),
            draining: AtomicBool::new(false),
            greets_nobody: CancellationToken::new(),
            drain_ends_ns: AtomicU64::new(u64::MAX),
            keepalive: RwLock::default(),
            counters: Counters::default(),
            held_us: PerThread::new(threads),
        })
    }

    /// When clients and the worker of connections that begin from now on are given up.
    pub fn keepalive(&self) -> Keepalive {
        *self.keepalive.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets it.
    pub fn keep_alive(&self, keepalive: Keepalive) {
        *self.keepalive.write().unwrap_or_else(PoisonError::into_inner) = keepalive;
    }

    /// Sessions end from now on, each between two transactions, and after `limit` in the middle of one.
    pub fn drain(&self, limit: Duration) {
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.drain_ends_ns.store(now_ns().saturating_add(limit_ns), Ordering::SeqCst);
        self.draining.store(true, Ordering::SeqCst);
        self.greets_nobody.cancel();
        for session in self.sessions.list() {
            session.drained.wake();
        }
    }
}

/// Serves one connection.
pub async fn serve(production: Arc<Production>, stream: Stream, thread: usize) {
    let counters = &production.counters;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    production.keepalive().apply(&stream);
    // In places of their own, while they last: what a session's task has room for, it keeps.
    let Some(greeted) = Box::pin(greeted(&production, stream)).await else { return };
    let Greeted { mut client, packet, wish, certificate } = greeted;
    if certificate.is_some() {
        counters.encrypted.fetch_add(1, Ordering::Relaxed);
    }
    // Who waits for a session waits as long as a login may take.
    let patience = if matches!(wish, Wish::Session(_)) { login::LIMIT } else { WORKER_LIMIT };
    let connected = select! {
        biased;
        connected = Box::pin(production.worker.connect(WORKER_LIMIT, patience)) => connected,
        () = production.greets_nobody.cancelled() => {
            // Who cancels is told nothing by a server either.
            if matches!(wish, Wish::Session(_)) {
                refuse(&mut client, LEAVING.0, LEAVING.1).await;
            }
            return;
        }
    };
    let mut worker = match connected {
        Ok(worker) => worker,
        Err(error) => return unreachable_worker(&production, &mut client, &error).await,
    };
    worker.keep_alive(production.keepalive().of_the_worker());
    match wish {
        Wish::Cancel => {
            counters.cancels.fetch_add(1, Ordering::Relaxed);
            // What it is to cancel may be held back: it must not come first.
            Box::pin(production.gate.opened()).await;
            // The worker closes the connection when it has dealt with the request; so does this end.
            let passed_on = async {
                worker.write_all(&packet).await?;
                worker.read(&mut [0; 16]).await
            };
            let _ = timeout(WORKER_LIMIT, passed_on).await;
            linger(&mut client).await;
        }
        Wish::Refusal => {
            counters.refuse(Cause::Protocol);
            let passed_on = async {
                worker.write_all(&packet).await?;
                let mut answer = vec![0; REFUSAL_BYTES];
                let read = worker.read(&mut answer).await?;
                client.write_all(answer.get(..read).unwrap_or_default()).await
            };
            if matches!(timeout(WORKER_LIMIT, passed_on).await, Ok(Ok(()))) {
                linger(&mut client).await;
            }
        }
        Wish::Session(startup) => {
            let open = OpenSession { production: &production, state: production.sessions.open() };
            let state = &open.state;
            if startup.is_replication() {
                counters.replication.fetch_add(1, Ordering::Relaxed);
                state.mirrored.store(false, Ordering::Relaxed);
            }
            let sent = worker.write_all(&packet).await;
            let shown = worker.peer_certificate();
            match sent {
                Ok(()) => {}
                // It may have refused the certificate that it was shown.
                Err(error) if shown.is_some() => return unreachable_worker(&production, &mut client, &error).await,
                Err(_) => return,
            }
            let is_bound = shown.is_none() || shown == certificate.as_ref();
            if is_bound || Box::pin(passed(&production, &mut client, &mut worker)).await {
                relay::run(&production, &mut client, &mut worker, state, startup, thread).await;
            }
        }
    }
}

/// What a client wants, once it has said it. Whoever says something else is told, where there is a word for it, and
/// counted.
async fn greeted(production: &Production, stream: Stream) -> Option<Greeted> {
    let counters = &production.counters;
    let worker = production.worker.certificate();
    let greeting = greet(stream, production.client_tls.as_ref(), worker.as_ref());
    let greeting = timeout(production.first_packet_limit, greeting);
    // Who gets no word here would get none from the worker.
    let greeted = select! {
        biased;
        greeted = greeting => greeted,
        () = production.greets_nobody.cancelled() => return None,
    };
    match greeted {
        Ok(Ok(Some(greeted))) => return Some(greeted),
        Ok(Ok(None) | Err(GreetError::Connection(_) | GreetError::Tls(TlsError::Connection(_)))) => {
            counters.refuse(Cause::Vanished);
        }
        Ok(Err(GreetError::Length)) => counters.refuse(Cause::Length),
        Ok(Err(GreetError::Unasked)) => counters.refuse(Cause::Unasked),
        Err(_) => counters.refuse(Cause::Silent),
        Ok(Err(GreetError::Again { mut client, protocol })) => {
            counters.refuse(Cause::Protocol);
            // As the worker says it, but for what that would support.
            let why = format!("unsupported frontend protocol {}.{}", protocol >> 16, protocol & 0xffff);
            refuse(&mut client, "0A000", &why).await;
        }
        Ok(Err(GreetError::Plain(mut client))) => {
            counters.leave_unencrypted(NoTls::Plain);
            refuse(&mut client, "28000", "understudy: clients have to use TLS here (sslmode=require)").await;
        }
        Ok(Err(GreetError::Tls(error))) => {
            counters.leave_unencrypted(match &error {
                TlsError::Handshake(error) => error.into(),
                _ => NoTls::Record,
            });
            tracing::debug!(%error, "no TLS with a client");
        }
    }
    None
}

/// Passes a login on whose channel can't be bound. Whether the session goes on behind it; a client whose session does not
/// is told, where there is a word for it, and counted.
async fn passed(production: &Production, client: &mut Connection, worker: &mut Connection) -> bool {
    let counters = &production.counters;
    match login::pass(client, worker, login::LIMIT, production.greets_nobody.cancelled()).await {
        Ok(Passed::Answered) => return true,
        Ok(Passed::Refused) => {
            counters.malform(Side::Client, Wrong::Protocol);
            return true;
        }
        Ok(Passed::Truncated) => {
            counters.malform(Side::Client, Wrong::Truncated);
            return true;
        }
        Err(LoginError::Downgrade) => {
            counters.unbound.fetch_add(1, Ordering::Relaxed);
            refuse(client, "28000", UNBOUND).await;
        }
        Err(LoginError::Malformed(side)) => {
            counters.malform(side, Wrong::Length);
            refuse(client, "08P01", "understudy: a message that belongs to no login").await;
        }
        Err(LoginError::Truncated) => counters.malform(Side::Worker, Wrong::Truncated),
        Err(LoginError::Leaving) => refuse(client, LEAVING.0, LEAVING.1).await,
        Err(LoginError::Unheard(error)) => unreachable_worker(production, client, &error).await,
        Err(LoginError::Late) => counters.refuse(Cause::Late),
        Err(LoginError::Connection(_)) => {}
    }
    false
}

/// The worker can't be reached, or will have nothing to do with the mirror.
async fn unreachable_worker(production: &Production, client: &mut Connection, error: &impl std::fmt::Display) {
    production.counters.worker_unreachable.fetch_add(1, Ordering::Relaxed);
    let address = &production.worker.address;
    tracing::warn!(worker = %address, %error, "the worker can't be reached");
    let why = format!("understudy: the worker at {address} can't be reached: {error}");
    // As of a server that is not up yet: libpq tries the next of several hosts after this alone, as it does where nobody
    // listens (`cannot_connect_now`).
    refuse(client, "57P03", &why).await;
}

/// A session stands in the list for as long as this lives, whatever ends its task.
struct OpenSession<'a> {
    production: &'a Production,
    state: Arc<SessionState>,
}

impl Drop for OpenSession<'_> {
    fn drop(&mut self) {
        self.production.sessions.close(self.state.id);
        if std::thread::panicking() {
            // What it had under way can't be told any more: the arms must not go on as if nothing were.
            self.production.tap.fail();
        }
    }
}

/// Tells a client why its connection ends. It may be gone already.
pub async fn refuse(client: &mut Connection, sqlstate: &str, why: &str) {
    let message = encode::fatal(sqlstate, why);
    if matches!(timeout(FAREWELL_LIMIT, client.write_all(&message)).await, Ok(Ok(()))) {
        linger(client).await;
    }
}

/// Ends a connection whose last words were sent. What the client sends meanwhile is read and thrown away for
/// a moment: a socket that is closed with bytes unread resets the connection, and the client would never see
/// the reason.
pub(super) async fn linger(client: &mut Connection) {
    client.shutdown_write();
    // Not in the task: each session would have room for it all its life.
    let mut rest = vec![0; 4096];
    let read = async {
        while matches!(client.read(&mut rest).await, Ok(1..)) {
            // One that never stops sending would keep the thread, and the limit from being looked at.
            yield_now().await;
        }
    };
    let _ = timeout(LINGER_LIMIT, read).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    /// A task has room for the largest thing that it ever does, all its life, and there are thousands of them.
    #[tokio::test]
    async fn the_task_of_a_session_has_no_room_for_what_it_does_once() {
        const MOST_BYTES: usize = 2048;
        let worker = crate::stream::Address::new("127.0.0.1", 1).into();
        let production = Production::new(worker, None, FIRST_PACKET_LIMIT, Tap::new(1, 1 << 20), 1);
        let (client, _) = UnixStream::pair().unwrap();
        let task = serve(production, Stream::Unix(client), 0);
        assert!(size_of_val(&task) <= MOST_BYTES, "{} bytes", size_of_val(&task));
    }
}
