//! How a pod's program begins: its log, its document, its runtime; and how it ends.

use std::{fs, io, path::Path};

use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    error::{ErrorKind, Side, UserError},
    peer::identity::IdentityError,
};

/// Why a pod's program can't start.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// Its document can't be read.
    #[error("{path}: {reason}")]
    Document {
        /// The document.
        path: String,
        /// Why.
        reason: String,
    },
    /// Its certificates can't be used.
    #[error(transparent)]
    Tls(#[from] IdentityError),
    /// It can't listen.
    #[error("can't listen on port {port}: {reason}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        reason: io::Error,
    },
    /// The runtime or a signal handler can't be had.
    #[error("can't start: {0}")]
    Start(#[from] io::Error),
    /// What it is there for can't start.
    #[error("{0}")]
    User(UserError),
}

impl From<PodError> for UserError {
    fn from(error: PodError) -> Self {
        match error {
            PodError::User(error) => error,
            other => Self::new(ErrorKind::Exited, Side::Host, other.to_string()),
        }
    }
}

/// Reads a pod's document.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, PodError> {
    let failed = |reason: String| PodError::Document { path: path.display().to_string(), reason };
    let text = fs::read(path).map_err(|e| failed(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))
}

/// Waits until the pod is told to go.
pub(super) async fn told_to_go() -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
