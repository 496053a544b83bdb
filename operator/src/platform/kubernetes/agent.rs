//! An arm's agent, as the mirror pod sees it: orders, and waiting until they are done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::ClientConfig;
use tokio::time::{Instant, sleep};
use understudy_crds::{
    condition::ArmRole,
    pods::{AGENT_PORT, ArmPeer},
};
use understudy_mirror::tls::TlsClient;

use super::protocol::{AgentSays, AgentState, Order};
use crate::{
    error::{ErrorKind, Side, UserError},
    peer::{http::Peer, identity::expecting},
    plan::Disk,
};

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// An arm whose agent is silent for so long, once it had spoken, is lost.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);

/// The agent of one arm.
pub struct Agent {
    /// The arm's name.
    pub name: String,
    /// What the arm is for.
    pub role: ArmRole,
    /// Its pod's DNS name.
    pub host: String,
    revision: String,
    /// Whom to expect there and who to be, for the agent and for PostgreSQL alike.
    pub tls: TlsClient,
    peer: Peer,
    heard: Mutex<Option<Instant>>,
    room_bytes: Mutex<Option<(u64, u64)>>,
}

impl Agent {
    /// The agent of an arm.
    pub fn new(arm: &ArmPeer, config: Arc<ClientConfig>) -> Result<Self, UserError> {
        let tls = expecting(&arm.host, config).map_err(|error| {
            UserError::new(ErrorKind::Unreachable, Side::Arm, format!("the pod of {} can't be known", arm.name))
                .fact("reason", error)
        })?;
        let peer = Peer::new(&arm.host, AGENT_PORT, tls.clone());
        let ArmPeer { name, role, host, revision } = arm.clone();
        Ok(Self { name, role, host, revision, tls, peer, heard: Mutex::default(), room_bytes: Mutex::default() })
    }

    /// Where the arm stands; `None` when nobody answers, or a pod that had the name before.
    async fn look(&self) -> Option<AgentState> {
        match self.peer.get("/v1/arm", ANSWER_LIMIT).await {
            Ok(AgentSays { revision, .. }) if revision != self.revision => None,
            Ok(AgentSays { state, room_bytes, .. }) => {
                *self.room_bytes.lock().unwrap_or_else(PoisonError::into_inner) = room_bytes;
                *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                Some(state)
            }
            Err(error) => {
                tracing::debug!(arm = self.name, %error, "the agent does not answer");
                None
            }
        }
    }

    /// The room on its volume, as it last said.
    pub fn disk(&self) -> Option<Disk> {
        let (free_bytes, total_bytes) = (*self.room_bytes.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(Disk { arm: self.name.clone(), free_bytes, total_bytes })
    }

    fn silent_for(&self) -> Option<Duration> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).map(|heard| heard.elapsed())
    }

    fn silent(&self) -> Option<UserError> {
        self.silent_for().filter(|silence| *silence > SILENCE_LIMIT).map(|_| {
            UserError::new(ErrorKind::Unreachable, Side::Arm, format!("the pod of {} does not answer", self.name))
                .fact("limit", format!("{} s", SILENCE_LIMIT.as_secs()))
        })
    }

    /// Gives an order. That it was taken is all that is known then.
    pub async fn order(&self, order: &Order) -> Result<(), UserError> {
        self.peer.post("/v1/arm", order, ANSWER_LIMIT).await.map_err(|error| {
            UserError::new(ErrorKind::Unreachable, Side::Arm, format!("the pod of {} takes no order", self.name))
                .fact("reason", error)
        })
    }

    /// Waits until `done` says so of the arm's state. A pod that has not spoken yet is waited for; one
    /// that had and is silent now, or says that it failed, is an error.
    pub async fn until<T>(
        &self,
        every: Duration,
        limit: Option<Duration>,
        mut done: impl FnMut(&AgentState) -> Option<T>,
    ) -> Result<T, UserError> {
        let began = Instant::now();
        loop {
            match self.look().await {
                Some(AgentState::Failed(error)) => return Err(error),
                Some(state) => {
                    if let Some(result) = done(&state) {
                        return Ok(result);
                    }
                }
                None => {
                    if let Some(error) = self.silent() {
                        return Err(error);
                    }
                }
            }
            if limit.is_some_and(|limit| began.elapsed() > limit) {
                return Err(UserError::new(
                    ErrorKind::TimedOut,
                    Side::Arm,
                    format!("the pod of {} did not get done in time", self.name),
                )
                .fact("limit", format!("{} s", limit.unwrap_or_default().as_secs())));
            }
            sleep(every).await;
        }
    }

    /// Why an arm that lives on mirrored traffic is lost, if it is.
    pub async fn trouble(&self) -> Option<UserError> {
        match self.look().await {
            Some(AgentState::Own(_) | AgentState::Applying | AgentState::Ready) => None,
            Some(AgentState::Failed(error)) => Some(error),
            Some(_) => Some(
                UserError::new(ErrorKind::Exited, Side::Arm, format!("the pod of {} was started anew", self.name))
                    .fact("reason", "what it holds is not the worker's data any more"),
            ),
            None => self.silent(),
        }
    }
}
