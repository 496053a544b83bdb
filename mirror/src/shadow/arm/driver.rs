//! Drives one arm: takes the log in, asks the order what may start, hands it to the sessions' players,
//! and records what came of it. Decides nothing itself.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use understudy_crds::condition::{ArmState, DivergenceKind, SkipReason};

use super::{
    ArmShared,
    locks::{self, Question},
    session::{Job, Told, play_session},
    ticks::Ticks,
};
use crate::{
    capture::exchange::{Outcome, SessionId, SessionInfo},
    clock::now_ns,
    shadow::{
        arm::address::ArmAddress,
        arm_clock::ArmClock,
        entry::{Entry, Skip},
        id_map::{IdMap, IdSet},
        log::{LogEvent, Reader},
        measured::LONGEST_NS,
        order::{Action, Order},
        overtaken::Overtaken,
        session_book::SessionSeed,
    },
};

mod played;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(1);
/// How often the log is looked at where nothing is due for twice as long: nobody wakes an arm for a message.
const IDLE_TICK: Duration = Duration::from_millis(20);
const SOON_NS: u64 = 40_000_000;
/// So often its server is asked at most who waits for whom, ns.
const ASKED_NS: u64 = 100_000_000;
/// What runs so much longer than it did on production is taken to be stuck: it may wait for something that waits for it.
const ORDER_LIMIT_NS: u64 = 10_000_000_000;
/// An arm that is behind by no more than this beyond the shift is level with production.
const LEVEL_NS: u64 = 500_000_000;

/// How it stands is told the rest of the mirror so often, ns.
const PUBLISHED_NS: u64 = 1_000_000;
/// An arm on which nothing has come to its end for so long may wait for what it has not been told, ns.
const STALLED_NS: u64 = 100_000_000;

/// Where and from what an arm begins.
#[derive(Debug)]
pub struct Start {
    /// The clone.
    pub address: ArmAddress,
    /// The sessions as they were at the cut.
    pub seeds: Vec<SessionSeed>,
    /// Sessions whose transaction in doubt had been committed before the cut.
    pub committed: HashSet<SessionId>,
    /// How long the arm lives behind production, ns.
    pub shift_ns: u64,
    /// What time it is for the arms.
    pub clock: Arc<ArmClock>,
}

/// What was played before production was known to be done with it.
struct Early {
    begun_ns: u64,
    due_ns: u64,
    outcome: Outcome,
}

/// Plays until told to stop or lost. Runs on the arm's own thread.
pub fn run(shared: &Arc<ArmShared>, start: Start) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return shared.lose(&format!("no runtime for the arm: {error}")),
    };
    // A task like its players: whoever wakes the future that a runtime blocks on pays a system call for it.
    let shared = Arc::clone(shared);
    let driver = runtime.spawn(async move { Driver::new(shared, start).run().await });
    pass_on(runtime.block_on(driver));
}

/// A task that panicked takes the arm with it.
fn pass_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

struct Driver {
    shared: Arc<ArmShared>,
    address: ArmAddress,
    order: Order,
    clock: Arc<ArmClock>,
    /// How far the clock was behind when it was looked at last, ns: what starts in a turn was due by then.
    behind_ns: u64,
    shift_ns: u64,
    players: IdMap<SessionId, mpsc::Sender<Job>>,
    /// What makes the state again of sessions that are still to log in.
    prologues: IdMap<SessionId, Vec<Bytes>>,
    /// Where they run.
    playing: JoinSet<()>,
    /// Backends of the sessions that have logged in.
    backends: IdMap<SessionId, i32>,
    /// One of the sessions, as whose user the server is asked who waits for whom, and where; from when on, ns.
    someone: Option<Arc<SessionInfo>>,
    questions: mpsc::Sender<Question>,
    /// Until somebody answers.
    asked: Option<mpsc::Receiver<Question>>,
    asked_from_ns: u64,
    /// Sessions that can't be played, and why.
    unplayable: IdSet<SessionId>,
    told: mpsc::UnboundedReceiver<Told>,
    report: mpsc::UnboundedSender<Told>,
    /// Played before production itself was done, or before that was known here.
    early: IdMap<u64, Early>,
    overtaken: Overtaken,
    known_ns: u64,
    /// So much is held to be played; what is behind it stays in the log, bytes.
    window_bytes: usize,
    /// Nothing starts until more is known.
    needs_more: bool,
    /// Something was not played: what is behind it may start at once.
    skipped: bool,
    /// When the turn began; when an exchange was over last; when it was told last how the arm stands. On the arms'
    /// clock, ns.
    turn_ns: u64,
    finished_ns: u64,
    published_ns: u64,
    /// What was read last; kept for its room.
    events: Vec<LogEvent>,
}

