//! A server that nobody plays to, which dies as an arm's does: what the death of a server costs its neighbours on the
//! same machine, whoever its clients are. Its sessions have read as much as an arm's before anything is measured, and must
//! ask for nothing while it is.

use std::time::Duration;

use understudy_e2e::wire::{Wire, query};
use understudy_harness::Cluster;

use crate::place;

/// The server.
#[derive(Debug)]
pub struct Bystander(Cluster);

impl Bystander {
    /// One like an arm.
    pub async fn new() -> Self {
        Self(place::server().await)
    }

    /// Opens sessions that have each read so many accounts.
    pub async fn sessions(&self, sessions: u32, accounts: f64) -> Vec<Wire> {
        let read = query(&format!(
            "SELECT sum((SELECT abalance FROM pgbench_accounts a WHERE a.aid = picked.aid)) FROM (SELECT 1 + \
             (random() * 999999)::int AS aid FROM generate_series(1, {accounts:.0})) AS picked"
        ));
        let mut open = Vec::new();
        for _ in 0..sessions {
            let mut wire = Wire::connect(([127, 0, 0, 1], self.0.port()).into()).await;
            wire.discard(&read).await;
            open.push(wire);
        }
        open
    }

    /// Its death, as an arm's.
    pub async fn die(&mut self) {
        self.0.server_mut().stop_immediately().await;
    }

    /// It starts again behind its death.
    pub async fn start_again(&mut self, limit: Duration) {
        self.0.server_mut().start_again(limit).await.expect("the bystander again");
    }
}
