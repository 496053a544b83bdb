//! The control socket of a running experiment: a unix socket in its directory, for the owner alone.
//! `understudy halt`, `watch` and their like find it there.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::timeout,
};
use understudy_crds::ShadowExperimentStatus;
use understudy_mirror::admin::{self, Verbs};

use super::state::State;
use crate::error::{ErrorKind, Side, UserError};

const SOCKET: &str = "control.sock";
const NAME: &str = "experiment";
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Answers are status documents: large, but not without limit.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// An open control socket; it goes with this.
#[derive(Debug)]
pub struct Control {
    files: Vec<PathBuf>,
    server: JoinHandle<()>,
}

impl Control {
    /// Opens the socket of an experiment in its directory.
    pub fn open(directory: &Path, name: &str, state: State) -> Result<Self, UserError> {
        let (socket, named) = (directory.join(SOCKET), directory.join(NAME));
        // One that is still there belonged to a run that was killed: the directory is locked.
        if let Err(error) = fs::remove_file(&socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(UserError::file("clear the control socket", &socket, &error));
        }
        let listener = UnixListener::bind(&socket).map_err(|e| {
            UserError::file("open the control socket", &socket, &e)
                .remedy("choose a directory with a shorter path with --out")
        })?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
            .map_err(|e| UserError::file("protect the control socket", &socket, &e))?;
        fs::write(&named, name).map_err(|e| UserError::file("write the experiment's name", &named, &e))?;
        let router = admin::router(std::sync::Arc::new(state), Verbs::Open);
        let server = tokio::spawn(async move {
            // It ends when it is aborted.
            let _ = admin::serve_unix(listener, router).await;
        });
        Ok(Self { files: vec![socket, named], server })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.server.abort();
        for file in &self.files {
            // Gone already is as good.
            let _ = fs::remove_file(file);
        }
    }
}

/// A client of a running experiment's control socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    /// The experiment's name.
    pub name: String,
}

impl Client {
    /// Finds the experiment that runs in a directory.
    pub fn find(directory: &Path) -> Result<Self, UserError> {
        let name = fs::read_to_string(directory.join(NAME)).map_err(|_| Self::nobody(directory))?;
        Ok(Self { socket: directory.join(SOCKET), name })
    }

    fn nobody(directory: &Path) -> UserError {
        UserError::new(ErrorKind::Missing, Side::Host, "no experiment runs here")
            .fact("directory", directory.display())
            .remedy("name the directory of the run with --out")
    }

    /// Throws the kill switch.
    pub async fn halt(&self) -> Result<(), UserError> {
        self.request("POST", "/v1/halt").await.map(drop)
    }

    /// The status now.
    pub async fn status(&self) -> Result<ShadowExperimentStatus, UserError> {
        let body = self.request("GET", "/v1/status").await?;
        serde_json::from_slice(&body).map_err(|e| self.failed(&e))
    }

    fn failed(&self, reason: &dyn std::fmt::Display) -> UserError {
        UserError::new(ErrorKind::Unreachable, Side::Host, "the running experiment does not answer")
            .fact("socket", self.socket.display())
            .fact("reason", reason)
    }

    async fn request(&self, method: &str, path: &str) -> Result<Vec<u8>, UserError> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            let request = format!("{method} {path} HTTP/1.0\r\nHost: understudy\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let answer = match timeout(ANSWER_LIMIT, exchange).await {
            Err(_) => return Err(self.failed(&format!("nothing within {} s", ANSWER_LIMIT.as_secs()))),
            Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                return Err(Self::nobody(self.socket.parent().unwrap_or(&self.socket)));
            }
            Ok(Err(error)) => return Err(self.failed(&crate::error::plain_io(&error))),
            Ok(Ok(answer)) => answer,
        };
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| self.failed(&"no HTTP answer"))?;
        let (head, body) = answer.split_at(end + 4);
        let ok = head.split(|b| *b == b' ').nth(1) == Some(b"200");
        if ok { Ok(body.to_vec()) } else { Err(self.failed(&String::from_utf8_lossy(body).trim())) }
    }
}
