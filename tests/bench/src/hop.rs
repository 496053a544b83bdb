//! Throughput and processor time of each target, in interleaved rounds.

use serde::Serialize;

use crate::{
    figures::{median, median_ratio, order},
    floors::Check,
    load,
    place::Place,
    target::{Kind, Target},
};

/// How many clients there are at once: the latency of one, and what a full machine does.
const CLIENTS: [u32; 2] = [1, 16];

/// One target under so many clients: a figure for each round.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What stood between.
    pub target: Kind,
    /// Clients at once.
    pub clients: u32,
    /// Transactions a second.
    pub tps: Vec<f64>,
    /// Processor time of the program between, µs a transaction.
    pub cpu_us: Vec<f64>,
}

/// Measures all of them.
pub async fn measure(place: &Place, rounds: usize, seconds: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = CLIENTS
        .iter()
        .flat_map(|clients| Kind::ALL.map(|target| (target, *clients)))
        .map(|(target, clients)| Row { target, clients, tps: Vec::new(), cpu_us: Vec::new() })
        .collect();
    // What comes first would pay for filling the caches.
    load::flood(&place.worker, place.worker.port(), 4, seconds).await;
    for round in 1..=rounds {
        println!("round {round} of {rounds}: {} targets, {seconds} s each", rows.len());
        for n in order(rows.len(), round) {
            let Some(row) = rows.get_mut(n) else { continue };
            let target = Target::start(row.target, place).await;
            let before_us = target.cpu_us();
            let done = load::flood(&place.worker, target.port, row.clients, seconds).await;
            target.settled().await;
            row.tps.push(done.tps);
            row.cpu_us.push((target.cpu_us() - before_us) / done.transactions);
        }
    }
    print(&rows);
    rows
}

fn print(rows: &[Row]) {
    println!("\n  {:<26} {:>7} {:>10} {:>10} {:>12}", "target", "clients", "tps", "of direct", "µs CPU a txn");
    for row in rows {
        let direct = find(rows, Kind::Direct, row.clients).map_or(&[][..], |row| &row.tps);
        let cpu =
            if row.target == Kind::Direct { "–".to_owned() } else { format!("{:.1}", median(row.cpu_us.clone())) };
        println!(
            "  {:<26} {:>7} {:>10.0} {:>10.3} {cpu:>12}",
            row.target.name(),
            row.clients,
            median(row.tps.clone()),
            median_ratio(&row.tps, direct)
        );
    }
}

fn find(rows: &[Row], target: Kind, clients: u32) -> Option<&Row> {
    rows.iter().find(|row| row.target == target && row.clients == clients)
}

/// The floors and aims of a hop.
pub fn checks(rows: &[Row]) -> Vec<Check> {
    let mut checks = Vec::new();
    for clients in CLIENTS {
        let of = |kind| find(rows, kind, clients);
        let (Some(haproxy), Some(pgbouncer)) = (of(Kind::HaProxy), of(Kind::PgBouncer)) else { continue };
        let (Some(alone), Some(mirrored)) = (of(Kind::Understudy), of(Kind::UnderstudyWithArm)) else { continue };
        let cpu = |of: &Row, to: &Row| median_ratio(&of.cpu_us, &to.cpu_us);
        let tps = |of: &Row, to: &Row| median_ratio(&of.tps, &to.tps);
        let peer = |to: &Row, share: f64, by: &Row| share * cpu(to, by);
        // An aim that names PgBouncer is told in HAProxy's terms, of the same rounds.
        let (cpu_aim, mirrored_aim) = (peer(pgbouncer, 1.0, haproxy), peer(pgbouncer, 1.9, haproxy));
        let tps_aim = 1.06 * tps(pgbouncer, haproxy);
        let (tps_floor, tps_with_arm_aim) = if clients == 1 { (0.65, 0.80) } else { (0.75, 0.90) };
        checks.extend([
            Check::at_most(format!("CPU, no arm ÷ HAProxy, c={clients}"), cpu(alone, haproxy), 1.15, Some(cpu_aim)),
            Check::at_least(format!("tps, no arm ÷ HAProxy, c={clients}"), tps(alone, haproxy), 0.97, Some(tps_aim)),
            Check::at_most(
                format!("CPU, one arm ÷ HAProxy, c={clients}"),
                cpu(mirrored, haproxy),
                2.2,
                Some(mirrored_aim),
            ),
            Check::at_least(
                format!("tps, one arm ÷ HAProxy, c={clients}"),
                tps(mirrored, haproxy),
                tps_floor,
                Some(tps_with_arm_aim),
            ),
        ]);
    }
    checks
}
