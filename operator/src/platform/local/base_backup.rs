//! Copies the worker's data with `pg_basebackup`, while the worker serves.
//!
//! It copies and says how far it is; configuration and starting are done elsewhere. Dropping the
//! future stops the copy.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use tokio::io::{AsyncBufReadExt, BufReader};

use super::{
    account::Account,
    binaries::Binaries,
    facts::Tablespace,
    process::{Launch, Output},
};
use crate::error::{ErrorKind, Side, UserError, plain_io};

/// Longest time without any sign of life from the copy.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes in all, as far as the worker could tell at the beginning.
    pub total_bytes: u64,
}

/// A copy to make.
#[derive(Clone, Debug)]
pub struct BaseBackup {
    /// The arm that it is for, for messages.
    pub arm: String,
    /// The worker, for messages.
    pub worker: String,
    /// The program.
    pub binaries: Binaries,
    /// The account that owns the copy.
    pub account: Account,
    /// How the worker is reached, without a password.
    pub conninfo: String,
    /// Where the data goes; made by the copy.
    pub data_dir: PathBuf,
    /// The worker's tablespaces.
    pub tablespaces: Vec<Tablespace>,
    /// Where they go, each below it by number.
    pub tablespace_dir: PathBuf,
    /// The most that it may take from the worker, KiB a second.
    pub max_rate_kib: Option<u32>,
}

impl BaseBackup {
    /// Makes the copy. `started` gets the program, its number and start time as soon as it runs.
    pub async fn run(
        self,
        started: impl FnOnce(&'static str, u32, u64) -> Result<(), UserError>,
        mut progress: impl FnMut(CopyProgress),
    ) -> Result<(), UserError> {
        let mut process = Launch::new(self.binaries.program("pg_basebackup"), &self.account, "TERM")
            .arguments(self.arguments())
            .output(Output::Null, Output::Pipe)
            .start()
            .await?;
        started("pg_basebackup", process.pid(), process.start_time())?;
        let pipe_failed = |e: &std::io::Error| {
            UserError::new(ErrorKind::File, Side::Host, "can't follow a copy").fact("reason", plain_io(e))
        };
        let stderr = process.stderr.take().ok_or_else(|| pipe_failed(&std::io::Error::other("no pipe")))?;
        let stderr = tokio::process::ChildStderr::from_std(stderr).map_err(|e| pipe_failed(&e))?;
        let mut lines = BufReader::new(stderr).split(b'\n');
        let mut said = Vec::new();
        loop {
            match tokio::time::timeout(SILENCE_LIMIT, lines.next_segment()).await {
                Ok(Ok(Some(line))) => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    match progress_in(&line) {
                        Some(now) => progress(now),
                        None if said.len() < 20 => said.push(line),
                        None => {}
                    }
                }
                Ok(Ok(None) | Err(_)) => break,
                Err(_) => {
                    process.kill_now();
                    return Err(UserError::new(
                        ErrorKind::TimedOut,
                        Side::Worker,
                        format!("the copy for {} stands still", self.arm),
                    )
                    .fact("worker", &self.worker)
                    .fact("limit", format!("{} s without a sign of life", SILENCE_LIMIT.as_secs())));
                }
            }
        }
        match process.wait(Duration::from_secs(30)).await {
            Some(status) if status.success() => Ok(()),
            status => Err(self.failed(status, &said)),
        }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            // Not `stream`: that is a second process, which outlives the first when that is killed, and a
            // second WAL sender of the worker. The slot of `WalHold` keeps what is fetched at the end.
            "--wal-method=fetch",
            "--checkpoint=fast",
            "--progress",
            "--no-password",
            "--no-slot",
            "--no-manifest",
            "--no-sync",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--pgdata={}", self.data_dir.display()));
        arguments.push(format!("--dbname={}", self.conninfo));
        for Tablespace { oid, location } in &self.tablespaces {
            let to = self.tablespace_dir.join(oid.to_string());
            arguments.push(format!("--tablespace-mapping={}={}", location.replace('=', "\\="), escaped(&to)));
        }
        if let Some(rate) = self.max_rate_kib {
            arguments.push(format!("--max-rate={rate}"));
        }
        arguments
    }

    fn failed(&self, status: Option<ExitStatus>, said: &[String]) -> UserError {
        let reason = reason_in(said);
        let (kind, side, what, remedy) = judge(&reason);
        let error = UserError::new(kind, side, what)
            .fact("clone", &self.arm)
            .fact("worker", &self.worker)
            .fact("reason", &reason);
        let error = match status {
            Some(status) if reason.is_empty() => error.fact("ended", status),
            _ => error,
        };
        match remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }
}

