//! How the clients leave a mirror that is going away: they are let finish. No Service leads to it by then;
//! who is still connected stays connected, until it closes by itself or the limit is over.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use understudy_mirror::mirror::Mirror;

use crate::{error::UserError, run::Companion};

/// How long clients may stay connected through a mirror that no Service leads to.
const LEAVING_LIMIT: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(200);

/// What happens around a run in a pod.
pub(super) struct Leaving {
    mirror: Arc<Mirror>,
    released: watch::Receiver<bool>,
}

impl Leaving {
    /// `released` says when no Service leads here any more.
    pub(super) fn new(mirror: Arc<Mirror>, released: watch::Receiver<bool>) -> Self {
        Self { mirror, released }
    }
}

impl Companion for Leaving {
    async fn mirror_ready(&mut self, _: SocketAddr) -> Result<(), UserError> {
        Ok(())
    }

    async fn mirror_leaving(&mut self) -> Result<(), UserError> {
        // As long as the Service may lead here, the relay goes on: production comes first.
        if self.released.wait_for(|released| *released).await.is_err() {
            std::future::pending::<()>().await;
        }
        clients_have_left(&self.mirror).await;
        Ok(())
    }

    fn transactions(&self) -> Option<u64> {
        None
    }
}

/// Waits until nobody is connected any more, within a limit.
pub(super) async fn clients_have_left(mirror: &Mirror) {
    let until = Instant::now() + LEAVING_LIMIT;
    while mirror.status().production.sessions > 0 && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
}
