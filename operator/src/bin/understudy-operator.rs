//! `understudy-operator`: what runs in the cluster. One program, so that one image holds it all: the
//! controller, the mirror pod's and the arm pods' programs, and what brings them into those pods.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use understudy_crds::pods::CONFIG_FILE;
use understudy_mirror::log_output::{DEFAULT_FILTER, stderr};
use understudy_operator::{
    controller::{self, Options, release::release, world::Settings},
    error::{ErrorKind, Side, UserError},
    pod,
};

/// Runs Understudy in a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "understudy-operator", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look after the ShadowExperiments of the cluster
    Controller(ControllerArguments),
    /// The mirror pod: relay, mirror, measure, judge
    Mirror {
        /// The pod's document
        #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
        config: PathBuf,
    },
    /// An arm pod: clone the worker, and obey the mirror pod
    Arm {
        /// The pod's document
        #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
        config: PathBuf,
    },
    /// Copy this program into a directory
    Install {
        /// The directory
        directory: PathBuf,
    },
    /// Production goes direct everywhere, and no experiment waits for the operator: before it is uninstalled
    Release {
        /// The only namespace to look at [default: all]
        #[arg(long, env = "UNDERSTUDY_NAMESPACE")]
        namespace: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct ControllerArguments {
    /// The image with this program, for the pods that are made
    #[arg(long, env = "UNDERSTUDY_IMAGE")]
    image: String,
    /// When nodes pull it: Always, IfNotPresent, Never [default: the cluster's rule]
    #[arg(long, env = "UNDERSTUDY_IMAGE_PULL_POLICY")]
    image_pull_policy: Option<String>,
    /// The only namespace to look at [default: all]
    #[arg(long, env = "UNDERSTUDY_NAMESPACE")]
    namespace: Option<String>,
    /// The cluster's domain, written into the names of pods [default: left out]
    #[arg(long, env = "UNDERSTUDY_CLUSTER_DOMAIN")]
    cluster_domain: Option<String>,
    /// Where health and metrics are served
    #[arg(long, env = "UNDERSTUDY_HTTP", default_value = "0.0.0.0:8080", value_name = "HOST:PORT")]
    http: String,
    /// The namespace of the Lease by which one of several operators leads [default: no election]
    #[arg(long, env = "UNDERSTUDY_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Who this operator is among several [default: the host's name and the process's number]
    #[arg(long, env = "UNDERSTUDY_IDENTITY")]
    identity: Option<String>,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_FILTER.into());
    let (log, _until_written) = stderr();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(log).init();
    // One provider for all: two in one program panic when the first is used. Only the first call counts.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), UserError> {
    if let Command::Install { directory } = &command {
        return install(directory);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| UserError::new(ErrorKind::Exited, Side::Host, "no threads can be started").fact("reason", e))?;
    runtime.block_on(async {
        match command {
            Command::Controller(arguments) => controller::main(options(arguments)).await,
            Command::Mirror { config } => pod::mirror::main(&config).await.map_err(UserError::from),
            Command::Arm { config } => pod::arm::main(&config).await.map_err(UserError::from),
            Command::Install { directory } => install(&directory),
            Command::Release { namespace } => {
                let client = controller::connect().await?;
                let released = release(&client, namespace.as_deref()).await.map_err(|e| {
                    UserError::new(ErrorKind::Unreachable, Side::Host, "not all experiments could be let go")
                        .fact("reason", e)
                })?;
                tracing::info!(experiments = released, "production is direct everywhere");
                Ok(())
            }
        }
    })
}

fn options(arguments: ControllerArguments) -> Options {
    let ControllerArguments { image, image_pull_policy, namespace, cluster_domain, http, lease_namespace, identity } =
        arguments;
    // An unset value of a chart arrives as an empty one.
    let set = |value: Option<String>| value.filter(|value| !value.is_empty());
    let host = || {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{host}-{}", std::process::id())
    };
    Options {
        settings: Settings {
            image,
            image_pull_policy: set(image_pull_policy),
            namespace: set(namespace),
            cluster_domain: set(cluster_domain),
        },
        http,
        lease_namespace: set(lease_namespace),
        identity: set(identity).unwrap_or_else(host),
    }
}

/// Copies this program, for a container of another image that shares the directory.
fn install(directory: &Path) -> Result<(), UserError> {
    let target = directory.join("understudy-operator");
    let failed = |e: &std::io::Error| UserError::file("copy the program", &target, e);
    let this = std::env::current_exe().map_err(|e| failed(&e))?;
    fs::copy(this, &target).map_err(|e| failed(&e))?;
    Ok(())
}
