//! Child processes that never outlive us: not when we are killed, and not when we forget them.
//!
//! The kernel signals a child when the *thread* that forked it ends, so all of them are forked by one
//! thread that lives as long as the process. Signals go through a pidfd, so they can't hit a
//! stranger that got the same number. No process is ever left for an unlimited time.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{oneshot, watch};

use super::account::Account;
use crate::error::{ErrorKind, Side, UserError, plain_io};

/// Where a child's output goes.
#[derive(Debug)]
pub enum Output {
    /// Nowhere.
    Null,
    /// Into a file.
    File(File),
    /// To us.
    Pipe,
}

/// A program to start.
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    account: Account,
    death_signal: &'static str,
    stdout: Output,
    stderr: Output,
}

impl Launch {
    /// A program under an account, with a minimal environment and no input. `death_signal` is what
    /// it gets when we die.
    pub fn new(program: impl Into<PathBuf>, account: &Account, death_signal: &'static str) -> Self {
        let mut environment =
            vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()), ("LC_ALL".into(), "C".into())];
        if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
            environment.push(("LD_LIBRARY_PATH".into(), path));
        }
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment,
            directory: PathBuf::from("/"),
            account: account.clone(),
            death_signal,
            stdout: Output::Null,
            stderr: Output::Null,
        }
    }

    /// Adds an argument. Everybody on the machine can read it: no secrets.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Sets where the output goes.
    #[must_use]
    pub fn output(mut self, stdout: Output, stderr: Output) -> Self {
        self.stdout = stdout;
        self.stderr = stderr;
        self
    }

    fn command(self) -> (PathBuf, Command) {
        let Self { program, arguments, environment, directory, account, death_signal, stdout, stderr } = self;
        let stdio = |output| match output {
            Output::Null => Stdio::null(),
            Output::File(file) => Stdio::from(file),
            Output::Pipe => Stdio::piped(),
        };
        let mut command = Command::new("setpriv");
        command
            .args(account.setpriv_arguments(death_signal))
            .arg(&program)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .current_dir(directory)
            // Ctrl-C in the terminal is for us alone; we stop the children in good order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdio(stdout))
            .stderr(stdio(stderr));
        (program, command)
    }

    /// Starts the program.
    pub async fn start(self) -> Result<Process, UserError> {
        let (program, command) = self.command();
        let (answer, started) = oneshot::channel();
        let lost = || io::Error::other("the thread that starts programs is gone");
        let result = match spawner().send((command, answer)) {
            Ok(()) => started.await.unwrap_or_else(|_| Err(lost())),
            Err(_) => Err(lost()),
        };
        result.and_then(Unclaimed::claim).and_then(Process::new).map_err(|e| {
            let error = UserError::new(ErrorKind::Missing, Side::Host, format!("can't start {}", program.display()))
                .fact("reason", plain_io(&e));
            if e.kind() == io::ErrorKind::NotFound {
                error.remedy("install util-linux: it brings setpriv")
            } else {
                error
            }
        })
    }

    /// Runs the program to its end, within a limit, and collects what it printed.
    pub async fn run(self, limit: Duration) -> Result<Finished, UserError> {
        let program = self.program.clone();
        let mut process = self.output(Output::Pipe, Output::Pipe).start().await?;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let read = tokio::task::spawn_blocking(move || {
            // Both ends are read side by side, or a program that fills one would wait for ever.
            let errors = thread::spawn(move || stderr.map(read_bounded).unwrap_or_default());
            let out = stdout.map(read_bounded).unwrap_or_default();
            (out, errors.join().unwrap_or_default())
        });
        let Some(status) = process.wait(limit).await else {
            process.kill_now();
            return Err(UserError::new(
                ErrorKind::TimedOut,
                Side::Host,
                format!("{} takes too long", program.display()),
            )
            .fact("limit", format!("{} s", limit.as_secs())));
        };
        let (stdout, stderr) = read.await.unwrap_or_default();
        Ok(Finished { status, stdout, stderr })
    }
}

/// What a program left when it ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed, at most 64 KiB.
    pub stdout: String,
    /// What it complained about, at most 64 KiB.
    pub stderr: String,
}