fn escaped(path: &Path) -> String {
    path.display().to_string().replace('=', "\\=")
}

/// `  23456/7890123 kB (12%), 0/1 tablespace`.
fn progress_in(line: &str) -> Option<CopyProgress> {
    let (numbers, _) = line.trim().split_once(" kB")?;
    let (done, total) = numbers.split_once('/')?;
    let bytes = |kib: &str| kib.trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024));
    Some(CopyProgress { done_bytes: bytes(done)?, total_bytes: bytes(total)? })
}

/// The first complaint: what follows it is mostly its consequence.
fn reason_in(said: &[String]) -> String {
    let complaint = said.iter().find(|line| line.contains("error:") || line.contains("FATAL:"));
    let Some(line) = complaint else { return String::new() };
    let text = line.split_once("FATAL:").or_else(|| line.split_once("error:")).map_or(line.as_str(), |(_, text)| text);
    text.trim().to_owned()
}

fn judge(reason: &str) -> (ErrorKind, Side, &'static str, Option<&'static str>) {
    let has = |text: &str| reason.contains(text);
    if has("No space left on device") || has("Disk quota exceeded") {
        let remedy = "free some space, or put the clone elsewhere: --out, or spec.candidates[].storage.directory";
        (ErrorKind::DiskFull, Side::Host, "the disk is full: the clone was not made", Some(remedy))
    } else if has("no pg_hba.conf entry") || has("pg_hba.conf rejects") {
        let remedy = "add to the worker's pg_hba.conf: host replication USER ADDRESS scram-sha-256 (or local replication USER peer), then SELECT pg_reload_conf();";
        (ErrorKind::Refused, Side::Worker, "the worker refuses a base backup", Some(remedy))
    } else if has("max_wal_senders") || has("standby connections") {
        let remedy = "raise max_wal_senders and restart the worker: each clone takes one";
        (ErrorKind::Refused, Side::Worker, "the worker has no free WAL sender", Some(remedy))
    } else if has("password") {
        let remedy = "put the right password on the first line of spec.target.local.passwordFile";
        (ErrorKind::Refused, Side::Worker, "the worker does not accept the password", Some(remedy))
    } else if has("must be superuser or replication role") || has("permission denied") {
        (
            ErrorKind::Refused,
            Side::Worker,
            "the worker refuses a base backup",
            Some("name a superuser in spec.target.local.user"),
        )
    } else if has("connection to server")
        || has("could not receive data")
        || has("could not read COPY data")
        || has("terminating connection")
    {
        (
            ErrorKind::Unreachable,
            Side::Worker,
            "the connection broke while the worker was copied",
            Some("start again when the worker is up"),
        )
    } else {
        (ErrorKind::Exited, Side::Worker, "the worker could not be copied", None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_are_read() {
        for (line, expected) in [
            ("  2345/789012 kB (0%), 0/1 tablespace", Some((2345, 789_012))),
            ("789012/789012 kB (100%), 1/1 tablespace", Some((789_012, 789_012))),
            ("waiting for checkpoint", None),
            ("x/y kB", None),
        ] {
            let expected = expected.map(|(d, t)| CopyProgress { done_bytes: d * 1024, total_bytes: t * 1024 });
            assert_eq!(progress_in(line), expected, "{line}");
        }
    }

    #[test]
    fn failures_are_told_apart() {
        for (line, kind) in [
            ("pg_basebackup: error: could not write to file \"x\": No space left on device", ErrorKind::DiskFull),
            (
                "pg_basebackup: error: connection to server at \"127.0.0.1\", port 1 failed: FATAL:  no pg_hba.conf entry for replication connection from host \"127.0.0.1\"",
                ErrorKind::Refused,
            ),
            (
                "pg_basebackup: error: connection to server at \"h\", port 1 failed: FATAL:  password authentication failed for user \"u\"",
                ErrorKind::Refused,
            ),
            (
                "pg_basebackup: error: connection to server at \"127.0.0.1\", port 1 failed: Connection refused",
                ErrorKind::Unreachable,
            ),
            (
                "pg_basebackup: error: could not read COPY data: server closed the connection unexpectedly",
                ErrorKind::Unreachable,
            ),
            ("pg_basebackup: error: something new", ErrorKind::Exited),
        ] {
            let reason = reason_in(&["waiting".into(), line.into(), "pg_basebackup: removing data directory".into()]);
            assert!(!reason.is_empty(), "{line}");
            assert_eq!(judge(&reason).0, kind, "{line}");
        }
    }
}
