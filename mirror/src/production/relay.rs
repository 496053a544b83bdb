//! Forwards bytes both ways, as they came, and shows them to the tracker on their way past.
//!
//! Both sockets of a session are served by one task: read what is there, look, write what fits, and
//! wait only when nothing moves. Neither direction waits for the other.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::Interest,
    task::yield_now,
    time::{Instant, timeout},
};

use super::{
    session::{Production, SessionState, refuse},
    tap::Stamp,
};
use crate::{
    capture::{
        exchange::{Event, SessionInfo},
        tracker::{Keep, Step, Tracker},
    },
    connection::Connection,
    wire::{frame::FrameError, startup::Startup},
};

const BUFFER_BYTES: usize = 16 * 1024;
/// How long the answer to a client that has vanished is waited for, so that its outcome is known. The
/// worker has been told that the client is gone, so it works on for exactly as long as it would have.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(3600);
/// How much of it is read: an outcome is short. Rows beyond it nobody wants, and the worker gives them
/// up as it would have when it finds that nobody takes them.
const LAST_ANSWER_BYTES: usize = 1 << 20;
/// After so many rounds in which something moved, the thread's other sessions get their turn.
const ROUNDS_PER_TURN: u32 = 16;
/// Kept bytes are told to the tap in steps of this size: small sessions never touch its counter.
const KEPT_STEP_BYTES: usize = 64 * 1024;
/// How long a worker may take to read a client's last words.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// How often a session looks whether the mirror is draining.
const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// Why a relay ended.
#[derive(Debug)]
enum End {
    /// The client is done or gone.
    Client,
    /// The worker closed the connection.
    Worker,
    /// The client sent what is no PostgreSQL message.
    ClientMalformed(FrameError),
    /// The worker sent what is no PostgreSQL message.
    WorkerMalformed(FrameError),
    /// The mirror is going away.
    Drained,
}

struct Direction {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    closed: bool,
    /// When the bytes in the buffer were read, ns.
    read_ns: u64,
}

impl Direction {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0, closed: false, read_ns: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Its reader is gone: what is left has no use, and nothing more is taken.
    fn abandon(&mut self) {
        self.start = self.end;
        self.closed = true;
    }

    fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads when empty. Whether there are new bytes.
    fn fill(&mut self, from: &mut Connection) -> io::Result<bool> {
        match from.try_read(&mut self.buffer) {
            Ok(0) => {
                self.closed = true;
                Ok(false)
            }
            Ok(read) => {
                (self.start, self.end) = (0, read);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads when empty. Whether there are new bytes, or the end of them: an error is an end too, since what came
    /// before it has to arrive all the same.
    fn take(&mut self, from: &mut Connection) -> bool {
        match self.fill(from) {
            Ok(true) => true,
            Ok(false) => self.closed,
            Err(_) => {
                self.closed = true;
                true
            }
        }
    }

    /// Writes what fits. Whether anything was written.
    fn drain(&mut self, to: &mut Connection) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        match to.try_write(self.pending()) {
            Ok(written) => {
                self.start += written;
                Ok(written > 0)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}

struct Relay<'a> {
    production: &'a Production,
    client: &'a mut Connection,
    worker: &'a mut Connection,
    state: &'a SessionState,
    stamp: Option<Stamp>,
    tracker: Tracker,
    startup: Option<Startup>,
    steps: Vec<Step>,
    upstream: Direction,
    downstream: Direction,
    /// Bytes of the client wait for the gate.
    held: bool,
    /// Since when they wait, ns; 0: they do not.
    held_since_ns: u64,
    captured: bool,
    /// What the tap has been told of the bytes that the tracker keeps.
    kept_bytes: usize,
    /// The worker takes nothing any more.
    worker_deaf: bool,
}

/// Relays until one side is gone.
pub async fn run(
    production: &Production,
    client: &mut Connection,
    worker: &mut Connection,
    state: &Arc<SessionState>,
    startup: Startup,
    thread: usize,
) {
    let mirrored = state.mirrored.load(Ordering::Relaxed);
    let captured = mirrored && production.tap.is_capturing();
    let mut relay = Relay {
        production,
        client,
        worker,
        state,
        stamp: production.tap.stamp(thread),
        tracker: Tracker::new(state.id, if captured { Keep::Requests } else { Keep::Boundaries }),
        startup: Some(startup),
        steps: Vec::new(),
        upstream: Direction::new(),
        downstream: Direction::new(),
        held: false,
        held_since_ns: 0,
        captured,
        kept_bytes: 0,
        worker_deaf: false,
    };
    let end = if mirrored { relay.forward().await } else { relay.copy().await };
    match end {
        End::Client => relay.last_answer().await,
        End::Worker => {}
        End::ClientMalformed(error) => {
            production.counters.malformed.fetch_add(1, Ordering::Relaxed);
            refuse(relay.client, "08P01", &error.to_string()).await;
        }
        End::WorkerMalformed(error) => {
            production.counters.malformed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "the worker sent a malformed message");
            refuse(relay.client, "08P01", &error.to_string()).await;
        }
        End::Drained => refuse(relay.client, "57P01", "understudy: the mirror is going away; connect again").await,
    }
    relay.close();
    // What the client said last may still be on its way, encrypted; the worker need not read it.
    let _ = timeout(FLUSH_LIMIT, relay.worker.flush()).await;
}

impl Relay<'_> {
    /// Forwards a mirrored session.
    async fn forward(&mut self) -> End {
        let mut rounds = 0_u32;
        loop {
            match self.turn() {
                Ok(true) => {
                    rounds = rounds.wrapping_add(1);
                    if rounds.is_multiple_of(ROUNDS_PER_TURN) {
                        yield_now().await;
                    }
                    continue;
                }
                Ok(false) => {}
                Err(end) => return end,
            }
            if self.production.draining.load(Ordering::SeqCst)
                && self.tracker.is_idle()
                && !self.tracker.status().in_block()
                && self.downstream.is_empty()
            {
                return End::Drained;
            }
            if let Err(end) = self.wait().await {
                return end;
            }
        }
    }

    /// One round over both directions. Whether anything moved.
    fn turn(&mut self) -> Result<bool, End> {
        let mut moved = false;
        if self.downstream.is_empty() {
            if self.downstream.closed {
                // Its last words are with the client's network, or still on the way there, encrypted.
                if !self.client.wants_write() {
                    return Err(End::Worker);
                }
            } else if self.downstream.take(self.worker) {
                if !self.downstream.is_empty() {
                    self.look_at_worker()?;
                }
                moved = true;
            }
        }
        if self.downstream.drain(self.client).map_err(|_| End::Client)? {
            moved = true;
        }
        if self.upstream.is_empty() && !self.upstream.closed {
            if self.upstream.fill(self.client).map_err(|_| End::Client)? {
                self.held = true;
                moved = true;
            } else if self.upstream.closed {
                // The client sends no more, and may still read: the worker learns it and decides, as it
                // would without a mirror. The session ends when the worker ends it.
                self.worker.shutdown_write();
            }
        }
        if self.held {
            if self.admit() {
                self.held = false;
                self.look_at_client()?;
            } else if self.held_since_ns == 0 {
                self.held_since_ns = crate::clock::now_ns();
            }
        }
        if !self.held {
            match self.upstream.drain(self.worker) {
                Ok(false) => {}
                Ok(true) => {
                    moved = true;
                    if self.upstream.is_empty() {
                        let held_ns = crate::clock::now_ns().saturating_sub(self.upstream.read_ns);
                        self.production.counters.held_us.record(held_ns);
                    }
                }
                // The worker takes nothing any more. What it has said before, its last words among it,
                // still goes to the client.
                Err(_) => {
                    self.upstream.abandon();
                    self.worker_deaf = true;
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// Whether the client's bytes may go on: always in the middle of an exchange; at the beginning of
    /// one when the gate lets it. The exchange is counted as under way before the gate is asked, so
    /// that whoever closes the gate and then counts misses none.
    fn admit(&self) -> bool {
        if !self.tracker.is_idle() {
            return true;
        }
        self.state.in_flight.fetch_add(1, Ordering::SeqCst);
        let lets = self.production.gate.lets(self.tracker.status().in_block());
        if !lets {
            self.state.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
        lets
    }

    fn look_at_client(&mut self) -> Result<(), End> {
        let now_ns = self.stamp.as_ref().map_or_else(crate::clock::now_ns, Stamp::begin);
        // What waited for the gate was held since it came, although its exchange begins now.
        self.upstream.read_ns = match std::mem::take(&mut self.held_since_ns) {
            0 => now_ns,
            since_ns => since_ns,
        };
        let chunk = self.upstream.buffer.get(self.upstream.start..self.upstream.end).unwrap_or_default();
        let looked = self.tracker.client(chunk, now_ns, &mut self.steps).map_err(End::ClientMalformed);
        self.after_look();
        looked
    }

    fn look_at_worker(&mut self) -> Result<(), End> {
        let now_ns = self.stamp.as_ref().map_or_else(crate::clock::now_ns, Stamp::begin);
        let chunk = self.downstream.buffer.get(self.downstream.start..self.downstream.end).unwrap_or_default();
        let looked = self.tracker.server(chunk, now_ns, &mut self.steps).map_err(End::WorkerMalformed);
        self.after_look();
        looked
    }

    /// Hands what was found to the tap, and shows the control plane where the session stands.
    fn after_look(&mut self) {
        let tap = &self.production.tap;
        let kept_bytes = self.tracker.kept_bytes();
        if kept_bytes.abs_diff(self.kept_bytes) >= KEPT_STEP_BYTES || kept_bytes == 0 && self.kept_bytes > 0 {
            // Before the steps: what is handed over now is counted there.
            tap.kept(self.kept_bytes, kept_bytes);
            self.kept_bytes = kept_bytes;
        }
        for step in self.steps.drain(..) {
            match step {
                Step::LoggedIn => {
                    self.state.backend_pid.store(self.tracker.backend_pid, Ordering::SeqCst);
                    tap.push(Event::SessionOpened(Arc::new(SessionInfo {
                        id: self.state.id,
                        startup: self.startup.take().unwrap_or_default(),
                        backend_pid: self.tracker.backend_pid,
                    })));
                }
                Step::Begun(exchange) => tap.push(Event::Begun(exchange)),
                Step::Ended(exchange) => {
                    self.production.gate.note_ended();
                    tap.push(Event::Ended(exchange));
                }
                Step::Terminated => {}
            }
        }
        let in_flight = u32::try_from(self.tracker.in_flight()).unwrap_or(u32::MAX);
        self.state.in_block.store(self.tracker.status().in_block(), Ordering::SeqCst);
        self.state.in_flight.store(in_flight, Ordering::SeqCst);
        if let Some(stamp) = &self.stamp {
            stamp.end();
        }
        if self.captured && !tap.is_capturing() {
            self.captured = false;
            self.tracker.keep_boundaries();
            tap.kept(self.kept_bytes, 0);
            self.kept_bytes = 0;
        }
    }

    /// Waits until something can move. What fails while it waits is what was written before and is encrypted.
    async fn wait(&mut self) -> Result<(), End> {
        let (mut client, mut worker) = (None, None);
        let add = |interest: &mut Option<Interest>, more: Interest| {
            *interest = Some(interest.map_or(more, |i| i.add(more)));
        };
        if self.upstream.is_empty() {
            if !self.upstream.closed {
                add(&mut client, Interest::READABLE);
            }
        } else if !self.held {
            add(&mut worker, Interest::WRITABLE);
        }
        if !self.downstream.is_empty() {
            add(&mut client, Interest::WRITABLE);
        } else if !self.downstream.closed {
            add(&mut worker, Interest::READABLE);
        }
        // What was written and waits, encrypted, goes out as soon as the network takes it.
        if self.client.wants_write() {
            add(&mut client, Interest::WRITABLE);
        }
        if self.worker.wants_write() && !self.worker_deaf {
            add(&mut worker, Interest::WRITABLE);
        }
        let Self { production, client: client_side, worker: worker_side, held, .. } = self;
        let held = *held;
        let ready = async {
            let client_ready = async {
                match client {
                    Some(interest) => client_side.ready(interest).await.is_ok(),
                    None => true,
                }
            };
            let worker_ready = async {
                match worker {
                    Some(interest) => worker_side.ready(interest).await.is_ok(),
                    None => true,
                }
            };
            tokio::select! {
                ok = client_ready, if client.is_some() => (ok, true),
                ok = worker_ready, if worker.is_some() => (true, ok),
                () = production.gate.opened(), if held => (true, true),
            }
        };
        let (client_ok, worker_ok) = if production.draining.load(Ordering::SeqCst) {
            timeout(DRAIN_LOOK, ready).await.unwrap_or((true, true))
        } else {
            let drained = production.drained.notified();
            if production.draining.load(Ordering::SeqCst) {
                return Ok(());
            }
            tokio::select! {
                ok = ready => ok,
                () = drained => (true, true),
            }
        };
        // As with a write: what the worker has said before still goes to the client.
        self.worker_deaf |= !worker_ok;
        if client_ok { Ok(()) } else { Err(End::Client) }
    }

    /// The client is gone in the middle of an exchange: the worker goes on with it as it would without
    /// a mirror, and its outcome decides what the arms have to do.
    async fn last_answer(&mut self) {
        if self.held {
            self.upstream.abandon();
        }
        let until = Instant::now() + LAST_ANSWER_LIMIT;
        let (mut read_bytes, mut told) = (0, false);
        while self.tracker.in_flight() > 0 && !self.downstream.closed && read_bytes < LAST_ANSWER_BYTES {
            // What the client had sent still goes to the worker; then it learns that this was all. It
            // would otherwise wait for more, and keep its locks.
            let mut moved = self.upstream.drain(self.worker).unwrap_or_else(|_| {
                self.upstream.abandon();
                true
            });
            if self.upstream.is_empty() && !told {
                self.worker.shutdown_write();
                told = true;
            }
            self.downstream.start = self.downstream.end;
            match self.downstream.fill(self.worker) {
                Ok(true) => {
                    read_bytes += self.downstream.end;
                    moved = true;
                    if self.look_at_worker().is_err() {
                        return;
                    }
                }
                Ok(false) => {}
                Err(_) => return,
            }
            if moved || self.downstream.closed {
                continue;
            }
            if Instant::now() > until || self.production.draining.load(Ordering::SeqCst) {
                return;
            }
            let interest =
                if self.upstream.is_empty() { Interest::READABLE } else { Interest::READABLE.add(Interest::WRITABLE) };
            // The time-out is for the look at the drain.
            let _ = timeout(DRAIN_LOOK, self.worker.ready(interest)).await;
        }
    }

    fn close(&mut self) {
        let now_ns = self.stamp.as_ref().map_or_else(crate::clock::now_ns, Stamp::begin);
        self.tracker.broken(now_ns, &mut self.steps);
        self.after_look();
        if self.startup.is_none() {
            self.production.tap.push(Event::SessionClosed(self.state.id));
        }
    }

    /// Forwards what is not mirrored, without a look.
    async fn copy(&mut self) -> End {
        let mut rounds = 0_u32;
        loop {
            let mut moved = false;
            if self.upstream.is_empty() {
                if self.upstream.closed {
                    return End::Client;
                }
                moved |= self.upstream.take(self.client);
            }
            if self.downstream.is_empty() && self.downstream.closed {
                if !self.client.wants_write() {
                    return End::Worker;
                }
            } else if self.downstream.is_empty() {
                moved |= self.downstream.take(self.worker);
            }
            match (self.upstream.drain(self.worker), self.downstream.drain(self.client)) {
                (Ok(up), Ok(down)) => moved |= up || down,
                (Err(_), _) => return End::Worker,
                (_, Err(_)) => return End::Client,
            }
            if moved {
                rounds = rounds.wrapping_add(1);
                if rounds.is_multiple_of(ROUNDS_PER_TURN) {
                    yield_now().await;
                }
                continue;
            }
            if self.production.draining.load(Ordering::SeqCst) {
                return End::Drained;
            }
            if let Err(end) = self.wait().await {
                return end;
            }
        }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        self.production.tap.kept(self.kept_bytes, 0);
    }
}
