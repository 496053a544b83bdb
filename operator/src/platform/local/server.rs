//! One PostgreSQL server that we start, watch and stop: a clone, or the demo's worker.
//!
//! It runs `postgres` itself, not `pg_ctl`, so that it is our child and dies with us. What is in its
//! configuration is not its business.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::sync::watch;

use super::{
    account::Account,
    binaries::Binaries,
    process::{Launch, Output, Process},
    server_log::last_complaint,
};
use crate::error::{ErrorKind, Side, UserError};

/// How long an ordinary start may take. A clone that has much to replay gets more.
pub const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a server gets to stop in good order before it is made to.
pub const STOP_LIMIT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);

/// What a server is started from.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// What the user calls it: `worker`, `baseline`, a candidate's name.
    pub name: String,
    /// Whose trouble it is when it fails.
    pub side: Side,
    /// The program.
    pub binaries: Binaries,
    /// The account that it runs under.
    pub account: Account,
    /// Its data, with a complete `postgresql.conf`.
    pub data_dir: PathBuf,
    /// Where its socket goes.
    pub socket_dir: PathBuf,
    /// Its port; it names the socket even where there is no TCP.
    pub port: u16,
    /// Where its log goes; it is appended to.
    pub log_file: PathBuf,
    /// Settings of the command line: they win over the configuration.
    pub settings: Vec<(String, String)>,
}

/// A server that runs, or ran. Dropping it stops it at once.
#[derive(Debug)]
pub struct Server {
    spec: ServerSpec,
    process: Process,
}

impl Server {
    /// Starts a server and waits until it accepts connections.
    pub async fn start(spec: ServerSpec, limit: Duration) -> Result<Self, UserError> {
        let server = Self::launch(spec).await?;
        server.wait_ready(limit).await?;
        Ok(server)
    }

    /// Starts a server without waiting until it accepts connections.
    pub async fn launch(spec: ServerSpec) -> Result<Self, UserError> {
        let process = launch(&spec).await?;
        Ok(Self { spec, process })
    }

    /// Waits until it accepts connections. When it ends instead, the error says what its log says.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), UserError> {
        let end = Instant::now() + limit;
        let pid_file = self.spec.data_dir.join("postmaster.pid");
        loop {
            if let Some(status) = self.process.exited() {
                return Err(self.failed("did not start", ErrorKind::Exited).fact("ended", status));
            }
            if fs::read_to_string(&pid_file).is_ok_and(|text| is_ready(&text, self.process.pid())) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(self
                    .failed("does not accept connections", ErrorKind::TimedOut)
                    .fact("limit", format!("{} s", limit.as_secs())));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// An error about this server, with the last complaint in its log.
    pub fn failed(&self, what: &str, kind: ErrorKind) -> UserError {
        let said = last_complaint(&log_tail(&self.spec.log_file));
        let kind = match &said {
            Some(text) if text.contains("No space left on device") => ErrorKind::DiskFull,
            _ => kind,
        };
        let name = match self.spec.side {
            Side::Arm => format!("the clone {}", self.spec.name),
            _ => format!("the server {}", self.spec.name),
        };
        UserError::new(kind, self.spec.side, format!("{name} {what}"))
            .fact("reason", said.unwrap_or_default())
            .fact("log", self.spec.log_file.display())
    }

    /// Stops it in good order; when that takes longer than the limit, at once.
    pub async fn stop(&mut self, limit: Duration) {
        self.process.signal(Signal::INT);
        if self.process.wait(limit).await.is_none() {
            self.process.signal(Signal::QUIT);
            if self.process.wait(Duration::from_secs(10)).await.is_none() {
                self.process.signal(Signal::KILL);
                self.process.wait(Duration::from_secs(10)).await;
            }
        }
    }

    /// Stops it at once: no checkpoint, as after a crash.
    pub async fn stop_immediately(&mut self) {
        self.process.signal(Signal::QUIT);
        if self.process.wait(Duration::from_secs(10)).await.is_none() {
            self.process.signal(Signal::KILL);
            self.process.wait(Duration::from_secs(10)).await;
        }
    }

    /// Stops it in good order and starts it again.
    pub async fn restart(&mut self, limit: Duration) -> Result<(), UserError> {
        self.stop(STOP_LIMIT).await;
        self.start_again(limit).await
    }

    /// Starts it again after its end.
    pub async fn start_again(&mut self, limit: Duration) -> Result<(), UserError> {
        self.launch_again().await?;
        self.wait_ready(limit).await
    }

    /// Starts it again after its end, without waiting until it accepts connections.
    pub async fn launch_again(&mut self) -> Result<(), UserError> {
        self.process = launch(&self.spec).await?;
        Ok(())
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(Duration::from_secs(10)).await;
    }

    /// Whether its main process lives.
    pub fn is_running(&self) -> bool {
        self.process.exited().is_none()
    }

    /// Watches its end: the value is set when its main process has ended. A restart makes a new one.
    pub fn watch(&self) -> watch::Receiver<Option<std::process::ExitStatus>> {
        self.process.watch()
    }

    /// The number of its main process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// When its main process started, in clock ticks since boot.
    pub fn start_time(&self) -> u64 {
        self.process.start_time()
    }

    /// What it was started from.
    pub fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// How to reach it: through its socket.
    pub fn config(&self, user: &str, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.spec.socket_dir)
            .port(self.spec.port)
            .user(user)
            .dbname(database)
            .application_name("understudy")
            .connect_timeout(Duration::from_secs(10));
        config
    }

