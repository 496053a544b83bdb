//! Measures the demo's data set and workload on a real server: how long loading takes, what the
//! traffic costs, and what the candidate of the demo's experiment changes.
//!
//! Give it an empty database of a server that is yours to fill, as a superuser:
//! `cargo run -p understudy-operator --example demo_workload -- "host=/tmp/pg user=postgres dbname=app" [SECONDS] [RATE]`

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::{error::Error, time::Duration};

use tokio_postgres::{Client, Config, NoTls};
use understudy_crds::experiment::{LocalTarget, StatementClass};
use understudy_operator::demo::{
    dataset, experiment,
    workload::{Workload, WorkloadHandle},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let config: Config = arguments.next().ok_or("name the server: \"host=… user=… dbname=…\"")?.parse()?;
    let seconds: u64 = arguments.next().map_or(Ok(20), |text| text.parse())?;
    let rate: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);

    if client.query_one_scalar::<bool, _>("SELECT to_regclass('events') IS NULL", &[]).await? {
        let started = std::time::Instant::now();
        let loaded = dataset::load(&client, |_, _| {}).await?;
        println!(
            "loaded {} events, {} MB, in {:.1} s",
            loaded.events,
            loaded.bytes / 1_000_000,
            started.elapsed().as_secs_f64()
        );
    }

    let workload = Workload::start(config.clone(), 1, rate).await?;
    measure("worker as it is", &workload, &client, seconds).await?;

    let target = LocalTarget {
        host: "127.0.0.1".into(),
        port: 5432,
        user: "postgres".into(),
        database: "app".into(),
        password_file: None,
        listen: "127.0.0.1:0".into(),
    };
    let spec = experiment::experiment(target).spec;
    println!("judged: {:?}", spec.success.iter().map(|criterion| criterion.class).collect::<Vec<StatementClass>>());
    let candidate = spec.candidates.into_iter().next().ok_or("the experiment has no candidate")?;
    let sql = candidate.sql.ok_or("the candidate has no SQL")?;
    for statement in &sql.apply {
        client.batch_execute(statement).await?;
    }
    for (name, value) in &candidate.parameters {
        client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await?;
    }
    client.batch_execute("SELECT pg_reload_conf()").await?;
    measure("with the candidate", &workload, &client, seconds).await?;

    let before = workload.stats();
    workload.reconnect_to(config).await?;
    println!("reconnected {} sessions", workload.stats().moves - before.moves);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (stats, ledger) = workload.stop().await;
    println!("{stats:#?}");
    println!("{:?}", ledger.check(&client).await?);

    for statement in &sql.revert {
        client.batch_execute(statement).await?;
    }
    for name in candidate.parameters.keys() {
        client.batch_execute(&format!("ALTER SYSTEM RESET {name}")).await?;
    }
    client.batch_execute("SELECT pg_reload_conf()").await?;
    Ok(())
}

/// Lets the caches settle, then measures for `seconds`.
async fn measure(what: &str, workload: &WorkloadHandle, client: &Client, seconds: u64) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    workload.take_latency();
    let before = workload.stats();
    let cpu_before = server_cpu_seconds(client).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cpu = server_cpu_seconds(client).await? - cpu_before;
    let latency = workload.take_latency();
    let after = workload.stats();
    let per_second = |count: u64| count as f64 / seconds as f64;
    println!("{what}");
    println!("  server    {:.1} % of one core", 100.0 * cpu / seconds as f64);
    println!(
        "  traffic   {:.0} transactions/s, {:.0} statements/s, {} arrivals dropped, {} unexpected errors",
        per_second(after.transactions - before.transactions),
        per_second(after.statements - before.statements),
        after.dropped - before.dropped,
        after.unexpected_errors - before.unexpected_errors
    );
    for (class, samples) in [("reads", &latency.read), ("writes", &latency.write)] {
        let [p50, p75, p95, p99] = samples.quantiles_us([0.5, 0.75, 0.95, 0.99]).map(|us| f64::from(us) / 1000.0);
        println!(
            "  {class:<8}  p50 {p50:7.2}  p75 {p75:7.2}  p95 {p95:7.2}  p99 {p99:7.2} ms   {} statements",
            samples.count()
        );
    }
    Ok(())
}

/// CPU time of the server on this machine: the postmaster, its children, and those that have ended.
async fn server_cpu_seconds(client: &Client) -> Result<f64> {
    let pid: i32 = client.query_one_scalar("SELECT pg_backend_pid()", &[]).await?;
    let ticks = |pid: &str| -> Option<(i64, u64, u64)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let parent = fields.get(1)?.parse().ok()?;
        Some((parent, number(11)? + number(12)?, number(13)? + number(14)?))
    };
    let (postmaster, ..) = ticks(&pid.to_string()).ok_or("the server does not run on this machine")?;
    let (_, own, ended) = ticks(&postmaster.to_string()).ok_or("the server has no parent process")?;
    let children: u64 = std::fs::read_dir("/proc")?
        .filter_map(|entry| ticks(entry.ok()?.file_name().to_str()?))
        .filter_map(|(parent, own, _)| (parent == postmaster).then_some(own))
        .sum();
    Ok((own + ended + children) as f64 / 100.0)
}
