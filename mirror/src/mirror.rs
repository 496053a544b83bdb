//! A running mirror: starts the production path and the shadow path, and is what the control plane
//! holds. Every method here returns soon or says how long it may take; none is on the production path.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::sync::watch;
use understudy_crds::{
    condition::{ArmRole, ArmState, DivergenceKind},
    status::{ProductionStatus, ShadowExperimentStatus},
};

pub use self::settings::{Settings, StartError, default_memory_bytes};

use crate::{
    capture::exchange::SessionId,
    clock::now_ns,
    cut::{Cut, CutError},
    keepalive::Keepalive,
    measure::recorder::{Observing, Recorder},
    open_files,
    production::{
        client_tls::ClientTls, counters::Counters, held::held_p99_us, listener, run_queue::RunQueue,
        session::Production, tap::Tap, worker::Worker,
    },
    shadow::{
        arm::{self, ArmShared, address::ArmAddress, lock, to_i64},
        arm_clock::ClockKeeper,
        entry::Budget,
        ingest::{self, Command, IngestShared},
        log::{TrafficLog, disk::Disk, spill},
        schema::known::Schemas,
        session_book::SessionSeed,
    },
};

mod observing;
mod settings;

/// How long the sessions have to end when the mirror goes away.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long they have to take leave when they have not ended by then.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// Arms that start a statement in the very same moment get in each other's way where they share cores,
/// which production's own statements do not: a few milliseconds keep the small ones apart, and
/// everything that lasts longer still falls on all arms alike.
const STAGGER: Duration = Duration::from_millis(4);
/// How often the certificate's files are looked at.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(1);
/// How long the ingest may take to answer.
pub(crate) const INGEST_LIMIT: Duration = Duration::from_secs(10);

