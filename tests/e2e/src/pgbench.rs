//! `pgbench`, the tool that everybody knows, as a client of the mirror.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use tokio::{process::Command, task::JoinHandle, time::timeout};
use understudy_harness::Cluster;

fn program(cluster: &Cluster) -> PathBuf {
    cluster.server().spec().binaries.program("pgbench")
}

/// Makes pgbench's tables, one `scale` being 100,000 accounts.
pub async fn initialise(cluster: &Cluster, scale: u32) {
    let done = Command::new(program(cluster))
        .args(["-i", "-q", "-s", &scale.to_string(), "-h", "127.0.0.1", "-U", "postgres", "postgres"])
        .args(["-p", &cluster.port().to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = timeout(Duration::from_secs(60), done).await.expect("pgbench -i within a minute").expect("pgbench");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// What a pgbench said at its end.
#[derive(Debug, Clone)]
pub struct Bench {
    /// It exited with 0.
    pub success: bool,
    /// Transactions that were answered.
    pub transactions: u64,
    /// Transactions that failed.
    pub failed: u64,
    /// Everything that it printed.
    pub text: String,
}

impl Bench {
    /// Fails the test unless no client saw an error.
    pub fn expect_clean(&self) {
        assert!(self.success, "pgbench failed: {}", self.text);
        assert_eq!(self.failed, 0, "{}", self.text);
        assert!(self.transactions > 0, "{}", self.text);
        for word in ["error", "aborted", "fatal"] {
            assert!(!self.text.to_lowercase().contains(word), "{}", self.text);
        }
    }
}

/// How much eight clients do.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// As much as the machine gives: with the arms on it too, they fall behind.
    Full,
    /// So many transactions a second, at times drawn at random: what arms on the same machine can keep up with.
    PerSecond(u32),
}

/// Starts TPC-B with 8 clients for some seconds.
pub fn start(cluster: &Cluster, through: SocketAddr, mode: &str, load: Load, seconds: u64) -> JoinHandle<Bench> {
    let mut command = Command::new(program(cluster));
    command
        .args(["-n", "-c", "8", "-j", "2", "-M", mode, "-T", &seconds.to_string(), "-U", "postgres"])
        .args(["-h", &through.ip().to_string(), "-p", &through.port().to_string(), "postgres"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Load::PerSecond(transactions) = load {
        command.args(["-R", &transactions.to_string()]);
    }
    tokio::spawn(async move {
        let limit = Duration::from_secs(seconds + 30);
        let done = timeout(limit, command.output()).await.expect("pgbench ends").expect("pgbench");
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        Bench {
            success: done.status.success(),
            transactions: number("number of transactions actually processed:").unwrap_or(0),
            // Versions before 15 do not count what they do not retry.
            failed: number("number of failed transactions:").unwrap_or(0),
            text,
        }
    })
}
