//! Makes the exact cut (ARCHITECTURE.md): closes the mirror's gate, asks the worker, decides, and opens the
//! gate again; as often as it takes, for `CUT_LIMIT` at most. Production waits no longer than `maxPause` each time.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use understudy_crds::{condition::ArmRole, experiment::DirectSessions, status::CutStatus};
use understudy_mirror::{
    capture::exchange::SessionId,
    cut::{Cut, CutError, InFlight},
    mirror::{ArmsToStart, Mirror},
};

use crate::{
    error::{ErrorKind, Side, UserError},
    platform::{
        Platform,
        local::{
            cut::{CutDecision, CutProbe, Fate, RetryReason, decide},
            direct::DirectSession,
            recovery::Recovered,
        },
    },
};

/// For so long the cut is tried.
const CUT_LIMIT: Duration = Duration::from_secs(120);
/// Between two attempts: production catches its breath.
const PAUSE_BETWEEN: Duration = Duration::from_millis(250);
/// So often a cut that holds is given up for another with no open transaction that may have drawn from a sequence; each
/// attempt is a pause of production's.
const MOST_FOR_SEQUENCES: u32 = 5;
/// Between two of those: such transactions take longer than a pause.
const PAUSE_FOR_SEQUENCES: Duration = Duration::from_secs(1);
/// Between a backend's appearance on the worker and the mirror's knowing of it lies less than this.
const LOGIN: Duration = Duration::from_millis(200);

/// A cut that holds.
pub struct CutMade {
    /// Arms whose log has begun.
    pub to_start: ArmsToStart,
    /// What the worker said at that moment.
    pub probe: CutProbe,
    /// For the status.
    pub status: CutStatus,
    /// What was under way.
    pub in_flight: Vec<InFlight>,
    /// Transactions carried over that may have drawn from sequences.
    pub drawn: usize,
    fates: BTreeMap<i32, Fate>,
}

impl CutMade {
    /// The transactions that only the clones can settle.
    pub fn in_doubt(&self) -> Vec<u64> {
        self.fates
            .values()
            .filter_map(|fate| match fate {
                Fate::Ask(xid) => Some(*xid),
                Fate::NotCommitted => None,
            })
            .collect()
    }

    /// The sessions whose transaction in doubt a clone has.
    pub fn committed(&self, recovered: &Recovered) -> HashSet<SessionId> {
        self.in_flight
            .iter()
            .filter(|flight| match self.fates.get(&flight.backend_pid) {
                Some(Fate::Ask(xid)) => recovered.committed.get(xid) == Some(&true),
                Some(Fate::NotCommitted) | None => false,
            })
            .map(|flight| flight.session)
            .collect()
    }
}

/// Makes a cut for all arms at once.
pub async fn make<P: Platform>(
    platform: &P,
    mirror: &Mirror,
    arms: &[(String, ArmRole)],
    max_pause: Duration,
) -> Result<CutMade, UserError> {
    let _released = Released(mirror);
    attempts(platform, mirror, arms, max_pause).await
}

/// What was kept for the cut is let go of when this is dropped, also when the cut is given up half-way.
struct Released<'a>(&'a Mirror);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.release_cut();
    }
}

async fn attempts<P: Platform>(
    platform: &P,
    mirror: &Mirror,
    arms: &[(String, ArmRole)],
    max_pause: Duration,
) -> Result<CutMade, UserError> {
    let until = Instant::now() + CUT_LIMIT;
    let (mut attempts, mut for_sequences, mut last) = (0, 0, String::new());
    while Instant::now() < until {
        attempts += 1;
        // Anew for each attempt: what ended before the one that failed need not be kept.
        mirror.prepare_cut().await.map_err(gone)?;
        match attempt(platform, mirror, max_pause).await? {
            Ok((probe, cut, fates)) => {
                let to_start = mirror.arms_at(&cut, arms).map_err(gone)?;
                let drawn = if probe.sequences.is_empty() { 0 } else { to_start.may_have_drawn() };
                if drawn > 0 && for_sequences < MOST_FOR_SEQUENCES {
                    for_sequences += 1;
                    last = format!("{drawn} open transactions may have drawn from sequences");
                    for (name, _) in arms {
                        mirror.forget_arm(name);
                    }
                    sleep(PAUSE_FOR_SEQUENCES).await;
                    continue;
                }
                to_start.diverge_by(drawn);
                let status = CutStatus {
                    lsn: probe.lsn.to_string(),
                    pause_ms: (cut.pause.as_secs_f64() * 1e4).round() / 10.0,
                    attempts,
                    carried_over: i32::try_from(cut.carried_over).unwrap_or(i32::MAX),
                };
                return Ok(CutMade { to_start, probe, status, in_flight: cut.in_flight, drawn, fates });
            }
            Err(why) => last = why,
        }
        sleep(PAUSE_BETWEEN).await;
    }
    Err(UserError::new(ErrorKind::CutFailed, Side::Worker, "no moment was found for the cut")
        .fact("attempts", attempts)
        .fact("last", last)
        .fact("pause", format!("{} ms at most", max_pause.as_millis()))
        .remedy("allow a longer spec.cut.maxPause, or try again when fewer long transactions write"))
}

