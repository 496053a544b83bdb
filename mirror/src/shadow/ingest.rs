//! Takes events from the tap, finds out what they are, keeps what later arms will need, and tells the
//! arms. One thread; it decides by asking the pure parts and does the telling.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::sync::oneshot;
use understudy_crds::experiment::StatementClass;

use super::{
    arm::{ArmShared, lock},
    arm_clock::{ArmClock, ClockKeeper},
    entry::{ENTRY_BYTES, Entry, PlannedStatement},
    id_map::IdMap,
    log::{LogEvent, TrafficLog},
    measured,
    overlap::Overlaps,
    schema::known::Schemas,
    session_book::{Plan, SessionBook, SessionSeed},
    statement::catalog::Catalog,
};
use crate::{
    capture::exchange::{Event, Exchange, Outcome, SessionId, SessionInfo},
    clock::now_ns,
    measure::{interval::Fingerprint, recorder::Recorder},
    production::tap::Tap,
};

/// How often the tap is emptied: nobody wakes this thread for a message. Arms live a second behind, so what
/// waits here delays nothing, and a wake-up costs production's cores more than what it finds.
const TICK: Duration = Duration::from_millis(5);
/// The same where nothing came the last time: nobody wakes it, and what comes has a second until an arm is to play it.
const IDLE_TICK: Duration = Duration::from_millis(20);
/// Where nothing is captured there are commands, which wake it, and the end.
const OFF_TICK: Duration = Duration::from_millis(50);
/// What is let go of gives its memory back within this time; until then nothing else is, ns.
const RELIEF_NS: u64 = 1_000_000_000;
/// An open transaction that takes less is none of those that fill the memory, bytes.
const LARGE_BYTES: usize = 1 << 20;

/// What the control plane asks of the ingest.
#[derive(Debug)]
pub enum Command {
    /// From now on nothing is forgotten that had not ended by this moment, ns. Answered when it is so.
    Retain(u64, oneshot::Sender<()>),
    /// Forget again what is over.
    Release,
    /// The arms that leave the WAL at this moment: their log begins here.
    Cut {
        /// The moment, ns.
        at_ns: u64,
        /// When the gate opened again, ns.
        sealed_ns: u64,
        /// The arms.
        arms: Vec<Arc<ArmShared>>,
        /// Where the sessions as they were go, once all until then is known.
        reply: mpsc::Sender<Vec<SessionSeed>>,
    },
    /// Normalised texts and classes of all statements seen.
    Texts(mpsc::Sender<HashMap<Fingerprint, (Arc<str>, StatementClass)>>),
}

/// What the ingest shares with the rest of the mirror.
#[derive(Debug)]
pub struct IngestShared {
    /// Production's side of the measurement.
    pub recorder: Mutex<Recorder>,
    /// What was captured, for the arms.
    pub log: Arc<TrafficLog>,
    /// Everything that production began before is recorded here, ns.
    pub recorded_until_ns: std::sync::atomic::AtomicU64,
    /// What time it is for the arms.
    pub clock: Arc<ArmClock>,
    /// What names stand for, as far as somebody tells.
    pub schemas: Schemas,
    /// The thread is to end.
    pub stop: AtomicBool,
}

/// Runs until told to stop.
pub fn run(shared: &IngestShared, tap: &Tap, clock: &mut ClockKeeper, commands: &mpsc::Receiver<Command>) {
    let mut ingest = Ingest::new(shared);
    while !shared.stop.load(Ordering::Relaxed) {
        while let Ok(command) = commands.try_recv() {
            ingest.command(command);
        }
        let came = ingest.drain(tap);
        let captures = tap.is_capturing() || !ingest.arms.is_empty();
        if captures {
            clock.look(shared.log.budget().is_crowded());
        }
        let tick = match (came > 0, captures) {
            (true, _) => TICK,
            (false, true) => IDLE_TICK,
            (false, false) => OFF_TICK,
        };
        match commands.recv_timeout(tick) {
            Ok(command) => ingest.command(command),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // Without a mirror there is only the end to wait for.
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(tick),
        }
    }
}

/// The moment, when the gate opened again, the arms, and who waits for the seeds.
type WaitingCut = (u64, u64, Vec<Arc<ArmShared>>, mpsc::Sender<Vec<SessionSeed>>);

struct Ingest<'a> {
    shared: &'a IngestShared,
    catalog: Catalog,
    books: IdMap<SessionId, SessionBook>,
    /// By session and number: entries whose outcome is not known.
    running: IdMap<(SessionId, u64), Arc<Entry>>,
    /// When production began them, with their number.
    running_since: BTreeSet<(u64, u64)>,
    overlaps: Overlaps,
    /// Entries after whose end names may stand for something else, by their number, and whose they are.
    defining: IdMap<u64, Arc<SessionInfo>>,
    arms: Vec<Arc<ArmShared>>,
    /// What goes to the log next.
    told: Vec<LogEvent>,
    retain_from_ns: Option<u64>,
    waiting_cut: Option<WaitingCut>,
    known_ns: u64,
    next_id: u64,
    /// When the memory was last relieved, ns.
    relieved_ns: Option<u64>,
    /// What a cut would need has been forgotten since it was asked for.
    gave_up: bool,
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for arm in &self.arms {
                arm.lose("the ingest panicked: nothing is captured any more");
            }
        }
    }
}

