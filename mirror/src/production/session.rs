//! One client connection, from its first byte to its last: the first packet, the worker's connection,
//! then the relay.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::{gate::Gate, relay, tap::Tap};
use crate::{
    capture::exchange::SessionId,
    stream::{Address, Stream},
    wire::{encode, startup},
};

/// A client must have sent its first packet by then (PostgreSQL's `authentication_timeout`).
const FIRST_PACKET_LIMIT: Duration = Duration::from_secs(60);
const WORKER_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to be told why its connection ends.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// How long a client that was told may take to close its end.
const LINGER_LIMIT: Duration = Duration::from_millis(500);

/// What the production threads share.
#[derive(Debug)]
pub struct Production {
    /// The worker.
    pub worker: Address,
    /// The door to the shadow path.
    pub tap: Arc<Tap>,
    /// Holds exchanges back during a cut.
    pub gate: Gate,
    /// The sessions that are open.
    pub sessions: Sessions,
    /// No new connections; sessions end between two transactions.
    pub draining: AtomicBool,
    /// Wakes the sessions when draining begins.
    pub drained: Notify,
    /// What is counted.
    pub counters: Counters,
}

impl Production {
    /// The production path in front of a worker.
    pub fn new(worker: Address, tap: Arc<Tap>) -> Arc<Self> {
        Arc::new(Self {
            worker,
            tap,
            gate: Gate::default(),
            sessions: Sessions::default(),
            draining: AtomicBool::new(false),
            drained: Notify::new(),
            counters: Counters::default(),
        })
    }

    /// Sessions end from now on, each between two transactions.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.drained.notify_waiters();
    }
}

/// What the production path counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections that ended before a session: broken or malformed first packets, time-outs.
    pub refused: AtomicU64,
    /// Connections ended for malformed messages.
    pub malformed: AtomicU64,
    /// Cancel requests passed on.
    pub cancels: AtomicU64,
    /// Replication connections, which are relayed and not mirrored.
    pub replication: AtomicU64,
    /// The worker could not be reached.
    pub worker_unreachable: AtomicU64,
    /// What the mirror added to exchanges, by power of two of microseconds.
    pub held_us: HeldHistogram,
}

/// How long the mirror held bytes, in powers of two of microseconds. A fixed array of counters: what
/// the production path records must not allocate or lock.
#[derive(Debug, Default)]
pub struct HeldHistogram([AtomicU64; 24]);

