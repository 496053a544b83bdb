//! A machine, seen from the host: started in namespaces of its own, found again, entered, ended.
//! What happens inside is in `machine/inside.rs`.

pub mod inside;
mod programs;

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    failure::{Outcome, Trying},
    layout::Layout,
    program::until,
};

/// How long a machine's first process may take to appear: six namespaces, on a machine that compiles.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    /// Its first process, as the host counts.
    pub pid: i32,
    starter: Child,
}

impl Machine {
    /// Starts a machine. It waits inside until `go`.
    pub fn start(layout: &Layout, name: &str) -> Outcome<Self> {
        fs::create_dir_all(layout.logs()).trying(|| format!("make {}", layout.logs().display()))?;
        let path = layout.logs().join(format!("{name}.log"));
        let log = File::create(&path).trying(|| format!("write {}", path.display()))?;
        let own = std::env::current_exe().trying(|| "find the own program".to_owned())?;
        let mut command = Command::new("setsid");
        command
            .args(["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"])
            .args(["--mount-proc", "--propagation", "private"])
            .arg(own)
            .args(["machine", name, "--state"])
            .arg(layout.state())
            // Nothing of the caller's environment, proxies least of all.
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().trying(|| "share the log".to_owned())?)
            .stderr(log);
        let mut starter = command.spawn().trying(|| format!("start {name}"))?;
        let id = i32::try_from(starter.id()).unwrap_or_default();
        let pid = until(START_LIMIT, "the machine's first process", || {
            let first = processes().find(|process| process.parent == id).map(|process| process.pid);
            first.ok_or_else(|| match starter.try_wait() {
                Ok(Some(status)) => format!("its starter ended with {status}; see {}", path.display()),
                _ => format!("no process yet; see {}", path.display()),
            })
        })?;
        Ok(Self { pid, starter })
    }

    /// Lets the machine start its programs: its network is there.
    pub fn go(&mut self) -> Outcome<()> {
        let stdin = self.starter.stdin.take();
        stdin.map_or(Ok(()), |mut stdin| stdin.write_all(b"go\n")).trying(|| "tell a machine to start".to_owned())
    }

    /// Waits until the machine has ended by itself.
    pub fn wait(mut self) -> Outcome<()> {
        let status = self.starter.wait().trying(|| "wait for a machine".to_owned())?;
        if status.success() { Ok(()) } else { Err(format!("ended with {status}").into()) }
    }
}

/// A command that runs in a machine's network and mounts.
pub fn entered(pid: i32, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--mount", "--net"]).arg(program.as_ref());
    command
}

/// A machine that was found running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The process: the first one inside, or the one that waits for it outside.
    pub pid: i32,
    /// The machine's name.
    pub name: String,
    /// The state directory that it belongs to.
    pub state: PathBuf,
    /// Whether it is the first one inside.
    pub inside: bool,
}

/// Every process of a machine's that the host sees, of any state directory.
pub fn found() -> Vec<Found> {
    processes().filter_map(|process| recognised(process.pid, &arguments(process.pid))).collect()
}

/// The first process of a machine of this cluster.
pub fn pid_of(layout: &Layout, name: &str) -> Option<i32> {
    found().into_iter().find(|f| f.inside && f.name == name && f.state == layout.state()).map(|f| f.pid)
}

/// Ends processes at once. Ending a machine's first process ends everything in it.
pub fn end(pids: &[i32]) -> Outcome<()> {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // One that is gone already is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
    let start = Instant::now();
    while pids.iter().any(|pid| alive(*pid)) {
        if start.elapsed() > Duration::from_secs(20) {
            return Err(format!("processes {pids:?} do not end").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a process runs; one that only waits to be buried does not.
fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X')))
}

struct Process {
    pid: i32,
    parent: i32,
}

fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        Some(Process { pid, parent })
    })
}

fn arguments(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// The arguments that `Machine::start` gives are the mark; nothing else has them.
fn recognised(pid: i32, arguments: &[String]) -> Option<Found> {
    let program = arguments.iter().position(|argument| argument.ends_with("/test-cluster"))?;
    match arguments.get(program + 1..program + 5)? {
        [verb, name, flag, state] if verb == "machine" && flag == "--state" => {
            Some(Found { pid, name: name.clone(), state: PathBuf::from(state), inside: program == 0 })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn only_machines_are_recognised() {
        let inside = recognised(7, &line("/t/test-cluster machine node-1 --state /s"));
        assert_eq!(inside, Some(Found { pid: 7, name: "node-1".to_owned(), state: PathBuf::from("/s"), inside: true }));
        let outside = recognised(7, &line("unshare --net --fork /t/test-cluster machine control --state /s"));
        assert!(outside.is_some_and(|found| !found.inside));
        assert_eq!(recognised(7, &line("/t/test-cluster up --state /s")), None);
        assert_eq!(recognised(7, &line("grep machine node-1 --state /s")), None);
    }
}
