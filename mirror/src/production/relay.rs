//! Forwards bytes both ways, as they came, and shows them to the tracker on their way past.
//!
//! Both sockets of a session are served by one task: read what is there, look, write what fits, and
//! wait only when nothing moves. Neither direction waits for the other.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::{spawn_blocking, yield_now},
    time::{Instant, timeout},
};

mod bulk;
mod copy;
mod direction;
mod ending;
mod last_answer;
mod leaving;
mod wait;

use self::{
    bulk::Bulk,
    direction::Direction,
    ending::{End, Refused},
};
use super::{
    session::{Production, linger},
    sessions::SessionState,
};
use crate::{
    buffer::Size,
    capture::{
        exchange::{Event, SessionInfo},
        tracker::{Keep, Malformed, Step, Tracker},
    },
    connection::Connection,
    wire::{backend::tag, startup::Startup},
};

/// After so many rounds in which something moved, the thread's other sessions get their turn.
const ROUNDS_PER_TURN: u32 = 16;
/// Kept bytes are told to the tap in steps of this size: small sessions never touch its counter.
const KEPT_STEP_BYTES: usize = 64 * 1024;
/// So long the worker is waited for to end a session whose client has taken its leave.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// How long a worker may take to read a client's last words.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// How often a session looks whether the mirror is draining.
const DRAIN_LOOK: Duration = Duration::from_millis(250);
/// A client that has asked for so much is read on when some of it is answered. What is remembered of a request takes more
/// than the five bytes of the shortest, of which the network between holds a million.
const MOST_AWAITED: usize = 1 << 14;

struct Relay<'a> {
    production: &'a Production,
    client: &'a mut Connection,
    worker: &'a mut Connection,
    state: &'a SessionState,
    /// The number of the thread that serves it.
    thread: usize,
    tracker: Tracker,
    startup: Option<Startup>,
    steps: Vec<Step>,
    upstream: Direction,
    downstream: Direction,
    bulk: Bulk,
    /// Bytes of the client wait for the gate.
    held: bool,
    /// Since when they wait, ns; 0: they do not.
    held_since_ns: u64,
    captured: bool,
    /// What the tap has been told of the bytes that the tracker keeps.
    kept_bytes: usize,
    /// The worker takes nothing any more.
    worker_deaf: bool,
    /// The client has sent what is no message.
    refused: Option<Refused>,
    goodbye: Goodbye,
}

/// Whether the client has taken its leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    /// It has not.
    Unsaid,
    /// It has (Terminate), and asked for nothing that is not answered: the worker ends the session by itself.
    Said,
    /// It has gone, and the worker is waited for until then.
    Awaited(Instant),
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
        thread,
        tracker: Tracker::new(state.id, if captured { Keep::Requests } else { Keep::Boundaries })
            .with_room(production.room_bytes)
            .without(crate::clock::moments()),
        startup: Some(startup),
        steps: Vec::new(),
        upstream: Direction::new(),
        downstream: Direction::new(),
        bulk: Bulk::default(),
        held: false,
        held_since_ns: 0,
        captured,
        kept_bytes: 0,
        worker_deaf: false,
        refused: None,
        goodbye: Goodbye::Unsaid,
    };
    relay.hear_of_draining().await;
    let end = if mirrored { relay.forward().await } else { relay.copy().await };
    let lingers = matches!(end, End::Worker | End::WorkerUnable);
    relay.part(end).await;
    relay.close();
    // What the client said last may still be on its way, encrypted; the worker need not read it.
    let _ = timeout(FLUSH_LIMIT, relay.worker.flush()).await;
    if lingers {
        // What the worker said last may still be on its way as well, and a client that goes on sending must not
        // lose it.
        if relay.downstream.broken.is_some() {
            // Nor is it told of a proper end where there was none.
            relay.client.cut();
        }
        linger(relay.client).await;
    }
}