type Held = (CutProbe, Cut, BTreeMap<i32, Fate>);

/// One attempt; why it does not hold, if it does not.
async fn attempt<P: Platform>(
    platform: &P,
    mirror: &Mirror,
    max_pause: Duration,
) -> Result<Result<Held, String>, UserError> {
    let gate = mirror.close_gate(max_pause).await;
    if gate.in_flight.iter().any(|flight| flight.pipelined) {
        return Ok(Err("several exchanges of one session were under way".to_owned()));
    }
    let Ok(probe) = timeout(gate.left(), platform.probe()).await else {
        return Ok(Err("the worker did not answer within the pause".to_owned()));
    };
    let probe = probe?;
    let pids: Vec<i32> = gate.in_flight.iter().map(|flight| flight.backend_pid).collect();
    match decide(&pids, &probe.before, &probe.after, gate.ended_since() > 0) {
        CutDecision::Retry(reason) => Ok(Err(words(reason))),
        CutDecision::Holds(fates) => match gate.seal() {
            Some(cut) => Ok(Ok((probe, cut, fates))),
            None => Ok(Err("an exchange ended while the worker was asked".to_owned())),
        },
    }
}

/// Why a cut does not hold, for people.
fn words(reason: RetryReason) -> String {
    match reason {
        RetryReason::ExchangeEnded => "an exchange ended while the worker was asked".to_owned(),
        RetryReason::BackendGone(pid) => format!("a session ended (backend {pid})"),
        RetryReason::BetweenTransactions(pid) => format!("backend {pid} was between two transactions"),
        RetryReason::TransactionChanged(pid) => format!("backend {pid} ended its transaction"),
        RetryReason::CommitsInside(pid) => format!("a statement that commits inside was running (backend {pid})"),
        RetryReason::Prepared(pid) => format!("a two-phase commit was running (backend {pid})"),
    }
}

fn gone(error: CutError) -> UserError {
    UserError::new(ErrorKind::CutFailed, Side::Host, "the mirror can't make a cut").fact("reason", error)
}

/// Sessions that reach the worker around the mirror. Who is logging in through the mirror just now is
/// seen on the worker before the mirror knows its process: only who is found a second time, with the
/// mirror asked anew, comes around it. A client of production would be ended otherwise.
pub(super) async fn direct_sessions<P: Platform>(
    platform: &P,
    mirror: &Mirror,
) -> Result<Vec<DirectSession>, UserError> {
    let mut found = platform.direct_sessions(&mirror.backend_pids()).await?;
    if !found.is_empty() {
        sleep(LOGIN).await;
        let again = platform.direct_sessions(&mirror.backend_pids()).await?;
        found.retain(|session| again.iter().any(|other| other.pid == session.pid));
    }
    Ok(found)
}

/// Deals with sessions that reach the worker around the mirror, as the experiment says: a transaction
/// that is open in one of them at the cut could commit something that nobody plays.
pub async fn drain_direct<P: Platform>(
    platform: &P,
    mirror: &Mirror,
    policy: DirectSessions,
    mut waiting: impl FnMut(&[DirectSession]),
) -> Result<Vec<DirectSession>, UserError> {
    loop {
        let found = direct_sessions(platform, mirror).await?;
        let left_behind = |s: &DirectSession| P::DIRECT_SESSIONS_MUST_LEAVE && s.comes_over_the_network();
        let stays = |s: &&DirectSession| s.in_transaction || s.writing || left_behind(s);
        let busy: Vec<DirectSession> = found.iter().filter(stays).cloned().collect();
        match policy {
            DirectSessions::Ignore => return Ok(found),
            DirectSessions::Terminate if !found.is_empty() => {
                platform.terminate_direct(&found).await?;
            }
            DirectSessions::Terminate | DirectSessions::Wait if busy.is_empty() => return Ok(found),
            DirectSessions::Wait | DirectSessions::Terminate => waiting(&busy),
        }
        sleep(Duration::from_millis(500)).await;
    }
}