impl<'a> Ingest<'a> {
    fn new(shared: &'a IngestShared) -> Self {
        Self {
            shared,
            catalog: Catalog::default(),
            books: IdMap::default(),
            running: IdMap::default(),
            running_since: BTreeSet::new(),
            overlaps: Overlaps::default(),
            defining: IdMap::default(),
            arms: Vec::new(),
            told: Vec::new(),
            retain_from_ns: None,
            waiting_cut: None,
            known_ns: 0,
            next_id: 1,
            relieved_ns: None,
            gave_up: false,
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Retain(from_ns, reply) => {
                self.retain_from_ns = Some(from_ns);
                self.gave_up = false;
                self.books.retain(|_, book| {
                    book.settle(Some(from_ns));
                    !(book.closed && book.kept() == 0)
                });
                // Who asked may have gone.
                let _ = reply.send(());
            }
            Command::Release => {
                self.retain_from_ns = None;
                self.books.retain(|_, book| !book.closed);
            }
            // Without an answer the cut fails: what it needs has been forgotten.
            Command::Cut { .. } if self.gave_up => {}
            Command::Cut { at_ns, sealed_ns, arms, reply } => {
                self.waiting_cut = Some((at_ns, sealed_ns, arms, reply));
            }
            Command::Texts(reply) => {
                // Who asked may have gone.
                let _ = reply.send(self.catalog.texts().clone());
            }
        }
    }