impl Relay<'_> {
    /// Forwards a mirrored session.
    async fn forward(&mut self) -> End {
        let mut rounds = 0_u32;
        loop {
            let turned = self.turn();
            if let Some(end) = self.refusal(&turned) {
                return end;
            }
            match turned {
                Ok(true) => {
                    rounds = rounds.wrapping_add(1);
                    if rounds.is_multiple_of(ROUNDS_PER_TURN) {
                        self.give_way().await;
                        // Something may be there to be read for as long as the session lasts.
                        if self.leaves() {
                            return End::Drained;
                        }
                        continue;
                    }
                    if !self.is_dry() {
                        continue;
                    }
                }
                Ok(false) => {}
                Err(end) => return end,
            }
            if self.leaves() {
                return End::Drained;
            }
            if let Err(end) = self.wait().await {
                return end;
            }
        }
    }

    /// Another round would find nothing: all that was there has been read, and written.
    fn is_dry(&self) -> bool {
        self.upstream.is_dry() && self.downstream.is_dry()
    }

    /// The thread's other sessions have their turn. While one direction is busy nothing waits, so that this is when
    /// the other one is looked at.
    async fn give_way(&mut self) {
        yield_now().await;
        self.upstream.refresh();
        self.downstream.refresh();
    }

    /// Whether the mirror goes away, and the session ends now: between two transactions, or when its time is up.
    fn leaves(&self) -> bool {
        if !self.production.draining.load(Ordering::SeqCst) {
            return false;
        }
        // Whose login is not over has asked for nothing yet.
        let asks_nothing = self.tracker.is_idle() || !self.tracker.is_logged_in() && self.tracker.in_flight() == 0;
        let between = asks_nothing
            && !self.tracker.status().in_block()
            && self.client_has_all()
            && self.tracker.server_at_boundary();
        between || crate::clock::now_ns() >= self.production.drain_ends_ns.load(Ordering::SeqCst)
    }

    /// Whether the client is read now.
    fn may_read_client(&self) -> bool {
        self.upstream.is_empty() && !self.upstream.closed && self.tracker.awaited() < MOST_AWAITED
    }

    /// What the worker has said is with the client's network, and none of it still on the way there, encrypted.
    fn client_has_all(&self) -> bool {
        self.downstream.is_empty() && !self.client.wants_write()
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
            } else if self.downstream.take(self.worker, self.bulk.room()) {
                if !self.downstream.is_empty() {
                    self.look_at_worker()?;
                    self.note_bulk();
                }
                moved = true;
            }
        }
        if self.downstream.drain(self.client).map_err(|_| End::Client)? {
            moved = true;
        }
        if self.may_read_client() {
            if self.upstream.fill(self.client, Size::Usual).map_err(|_| End::Client)? {
                self.held = true;
                moved = true;
            } else if self.upstream.closed {
                self.send_no_more();
            }
        }
        if self.held {
            if self.admit() {
                self.held = false;
                self.look_at_client();
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
                        if let Some(held_us) = self.production.held_us.of(self.thread) {
                            held_us.record(held_ns);
                        }
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

    /// The client sends no more, and may still read: the worker learns it and decides, as it would without a mirror. The
    /// session ends when the worker ends it. Whoever closes a connection first has its port taken for a minute, and all
    /// clients have the mirror's between them here: after a goodbye the worker is let be the first.
    fn send_no_more(&mut self) {
        if self.goodbye == Goodbye::Said {
            self.goodbye = Goodbye::Awaited(Instant::now() + GOODBYE_LIMIT);
        } else {
            self.goodbye = Goodbye::Unsaid;
            self.worker.shutdown_write();
        }
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

    fn look_at_client(&mut self) {
        let now_ns = self.production.tap.begin(self.thread);
        // What waited for the gate was held since it came, although its exchange begins now.
        self.upstream.read_ns = match std::mem::take(&mut self.held_since_ns) {
            0 => now_ns,
            since_ns => since_ns,
        };
        let looked = self.tracker.client(self.upstream.pending(), now_ns, &mut self.steps);
        self.after_look();
        if let Err(malformed) = looked {
            self.refuse_the_rest(malformed);
        }
    }

    fn look_at_worker(&mut self) -> Result<(), End> {
        // Nobody is told when anything ended that is not captured.
        let now_ns = if self.captured { self.production.tap.begin(self.thread) } else { 0 };
        let looked = self.tracker.server(self.downstream.pending(), now_ns, &mut self.steps);
        self.after_look();
        looked.map_err(|Malformed { error, before_bytes }| {
            if self.tracker.server_is_new() && self.downstream.pending().first() == Some(&tag::ERROR) {
                return End::WorkerUnable;
            }
            // What is malformed does not reach the client; what came before it does.
            self.downstream.keep(before_bytes);
            End::WorkerMalformed { error, whole: self.tracker.server_at_boundary() }
        })
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
        if self.captured && self.tracker.keeps_nothing() {
            // There was no room. Before the steps: what came before is not handed over either.
            tap.fail();
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
                    self.production.gate.note_ended(self.thread);
                    tap.push(Event::Ended(exchange));
                }
                Step::Terminated if self.tracker.in_flight() == 0 => self.goodbye = Goodbye::Said,
                Step::Terminated => {}
            }
        }
        let in_flight = u32::try_from(self.tracker.in_flight()).unwrap_or(u32::MAX);
        let in_block = self.tracker.status().in_block();
        // Nobody else writes them, and to write what is there costs as much as to write anything.
        if self.state.in_block.load(Ordering::Relaxed) != in_block {
            self.state.in_block.store(in_block, Ordering::SeqCst);
        }
        if self.state.in_flight.load(Ordering::Relaxed) != in_flight {
            self.state.in_flight.store(in_flight, Ordering::SeqCst);
        }
        tap.end(self.thread);
        if self.captured && !tap.is_capturing() {
            self.captured = false;
            let (bytes, kept) = self.tracker.keep_boundaries();
            free(bytes, kept);
            tap.kept(self.kept_bytes, 0);
            self.kept_bytes = 0;
        }
    }

    fn close(&mut self) {
        let now_ns = self.production.tap.begin(self.thread);
        let given_up = self.tracker.broken(now_ns, &mut self.steps);
        free(given_up.len(), given_up);
        self.after_look();
        if self.startup.is_none() {
            self.production.tap.push(Event::SessionClosed(self.state.id));
        }
    }
}

/// Lets go of what was kept. Much is not freed here, where others wait for their turn.
fn free<T: Send + 'static>(bytes: usize, kept: T) {
    if bytes >= KEPT_STEP_BYTES {
        drop(spawn_blocking(move || drop(kept)));
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        self.production.tap.kept(self.kept_bytes, 0);
    }
}
