//! The agent's door: it takes orders over mutual TLS, one at a time, and says where the arm stands.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{ConnectInfo, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::mpsc;
use understudy_crds::pods::DATA_DIR;

use crate::platform::{
    kubernetes::protocol::{AgentSays, AgentState, Order},
    local::place::disk_space,
};

/// An order, and the address from which it came.
pub(super) type Given = (Order, IpAddr);

/// The agent's state, and its way to whoever does the work.
pub(super) struct Agent {
    revision: String,
    state: Mutex<AgentState>,
    orders: mpsc::Sender<Given>,
}

impl Agent {
    /// An agent of whom nothing has been asked, and what it will be asked.
    pub(super) fn new(revision: &str) -> (Arc<Self>, mpsc::Receiver<Given>) {
        // One waits while another is done; more at a time nobody has reason to give.
        let (orders, given) = mpsc::channel(1);
        (Arc::new(Self { revision: revision.to_owned(), state: Mutex::new(AgentState::Waiting), orders }), given)
    }

    fn lock(&self) -> MutexGuard<'_, AgentState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the arm stands.
    pub(super) fn state(&self) -> AgentState {
        self.lock().clone()
    }

    /// The arm stands elsewhere now.
    pub(super) fn enter(&self, state: AgentState) {
        *self.lock() = state;
    }

    /// Whether it can go on.
    pub(super) fn well(&self) -> Result<(), String> {
        match &*self.lock() {
            AgentState::Failed(error) => Err(error.what.clone()),
            _ => Ok(()),
        }
    }
}

/// `GET /v1/arm`, `POST /v1/arm`.
pub(super) fn router(agent: Arc<Agent>) -> Router {
    Router::new().route("/v1/arm", get(show).post(take)).with_state(agent)
}

async fn show(State(agent): State<Arc<Agent>>) -> Json<AgentSays> {
    let room_bytes = disk_space(Path::new(DATA_DIR)).ok().map(|space| (space.free_bytes, space.total_bytes));
    Json(AgentSays { revision: agent.revision.clone(), room_bytes, state: agent.state() })
}

async fn take(
    State(agent): State<Arc<Agent>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Json(order): Json<Order>,
) -> Response {
    if !fits(&order, &agent.state()) {
        return (StatusCode::CONFLICT, "the arm is not where this order would make sense\n").into_response();
    }
    match agent.orders.try_send((order, from.ip())) {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(_) => (StatusCode::CONFLICT, "another order is being done\n").into_response(),
    }
}

/// Whether an order makes sense where the arm stands.
fn fits(order: &Order, state: &AgentState) -> bool {
    matches!(
        (order, state),
        (Order::Seed, AgentState::Waiting)
            | (Order::Pause, AgentState::Following)
            | (Order::Cut { .. }, AgentState::Paused)
            | (Order::Apply, AgentState::Own(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::kubernetes::protocol::AtTheCut;

    #[test]
    fn orders_come_in_their_order() {
        let cut = || Order::Cut { lsn: "0/1".into(), ask: Vec::new(), sequences: Vec::new() };
        let own = || AgentState::Own(AtTheCut::default());
        for (order, state, expected) in [
            (Order::Seed, AgentState::Waiting, true),
            (Order::Seed, AgentState::Following, false),
            (Order::Pause, AgentState::Following, true),
            (Order::Pause, own(), false),
            (cut(), AgentState::Paused, true),
            (cut(), AgentState::Following, false),
            (Order::Apply, own(), true),
            (Order::Apply, AgentState::Ready, false),
        ] {
            assert_eq!(fits(&order, &state), expected, "{order:?} in {state:?}");
        }
    }
}
