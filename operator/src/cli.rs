//! The commands of `understudy`: flags in, exit status out (0 done, 1 failed, 2 wrong usage, 3 a gate
//! that does not let through). What a command does lives elsewhere.

mod demo;
mod offline;
mod plugin;
mod running;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    error::UserError,
    screen::{Failure, Format, Screen},
};

/// Would this change make a PostgreSQL worker better? Clone it with the change, mirror production's
/// traffic to the clone, compare, promote.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How output is written
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// JSON documents, or events one a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on this machine: from nothing to a promoted change and a report
    Demo {
        /// Do not ask before starting
        #[arg(long)]
        yes: bool,
        /// Where the demo's files go
        #[arg(long, value_name = "DIR", default_value = "understudy-demo")]
        out: PathBuf,
        /// Leave the servers' files afterwards
        #[arg(long)]
        keep: bool,
    },
    /// Run an experiment on a server that this machine reaches
    Run {
        /// The experiment
        #[arg(short = 'f', long = "file", value_name = "FILE")]
        file: PathBuf,
        /// Where results go [default: understudy/NAME]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// The results store [default: sqlite:DIR/results.db]
        #[arg(long, value_name = "URL")]
        store: Option<String>,
        /// Serve the admin HTTP: /v1/status, /metrics, /healthz, /readyz
        #[arg(long, value_name = "HOST:PORT")]
        admin: Option<String>,
        /// Promote a candidate that is Better, whatever the experiment's policy
        #[arg(long)]
        promote: bool,
        /// Compare all tables of the worker and the arms at the end
        #[arg(long)]
        verify: bool,
    },
    /// Watch a running experiment
    Watch {
        #[command(flatten)]
        which: Which,
        /// Show it once and end
        #[arg(long)]
        once: bool,
    },
    /// Make an experiment's report again from the results store
    Report {
        #[command(flatten)]
        which: Which,
        /// The results store [default: sqlite:DIR/results.db]
        #[arg(long, value_name = "URL")]
        store: Option<String>,
        /// Exit with 3 unless the verdict is Better or Equivalent
        #[arg(long)]
        gate: bool,
    },
    /// Put the winning candidate of an experiment on the worker
    Promote {
        #[command(flatten)]
        which: Which,
        /// The results store [default: sqlite:DIR/results.db]
        #[arg(long, value_name = "URL")]
        store: Option<String>,
        /// The candidate [default: the one that the verdict is about]
        #[arg(long)]
        candidate: Option<String>,
        /// Promote although the verdict is not Better
        #[arg(long)]
        force: bool,
    },
    /// The kill switch: production goes direct, at once
    Halt {
        #[command(flatten)]
        which: Which,
    },
    /// Play recorded traffic again (not supported yet)
    Replay {},
    /// Print the CustomResourceDefinition
    Crd,
}

/// Which experiment.
#[derive(Debug, clap::Args)]
struct Which {
    /// The experiment's name
    name: Option<String>,
    /// The directory of its results [default: understudy/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Which {
    fn directory(&self) -> Result<PathBuf, Trouble> {
        match (&self.out, &self.name) {
            (Some(out), _) => Ok(out.clone()),
            (None, Some(name)) => Ok(default_out(name)),
            (None, None) => Err(Trouble::Usage("name the experiment, or its directory with --out".to_owned())),
        }
    }
}

fn default_out(name: &str) -> PathBuf {
    Path::new("understudy").join(name)
}

fn default_store(out: &Path) -> String {
    format!("sqlite:{}", out.join("results.db").display())
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
enum Trouble {
    /// It was asked wrongly: status 2.
    Usage(String),
    /// It failed: status 1.
    Failed(Box<UserError>),
    /// A gate does not let through: status 3.
    Gate(String),
    /// It did its work, and what it found is not good: status 1, all has been said.
    Found,
}

impl From<UserError> for Trouble {
    fn from(error: UserError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Runs the command that the process's arguments ask for; under the name `kubectl-understudy`, those of
/// the kubectl plugin.
pub fn main() -> ExitCode {
    if plugin::is_called(&std::env::args().next().unwrap_or_default()) {
        return plugin::main();
    }
    let Arguments { command, output } = Arguments::parse();
    let format = if output == Output::Json { Format::Json } else { Format::Text };
    end(format, async |screen| execute(command, screen, format).await)
}

/// Runs a command, shows how it failed, and says its exit status.
fn end(format: Format, command: impl AsyncFnOnce(&Screen) -> Result<(), Trouble>) -> ExitCode {
    let (log, _until_written) = understudy_mirror::log_output::stderr();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("UNDERSTUDY_LOG").unwrap_or_else(|_| "off".into()))
        .with_writer(log)
        .init();
    let screen = Screen::new(format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.failure(&Failure::new(format!("can't start: {error}")));
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(command(&screen));
    // Nothing that is left may keep the process: what matters has been waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Usage(what)) => {
            screen.failure(&Failure::new(what));
            ExitCode::from(2)
        }
        Err(Trouble::Failed(error)) => {
            screen.failure(&Failure::from(&*error));
            ExitCode::from(1)
        }
        Err(Trouble::Gate(why)) => {
            screen.note(&why);
            ExitCode::from(3)
        }
        Err(Trouble::Found) => ExitCode::from(1),
    }
}

async fn execute(command: Command, screen: &Screen, format: Format) -> Result<(), Trouble> {
    match command {
        Command::Demo { yes, out, keep } => Box::pin(demo::run(yes, &out, keep, screen)).await,
        Command::Run { file, out, store, admin, promote, verify } => {
            let asked = running::Asked { file, out, store, admin, promote, verify };
            running::run(asked, screen).await
        }
        Command::Watch { which, once } => running::watch(&which, once, screen, format).await,
        Command::Halt { which } => running::halt(&which, screen).await,
        Command::Report { which, store, gate } => offline::report(&which, store, gate, screen, format).await,
        Command::Promote { which, store, candidate, force } => {
            offline::promote(&which, store, candidate, force, screen).await
        }
        Command::Replay {} => Err(offline::no_replay().into()),
        Command::Crd => {
            offline::crd();
            Ok(())
        }
    }
}

/// The kill switch, thrown by Ctrl-C, SIGTERM and SIGHUP.
fn halt_switch() -> watch::Sender<bool> {
    let (switch, _) = watch::channel(false);
    let thrown = switch.clone();
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut hang_up)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        else {
            return tracing::error!("signals can't be caught");
        };
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            thrown.send_replace(true);
        }
    });
    switch
}
