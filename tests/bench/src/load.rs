//! pgbench as the client: point reads with prepared statements, the load that shows a hop's cost best.

use std::{fs, process::Stdio};

use tokio::process::Command;
use understudy_harness::Cluster;

use crate::figures::geometric_mean;

/// Clients have machines of their own: one that waits for a processor here finds every answer late. Of the same windows
/// the 99th percentiles differed by 29 % without this, and by 20 % with it. Only root may do so.
const BEFORE_ALL: i32 = -15;

/// What a load did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Transactions a second.
    pub tps: f64,
    /// Transactions.
    pub transactions: f64,
}

/// How long latencies of one percentile are, µs: a stall that is a hundredth of it is seen, and one window is told apart
/// from another. Of 32 windows of six seconds beside a healthy arm, the percentiles of the whole differed by 25 %
/// (logarithms' deviation), the geometric means of those of half seconds by 15.
const PIECE_US: u64 = 500_000;

/// The 99th percentile of a load's latencies, µs.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    /// Of all of them.
    pub whole_us: f64,
    /// Of those of each half second, their geometric mean: a stall of 50 ms in six seconds is a hundredth of the whole, and
    /// may not be seen there at all; it is here.
    pub pieces_us: f64,
}

/// Runs it as fast as it goes.
pub async fn flood(worker: &Cluster, port: u16, clients: u32, seconds: u64) -> Done {
    run(worker, port, 0, &["-c", &clients.to_string(), "-T", &seconds.to_string()]).await
}

/// Runs it at a rate for so many seconds behind a beginning, which does not count; the 99th percentile of the latency, from
/// when each transaction was due.
pub async fn paced(worker: &Cluster, port: u16, clients: u32, beginning: u64, seconds: u64, rate: f64) -> Tail {
    let directory = tempfile::tempdir().expect("a directory for the latencies");
    let prefix = directory.path().join("latency");
    let (rate, prefix) = (format!("{rate:.0}"), prefix.to_string_lossy().into_owned());
    let (clients, both) = (clients.to_string(), (beginning + seconds).to_string());
    let more = ["-c", &clients, "-T", &both, "-R", &rate, "-l", "--log-prefix", &prefix];
    run(worker, port, BEFORE_ALL, &more).await;
    let logs = fs::read_dir(directory.path()).expect("the latencies").flatten();
    let texts: Vec<_> = logs.map(|log| fs::read_to_string(log.path()).expect("a log of latencies")).collect();
    tail(&texts, beginning, seconds)
}

/// So many transactions of one client.
pub async fn exactly(worker: &Cluster, port: u16, transactions: u32) -> Done {
    run(worker, port, 0, &["-c", "1", "-t", &transactions.to_string()]).await
}

async fn run(worker: &Cluster, port: u16, niceness: i32, more: &[&str]) -> Done {
    let (port, niceness) = (port.to_string(), niceness.to_string());
    let done = Command::new("nice")
        .args(["-n", &niceness])
        .arg(worker.server().spec().binaries.program("pgbench"))
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

/// The 99th percentile of so many seconds behind the first. The third column of pgbench's log is the latency, µs, the
/// fifth and the sixth are when the transaction ended, in seconds and µs.
fn tail(logs: &[String], beginning: u64, seconds: u64) -> Tail {
    let ended_us = |fields: &[u64]| Some(fields.get(4)? * 1_000_000 + fields.get(5)?);
    let line = |line: &str| -> Option<(u64, u64)> {
        let fields: Vec<u64> = line.split(' ').map_while(|field| field.parse().ok()).collect();
        Some((ended_us(&fields)?, *fields.get(2)?))
    };
    let all: Vec<(u64, u64)> = logs.iter().flat_map(|log| log.lines()).filter_map(line).collect();
    let from_us = all.iter().map(|(ended_us, _)| ended_us).min().map_or(0, |first| first + beginning * 1_000_000);
    let p99_us = |from_us: u64, until_us: u64| {
        let counted = all.iter().filter(|(ended_us, _)| (from_us..until_us).contains(ended_us));
        let mut counted: Vec<u64> = counted.map(|(_, us)| *us).collect();
        counted.sort_unstable();
        let place = (counted.len() * 99 / 100).min(counted.len().saturating_sub(1));
        counted.get(place).map(|us| *us as f64)
    };
    // What ended later is of transactions that were due before the end.
    let begins = (0..seconds * 1_000_000 / PIECE_US).map(|n| from_us + n * PIECE_US);
    let pieces: Vec<f64> = begins.filter_map(|begin_us| p99_us(begin_us, begin_us + PIECE_US)).collect();
    Tail { whole_us: p99_us(from_us, u64::MAX).unwrap_or_default(), pieces_us: geometric_mean(&pieces) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_the_beginning_does_not_count() {
        // Client, number, latency, script, seconds, µs, lag.
        let logs =
            ["0 1 9000 0 100 500000 3\n0 2 200 0 101 499999 1\n".to_owned(), "1 1 300 0 101 500000 2\n".to_owned()];
        let [all, behind] = [tail(&logs, 0, 2).whole_us, tail(&logs, 1, 1).whole_us];
        assert_eq!([all.to_bits(), behind.to_bits()], [9000_f64.to_bits(), 300_f64.to_bits()]);
        assert_eq!(tail(&[], 1, 1).whole_us.to_bits(), 0_f64.to_bits());
    }

    #[test]
    fn a_stall_of_one_half_second_is_seen() {
        // A thousand transactions in each of four half seconds; fifteen of one stall, which are no hundredth of all.
        let line = |n: u64| {
            let us = if (2_000..2_015).contains(&n) { 40_000 } else { 1_000 };
            format!("0 {n} {us} 0 {} {} 0\n", 100 + n / 2_000, n % 2_000 * 500)
        };
        let log: String = (0..4_000).map(line).collect();
        let Tail { whole_us, pieces_us } = tail(&[log], 0, 2);
        assert_eq!(whole_us.to_bits(), 1_000_f64.to_bits());
        assert!((pieces_us / 1_000.0 - 40_f64.powf(0.25)).abs() < 1e-6, "{pieces_us}");
        assert_eq!(tail(&[], 1, 1).pieces_us.to_bits(), 0_f64.to_bits());
    }
}
