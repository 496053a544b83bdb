//! A program that is measured: its processor time and its memory, as the kernel accounts them. It ends
//! when it is dropped.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use understudy_operator::platform::local::account::Account;

/// Ticks of `/proc/PID/stat` a second: `USER_HZ`, which Linux fixes for user space.
const TICKS: f64 = 100.0;

/// How long a program that ends in good order may take for it.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program under an account; what it prints goes nowhere.
    pub fn start(account: &Account, program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(account.setpriv_arguments("KILL")).arg(program).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{}: {error}", program.display())) }
    }

    /// Its process id: `setpriv` becomes the program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has used, user and system, µs.
    pub fn cpu_us(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("the program runs");
        ticks(&stat).expect("a line of /proc/PID/stat") * 1e6 / TICKS
    }

    /// Memory that it holds, bytes.
    pub fn resident_bytes(&self) -> f64 {
        self.status_bytes("VmRSS:")
    }

    /// The most that it has held since the peak was forgotten, bytes.
    pub fn peak_bytes(&self) -> f64 {
        self.status_bytes("VmHWM:")
    }

    /// The peak begins anew.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.id()), "5").expect("one's own program");
    }

    fn status_bytes(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the program runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let kib: f64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
        kib * 1024.0
    }

    /// Asks it to end, and waits for it.
    pub fn end(mut self) {
        self.terminate();
        let began = Instant::now();
        while self.is_running() {
            assert!(began.elapsed() < END_LIMIT, "the program does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn terminate(&self) {
        if let Some(pid) = Pid::from_raw(self.id().cast_signed()) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// The 14th and 15th field; the second may hold spaces.
fn ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        self.terminate();
        for _ in 0..200 {
            if !self.is_running() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_spaces() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 90 0 0 0 41 9 0 0 20 0 4 0 100 1 1";
        assert_eq!(ticks(stat), Some(50.0));
        assert_eq!(ticks("nonsense"), None);
    }
}
