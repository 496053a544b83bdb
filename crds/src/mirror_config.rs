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
    /// How much later than production the arms live.
    pub shift: Option<Span>,
    /// Threads of the production path. Unset: one per core, at most 4.
    pub threads: Option<i32>,
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
