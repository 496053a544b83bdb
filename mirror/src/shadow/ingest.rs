//! Takes events from the tap, finds out what they are, keeps what later arms will need, and tells the
//! arms. One thread; it decides by asking the pure parts and does the telling.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use understudy_crds::experiment::StatementClass;

use super::{
    arm::{ArmEvent, ArmShared, lock},
    entry::{Budget, Entry},
    measured,
    overlap::Overlaps,
    session_book::{Plan, SessionBook, SessionSeed},
    statement::catalog::Catalog,
};
use crate::{
    capture::exchange::{Event, Exchange, SessionId, SessionInfo},
    measure::{interval::Fingerprint, recorder::Recorder},
    production::tap::Tap,
};

/// How often the tap is emptied: nobody wakes this thread for a message.
const TICK: Duration = Duration::from_millis(2);
/// What an entry weighs beside the bytes it carries.
const ENTRY_BYTES: usize = 768;

/// What the control plane asks of the ingest.
#[derive(Debug)]
pub enum Command {
    /// From now on nothing is forgotten that had not ended by this moment, ns.
    Retain(u64),
    /// Forget again what is over.
    Release,
    /// The arms that leave the WAL at this moment: their log begins here.
    Cut {
        /// The moment, ns.
        at_ns: u64,
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
    /// The memory budget of captured traffic.
    pub budget: Arc<Budget>,
    /// Everything that production began before is recorded here, ns.
    pub recorded_until_ns: std::sync::atomic::AtomicU64,
    /// The thread is to end.
    pub stop: AtomicBool,
}

/// Runs until told to stop.
pub fn run(shared: &IngestShared, tap: &Tap, commands: &mpsc::Receiver<Command>) {
    let mut ingest = Ingest::new(shared);
    while !shared.stop.load(Ordering::Relaxed) {
        while let Ok(command) = commands.try_recv() {
            ingest.command(command);
        }
        ingest.drain(tap);
        std::thread::sleep(TICK);
    }
}

/// The moment, its arms, and who waits for the seeds.
type WaitingCut = (u64, Vec<Arc<ArmShared>>, mpsc::Sender<Vec<SessionSeed>>);

struct Ingest<'a> {
    shared: &'a IngestShared,
    catalog: Catalog,
    books: HashMap<SessionId, SessionBook>,
    /// By session and number: entries whose outcome is not known.
    running: HashMap<(SessionId, u64), Arc<Entry>>,
    /// When production began them, with their number.
    running_since: BTreeSet<(u64, u64)>,
    overlaps: Overlaps,
    arms: Vec<Arc<ArmShared>>,
    retain_from_ns: Option<u64>,
    waiting_cut: Option<WaitingCut>,
    known_ns: u64,
    next_id: u64,
}

impl<'a> Ingest<'a> {
    fn new(shared: &'a IngestShared) -> Self {
        Self {
            shared,
            catalog: Catalog::default(),
            books: HashMap::new(),
            running: HashMap::new(),
            running_since: BTreeSet::new(),
            overlaps: Overlaps::default(),
            arms: Vec::new(),
            retain_from_ns: None,
            waiting_cut: None,
            known_ns: 0,
            next_id: 1,
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Retain(from_ns) => self.retain_from_ns = Some(from_ns),
            Command::Release => {
                self.retain_from_ns = None;
                self.books.retain(|_, book| !book.closed);
            }
            Command::Cut { at_ns, arms, reply } => self.waiting_cut = Some((at_ns, arms, reply)),
            Command::Texts(reply) => {
                // Who asked may have gone.
                let _ = reply.send(self.catalog.texts().clone());
            }
        }
    }

    fn drain(&mut self, tap: &Tap) {
        // What is settled is asked before the queue is emptied: all of it is in the queue then.
        let settled_ns = tap.settled_until_ns();
        while let Some(event) = tap.pop() {
            self.event(event);
        }
        if let Some(settled_ns) = settled_ns {
            self.known(settled_ns);
        }
        self.police(tap);
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
                self.tell(|| ArmEvent::SessionClosed(session));
            }
        }
    }

    fn opened(&mut self, info: &Arc<SessionInfo>) {
        self.books.insert(info.id, SessionBook::new(Arc::clone(info)));
        self.tell(|| ArmEvent::SessionOpened(Arc::clone(info)));
    }

    fn begun(&mut self, exchange: &Arc<Exchange>) {
        let Some(book) = self.books.get_mut(&exchange.session) else { return };
        let Plan { statements, writes, touches, publishes, skip, settled } = book.plan(exchange, &mut self.catalog);
        let entry = Arc::new(Entry {
            id: self.next_id,
            statements,
            writes,
            touches,
            publishes,
            skip,
            overlapped: AtomicBool::new(false),
            charge: self.shared.budget.charge(ENTRY_BYTES + exchange.request.len()),
            exchange: Arc::clone(exchange),
        });
        self.next_id += 1;
        book.begun(Arc::clone(&entry), settled);
        self.overlaps.begun(&entry);
        self.running.insert((exchange.session, exchange.sequence), Arc::clone(&entry));
        self.running_since.insert((exchange.begun_ns, entry.id));
        self.tell(|| ArmEvent::Begun(Arc::clone(&entry)));
    }

    fn ended(&mut self, exchange: &Arc<Exchange>) {
        let Some(entry) = self.running.remove(&(exchange.session, exchange.sequence)) else { return };
        self.running_since.remove(&(exchange.begun_ns, entry.id));
        self.overlaps.ended(&entry);
        if let (Some(outcome), None) = (entry.outcome(), entry.skip) {
            measured::record_production(&mut lock(&self.shared.recorder), &entry, outcome);
        }
        if let Some(book) = self.books.get_mut(&exchange.session) {
            book.ended(&entry);
            book.settle(self.retain_from_ns);
        }
        self.tell(|| ArmEvent::Ended(Arc::clone(&entry)));
    }

    fn tell(&self, event: impl Fn() -> ArmEvent) {
        for arm in &self.arms {
            arm.queue.push(event());
        }
    }

    fn known(&mut self, known_ns: u64) {
        self.known_ns = self.known_ns.max(known_ns);
        let oldest_ns = self.running_since.first().map_or(self.known_ns, |(begun_ns, _)| *begun_ns);
        self.overlaps.forget_before(oldest_ns.min(self.known_ns));
        self.shared.recorded_until_ns.fetch_max(oldest_ns.min(self.known_ns), Ordering::Release);
        if self.waiting_cut.as_ref().is_some_and(|(at_ns, ..)| *at_ns < self.known_ns)
            && let Some((at_ns, arms, reply)) = self.waiting_cut.take()
        {
            let seeds = self.books.values_mut().map(|book| book.cut(at_ns)).collect();
            self.arms.extend(arms);
            // Who asked may have gone; its arms are stopped then, and dropped below.
            let _ = reply.send(seeds);
        }
        let known_ns = self.known_ns;
        self.tell(|| ArmEvent::KnownUntil(known_ns));
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
            if !alive {
                while arm.queue.pop().is_some() {}
            }
            alive
        });
        if self.shared.budget.is_exceeded() {
            // The arm that is furthest behind holds the most.
            let behind = |arm: &Arc<ArmShared>| arm.lag().exchanges + i64::try_from(arm.queue.len()).unwrap_or(0);
            if let Some(slowest) = self.arms.iter().max_by_key(|arm| behind(arm)) {
                let limit_mib = self.shared.budget.limit_bytes >> 20;
                slowest.lose(&format!("fell off the traffic log: it was behind by more than {limit_mib} MiB"));
            }
        }
    }
}