fn read_bounded(mut from: impl io::Read) -> String {
    const KEEP: usize = 64 * 1024;
    let (mut kept, mut chunk) = (Vec::new(), [0_u8; 4096]);
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        if let Some(new) = chunk.get(..n).filter(|_| kept.len() < KEEP) {
            kept.extend_from_slice(new);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

type Job = (Command, oneshot::Sender<io::Result<Unclaimed>>);

/// A child that is on its way to whoever asked for it. They may have gone meanwhile, and a `Child`
/// that is only dropped goes on: this one is killed.
#[derive(Debug)]
struct Unclaimed(Option<Child>);

impl Unclaimed {
    fn claim(mut self) -> io::Result<Child> {
        self.0.take().ok_or_else(|| io::Error::other("a child was claimed twice"))
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The thread that forks. It is never joined: its end is the end of the process.
fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        // When even this thread can't be had, the queue is closed and every start says so.
        let _ = thread::Builder::new().name("spawner".into()).spawn(move || {
            for (mut command, answer) in jobs {
                // Nobody may want it any more; then it is killed on the spot, or where it got stuck.
                let _ = answer.send(command.spawn().map(|child| Unclaimed(Some(child))));
            }
        });
        sender
    })
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    start_time: u64,
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<ExitStatus>>,
    /// Its output, when it was asked for.
    pub stdout: Option<ChildStdout>,
    /// Its complaints, when they were asked for.
    pub stderr: Option<ChildStderr>,
}

impl Process {
    fn new(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        let opened = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("a process without a number"))
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        let pidfd = match opened {
            Ok(pidfd) => pidfd,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let start_time = start_time(pid).unwrap_or(0);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (tell, exit) = watch::channel(None);
        thread::Builder::new().name(format!("wait-{pid}")).stack_size(64 * 1024).spawn(move || {
            if let Ok(status) = child.wait() {
                tell.send_replace(Some(status));
            }
        })?;
        Ok(Self { pid, start_time, pidfd, exit, stdout, stderr })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in clock ticks since boot; with the number it names a process for good.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// How it ended, if it did.
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// A watch on its end.
    pub fn watch(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.exit.clone()
    }

    /// Sends a signal; a process that has ended gets nothing.
    pub fn signal(&self, signal: Signal) {
        if self.exited().is_none() {
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Waits for its end; `None` when that takes longer than the limit.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        match tokio::time::timeout(limit, self.exit.wait_for(Option::is_some)).await {
            Ok(Ok(status)) => *status,
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// The same for `Drop`, which can't await.
    pub fn wait_blocking(&self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        while self.exited().is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(2));
        }
        self.exited()
    }

    /// Kills it, and waits a moment until it is gone.
    pub fn kill_now(&self) {
        self.signal(Signal::KILL);
        self.wait_blocking(Duration::from_secs(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_none() {
            self.kill_now();
        }
    }
}

/// When a process started, in clock ticks since boot; `None` when there is no such process.
pub fn start_time(pid: u32) -> Option<u64> {
    start_time_in(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold anything, brackets and spaces too.
fn start_time_in(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21";
        for name in ["postgres", "a b", "x) S 1 (y"] {
            assert_eq!(start_time_in(&format!("42 ({name}) {tail}")), Some(987_654), "{name}");
        }
        assert_eq!(start_time_in("42 (x"), None);
        assert_eq!(start_time_in("42 (x) S 1"), None);
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed() {
        let error = Launch::new("sleep", &Account::Own, "KILL")
            .argument("60")
            .run(Duration::from_millis(50))
            .await
            .expect_err("sleep 60 ends in 50 ms");
        assert_eq!(error.kind, ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn output_and_status_come_back() {
        let done = Launch::new("sh", &Account::Own, "KILL")
            .arguments(["-c", "echo out; echo err >&2; exit 3"])
            .run(Duration::from_secs(20))
            .await
            .expect("sh runs");
        assert_eq!((done.status.code(), done.stdout.as_str(), done.stderr.as_str()), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn a_child_that_was_sent_to_somebody_who_has_gone_is_killed() {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let pid = child.id();
        let (answer, started) = oneshot::channel::<io::Result<Unclaimed>>();
        assert!(answer.send(Ok(Unclaimed(Some(child)))).is_ok(), "somebody was still there");
        drop(started);
        assert_eq!(start_time(pid), None, "it is gone, and its remains too");
    }

    #[tokio::test]
    async fn a_forgotten_process_is_killed() {
        let process = Launch::new("sleep", &Account::Own, "KILL").argument("60").start().await.expect("sleep starts");
        let exit = process.watch();
        drop(process);
        assert!(exit.borrow().is_some());
    }
}
