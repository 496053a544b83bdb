//! A machine of its own for what this one has no room for: a Linux kernel that runs as an ordinary program (User-Mode
//! Linux), with the files of this machine, memory of its own, one processor, and limits that are its own to set.
//!
//! The programs in it are the same ones, so that memory and what else is counted can be measured there. It is slow in
//! ways of its own: nothing that is timed may be.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::sleep;

/// Debian's package of the same name without the dot.
const KERNEL: &str = "/usr/bin/linux.uml";
/// Its memory; what it does not use is not taken.
const MEMORY: &str = "mem=4G";
/// How long it may take, from its start to its end.
const LIMIT: Duration = Duration::from_secs(600);

/// Whether there can be one.
pub fn is_there() -> bool {
    Path::new(KERNEL).exists()
}

/// Runs this very program in one, until it has ended; what it printed. Nothing where none starts: not every processor's
/// registers are known to its kernel.
pub async fn run(arguments: &[&str]) -> Option<String> {
    let directory = tempfile::Builder::new().prefix("understudy-machine-").tempdir_in("/tmp").expect("a directory");
    let (init, printed) = (directory.path().join("init"), directory.path().join("printed"));
    let program = std::env::current_exe().expect("this program's file");
    let script = script(&program, arguments, &printed);
    fs::write(&init, script).expect("what the machine does first");
    let mut kernel = Command::new(KERNEL);
    // The files of this machine are its root; what it does first is its process 1.
    kernel.args([MEMORY, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "con=null", "con0=null"]);
    kernel.arg("init=/bin/sh").arg(format!("uml_dir={}", directory.path().display())).arg("--").arg(&init);
    kernel.env("TMPDIR", directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Its processes are some of this machine's: they end together.
    let mut machine = kernel.process_group(0).spawn().expect("a machine");
    let began = Instant::now();
    while machine.try_wait().expect("one's own program").is_none() {
        if began.elapsed() > LIMIT {
            if let Some(group) = Pid::from_raw(machine.id().cast_signed()) {
                // It may just have ended.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = machine.wait();
            panic!("a machine of its own did not end: {}", fs::read_to_string(&printed).unwrap_or_default());
        }
        sleep(Duration::from_millis(100)).await;
    }
    fs::read_to_string(&printed).ok()
}

/// Turns the machine off behind the program, or when its time is up though nobody waits for it any more: without its
/// process 1 it would stand still.
fn script(program: &Path, arguments: &[&str], printed: &Path) -> String {
    let quoted: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    format!(
        "mount -t proc proc /proc\nip link set lo up\n(sleep {}; echo o >/proc/sysrq-trigger) &\n\
         {} {} >{} 2>&1\necho o >/proc/sysrq-trigger\nsleep 60\n",
        LIMIT.as_secs(),
        quoted_path(program),
        quoted.join(" "),
        quoted_path(printed)
    )
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        let script = script(Path::new("/a b/bench"), &["idle", "it's"], Path::new("/tmp/out"));
        assert!(script.contains(r"'/a b/bench' 'idle' 'it'\''s' >'/tmp/out' 2>&1"), "{script}");
    }
}