    /// How a person reaches it: `host=/tmp/… port=5433`.
    pub fn endpoint(&self) -> String {
        format!("host={} port={}", self.spec.socket_dir.display(), self.spec.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.signal(Signal::QUIT);
        if self.process.wait_blocking(Duration::from_secs(10)).is_none() {
            self.process.kill_now();
        }
    }
}

async fn launch(spec: &ServerSpec) -> Result<Process, UserError> {
    let open = OpenOptions::new().create(true).append(true).open(&spec.log_file);
    let log = open.map_err(|e| UserError::file("write a server's log", &spec.log_file, &e))?;
    let errors = log.try_clone().map_err(|e| UserError::file("write a server's log", &spec.log_file, &e))?;
    // A stale file would look ready before the new process has written its own.
    let pid_file = spec.data_dir.join("postmaster.pid");
    if fs::read_to_string(&pid_file).is_ok_and(|text| !names_a_living_process(&text)) {
        let _ = fs::remove_file(&pid_file);
    }
    let mut launch = Launch::new(spec.binaries.program("postgres"), &spec.account, "QUIT")
        .argument("-D")
        .argument(&spec.data_dir)
        .argument("-k")
        .argument(&spec.socket_dir)
        .argument("-p")
        .argument(spec.port.to_string());
    for (name, value) in &spec.settings {
        launch = launch.argument("-c").argument(format!("{name}={value}"));
    }
    launch.output(Output::File(log), Output::File(errors)).start().await
}

/// Whether `postmaster.pid` says that the server `pid` accepts connections.
fn is_ready(pid_file: &str, pid: u32) -> bool {
    let mut lines = pid_file.lines();
    lines.next().and_then(|line| line.trim().parse::<u32>().ok()) == Some(pid)
        && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

fn names_a_living_process(pid_file: &str) -> bool {
    let pid = pid_file.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
    pid.is_some_and(|pid| super::process::start_time(pid).is_some())
}

/// The last 16 KiB of a log.
fn log_tail(path: &Path) -> String {
    const TAIL_BYTES: u64 = 16 * 1024;
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_postmaster_file_with_ready_means_ready() {
        let file = |pid: u32, status: &str| format!("{pid}\n/data\n1700000000\n5433\n/tmp/x\n\n  1 2\n{status}\n");
        let cases = [
            (file(7, "ready   "), true),
            (file(7, "standby "), false),
            (file(7, "starting"), false),
            (file(8, "ready   "), false),
            ("7\n/data\n".to_owned(), false),
            (String::new(), false),
        ];
        for (text, expected) in cases {
            assert_eq!(is_ready(&text, 7), expected, "{text}");
        }
    }
}
