//! A shipped command as a child process: what it prints, line by line, and how it ends.

use std::{
    ffi::OsStr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use understudy_crds::status::ShadowExperimentStatus;

use crate::{
    http,
    traces::{Seen, Watcher},
    turn::programs,
};

type Lines = Arc<Mutex<Vec<String>>>;

/// A command that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pid: i32,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
    watcher: Option<Watcher>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// What it had made, as its journal said.
    pub seen: Seen,
}

impl Ended {
    /// Its exit status.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails the test, with everything that was printed, unless the exit status is this one.
    pub fn expect_code(&self, code: i32) {
        assert_eq!(self.code(), Some(code), "{}", self.transcript());
    }

    /// Everything that was printed.
    pub fn transcript(&self) -> String {
        format!("{:?}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Starts `understudy`.
pub fn understudy<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Running {
    start("understudy", arguments)
}

/// Starts `understudy` and waits until it has ended, at most 30 s.
pub async fn understudy_once<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    understudy(arguments).ended_within(Duration::from_secs(30)).await
}

/// Starts `understudy run` on a manifest, with its admin HTTP on any port.
pub fn run(manifest: &Path, out: &Path, more: &[&str]) -> Running {
    let mut arguments = vec![OsStr::new("run"), OsStr::new("-f"), manifest.as_os_str()];
    arguments.extend([OsStr::new("--out"), out.as_os_str(), OsStr::new("--admin"), OsStr::new("127.0.0.1:0")]);
    arguments.extend(more.iter().map(OsStr::new));
    let mut running = start("understudy", arguments);
    running.watcher = Some(Watcher::start(out));
    running
}

/// Starts a program of this workspace.
pub fn start<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Running {
    start_in(program, arguments, &[])
}

/// The same, with these variables in its environment.
pub fn start_in<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
    environment: &[(&str, &str)],
) -> Running {
    let path = programs().join(program);
    assert!(path.is_file(), "{} is not there: cargo build --workspace --bins", path.display());
    let mut child = Command::new(path)
        .args(arguments)
        .env("NO_COLOR", "1")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a child process");
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("its number");
    let (stdout, stderr) = (Lines::default(), Lines::default());
    let readers = vec![
        tokio::spawn(collect(child.stdout.take().expect("its output"), Arc::clone(&stdout))),
        tokio::spawn(collect(child.stderr.take().expect("its errors"), Arc::clone(&stderr))),
    ];
    Running { child, pid, stdout, stderr, readers, watcher: None }
}

async fn collect(from: impl AsyncRead + Unpin, into: Lines) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

fn text(lines: &Lines) -> String {
    lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
}

impl Running {
    /// Waits for a line on standard output that contains `text`, and returns what follows it there.
    pub async fn line_after(&mut self, text_before: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            let found = {
                let lines = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
                lines.iter().find_map(|line| line.split_once(text_before).map(|(_, rest)| rest.to_owned()))
            };
            if let Some(rest) = found {
                return rest;
            }
            let exited = self.child.try_wait().expect("its state");
            assert!(
                exited.is_none() && Instant::now() < end,
                "no `{text_before}` within {limit:?} ({exited:?})\n{}",
                self.transcript()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until clients may connect; where.
    pub async fn mirror(&mut self) -> std::net::SocketAddr {
        let rest = self.line_after("mirror listening on ", Duration::from_secs(30)).await;
        let address = rest.split_whitespace().next().unwrap_or_default();
        address.parse().unwrap_or_else(|e| panic!("`{rest}` is no address: {e}"))
    }

    /// The address of the admin HTTP.
    pub async fn admin(&mut self) -> String {
        let rest = self.line_after("admin HTTP on http://", Duration::from_secs(30)).await;
        rest.split_whitespace().next().unwrap_or_default().to_owned()
    }

    /// Polls the status until it is as wanted.
    pub async fn status_until(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&ShadowExperimentStatus) -> bool,
    ) -> ShadowExperimentStatus {
        let admin = self.admin().await;
        let end = Instant::now() + limit;
        loop {
            let status = http::status(&admin).await;
            if let Ok(status) = &status
                && wanted(status)
            {
                return status.clone();
            }
            let exited = self.child.try_wait().expect("its state");
            assert!(
                exited.is_none() && Instant::now() < end,
                "not {what} within {limit:?}: {status:#?}\n{}",
                self.transcript()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid).expect("a process number");
        kill_process(pid, signal).expect("a signal");
    }

    /// Waits for the end.
    pub async fn ended_within(mut self, limit: Duration) -> Ended {
        let Ok(status) = timeout(limit, self.child.wait()).await else {
            panic!("it has not ended after {limit:?}\n{}", self.transcript());
        };
        for reader in std::mem::take(&mut self.readers) {
            timeout(Duration::from_secs(10), reader).await.expect("the end of its output").expect("a reader");
        }
        let seen = self.watcher.take().map(Watcher::stop).unwrap_or_default();
        Ended { status: status.expect("its end"), stdout: text(&self.stdout), stderr: text(&self.stderr), seen }
    }

    /// Everything printed so far.
    pub fn transcript(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", text(&self.stdout), text(&self.stderr))
    }
}
