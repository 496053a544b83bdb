//! `understudy-mirror`: the mirror alone, in front of one worker, with arms that are there already.
//!
//! It reads flags and the configuration document, starts the mirror, and ends it on SIGTERM or
//! Ctrl-C. Nothing is decided here.

use std::{collections::HashSet, fs, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use understudy_crds::{
    condition::ArmRole,
    labels::BASELINE,
    mirror_config::{ClientTlsConfig, MirrorArm, MirrorConfig, TcpKeepalive, TlsVersion, WorkerTlsConfig},
    quantity::Span,
    status::ShadowExperimentStatus,
};
use understudy_mirror::{
    admin::{self, Admin, Verbs},
    huge_pages,
    keepalive::Keepalive,
    log_output::{DEFAULT_FILTER, stderr},
    mirror::{Mirror, Settings},
    production::{client_tls::ClientTlsFiles, worker::WorkerTlsFiles},
    shadow::log::disk::DiskSettings,
    stream::Address,
};

/// Relays PostgreSQL traffic to a worker and plays it to arms, whose answers nobody sees.
#[derive(Debug, Parser)]
#[command(name = "understudy-mirror", version)]
struct Arguments {
    /// Where clients connect
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The production server; a unix socket is named by its directory: /run/postgresql:5432
    #[arg(long, value_name = "HOST:PORT")]
    worker: Option<String>,
    /// An arm, identical to the worker now, that lets the mirror in without a password
    #[arg(long = "arm", value_name = "NAME=HOST:PORT")]
    arms: Vec<String>,
    /// The configuration document; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Where the admin HTTP listens
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

struct Alone {
    mirror: Arc<Mirror>,
}

impl Admin for Alone {
    fn status(&self) -> ShadowExperimentStatus {
        self.mirror.status()
    }

    fn halt(&self) {
        self.mirror.halt();
    }

    fn mirror(&self) -> &Mirror {
        &self.mirror
    }
}

#[expect(clippy::print_stderr, reason = "the one place where this command says why it failed")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (log, _until_written) = stderr();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_FILTER.into()),
        )
        .with_writer(log)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, MainError::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn run(arguments: Arguments) -> Result<(), MainError> {
    huge_pages::avoid();
    let config = configuration(arguments)?;
    let (settings, arms) = settings(&config)?;
    let verbs = match &config.admin_token_file {
        None => Verbs::Refused,
        Some(file) => {
            let text =
                fs::read_to_string(file).map_err(|e| MainError::Failed(format!("adminTokenFile {file}: {e}")))?;
            match text.lines().next().map(str::trim) {
                Some(token) if !token.is_empty() => Verbs::Token(token.into()),
                _ => return Err(MainError::Failed(format!("adminTokenFile {file}: its first line is empty"))),
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| MainError::Failed(format!("can't start the runtime: {e}")))?;
    runtime.block_on(serve(&settings, &arms, config.admin.as_deref(), verbs))
}

async fn serve(
    settings: &Settings,
    arms: &[(String, ArmRole, Address)],
    admin_address: Option<&str>,
    verbs: Verbs,
) -> Result<(), MainError> {
    let failed = |e: &dyn std::fmt::Display| MainError::Failed(e.to_string());
    // Before anybody can connect: who is connected is taken leave of.
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| failed(&e))?;
    let mirror = Mirror::start(settings).map_err(|e| failed(&e))?;
    if arms.is_empty() {
        // Nobody will ever ask for what would be captured.
        mirror.halt();
    } else {
        start_arms(&mirror, arms).await?;
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    if let Some(address) = admin_address {
        let router = admin::router(Arc::new(Alone { mirror: Arc::clone(&mirror) }), verbs);
        let mut until = stopped;
        let until = async move {
            // The sender going away is an end as well.
            let _ = until.wait_for(|stop| *stop).await;
        };
        let bound = admin::serve_tcp(address, router, until)
            .await
            .map_err(|e| MainError::Failed(format!("the admin HTTP can't listen on {address}: {e}")))?;
        say(&format!("admin HTTP on http://{bound}"));
    }
    tracing::info!(
        threads = settings.threads,
        memory_mib = settings.memory_bytes >> 20,
        disk_mib = settings.disk.as_ref().map_or(0, |disk| disk.limit_bytes >> 20),
        worker = %settings.worker,
        "mirror started"
    );
    say(&format!("mirror listening on {}", mirror.address));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("going away: sessions end between two transactions");
    let _ = stop.send(true);
    let ending = Arc::clone(&mirror);
    tokio::task::spawn_blocking(move || ending.stop()).await.map_err(|e| failed(&e))
}

async fn start_arms(mirror: &Mirror, arms: &[(String, ArmRole, Address)]) -> Result<(), MainError> {
    let failed = |e: &dyn std::fmt::Display| MainError::Failed(e.to_string());
    // No client has connected yet: the cut is here and now.
    let cut = mirror.close_gate(Duration::from_millis(50)).await.seal();
    let cut =
        cut.ok_or_else(|| MainError::Failed("clients were faster than the mirror's start; start it again".into()))?;
    let names: Vec<_> = arms.iter().map(|(name, role, _)| (name.clone(), *role)).collect();
    let to_start = mirror.arms_at(&cut, &names).map_err(|e| failed(&e))?;
    for (name, _, address) in arms {
        mirror.start_arm(&to_start, name, address.clone().into(), HashSet::new()).map_err(|e| failed(&e))?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the lines that say where to connect")]
fn say(line: &str) {
    println!("{line}");
}

fn configuration(arguments: Arguments) -> Result<MirrorConfig, MainError> {
    let Arguments { listen, worker, arms, config, admin } = arguments;
    let mut document = match config {
        None => MirrorConfig::default(),
        Some(file) => {
            let text = fs::read_to_string(&file).map_err(|e| MainError::Failed(format!("{file}: {e}")))?;
            serde_saphyr::from_str(&text).map_err(|e| MainError::Failed(format!("{file}: {e}")))?
        }
    };
    document.listen = listen.or(document.listen);
    document.worker = worker.or(document.worker);
    document.admin = admin.or(document.admin);
    if !arms.is_empty() {
        document.arms = arms
            .iter()
            .map(|arm| match arm.split_once('=') {
                Some((name, address)) => Ok(MirrorArm { name: name.to_owned(), address: address.to_owned() }),
                None => Err(MainError::Usage(format!("--arm {arm}: NAME=HOST:PORT is needed"))),
            })
            .collect::<Result<_, _>>()?;
    }
    Ok(document)
}

type Arms = Vec<(String, ArmRole, Address)>;

fn settings(config: &MirrorConfig) -> Result<(Settings, Arms), MainError> {
    let needed = |what: &str| MainError::Usage(format!("--{what} HOST:PORT is needed"));
    let listen = config.listen.as_deref().ok_or_else(|| needed("listen"))?;
    let worker = config.worker.as_deref().ok_or_else(|| needed("worker"))?;
    let address = |field: &str, text: &str| -> Result<Address, MainError> {
        text.parse().map_err(|e| MainError::Usage(format!("{field}: {e}")))
    };
    let mut settings = Settings::new(listen, address("worker", worker)?);
    if let Some(memory) = config.memory {
        settings.memory_bytes = usize::try_from(memory.bytes()).unwrap_or(usize::MAX);
    }
    if let Some(disk) = &config.disk {
        settings.disk = Some(DiskSettings {
            directory: (&disk.directory).into(),
            limit_bytes: disk.size.bytes(),
            keep_free_percent: disk.keep_free_percent.min(100),
        });
    }
    if let Some(shift) = config.shift {
        settings.shift = shift.duration();
    }
    if let Some(limit) = config.first_packet_limit.map(Span::duration) {
        if limit.is_zero() {
            return Err(MainError::Usage("firstPacketLimit: `0s` lets nobody in; something like 60s is right".into()));
        }
        settings.first_packet_limit = limit;
    }
    let TcpKeepalive { idle, interval, count, user_timeout } = config.tcp_keepalive;
    let [idle, interval, user_timeout] = [idle, interval, user_timeout].map(|time| time.map(Span::duration));
    let count = count.and_then(|count| u32::try_from(count).ok());
    settings.keepalive = Keepalive { idle, interval, count, user_timeout };
    if let Some(threads) = config.threads {
        settings.threads = usize::try_from(threads).unwrap_or(1).clamp(1, 64);
    }
    settings.client_tls = config.client_tls.as_ref().map(client_tls);
    settings.worker_tls = config.worker_tls.as_ref().map(worker_tls).transpose()?;
    let arms = config
        .arms
        .iter()
        .map(|arm| {
            let role = if arm.name == BASELINE { ArmRole::Baseline } else { ArmRole::Candidate };
            Ok((arm.name.clone(), role, address(&format!("arm {}", arm.name), &arm.address)?))
        })
        .collect::<Result<_, MainError>>()?;
    Ok((settings, arms))
}

fn client_tls(config: &ClientTlsConfig) -> ClientTlsFiles {
    ClientTlsFiles {
        certificate: (&config.certificate).into(),
        key: (&config.key).into(),
        authorities: config.authorities.as_ref().map(Into::into),
        certificate_required: config.certificate_required,
        is_required: config.required,
        only_tls13: config.minimum == TlsVersion::V1_3,
    }
}

fn worker_tls(config: &WorkerTlsConfig) -> Result<WorkerTlsFiles, MainError> {
    let wrong = |what: &str| Err(MainError::Usage(format!("workerTls: {what}")));
    let identity = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return wrong("`certificate` and `key` go together"),
    };
    Ok(WorkerTlsFiles { mode: config.mode, authorities: config.authorities.as_ref().map(Into::into), identity })
}

#[cfg(test)]
mod tests {
    use understudy_crds::mirror_config::SslMode;

    use super::*;

    #[test]
    fn the_example_says_what_it_means() {
        let example = include_str!("../../examples/mirror/config.yaml");
        let document: MirrorConfig = serde_saphyr::from_str(example).expect("a configuration document");
        let (settings, arms) = settings(&document).unwrap_or_else(|_| panic!("settings"));
        assert_eq!(settings.memory_bytes, 2 << 30);
        assert_eq!(settings.first_packet_limit, Duration::from_secs(60));
        let (idle, interval) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(10)));
        assert_eq!(settings.keepalive, Keepalive { idle, interval, count: Some(6), user_timeout: None });
        let disk = settings.disk.expect("a traffic log on disk");
        assert_eq!((disk.limit_bytes, disk.keep_free_percent), (10 << 30, 15));
        let roles: Vec<_> = arms.iter().map(|(name, role, _)| (name.as_str(), *role)).collect();
        assert_eq!(roles, [("baseline", ArmRole::Baseline), ("candidate", ArmRole::Candidate)]);
        let client = settings.client_tls.expect("TLS for clients");
        assert!(client.is_required && client.only_tls13 && !client.certificate_required);
        let worker = settings.worker_tls.expect("TLS to the worker");
        assert_eq!((worker.mode, worker.authorities.is_some()), (SslMode::VerifyFull, true));
    }
}