/// A running mirror.
#[derive(Debug)]
pub struct Mirror {
    /// Where clients connect.
    pub address: SocketAddr,
    pub(crate) production: Arc<Production>,
    pub(crate) ingest: Arc<IngestShared>,
    pub(crate) commands: mpsc::SyncSender<Command>,
    shift: Duration,
    arms: Mutex<Vec<Arc<ArmShared>>>,
    observing: Mutex<Option<(Observing, u64)>>,
    stop: watch::Sender<bool>,
    production_threads: Mutex<Vec<thread::JoinHandle<()>>>,
    other_threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Mirror {
    /// Starts listening, relaying and capturing.
    pub fn start(settings: &Settings) -> Result<Arc<Self>, StartError> {
        now_ns();
        let files = open_files::raise();
        // An experiment has two arms at least.
        tracing::info!(open_files = files, sessions = open_files::sessions(files, 2), "room for sessions");
        let threads = settings.threads.max(1);
        let listener = listener::bind(&settings.listen, threads)?;
        let address = listener.address;
        let tap = Tap::new(threads, settings.memory_bytes);
        let run_queue = Arc::new(RunQueue::new(threads));
        let to = settings.worker.clone();
        let worker = match &settings.worker_tls {
            None => to.into(),
            Some(files) => Worker::new(to, files)?,
        };
        let client_tls = settings.client_tls.clone().map(ClientTls::read).transpose()?;
        let production = Production::new(worker, client_tls, settings.first_packet_limit, Arc::clone(&tap), threads);
        production.keep_alive(settings.keepalive);
        let (stop, stopped) = watch::channel(false);
        let disk = settings.disk.clone().map(Disk::open).transpose()?;
        let ingest = Arc::new(IngestShared {
            recorder: Mutex::new(Recorder::default()),
            log: TrafficLog::new(Budget::new(settings.memory_bytes), disk),
            recorded_until_ns: AtomicU64::new(0),
            clock: Arc::default(),
            schemas: Schemas::default(),
            stop: AtomicBool::new(false),
        });
        let (commands, received) = mpsc::sync_channel(64);
        let shadow = {
            let (ingest, tap) = (Arc::clone(&ingest), Arc::clone(&tap));
            let mut keeper = ClockKeeper::new(Arc::clone(&ingest.clock), Arc::clone(&run_queue), settings.most_behind);
            thread::Builder::new().name("ingest".to_owned()).spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| ingest::run(&ingest, &tap, &mut keeper, &received));
                let caught = std::panic::catch_unwind(run);
                // Without an ingest there is nobody to capture for; production goes on.
                tap.end_capture();
                if caught.is_err() {
                    tracing::error!("the ingest panicked; nothing is captured any more");
                }
            })?
        };
        let mut other_threads = vec![shadow];
        if settings.disk.is_some() {
            let ingest = Arc::clone(&ingest);
            other_threads.push(thread::Builder::new().name("traffic-log".to_owned()).spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| spill::run(&ingest.log, &ingest.stop));
                if std::panic::catch_unwind(run).is_err() {
                    // Arms that fall behind are let go of, as without a disk.
                    tracing::error!("the traffic log's thread panicked; nothing more goes to disk");
                }
            })?);
        }
        if settings.client_tls.is_some() || settings.worker_tls.is_some() {
            let (ingest, production) = (Arc::clone(&ingest), Arc::clone(&production));
            other_threads.push(thread::Builder::new().name("certificates".to_owned()).spawn(move || {
                while !ingest.stop.load(Ordering::Relaxed) {
                    renew(&production);
                    thread::park_timeout(CERTIFICATE_LOOK);
                }
            })?);
        }
        let production_threads =
            listener::start(listener, &production, &run_queue, &stopped, DRAIN_LIMIT + LEAVE_LIMIT)?;
        Ok(Arc::new(Self {
            address,
            production,
            ingest,
            commands,
            shift: settings.shift,
            arms: Mutex::default(),
            observing: Mutex::default(),
            stop,
            production_threads: Mutex::new(production_threads),
            other_threads: Mutex::new(other_threads),
        }))
    }

    /// Adds arms that leave the WAL at a cut; their log begins there. They play once started.
    pub fn arms_at(&self, cut: &Cut, names: &[(String, ArmRole)]) -> Result<ArmsToStart, CutError> {
        let taken: Vec<u32> = self.arms().iter().map(|arm| arm.slot).collect();
        let free = (0..).filter(|slot| !taken.contains(slot));
        let arms: Vec<_> =
            names.iter().zip(free).map(|((name, role), slot)| ArmShared::new(name, *role, slot)).collect();
        let (reply, seeds) = mpsc::channel();
        let command = Command::Cut { at_ns: cut.at_ns, sealed_ns: cut.sealed_ns, arms: arms.clone(), reply };
        self.commands.try_send(command).map_err(|_| CutError::ShadowGone)?;
        let Ok(seeds) = seeds.recv_timeout(INGEST_LIMIT) else {
            // The ingest may come to it yet: nobody would read the log then that is kept for these arms.
            for arm in &arms {
                arm.stop.store(true, Ordering::Relaxed);
            }
            return Err(CutError::ShadowGone);
        };
        lock(&self.arms).extend(arms.iter().cloned());
        Ok(ArmsToStart { arms, seeds })
    }

    /// Starts an arm, once its clone is ready.
    pub fn start_arm(
        &self,
        to_start: &ArmsToStart,
        name: &str,
        address: ArmAddress,
        committed: HashSet<SessionId>,
    ) -> Result<(), StartError> {
        let Some(shared) = to_start.arms.iter().find(|arm| arm.name == name).cloned() else { return Ok(()) };
        let shift = self.shift + STAGGER * shared.slot;
        let start = arm::driver::Start {
            address,
            seeds: to_start.seeds.clone(),
            committed,
            shift_ns: u64::try_from(shift.as_nanos()).unwrap_or(u64::MAX),
            clock: Arc::clone(&self.ingest.clock),
        };
        let thread = thread::Builder::new().name(format!("arm-{name}")).spawn(move || {
            arm::yield_to_production();
            let run = std::panic::AssertUnwindSafe(|| arm::driver::run(&shared, start));
            if std::panic::catch_unwind(run).is_err() {
                shared.lose("the arm's thread panicked");
            }
        })?;
        lock(&self.other_threads).push(thread);
        Ok(())
    }

    /// Takes an arm away. Its counts stay in the status.
    pub fn remove_arm(&self, name: &str) {
        if let Some(arm) = self.arm(name) {
            arm.stop.store(true, Ordering::Relaxed);
            arm.set_state(ArmState::Removed);
        }
    }

    /// Takes an arm away as if it had never been there; another may get its name.
    pub fn forget_arm(&self, name: &str) {
        self.remove_arm(name);
        lock(&self.arms).retain(|arm| arm.name != name);
    }

    /// An arm by its name.
    pub fn arm(&self, name: &str) -> Option<Arc<ArmShared>> {
        lock(&self.arms).iter().find(|arm| arm.name == name).cloned()
    }

    /// All arms.
    pub fn arms(&self) -> Vec<Arc<ArmShared>> {
        lock(&self.arms).clone()
    }

    /// What the mirror itself knows of an experiment's status.
    pub fn status(&self) -> ShadowExperimentStatus {
        let recorder = lock(&self.ingest.recorder);
        let production = ProductionStatus {
            latency: recorder.latency(),
            sessions: to_i64(self.production.sessions.list().len() as u64),
            errors: to_i64(recorder.errors()),
            pipelined: to_i64(recorder.pipelined()),
            too_long: to_i64(recorder.too_long()),
            overhead_p99_us: to_i64(held_p99_us(&self.production.held_us)),
            leaks: 0,
        };
        drop(recorder);
        ShadowExperimentStatus {
            production,
            arms: self.arms().iter().map(|arm| arm.status()).collect(),
            ..ShadowExperimentStatus::default()
        }
    }

    /// What names stand for in the worker's databases. Whoever can ask it tells.
    pub fn schemas(&self) -> &Schemas {
        &self.ingest.schemas
    }

    /// Process ids of the worker's backends behind this mirror, and of those that it is asked over for the mirror's sake.
    pub fn backend_pids(&self) -> Vec<i32> {
        let pid = |s: &Arc<crate::production::sessions::SessionState>| s.backend_pid.load(Ordering::SeqCst);
        let sessions = self.production.sessions.list();
        sessions.iter().map(pid).filter(|pid| *pid != 0).chain(self.ingest.schemas.asking()).collect()
    }

    /// What the production path counts.
    pub fn counters(&self) -> &Counters {
        &self.production.counters
    }

    /// Memory that captured traffic takes, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.ingest.log.budget().used_bytes()
    }

    /// Disk that captured traffic takes, bytes.
    pub fn disk_bytes(&self) -> u64 {
        self.ingest.log.disk_bytes()
    }

    /// For how long the arms' clock has stood still since production's threads waited for a processor, ns.
    pub fn arm_clock_stood_ns(&self) -> u64 {
        self.ingest.clock.stood_ns()
    }

    /// Events that were not captured since the shadow path's memory was full.
    pub fn dropped_events(&self) -> u64 {
        self.production.tap.dropped()
    }

    /// The kill switch: capture ends and the arms stop, at once. The relay goes on.
    pub fn halt(&self) {
        self.production.tap.end_capture();
        self.production.gate.open();
        for arm in self.arms() {
            self.remove_arm(&arm.name);
        }
    }

    /// Sets when clients and the worker of connections that begin from now on are given up, where they say nothing any
    /// more.
    pub fn keep_alive(&self, keepalive: Keepalive) {
        self.production.keep_alive(keepalive);
    }

    /// Whether clients may connect.
    pub fn is_listening(&self) -> bool {
        !self.production.draining.load(Ordering::SeqCst)
    }

    /// Whether traffic is captured.
    pub fn is_capturing(&self) -> bool {
        self.production.tap.is_capturing()
    }

    /// Ends everything: no new clients; sessions end between two transactions, and after 10 s wherever they are.
    /// Blocks until then.
    pub fn stop(&self) {
        self.halt();
        self.production.drain(DRAIN_LIMIT);
        // The threads may have ended already.
        let _ = self.stop.send(true);
        for thread in lock(&self.production_threads).drain(..) {
            // A panic there has been told by the panic hook.
            let _ = thread.join();
        }
        self.ingest.stop.store(true, Ordering::Relaxed);
        for thread in lock(&self.other_threads).drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Looks whether certificates, keys or authorities have changed.
fn renew(production: &Production) {
    match production.client_tls.as_ref().map(|tls| tls.shown.renew()) {
        None | Some(Ok(false)) => {}
        Some(Ok(true)) => tracing::info!("clients are shown the new certificate from now on"),
        Some(Err(error)) => tracing::error!(%error, "the new certificate can't be used; clients are shown the old one"),
    }
    match production.worker.renew() {
        Ok(false) => {}
        Ok(true) => tracing::info!("what is new for TLS to the worker is used from now on"),
        Err(error) => tracing::error!(%error, "what is new for TLS to the worker can't be used; the old goes on"),
    }
}

/// Arms whose log has begun and that have not.
#[derive(Debug)]
pub struct ArmsToStart {
    arms: Vec<Arc<ArmShared>>,
    seeds: Vec<SessionSeed>,
}

impl ArmsToStart {
    /// Transactions that are carried over and may have drawn from sequences before the cut. Played from their beginning they
    /// draw once more, and what they add gets other numbers than on production, as does everything behind it.
    pub fn may_have_drawn(&self) -> usize {
        self.seeds.iter().filter(|seed| seed.may_have_drawn()).count()
    }

    /// So many transactions are taken for ones that the arms do not do as production did.
    pub fn diverge_by(&self, transactions: usize) {
        for arm in &self.arms {
            arm.count(|c| *c.divergence.entry(DivergenceKind::TransactionState).or_default() += transactions as u64);
        }
    }
}
