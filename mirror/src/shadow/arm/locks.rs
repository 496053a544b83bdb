//! Who waits for whose lock on an arm, as its server tells, over a session of our own. One question at a time, and not
//! often. Must not know what follows from the answer.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use super::{address::ArmAddress, session::Told};
use crate::{
    capture::exchange::{SessionId, SessionInfo},
    shadow::player::{PlayError, Player},
    wire::startup::Startup,
};

/// A server that takes longer is not asked again by the same session.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Backends that wait, and the backends that they wait for.
const QUESTION: &str = "SELECT waits, pg_catalog.unnest(pg_catalog.pg_blocking_pids(waits)) FROM pg_catalog.unnest(";

/// About whom is asked.
#[derive(Debug)]
pub struct Question {
    /// A session of the arm, as whose user it is asked.
    pub info: Arc<SessionInfo>,
    /// Sessions that may wait, and their backends' process ids.
    pub about: Vec<(SessionId, i32)>,
}

/// Answers questions until nobody asks any more.
pub async fn answer(address: ArmAddress, mut questions: mpsc::Receiver<Question>, report: mpsc::UnboundedSender<Told>) {
    let mut asker = None;
    while let Some(Question { info, about }) = questions.recv().await {
        let found = timeout(ANSWER_LIMIT, ask(&address, &info, &about, &mut asker)).await;
        if !matches!(found, Ok(Ok(_))) {
            asker = None;
        }
        // Who can't be asked tells of nobody: what is stuck is let go of by its time.
        let locks = found.ok().and_then(Result::ok).unwrap_or_default();
        if report.send(Told::Locks(locks)).is_err() {
            return;
        }
    }
}

async fn ask(
    address: &ArmAddress,
    info: &SessionInfo,
    about: &[(SessionId, i32)],
    asker: &mut Option<Player>,
) -> Result<Vec<(SessionId, i32)>, PlayError> {
    let player = match asker {
        Some(player) => player,
        None => asker.insert(Player::open(address, &nobody_s(info), &[]).await?),
    };
    let pids: Vec<_> = about.iter().map(|(_, pid)| pid.to_string()).collect();
    let sql = format!("{QUESTION}'{{{}}}'::pg_catalog.int4[]) AS waits", pids.join(","));
    let rows = player.numbers(&sql).await?;
    let of = |pid: i32| about.iter().find(|(_, waits)| *waits == pid).map(|(session, _)| *session);
    Ok(rows
        .iter()
        .filter_map(|row| if let [waits, holder] = row[..] { Some((of(waits)?, holder)) } else { None })
        .collect())
}

/// A session of the same user in the same database, and nothing of what else its client had asked for.
fn nobody_s(info: &SessionInfo) -> SessionInfo {
    let own = |(name, _): &&(String, String)| name == "user" || name == "database";
    let parameters = info.startup.parameters.iter().filter(own).cloned().collect();
    SessionInfo { id: info.id, startup: Startup { protocol: 3 << 16, parameters }, backend_pid: 0 }
}
