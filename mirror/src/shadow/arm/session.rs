//! The life of one session on an arm: it logs in, plays what it is handed, one exchange after the
//! other, and tells what came of each. Must not decide when anything is played.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use understudy_crds::experiment::StatementClass;

use crate::{
    capture::exchange::{Outcome, SessionId, SessionInfo, is_circumstance},
    shadow::{
        arm::address::ArmAddress,
        entry::Entry,
        player::{PlayError, Player, login::FULL},
        undone::{Undone, undone_commit},
    },
    wire::backend::TransactionStatus,
};

/// What a player is to play.
#[derive(Debug)]
pub struct Job {
    /// What.
    pub entry: Arc<Entry>,
    /// When it was due on the mirror's clock, ns since its epoch.
    pub due_ns: u64,
}

/// An exchange that has been played, or could not be.
#[derive(Debug)]
pub struct Done {
    /// In which session.
    pub session: SessionId,
    /// What.
    pub entry: Arc<Entry>,
    /// When it was due, ns since the mirror's epoch.
    pub due_ns: u64,
    /// What came of it, and whether the arm's transaction stood elsewhere then.
    pub played: Result<(Outcome, bool), PlayError>,
}

/// What a player tells.
#[derive(Debug)]
pub enum Told {
    /// The session has logged in, and this is its backend's process id, or it can't.
    LoggedIn(SessionId, Option<i32>),
    /// Sessions that wait for a lock, and the process ids of the backends that have it.
    Locks(Vec<(SessionId, i32)>),
    /// An exchange is over.
    Done(Done),
    /// A session that nothing is handed to any more is gone from the arm.
    Left,
}

/// The life of one session on the arm.
pub async fn play_session(
    address: ArmAddress,
    info: Arc<SessionInfo>,
    prologue: Vec<Bytes>,
    mut jobs: mpsc::Receiver<Job>,
    report: mpsc::UnboundedSender<Told>,
) {
    tracing::debug!(session = info.id.0, "session plays");
    // In places of their own, while they last: what a session's task has room for, it keeps.
    let mut opened = Box::pin(Player::open(&address, &info, &prologue)).await;
    // Who listened may have gone.
    let _ = report.send(Told::LoggedIn(info.id, opened.as_ref().ok().map(Player::backend_pid)));
    while let Some(Job { entry, due_ns }) = next(&mut jobs, &mut opened).await {
        let session = entry.exchange.session;
        if matches!(&opened, Err(PlayError::Refused(sqlstate)) if sqlstate != FULL) {
            // What made its role or its database had been finished before this exchange, and is here only now.
            opened = Box::pin(Player::open(&address, &info, &prologue)).await;
        }
        let played = match &mut opened {
            Ok(player) => play(player, &entry).await,
            Err(_) => match std::mem::replace(&mut opened, Err(PlayError::Refused(String::new()))) {
                Err(error) => Err(error),
                Ok(_) => Err(PlayError::Refused(String::new())),
            },
        };
        let failed = played.is_err();
        if report.send(Told::Done(Done { session, entry, due_ns, played })).is_err() || failed {
            return;
        }
    }
    if let Ok(player) = opened {
        Box::pin(player.close()).await;
    }
    let _ = report.send(Told::Left);
}

/// What is to be played next. A session that ends before it comes has ended when it is to be played.
async fn next(jobs: &mut mpsc::Receiver<Job>, opened: &mut Result<Player, PlayError>) -> Option<Job> {
    if let Ok(player) = opened {
        let ended = tokio::select! {
            biased;
            job = jobs.recv() => return job,
            ended = player.listen() => ended,
        };
        *opened = Err(ended);
    }
    jobs.recv().await
}

/// Plays one exchange from where production's transaction stood to where it stood then. Whether the arm's
/// stood elsewhere in the end.
pub async fn play(player: &mut Player, entry: &Entry) -> Result<(Outcome, bool), PlayError> {
    // Whatever began before production's outcome was known may have left another transaction behind than
    // production's.
    let undone = entry.outcome().and_then(|production| undone_commit(entry, production));
    if undone.is_some() {
        player.align(TransactionStatus::Failed).await?;
    } else if let Some(production) = entry.outcome().filter(|o| !o.broken) {
        player.align(production.before).await?;
    }
    let outcome = player.play(entry).await?;
    if entry.statements.iter().any(|statement| statement.class == StatementClass::Utility) {
        Box::pin(player.switch_off_what_was_set(&entry.exchange.request)).await?;
    }
    let misaligned = match entry.outcome() {
        Some(production) if !production.broken => {
            let differed = player.align(production.after).await?;
            // What failed for a reason of the moment need not have failed here.
            differed && !production.error().is_some_and(is_circumstance)
        }
        _ => false,
    };
    Ok((outcome, misaligned || undone == Some(Undone::Partly)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{stream::Address, wire::startup::Startup};

    /// As on the production path: there are thousands of them.
    #[test]
    fn the_task_of_a_session_has_no_room_for_what_it_does_once() {
        const MOST_BYTES: usize = 2048;
        let info = Arc::new(SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 });
        let ((_, jobs), (report, _)) = (mpsc::channel(1), mpsc::unbounded_channel());
        let task = play_session(Address::new("127.0.0.1", 1).into(), info, Vec::new(), jobs, report);
        assert!(size_of_val(&task) <= MOST_BYTES, "{} bytes", size_of_val(&task));
    }
}