impl HeldHistogram {
    /// Records one time, ns.
    pub fn record(&self, held_ns: u64) {
        let power = (u64::BITS - (held_ns / 1000).leading_zeros()) as usize;
        if let Some(counter) = self.0.get(power.min(23)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An upper limit of the 99th percentile, µs.
    pub fn p99_us(&self) -> u64 {
        let counts: Vec<u64> = self.0.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let mut seen = 0;
        for (power, count) in counts.iter().enumerate() {
            seen += count;
            if total > 0 && seen * 100 >= total * 99 {
                return 1 << power;
            }
        }
        0
    }
}

/// The sessions that are open. Locked for an insertion or a removal, and for a copy of the list.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<SessionId, Arc<SessionState>>>,
    next: AtomicU64,
}

/// What the control plane sees of an open session.
#[derive(Debug)]
pub struct SessionState {
    /// Which session.
    pub id: SessionId,
    /// Process id of its backend; 0 before the login.
    pub backend_pid: AtomicI32,
    /// Exchanges begun and not ended.
    pub in_flight: AtomicU32,
    /// In a transaction block at the last ReadyForQuery.
    pub in_block: AtomicBool,
    /// It is mirrored.
    pub mirrored: AtomicBool,
}

impl Sessions {
    fn open(&self) -> Arc<SessionState> {
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let state = Arc::new(SessionState {
            id,
            backend_pid: AtomicI32::new(0),
            in_flight: AtomicU32::new(0),
            in_block: AtomicBool::new(false),
            mirrored: AtomicBool::new(true),
        });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&state));
        state
    }

    fn close(&self, id: SessionId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// The sessions that are open now.
    pub fn list(&self) -> Vec<Arc<SessionState>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Serves one connection.
pub async fn serve(production: Arc<Production>, client: Stream, thread: usize) {
    production.counters.connections.fetch_add(1, Ordering::Relaxed);
    let first = match timeout(FIRST_PACKET_LIMIT, first_packet(&client)).await {
        Ok(Ok(Some(first))) => first,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            production.counters.refused.fetch_add(1, Ordering::Relaxed);
            if let FirstPacketError::Malformed(reason) = error {
                refuse(&client, "08P01", &reason.to_string()).await;
            }
            return;
        }
        Err(_) => {
            production.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
    };
    let worker = match Stream::connect(&production.worker, WORKER_LIMIT).await {
        Ok(worker) => worker,
        Err(error) => {
            production.counters.worker_unreachable.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(worker = %production.worker, %error, "the worker can't be reached");
            let why = format!("understudy: the worker at {} can't be reached: {error}", production.worker);
            return refuse(&client, "08006", &why).await;
        }
    };
    match first {
        FirstPacket::Cancel(packet) => {
            production.counters.cancels.fetch_add(1, Ordering::Relaxed);
            // The worker closes the connection when it has dealt with the request; so does this end.
            let passed_on = async {
                worker.write_all(&packet).await?;
                worker.read(&mut [0; 16]).await
            };
            let _ = timeout(WORKER_LIMIT, passed_on).await;
        }
        FirstPacket::Startup(packet, parsed) => {
            let open = OpenSession { production: &production, state: production.sessions.open() };
            let state = &open.state;
            let replication = parsed.is_replication();
            if replication {
                production.counters.replication.fetch_add(1, Ordering::Relaxed);
                state.mirrored.store(false, Ordering::Relaxed);
            }
            if worker.write_all(&packet).await.is_ok() {
                relay::run(&production, &client, &worker, state, parsed, thread).await;
            }
        }
    }
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

enum FirstPacket {
    Cancel(Vec<u8>),
    Startup(Vec<u8>, startup::Startup),
}

#[derive(Debug, thiserror::Error)]
enum FirstPacketError {
    #[error(transparent)]
    Connection(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] startup::StartupError),
}

/// Reads packets until one begins a session or cancels another. `None`: the client went away.
async fn first_packet(client: &Stream) -> Result<Option<FirstPacket>, FirstPacketError> {
    loop {
        let mut length = [0; 4];
        if !read_exactly(client, &mut length).await? {
            return Ok(None);
        }
        let bytes = startup::packet_bytes(length)?;
        let mut packet = length.to_vec();
        packet.resize(bytes, 0);
        if !read_exactly(client, packet.get_mut(4..).unwrap_or_default()).await? {
            return Ok(None);
        }
        match startup::first(&packet)? {
            // No TLS and no GSS encryption here yet: the client goes on in the clear, or leaves.
            startup::First::SslRequest | startup::First::GssEncRequest => client.write_all(b"N").await?,
            startup::First::Cancel => return Ok(Some(FirstPacket::Cancel(packet))),
            startup::First::Startup(parsed) => return Ok(Some(FirstPacket::Startup(packet, parsed))),
        }
    }
}

async fn read_exactly(stream: &Stream, mut buffer: &mut [u8]) -> io::Result<bool> {
    while !buffer.is_empty() {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Ok(false);
        }
        buffer = buffer.get_mut(read..).unwrap_or_default();
    }
    Ok(true)
}

/// Tells a client why its connection ends. It may be gone already.
///
/// What it sends meanwhile is read and thrown away for a moment: a socket that is closed with bytes
/// unread resets the connection, and the client would never see the reason.
pub async fn refuse(client: &Stream, sqlstate: &str, why: &str) {
    let message = encode::fatal(sqlstate, why);
    let told = timeout(FAREWELL_LIMIT, client.write_all(&message)).await;
    if !matches!(told, Ok(Ok(()))) || client.finish().is_err() {
        return;
    }
    let mut rest = [0; 4096];
    let _ = timeout(LINGER_LIMIT, async { while matches!(client.read(&mut rest).await, Ok(1..)) {} }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_told_as_an_upper_limit() {
        let held = HeldHistogram::default();
        assert_eq!(held.p99_us(), 0);
        (0..99).for_each(|_| held.record(3_500));
        assert_eq!(held.p99_us(), 4);
        (0..10).for_each(|_| held.record(900_000));
        assert_eq!(held.p99_us(), 1024);
    }
}
