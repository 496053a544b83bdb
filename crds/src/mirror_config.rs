//! The mirror's configuration document (`understudy-mirror --config FILE`).
//!
//! Flags of the command line win over what stands here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{ByteSize, Span};

/// How a mirror runs.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MirrorConfig {
    /// Where clients connect, `HOST:PORT`.
    pub listen: Option<String>,
    /// The production server, `HOST:PORT` or a unix socket's directory and port, `/run/postgresql:5432`.
    pub worker: Option<String>,
    /// The arms.
    pub arms: Vec<MirrorArm>,
    /// Where the admin HTTP listens, `HOST:PORT`. Unset: nowhere.
    pub admin: Option<String>,
    /// A file whose first line is the token that control verbs need. Unset: they are refused.
    pub admin_token_file: Option<String>,
    /// The most memory that captured traffic may take.
    pub memory: Option<ByteSize>,
    /// Where captured traffic goes when half of that is used. Unset: nowhere.
    pub disk: Option<TrafficLogDisk>,
    /// How much later than production the arms live.
    pub shift: Option<Span>,
    /// How long a client may take to say what it wants, its TLS handshake included. Unset: 60 s.
    pub first_packet_limit: Option<Span>,
    /// When a client or the worker is given up that says nothing any more.
    pub tcp_keepalive: TcpKeepalive,
    /// Threads of the production path. Unset: one per core, at most 4.
    pub threads: Option<i32>,
    /// TLS for clients. Unset: they are told that there is none.
    pub client_tls: Option<ClientTlsConfig>,
    /// TLS to the worker. Unset: plain text.
    pub worker_tls: Option<WorkerTlsConfig>,
}

/// When a peer over TCP is given up that says nothing any more, on both sides of the mirror: a client whose machine has
/// died keeps its session and its locks until then. Names and meanings are PostgreSQL's; set them as on the worker, which
/// sees the mirror and not the client. What is unset is as the system has it, but that the worker is asked after 30 s: a
/// client that would have noticed that the worker's machine has died waits for the mirror to.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpKeepalive {
    /// So long nothing is heard of it before it is asked for a sign of life (`tcp_keepalives_idle`).
    pub idle: Option<Span>,
    /// So long each sign is waited for (`tcp_keepalives_interval`).
    pub interval: Option<Span>,
    /// So many are missed before it is given up (`tcp_keepalives_count`).
    pub count: Option<i32>,
    /// So long what was sent to a client may be unacknowledged (`tcp_user_timeout`). What is sent to the worker may be left
    /// unread for any time.
    pub user_timeout: Option<Span>,
}

/// The traffic log on disk. It holds what clients sent, in files for the mirror's user alone.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficLogDisk {
    /// The directory, for this mirror alone; made if it is not there.
    pub directory: String,
    /// The most that captured traffic may take there.
    pub size: ByteSize,
    /// Nothing is written when less than this part of the file system is free, percent.
    #[serde(default = "keep_free_percent")]
    pub keep_free_percent: u8,
}

/// The part of a file system, percent, that the traffic log leaves free unless told otherwise: more than what
/// Kubernetes wants free on a node before it begins to evict.
pub const KEEP_FREE_PERCENT: u8 = 15;

fn keep_free_percent() -> u8 {
    KEEP_FREE_PERCENT
}

/// TLS for clients. The files are read again when they change.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTlsConfig {
    /// The certificate and those that vouch for it, a PEM file. With the worker's own certificate channel
    /// binding (`SCRAM-SHA-256-PLUS`) holds through the mirror.
    pub certificate: String,
    /// Its private key, a PEM file.
    pub key: String,
    /// Authorities that a client's certificate must come from, a PEM file. Unset: clients show none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// Clients must show a certificate.
    #[serde(default)]
    pub certificate_required: bool,
    /// Clients must use TLS.
    #[serde(default)]
    pub required: bool,
    /// The oldest version that is spoken.
    #[serde(default)]
    pub minimum: TlsVersion,
}

/// A version of TLS.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// TLS to the worker.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerTlsConfig {
    /// How much the worker has to prove.
    pub mode: SslMode,
    /// Authorities that its certificate must come from, a PEM file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// The mirror's own certificate, a PEM file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its private key, a PEM file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// libpq's `sslmode`.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// TLS where it is offered, from anybody.
    Prefer,
    /// TLS, from anybody; from somebody whom `authorities` vouch for when they are given, as with libpq.
    Require,
    /// TLS, from somebody whom `authorities` vouch for.
    VerifyCa,
    /// The same, with the worker's name in the certificate.
    VerifyFull,
}

/// One arm of the mirror.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorArm {
    /// `baseline`, or the candidate's name.
    pub name: String,
    /// `HOST:PORT`, or a unix socket's directory and port. The arm must let the mirror in without a
    /// password (`trust`): client passwords are never stored.
    pub address: String,
}
