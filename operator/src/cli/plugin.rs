//! The commands of `kubectl understudy`: the same words as on one machine, for experiments of a cluster.
//! They read and write the resource, as `kubectl` would; the operator does the rest.

mod resource;
mod view;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use self::resource::Cluster;
use super::{Output, Trouble, end, offline};
use crate::screen::{Format, Screen};

/// Would this change make a PostgreSQL worker better? Try it on clones of a worker of this cluster.
#[derive(Debug, Parser)]
#[command(name = "kubectl understudy", bin_name = "kubectl understudy", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How output is written
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    place: Place,
}

/// Where, as for kubectl.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    /// The namespace [default: the context's]
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// The context of the kubeconfig
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig [default: KUBECONFIG, ~/.kube/config, or the pod's own]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Apply an experiment and follow it to its verdict
    Run {
        /// The experiment
        #[arg(short = 'f', long = "file", value_name = "FILE")]
        file: PathBuf,
    },
    /// Watch an experiment
    Watch {
        /// The experiment's name
        name: String,
        /// Show it once and end
        #[arg(long)]
        once: bool,
    },
    /// Fetch an experiment's report
    Report {
        /// The experiment's name
        name: String,
        /// Where report.html and report.json go
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// Exit with 3 unless the verdict is Better or Equivalent
        #[arg(long)]
        gate: bool,
    },
    /// Roll the winning candidate out to all workers
    Promote {
        /// The experiment's name
        name: String,
        /// The candidate [default: the one that the verdict is about]
        #[arg(long)]
        candidate: Option<String>,
        /// Promote although the verdict is not Better
        #[arg(long)]
        force: bool,
    },
    /// The kill switch: production goes direct, at once
    Halt {
        /// The experiment's name
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// Every experiment of the namespace, or of the cluster with --all-namespaces
        #[arg(long, conflicts_with = "name")]
        all: bool,
        /// With --all: in every namespace
        #[arg(short = 'A', long, requires = "all")]
        all_namespaces: bool,
    },
    /// Print the CustomResourceDefinition
    Crd,
    /// Print a script for the shell's completion
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Whether the process was started under the plugin's name.
pub fn is_called(program: &str) -> bool {
    std::path::Path::new(program).file_name().is_some_and(|name| name == "kubectl-understudy")
}

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    let Arguments { command, output, place } = Arguments::parse();
    let format = if output == Output::Json { Format::Json } else { Format::Text };
    // Only the first call counts.
    let _ = rustls::crypto::ring::default_provider().install_default();
    end(format, async |screen| execute(command, &place, screen, format).await)
}

async fn execute(command: Command, place: &Place, screen: &Screen, format: Format) -> Result<(), Trouble> {
    let cluster = async || Cluster::connect(place.kubeconfig.as_deref(), place.context.as_deref()).await;
    let namespace = place.namespace.as_deref();
    match command {
        Command::Run { file } => {
            let cluster = cluster().await?;
            let name = cluster.apply(&file, namespace).await?;
            view::follow(&cluster.experiments(name.0.as_deref().or(namespace)), &name.1, true, screen, format).await
        }
        Command::Watch { name, once } => {
            let experiments = cluster().await?.experiments(namespace);
            if once {
                view::once(&experiments, &name, screen, format).await
            } else {
                view::follow(&experiments, &name, false, screen, format).await
            }
        }
        Command::Report { name, out, gate } => {
            view::report(&cluster().await?, namespace, &name, &out, gate, screen).await
        }
        Command::Promote { name, candidate, force } => {
            let experiments = cluster().await?.experiments(namespace);
            let chosen = experiments.promote(&name, candidate, force).await?;
            screen
                .note(&format!("{chosen} is being rolled out; `kubectl understudy watch {name}` shows how far it is"));
            Ok(())
        }
        Command::Halt { name, all: _, all_namespaces } => {
            let cluster = cluster().await?;
            for halted in cluster.halt(name.as_deref(), namespace, all_namespaces).await? {
                screen.note(&format!("{halted} is halted: production goes direct"));
            }
            Ok(())
        }
        Command::Crd => {
            offline::crd();
            Ok(())
        }
        Command::Completion { shell } => {
            let mut command = <Arguments as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "kubectl-understudy", &mut std::io::stdout());
            Ok(())
        }
    }
}