impl Driver {
    fn new(shared: Arc<ArmShared>, start: Start) -> Self {
        let Start { address, seeds, committed, shift_ns, clock } = start;
        // At most one job a session is under way, so the channel holds no more than two for each session.
        let (report, told) = mpsc::unbounded_channel();
        let (questions, asked) = mpsc::channel(1);
        let window_bytes = shared.log.get().map_or(0, Reader::window_bytes);
        let mut driver = Self {
            shared,
            address,
            order: Order::new(shift_ns, ORDER_LIMIT_NS),
            clock,
            behind_ns: 0,
            shift_ns,
            players: IdMap::default(),
            prologues: IdMap::default(),
            playing: JoinSet::new(),
            backends: IdMap::default(),
            someone: None,
            questions,
            asked: Some(asked),
            asked_from_ns: 0,
            unplayable: IdSet::default(),
            told,
            report,
            early: IdMap::default(),
            overtaken: Overtaken::default(),
            known_ns: 0,
            window_bytes,
            needs_more: true,
            skipped: false,
            turn_ns: 0,
            finished_ns: 0,
            published_ns: 0,
            events: Vec::new(),
        };
        let seeded: Vec<_> = seeds.iter().flat_map(|seed| seed.entries.iter().map(Arc::clone)).collect();
        for seed in seeds {
            let had_committed = committed.contains(&seed.info.id);
            driver.take_over(seed, had_committed);
        }
        // What was told by the cut is not told again.
        seeded.iter().filter(|entry| entry.taken_in.get().is_some()).for_each(|entry| driver.order.ended(entry));
        driver
    }

    /// A session that was there before the arm.
    fn take_over(&mut self, seed: SessionSeed, committed: bool) {
        let SessionSeed { info, prologue, bound, entries, in_doubt, closed } = seed;
        let session = info.id;
        if bound {
            self.unplayable.insert(session);
            self.order.left_out();
        } else {
            self.prologues.insert(session, prologue);
            self.order.opened(info);
        }
        // What was in doubt at the cut and is on the clone already must not be played again.
        let on_the_clone = in_doubt.filter(|_| committed).map_or(0, |index| index + 1);
        for (index, entry) in entries.into_iter().enumerate() {
            self.shared.count(|c| c.captured += 1);
            if index < on_the_clone {
                self.shared.count(|c| *c.skipped.entry(SkipReason::BeforeCut).or_default() += 1);
            } else {
                self.order.begun(&entry);
            }
        }
        if closed && self.order.closed(session).is_some() {
            // Nobody plays yet who could tell.
            self.order.left();
        }
    }

    fn open(&mut self, info: Arc<SessionInfo>) {
        tracing::debug!(arm = self.shared.name, session = info.id.0, "session taken in");
        let (jobs, receiver) = mpsc::channel(1);
        self.players.insert(info.id, jobs);
        let prologue = self.prologues.remove(&info.id).unwrap_or_default();
        self.someone = Some(Arc::clone(&info));
        self.playing.spawn(play_session(self.address.clone(), info, prologue, receiver, self.report.clone()));
    }

