//! What a mirror is started with, and why one can't start. Must not start anything.

use std::{thread, time::Duration};

use crate::{
    keepalive::Keepalive,
    production::{
        client_tls::{CertificateError, ClientTlsFiles},
        listener::ListenError,
        session::FIRST_PACKET_LIMIT,
        worker::WorkerTlsFiles,
    },
    shadow::{
        arm_clock,
        log::disk::{DiskSettings, OpenError},
    },
    stream::Address,
};

/// How a mirror runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients connect, `HOST:PORT`.
    pub listen: String,
    /// The production server.
    pub worker: Address,
    /// TLS to it; plain text without it.
    pub worker_tls: Option<WorkerTlsFiles>,
    /// TLS for clients; they are told that there is none without it.
    pub client_tls: Option<ClientTlsFiles>,
    /// How long a client may take to say what it wants, the TLS handshake included.
    pub first_packet_limit: Duration,
    /// When a client or the worker is given up that says nothing any more.
    pub keepalive: Keepalive,
    /// Threads of the production path.
    pub threads: usize,
    /// The most memory that captured traffic may take, bytes.
    pub memory_bytes: usize,
    /// Where it goes when half of that is used; nowhere without it.
    pub disk: Option<DiskSettings>,
    /// How long the arms live behind production.
    pub shift: Duration,
    /// How much longer at most, while production's threads wait for a processor.
    pub most_behind: Duration,
}

impl Settings {
    /// Settings as the machine allows: a thread per core, at most 4; an eighth of the memory, at most 2 GiB.
    pub fn new(listen: &str, worker: Address) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            listen: listen.to_owned(),
            worker,
            worker_tls: None,
            client_tls: None,
            first_packet_limit: FIRST_PACKET_LIMIT,
            keepalive: Keepalive::default(),
            threads: cores.min(4),
            memory_bytes: default_memory_bytes(),
            disk: None,
            shift: Duration::from_secs(1),
            most_behind: arm_clock::MOST_BEHIND,
        }
    }
}

/// An eighth of the machine's memory, between 64 MiB and 2 GiB.
pub fn default_memory_bytes() -> usize {
    let kib: usize = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().next()?.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(1 << 20);
    (kib * 1024 / 8).clamp(64 << 20, 2 << 30)
}

/// Why a mirror can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It can't listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The traffic log's directory can't be used.
    #[error(transparent)]
    TrafficLog(#[from] OpenError),
    /// A thread can't be started.
    #[error("can't start a thread: {0}")]
    Thread(#[from] std::io::Error),
}
