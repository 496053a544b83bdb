//! Throughput and processor time of each target, in interleaved rounds.

use serde::{Deserialize, Serialize};

use crate::{
    figures::{median, median_ratio, order, ratios},
    floors::{AT_MOST_AS_MANY, Check},
    load,
    place::Place,
    target::{Kind, Target},
};

/// How many clients there are at once: the latency of one, and what a full machine does.
const CLIENTS: [u32; 2] = [1, 16];

/// One target under so many clients: a figure for each round.
#[derive(Debug, Clone, Serialize, Deserialize)]
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

/// Measures all of them, and goes on for a while where a figure is not clear.
pub async fn measure(place: &Place, rounds: usize, seconds: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = CLIENTS
        .iter()
        .flat_map(|clients| Kind::ALL.map(|target| (target, *clients)))
        .map(|(target, clients)| Row { target, clients, tps: Vec::new(), cpu_us: Vec::new() })
        .collect();
    // What comes first would pay for filling the caches.
    load::flood(&place.worker, place.worker.port(), 4, seconds).await;
    for round in 1..=rounds * AT_MOST_AS_MANY {
        let is_wanted = |clients: &u32| round <= rounds || !checks_of(&rows, *clients).iter().all(Check::is_clear);
        let wanted: Vec<u32> = CLIENTS.into_iter().filter(is_wanted).collect();
        if wanted.is_empty() {
            break;
        }
        let why = if round <= rounds { format!("of {rounds}") } else { "since a figure is not clear".to_owned() };
        println!("round {round} {why}: {} targets, clients: {wanted:?}, {seconds} s each", Kind::ALL.len());
        for n in order(rows.len(), round) {
            let Some(row) = rows.get_mut(n).filter(|row| wanted.contains(&row.clients)) else { continue };
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
    CLIENTS.into_iter().flat_map(|clients| checks_of(rows, clients)).collect()
}

fn checks_of(rows: &[Row], clients: u32) -> Vec<Check> {
    let of = |kind| find(rows, kind, clients);
    let (Some(haproxy), Some(pgbouncer)) = (of(Kind::HaProxy), of(Kind::PgBouncer)) else { return Vec::new() };
    let (Some(alone), Some(mirrored)) = (of(Kind::Understudy), of(Kind::UnderstudyWithArm)) else { return Vec::new() };
    // An aim that names PgBouncer is told in HAProxy's terms, of the same rounds.
    let cpu_aim = |share: f64| Some(share * median_ratio(&pgbouncer.cpu_us, &haproxy.cpu_us));
    let tps_aim = 1.06 * median_ratio(&pgbouncer.tps, &haproxy.tps);
    let (tps_floor, tps_with_arm_aim) = if clients == 1 { (0.65, 0.80) } else { (0.75, 0.90) };
    let cpu = |what: &str, of: &Row, floor: f64, aim: Option<f64>| {
        let each = ratios(&of.cpu_us, &haproxy.cpu_us);
        let what = format!("CPU, {what} ÷ HAProxy, c={clients}");
        Check::at_most(what, median(each.iter().copied()), floor, aim).of_rounds(each)
    };
    let tps = |what: &str, of: &Row, floor: f64, aim: f64| {
        let each = ratios(&of.tps, &haproxy.tps);
        let what = format!("tps, {what} ÷ HAProxy, c={clients}");
        Check::at_least(what, median(each.iter().copied()), floor, Some(aim)).of_rounds(each)
    };
    vec![
        cpu("no arm", alone, 1.15, cpu_aim(1.0)),
        tps("no arm", alone, 0.97, tps_aim),
        cpu("one arm", mirrored, 2.2, cpu_aim(1.9)),
        tps("one arm", mirrored, tps_floor, tps_with_arm_aim),
    ]
}