    async fn run(mut self) {
        self.shared.set_state(ArmState::CatchingUp);
        if let Some(asked) = self.asked.take() {
            self.playing.spawn(locks::answer(self.address.clone(), asked, self.report.clone()));
        }
        let (mut actions, mut now) = (Vec::new(), Vec::new());
        let mut ticks = Ticks::start(TICK);
        while self.shared.is_alive() && !self.shared.stop.load(Ordering::Relaxed) {
            self.read_on(&mut actions);
            while let Ok(told) = self.told.try_recv() {
                self.told(told, &mut actions);
            }
            self.hold();
            self.behind_ns = self.clock.behind_ns();
            let now_ns = self.now_ns();
            self.turn_ns = now_ns;
            self.order.poll(now_ns, &mut actions);
            if actions.is_empty() && now_ns >= self.asked_from_ns {
                self.ask_for_locks(now_ns);
            }
            self.needs_more = actions.is_empty() && self.is_full() && {
                self.order.needs_more(now_ns >= self.finished_ns.saturating_add(STALLED_NS))
            };
            std::mem::swap(&mut actions, &mut now);
            for action in now.drain(..) {
                self.act(action, &mut actions);
            }
            if now_ns >= self.published_ns.saturating_add(PUBLISHED_NS) {
                self.publish(now_ns);
            }
            if std::mem::take(&mut self.skipped) {
                tokio::task::yield_now().await;
            } else if actions.is_empty() {
                let is_busy = self.order.may_start_before(now_ns.saturating_add(SOON_NS));
                tokio::select! {
                    biased;
                    Some(told) = self.told.recv() => self.told(told, &mut actions),
                    Some(ended) = self.playing.join_next() => pass_on(ended),
                    () = ticks.next(if is_busy { TICK } else { IDLE_TICK }) => {}
                }
            }
        }
        self.publish(self.now_ns());
    }

    /// Whether so much is held that what is behind it stays in the log.
    fn is_full(&self) -> bool {
        self.order.held_bytes() >= self.window_bytes
    }

    fn told(&mut self, told: Told, actions: &mut Vec<Action>) {
        match told {
            Told::LoggedIn(session, pid) => {
                self.backends.extend(pid.map(|pid| (session, pid)));
                actions.extend(self.order.logged_in(session, self.now_ns()));
            }
            Told::Locks(locks) => {
                let who = |pid| self.backends.iter().find(|(_, backend)| **backend == pid).map(|(session, _)| *session);
                let locks: Vec<_> = locks.iter().filter_map(|(waits, pid)| Some((*waits, who(*pid)?))).collect();
                self.order.let_go(&locks, self.now_ns(), actions);
            }
            Told::Left => self.order.left(),
            Told::Done(done) => self.finished(done, actions),
        }
    }

    /// Asks the arm's server who waits for whom, where somebody may wait for who waits for the order.
    fn ask_for_locks(&mut self, now_ns: u64) {
        self.asked_from_ns = now_ns.saturating_add(ASKED_NS);
        let backend = |session| self.backends.get(&session).map(|pid| (session, *pid));
        let about: Vec<_> = self.order.may_wait_for_locks(now_ns).into_iter().filter_map(backend).collect();
        if let Some(info) = self.someone.clone().filter(|_| !about.is_empty()) {
            // Where the last one is not answered yet, it is asked again later.
            let _ = self.questions.try_send(Question { info, about });
        }
    }

