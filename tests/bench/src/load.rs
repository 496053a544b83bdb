//! pgbench as the client: point reads with prepared statements, the load that shows a hop's cost best.

use std::{fs, path::Path, process::Stdio};

use tokio::process::Command;
use understudy_harness::Cluster;

/// What a load did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Transactions a second.
    pub tps: f64,
    /// Transactions.
    pub transactions: f64,
}

/// Runs it as fast as it goes.
pub async fn flood(worker: &Cluster, port: u16, clients: u32, seconds: u64) -> Done {
    pgbench(worker, port, clients, seconds, &[]).await
}

/// Runs it at a rate; the 99th percentile of the latency, from when each transaction was due, µs.
pub async fn paced(worker: &Cluster, port: u16, clients: u32, seconds: u64, rate: f64) -> f64 {
    let directory = tempfile::tempdir().expect("a directory for the latencies");
    let prefix = directory.path().join("latency");
    let (rate, prefix) = (format!("{rate:.0}"), prefix.to_string_lossy().into_owned());
    pgbench(worker, port, clients, seconds, &["-R", &rate, "-l", "--log-prefix", &prefix]).await;
    p99(directory.path())
}

/// So many transactions of one client.
pub async fn exactly(worker: &Cluster, port: u16, transactions: u32) -> Done {
    run(worker, port, &["-c", "1", "-t", &transactions.to_string()]).await
}

async fn pgbench(worker: &Cluster, port: u16, clients: u32, seconds: u64, more: &[&str]) -> Done {
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    run(worker, port, &[&["-c", &clients, "-T", &seconds][..], more].concat()).await
}

async fn run(worker: &Cluster, port: u16, more: &[&str]) -> Done {
    let port = port.to_string();
    let done = Command::new(worker.server().spec().binaries.program("pgbench"))
        .args(["-n", "-S", "-M", "prepared"])
        .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "postgres"])
        .args(more)
        .stdin(Stdio::null())
        .output();
    let done = done.await.expect("pgbench");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "pgbench failed: {text}{}", String::from_utf8_lossy(&done.stderr));
    let number = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        // Of a number that was asked for, it is told how many were done: 1000/1000.
        let number = line.and_then(|line| line.trim().split([' ', '/']).next()?.parse().ok());
        number.unwrap_or_else(|| panic!("pgbench says nothing of {name} {text}"))
    };
    Done { tps: number("tps = "), transactions: number("number of transactions actually processed: ") }
}

/// The third column of pgbench's log is the latency, µs.
fn p99(directory: &Path) -> f64 {
    let mut all: Vec<u64> = Vec::new();
    for file in fs::read_dir(directory).expect("the latencies").flatten() {
        let text = fs::read_to_string(file.path()).expect("a log of latencies");
        all.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()));
    }
    all.sort_unstable();
    let place = (all.len() * 99 / 100).min(all.len().saturating_sub(1));
    all.get(place).map_or(0.0, |us| *us as f64)
}
