//! A session beside the load that is measured: it asks the same thing again and again, as often whether the answers
//! come early or late.

use std::time::Duration;

use tokio::{task::JoinHandle, time::interval};
use understudy_e2e::wire::{Wire, query};

const A_ROW: &str = "INSERT INTO notes VALUES (repeat('x', 200))";
const ROW_EVERY: Duration = Duration::from_millis(10);
/// A megabyte.
const A_LARGE_RESULT: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
const LARGE_RESULT_EVERY: Duration = Duration::from_millis(50);

/// The session.
#[derive(Debug)]
pub struct Neighbour(JoinHandle<()>);

impl Neighbour {
    /// Writes a hundred rows a second.
    pub async fn writing(port: u16) -> Self {
        Self::asking(port, A_ROW, ROW_EVERY).await
    }

    /// Reads 20 MB a second.
    pub async fn reading(port: u16) -> Self {
        Self::asking(port, A_LARGE_RESULT, LARGE_RESULT_EVERY).await
    }

    async fn asking(port: u16, statement: &str, every: Duration) -> Self {
        let mut wire = Wire::connect(([127, 0, 0, 1], port).into()).await;
        let question = query(statement);
        Self(tokio::spawn(async move {
            // What is late is made up for: both sides of a comparison are asked for as much.
            let mut ticks = interval(every);
            loop {
                ticks.tick().await;
                wire.discard(&question).await;
            }
        }))
    }

    /// Ends it; nothing has gone wrong with it until then.
    pub fn end(self) {
        assert!(!self.0.is_finished(), "a neighbour has lost its session");
        self.0.abort();
    }
}
