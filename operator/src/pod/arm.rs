//! The arm pod's program: an agent that makes a clone of the worker in the pod's volume, runs it, and does
//! what the mirror pod says. It decides nothing, and reaches nothing but the worker.

mod agent;
mod life;

use std::{path::Path, sync::Arc};

use axum::Router;
use understudy_crds::pods::{AGENT_PORT, ArmPod, TLS_DIR};

use self::agent::Agent;
use super::{PodError, document, health, http};
use crate::peer::identity::Identity;

/// Runs until the pod is told to go.
pub async fn main(config: &Path) -> Result<(), PodError> {
    let document: ArmPod = document::read(config)?;
    let identity = Identity::read(Path::new(TLS_DIR))?;
    let tls = identity.server()?;
    let listener = http::listen(AGENT_PORT).await?;
    tracing::info!(experiment = document.experiment, arm = document.arm, "the agent waits for orders");
    let (agent, orders) = Agent::new(&document.revision);
    let (alive, ready) = (Arc::clone(&agent), Arc::clone(&agent));
    health::serve(health::at_once(move || alive.well()), health::at_once(move || ready.well()), Router::new()).await?;
    let served = tokio::spawn(http::serve(listener, tls, agent::router(Arc::clone(&agent))));
    tokio::select! {
        () = life::live(&document, &identity, &agent, orders) => {
            // It can't go on; it says why to whoever asks, until the pod goes.
            document::told_to_go().await?;
        }
        result = document::told_to_go() => result?,
    }
    served.abort();
    Ok(())
}
