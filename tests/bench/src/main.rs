//! `bench-hop`: what the mirror's hop costs, beside a direct connection, HAProxy and PgBouncer.
//!
//! Everything is measured in one run and in interleaved rounds, and told as ratios: the machine may be
//! shared and noisy. It prints, writes JSON, and fails when a floor is missed. It must not tune what it
//! measures: every peer runs with the least that it has to be told.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that can't have what it needs has failed, and printing is what it is for"
)]

mod bulk;
mod bystander;
mod figures;
mod floors;
mod hop;
mod idle;
mod instructions;
mod isolation;
mod load;
mod machine;
mod neighbour;
mod place;
mod process;
#[cfg(test)]
mod runs;
mod target;
mod trouble;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::{floors::Check, place::Place};

/// Measures the mirror's hop.
#[derive(Debug, Parser)]
struct Arguments {
    /// Interleaved rounds
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of load on each target in each round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Idle sessions
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// As many of them as this machine has room for, and not all of them in a machine of its own
    #[arg(long)]
    here: bool,
    /// Where the figures go [default: hop.json in target/bench, instructions.json if nothing else is asked for]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Makes the counted instructions and system calls the ones that later runs are held against
    #[arg(long)]
    accept: bool,
    /// Only these parts; instructions and system calls are counted only when asked for
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Throughput and processor time per transaction
    Hop,
    /// Large results
    Bulk,
    /// Production beside what may ail an arm or the log
    #[value(alias = "hung")]
    Isolation,
    /// Memory of idle sessions
    Idle,
    /// Instructions and system calls for one exchange, by callgrind and strace
    Instructions,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
struct Figures {
    rounds: usize,
    seconds: u64,
    hop: Vec<hop::Row>,
    bulk: Vec<bulk::Row>,
    isolation: Option<isolation::Figures>,
    idle: Option<idle::Figures>,
    instructions: Option<instructions::Figures>,
    checks: Vec<Check>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { rounds, seconds, sessions, here, out, accept, parts } = Arguments::parse();
    let wanted = |part: Part| parts.is_empty() || parts.contains(&part);
    let name = if parts == [Part::Instructions] { "instructions.json" } else { "hop.json" };
    let out = out.unwrap_or_else(|| PathBuf::from("target/bench").join(name));
    let mut figures = Figures { rounds, seconds, ..Figures::default() };
    // Idle sessions have servers of their own.
    if parts.iter().any(|part| *part != Part::Idle) || parts.is_empty() {
        let mut place = Place::new().await;
        if wanted(Part::Hop) {
            figures.hop = hop::measure(&place, rounds, seconds).await;
            figures.checks.extend(hop::checks(&figures.hop));
        }
        if wanted(Part::Bulk) {
            figures.bulk = bulk::measure(&place, rounds).await;
            figures.checks.extend(bulk::checks(&figures.bulk));
        }
        if wanted(Part::Isolation) {
            let measured = isolation::measure(&mut place, rounds, seconds).await;
            figures.checks.extend(isolation::checks(&measured));
            figures.isolation = Some(measured);
        }
        // Callgrind makes the mirror fifty times slower: not beside the others unless it is wanted.
        if parts.contains(&Part::Instructions) {
            let measured = instructions::measure(&place).await;
            if accept {
                instructions::accept(&measured);
            }
            figures.checks.extend(instructions::checks(&measured));
            figures.instructions = Some(measured);
        }
    }
    if wanted(Part::Idle) {
        let measured = idle::measure(sessions, here).await;
        figures.checks.extend(idle::checks(&measured));
        figures.idle = Some(measured);
    }
    floors::print(&figures.checks);
    if let Some(directory) = out.parent() {
        fs::create_dir_all(directory).expect("a directory for the figures");
    }
    let text = serde_json::to_string_pretty(&figures).expect("figures");
    fs::write(&out, text + "\n").expect("the figures' file");
    println!("written to {}", out.display());
    let held = !figures.checks.is_empty() && figures.checks.iter().all(Check::holds);
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