    /// Takes in what the log has, as far as it is needed: what can't be played for long stays in the log, which
    /// has a disk.
    fn read_on(&mut self, actions: &mut Vec<Action>) {
        let shared = Arc::clone(&self.shared);
        let Some(log) = shared.log.get() else { return };
        let mut events = std::mem::take(&mut self.events);
        while !self.is_full() || std::mem::take(&mut self.needs_more) {
            let more = log.read(&mut events);
            for event in events.drain(..) {
                self.event(event, actions);
            }
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    shared.lose(&error.to_string());
                    break;
                }
            }
        }
        self.events = events;
    }

    fn event(&mut self, event: LogEvent, actions: &mut Vec<Action>) {
        match event {
            LogEvent::SessionOpened(info) => self.order.opened(info),
            LogEvent::Begun(entry) => {
                self.shared.count(|c| c.captured += 1);
                self.order.begun(&entry);
            }
            LogEvent::Ended(entry) => {
                self.order.ended(&entry);
                if !self.early.is_empty()
                    && let Some(early) = self.early.remove(&entry.id)
                {
                    self.judge(&entry, &early.outcome, early.due_ns, false);
                }
            }
            LogEvent::SessionClosed(session) => actions.extend(self.order.closed(session)),
            LogEvent::KnownUntil(known_ns) => {
                self.known_ns = known_ns;
                self.order.known_until(known_ns);
            }
        }
    }

    /// What time it is for the arms, ns since the mirror's epoch.
    fn now_ns(&self) -> u64 {
        now_ns().saturating_sub(self.behind_ns)
    }

    fn hold(&mut self) {
        let hold_from_ns = self.shared.hold_from_ns.load(Ordering::Relaxed);
        if hold_from_ns == u64::MAX {
            self.order.hold_from(None);
            self.shared.held.store(false, Ordering::Release);
        } else {
            self.order.hold_from(Some(hold_from_ns));
            self.shared.held.store(self.order.has_reached(hold_from_ns), Ordering::Release);
        }
    }

    fn act(&mut self, action: Action, more: &mut Vec<Action>) {
        match action {
            Action::Open(info) => self.open(info),
            Action::Close(session) => {
                self.backends.remove(&session);
                // Its player tells when it has left, unless there is none any more.
                if self.players.remove(&session).is_none_or(|jobs| jobs.is_closed()) {
                    self.order.left();
                }
            }
            Action::Start { entry, due_ns, released } => {
                if released {
                    self.shared.count(|c| *c.divergence.entry(DivergenceKind::Order).or_default() += 1);
                }
                let session = entry.exchange.session;
                if let Some(Skip { reason, changes }) = self.skip(&entry) {
                    self.shared.count(|c| *c.skipped.entry(reason).or_default() += 1);
                    if reason == SkipReason::UnknownSession && changes {
                        self.shared.lose("a session whose state could not be rebuilt has written");
                    } else if changes {
                        // Loading a table from a server's file, say: the file is production's.
                        self.shared.lose("something has been changed together with what may not be played here");
                    }
                    more.extend(self.order.finished(session));
                    self.skipped = true;
                    return;
                }
                self.overtaken.started(&entry);
                // It is due on the arms' clock; what it is measured from is the mirror's.
                let job = Job { entry, due_ns: due_ns.saturating_add(self.behind_ns) };
                let refused = match self.players.get(&session) {
                    Some(player) => player.try_send(job).is_err(),
                    None => true,
                };
                if refused {
                    self.lost_exchange("a session of the arm has ended");
                    more.extend(self.order.finished(session));
                }
            }
        }
    }

    fn skip(&self, entry: &Entry) -> Option<Skip> {
        let unknown = self.unplayable.contains(&entry.exchange.session);
        entry.skip.or(unknown.then_some(Skip { reason: SkipReason::UnknownSession, changes: entry.writes }))
    }

    /// How the arm stands at this moment on the arms' clock.
    fn publish(&mut self, now_ns: u64) {
        self.published_ns = now_ns;
        let (level_ns, known_ns) = (self.order.level_ns(), self.known_ns);
        self.overtaken.forget_before(self.order.oldest_ns().unwrap_or(known_ns));
        let shared = &self.shared;
        shared.outstanding.store(self.order.outstanding() as u64, Ordering::Relaxed);
        shared.level_ns.store(level_ns.unwrap_or(u64::MAX), Ordering::Relaxed);
        // What was played early is recorded when production is done with it, unless that takes too long.
        let measured_from_ns = known_ns.saturating_sub(LONGEST_NS);
        let early_ns = self.early.values().map(|early| early.begun_ns).filter(|ns| *ns >= measured_from_ns).min();
        let recorded = [self.order.oldest_measured_ns(), early_ns].into_iter().flatten().fold(known_ns, u64::min);
        shared.recorded_until_ns.fetch_max(recorded, Ordering::Release);
        let is_level = |level_ns| now_ns.saturating_sub(level_ns) < self.shift_ns + LEVEL_NS;
        if known_ns > 0 && level_ns.is_some_and(is_level) {
            shared.set_state(ArmState::Live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::startup::Startup;

    fn info(session: u64) -> Arc<SessionInfo> {
        Arc::new(SessionInfo { id: SessionId(session), startup: Startup::default(), backend_pid: 1 })
    }

    #[test]
    fn one_that_can_t_be_played_and_was_closed_before_the_arm_began_takes_nobodys_room() {
        let gone = SessionSeed {
            info: info(1),
            prologue: Vec::new(),
            bound: true,
            entries: Vec::new(),
            in_doubt: None,
            closed: true,
        };
        let start = Start {
            address: crate::stream::Address::new("127.0.0.1", 1).into(),
            seeds: vec![gone],
            committed: HashSet::new(),
            shift_ns: 0,
            clock: Arc::default(),
        };
        let mut driver = Driver::new(ArmShared::new("arm", understudy_crds::condition::ArmRole::Baseline, 0), start);
        driver.order.opened(info(2));
        let mut actions = Vec::new();
        driver.order.poll(0, &mut actions);
        assert!(matches!(actions.as_slice(), [Action::Open(next)] if next.id == SessionId(2)), "{actions:?}");
    }
}