    /// Takes in what waits; how many events.
    fn drain(&mut self, tap: &Tap) -> usize {
        // What is settled is asked before the queue is emptied: all of it is in the queue then.
        let settled_ns = tap.settled_until_ns();
        // No more than waits now: under a load that never lets the queue run empty, commands still get
        // their turn.
        let waiting = tap.waiting();
        for _ in 0..waiting {
            let Some(event) = tap.pop() else { break };
            self.event(event);
        }
        if let Some(settled_ns) = settled_ns {
            self.known(settled_ns);
        }
        self.police(tap);
        waiting
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::SessionOpened(info) => self.opened(&info),
            Event::Begun(exchange) => self.begun(&exchange),
            Event::Ended(exchange) => self.ended(&exchange),
            Event::SessionClosed(session) => {
                // A cut that is being made still needs what the session did until then.
                if self.retain_from_ns.is_none() {
                    self.books.remove(&session);
                } else if let Some(book) = self.books.get_mut(&session) {
                    book.closed = true;
                }
                self.tell(|| LogEvent::SessionClosed(session));
            }
        }
    }

    fn opened(&mut self, info: &Arc<SessionInfo>) {
        tracing::debug!(session = info.id.0, "session captured");
        self.books.insert(info.id, SessionBook::new(Arc::clone(info)));
        self.tell(|| LogEvent::SessionOpened(Arc::clone(info)));
    }

    fn begun(&mut self, exchange: &Arc<Exchange>) {
        let Some(book) = self.books.get_mut(&exchange.session) else { return };
        let schema = self.shared.schemas.of(&book.info);
        let plan = book.plan(exchange, &mut self.catalog, &schema);
        let Plan { statements, writes, touches, publishes, beginnings, defines, skip, settled } = plan;
        if schema.has_functions() {
            let reads = |s: &&PlannedStatement| s.class == StatementClass::Read;
            statements.iter().filter(reads).for_each(|s| self.catalog.reads(s.fingerprint));
        }
        if let Some(defines) = defines {
            self.shared.schemas.defines(&book.info, &defines);
            self.defining.insert(self.next_id, Arc::clone(&book.info));
        }
        let entry = Arc::new(Entry {
            id: self.next_id,
            statements,
            writes,
            touches,
            publishes,
            beginnings,
            skip,
            overlapped: AtomicBool::new(false),
            charge: self.shared.log.budget().charge(ENTRY_BYTES + exchange.request.len()),
            taken_in: OnceLock::new(),
            exchange: Arc::clone(exchange),
        });
        self.next_id += 1;
        book.begun(Arc::clone(&entry), settled);
        self.overlaps.begun(&entry);
        self.running.insert((exchange.session, exchange.sequence), Arc::clone(&entry));
        self.running_since.insert((exchange.begun_ns, entry.id));
        self.tell(|| LogEvent::Begun(Arc::clone(&entry)));
    }

    fn ended(&mut self, exchange: &Arc<Exchange>) {
        let Some(entry) = self.running.remove(&(exchange.session, exchange.sequence)) else { return };
        self.running_since.remove(&(exchange.begun_ns, entry.id));
        self.overlaps.ended(&entry);
        if let Some(info) = self.defining.remove(&entry.id) {
            self.shared.schemas.defined(&info);
        }
        if let (Some(outcome), None) = (entry.outcome(), entry.skip) {
            measured::record_production(&mut lock(&self.shared.recorder), &entry, outcome);
        }
        if let Some(book) = self.books.get_mut(&exchange.session) {
            book.ended(&entry);
            book.settle(self.retain_from_ns);
        }
        // Last of all: who sees it may judge.
        let _ = entry.taken_in.set(self.shared.log.budget().charge(entry.outcome().map_or(0, Outcome::kept_bytes)));
        self.tell(|| LogEvent::Ended(Arc::clone(&entry)));
    }

    fn tell(&mut self, event: impl Fn() -> LogEvent) {
        if !self.arms.is_empty() {
            self.told.push(event());
        }
    }

    fn known(&mut self, known_ns: u64) {
        self.known_ns = self.known_ns.max(known_ns);
        let oldest_from = |from_ns: u64| self.running_since.range((from_ns, 0)..).next().map(|(begun_ns, _)| *begun_ns);
        let oldest_ns = oldest_from(0).unwrap_or(self.known_ns).min(self.known_ns);
        // What has been running for longer is not measured.
        let measured_ns = oldest_from(self.known_ns.saturating_sub(measured::LONGEST_NS)).unwrap_or(self.known_ns);
        self.overlaps.forget_before(oldest_ns);
        self.shared.recorded_until_ns.fetch_max(measured_ns.min(self.known_ns), Ordering::Release);
        if self.waiting_cut.as_ref().is_some_and(|(_, sealed_ns, ..)| *sealed_ns < self.known_ns)
            && let Some((at_ns, sealed_ns, arms, reply)) = self.waiting_cut.take()
        {
            let seeds = self.books.values_mut().map(|book| book.cut(at_ns, sealed_ns)).collect();
            self.shared.log.append(&mut self.told);
            for arm in &arms {
                // An arm is cut once.
                let _ = arm.log.set(self.shared.log.reader(self.running.values().cloned()));
            }
            self.arms.extend(arms);
            // Who asked may have gone; its arms are stopped then, and dropped below.
            let _ = reply.send(seeds);
        }
        let known_ns = self.known_ns;
        self.tell(|| LogEvent::KnownUntil(known_ns));
        self.shared.log.append(&mut self.told);
    }

    /// Lets go of arms that are gone, and of those that the memory does not last for.
    fn police(&mut self, tap: &Tap) {
        if tap.has_overflowed() {
            for arm in &self.arms {
                arm.lose("capture ended: what was captured and not yet taken in had outgrown the memory limit");
            }
        }
        self.arms.retain(|arm| {
            let alive = arm.is_alive() && !arm.stop.load(Ordering::Relaxed);
            if !alive && let Some(reader) = arm.log.get() {
                reader.leave();
            }
            alive
        });
        if self.shared.log.budget().is_exceeded()
            && self.relieved_ns.is_none_or(|at_ns| now_ns() >= at_ns.saturating_add(RELIEF_NS))
        {
            self.relieved_ns = Some(now_ns());
            self.relieve();
        }
    }

    /// Gives memory back: of what is kept for arms to come first, then that of an arm.
    fn relieve(&mut self) {
        if self.arms.is_empty() {
            // Nobody but a cut that is being made keeps so much. Production's memory goes first.
            self.retain_from_ns = None;
            self.gave_up = true;
            self.waiting_cut = None;
            self.books.retain(|_, book| !book.closed);
            self.books.values_mut().for_each(|book| book.settle(None));
        }
        // The arm that is furthest behind holds the most.
        if !self.shed_books()
            && let Some(slowest) = self.arms.iter().max_by_key(|arm| arm.lag().exchanges)
        {
            slowest.lose(&self.shared.log.too_far_behind());
        }
    }

    /// Lets go of the largest open transactions, as many as it takes: arms that come later can't take their sessions
    /// over, those that are there miss nothing. Whether there were any.
    fn shed_books(&mut self) -> bool {
        let budget = self.shared.log.budget();
        let mut excess = budget.used_bytes().saturating_sub(budget.limit_bytes);
        let mut large: Vec<_> = self.books.values_mut().filter(|book| book.kept_bytes() > LARGE_BYTES).collect();
        large.sort_unstable_by_key(|book| std::cmp::Reverse(book.kept_bytes()));
        let mut shed = false;
        for book in large {
            if excess == 0 {
                break;
            }
            tracing::debug!(session = book.info.id.0, bytes = book.kept_bytes(), "open transaction let go of");
            excess = excess.saturating_sub(book.kept_bytes());
            book.shed();
            shed = true;
        }
        shed
    }
}

#[cfg(test)]
mod tests;
