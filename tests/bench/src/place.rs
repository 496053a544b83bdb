//! The servers of a benchmark: a worker and an arm, which have the same tables.

use std::path::PathBuf;

use tempfile::TempDir;
use understudy_e2e::pgbench;
use understudy_harness::{Cluster, server_account};

/// A million accounts: 150 MB, which fit into memory, as a relay's cost shows best.
const SCALE: u32 = 10;

/// Two servers, and a directory for the peers' settings.
#[derive(Debug)]
pub struct Place {
    /// Production.
    pub worker: Cluster,
    /// An arm.
    pub arm: Cluster,
    directory: TempDir,
}

impl Place {
    /// Starts and fills both.
    pub async fn new() -> Self {
        println!("starting two servers with {SCALE} times 100,000 accounts each");
        let (worker, arm) = (server().await, server().await);
        let directory = tempfile::Builder::new().prefix("understudy-bench-").tempdir_in("/tmp").expect("a directory");
        server_account().take(directory.path()).expect("a directory that the peers may read");
        Self { worker, arm, directory }
    }

    /// Writes a file that the peers may read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        server_account().take(&path).expect("a file that the peers may read");
        path
    }
}

/// One of them.
pub async fn server() -> Cluster {
    let cluster = Cluster::builder().setting("shared_buffers", "256MB").setting("max_connections", "200").start().await;
    pgbench::initialise(&cluster, SCALE).await;
    cluster
}
