//! `test-cluster`: a real Kubernetes cluster of three nodes on this one machine, for tests.
//!
//! Every node, and the control plane, is a *machine*: a process tree of its own in its own network,
//! mount, PID, UTS and IPC namespaces, wired to the others by a bridge that only they have. So what runs
//! in the cluster can't touch the host (its firewall rules, bridges, mounts of containers and processes
//! exist only inside), and ending four processes ends all of it. What is outside, because it must be:
//! the interface `us-host`, the routes through it, the loop-mounted file systems under the state
//! directory, and the control groups `understudy-…`; `leftovers.rs` knows how to find each.
//!
//! It needs root. `NetworkPolicy` objects are enforced, by an agent of our own on every node
//! (`kubernetes/policy`), since the bridge plugin does not know them: for TCP, UDP and SCTP over IPv4, within a
//! moment of a change, and not for connections that are open already.
//!
//! It must not be linked into anything that ships.

mod binaries;
mod certificates;
mod cgroups;
mod check;
mod configuration;
mod failure;
mod images;
mod layout;
mod leftovers;
mod machine;
mod network;
mod program;
mod progress;
mod status;
mod up;
mod volumes;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{failure::Outcome, layout::Layout};

/// A real Kubernetes cluster of three nodes on this machine, for tests.
#[derive(Debug, Parser)]
#[command(name = "test-cluster", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where the cluster's files are
    #[arg(long, global = true, value_name = "DIR", default_value = "target/cluster")]
    state: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster; what is left of a killed one is cleared first
    Up {
        /// Where cargo put Understudy's binaries, for its image
        #[arg(long, value_name = "DIR", default_value = "target/release")]
        binaries: PathBuf,
        /// Take a cluster of another directory down, instead of refusing
        #[arg(long)]
        replace: bool,
        /// Start anew even when the cluster is up
        #[arg(long)]
        fresh: bool,
    },
    /// Stop the cluster and clear everything it left outside its directory
    Down {
        /// Clusters of other directories too
        #[arg(long)]
        all: bool,
    },
    /// Make the images again, and give them to the nodes when the cluster is up
    Images {
        /// Where cargo put Understudy's binaries, for their image
        #[arg(long, value_name = "DIR", default_value = "target/release")]
        binaries: PathBuf,
    },
    /// Say what is up
    Status,
    /// Run a PostgreSQL on the cluster, and reach it in every way that tests need
    Check,
    /// One machine of the cluster; `up` starts these
    #[command(hide = true)]
    Machine {
        /// Which one
        name: String,
    },
}

fn main() -> ExitCode {
    let Arguments { command, state } = Arguments::parse();
    match run(command, &state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            progress::complain(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, state: &Path) -> Outcome<()> {
    let layout = Layout::new(state)?;
    if !rustix::process::geteuid().is_root() {
        return Err("the test cluster needs root: namespaces, mounts and control groups".into());
    }
    let _lock = match command {
        Command::Up { .. } | Command::Down { .. } | Command::Images { .. } => Some(layout.lock()?),
        Command::Status | Command::Check | Command::Machine { .. } => None,
    };
    match command {
        Command::Up { binaries, replace, fresh } => up::up(&layout, &binaries, replace, fresh),
        Command::Down { all } => up::down(&layout, all),
        Command::Images { binaries } => up::images(&layout, &binaries),
        Command::Status => status::print(&layout),
        Command::Check => check::check(&layout),
        Command::Machine { name } => machine::inside::run(&layout, &name),
    }
}
