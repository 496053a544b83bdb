//! The one shape of an error that a user sees: what happened, the facts, what to do.
//!
//! It must not carry secrets or user data, and it must not be logged where it is made: it is shown
//! once, by whoever handles it.

use std::{fmt, io, path::Path};

use serde::{Deserialize, Serialize};
use understudy_crds::condition::ConditionReason;

/// Where the trouble is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The production server.
    Worker,
    /// A clone.
    Arm,
    /// This machine: its files, its programs, its accounts.
    Host,
    /// What the user wrote.
    Document,
    /// The Kubernetes cluster.
    Cluster,
}

/// What kind of trouble it is, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// A server could not be reached, or the connection broke.
    Unreachable,
    /// A server refused: password, rights, `pg_hba.conf`.
    Refused,
    /// The worker is not fit for an experiment: a setting, a limit.
    Unfit,
    /// Not enough room on a disk.
    DiskFull,
    /// A program ended although it should run, or failed.
    Exited,
    /// Something took longer than its limit.
    TimedOut,
    /// It was asked to stop.
    Cancelled,
    /// A field of the document is wrong.
    InvalidField,
    /// A statement of the candidate failed.
    StatementFailed,
    /// The cut could not be made, or did not end where it should have.
    CutFailed,
    /// A promotion failed and was taken back.
    Reverted,
    /// Another run uses the same directory.
    Busy,
    /// A file or a directory could not be read or written.
    File,
    /// A program that is needed is missing or has the wrong version.
    Missing,
}

impl ErrorKind {
    /// The reason that stands in the experiment's conditions.
    pub const fn condition_reason(self) -> ConditionReason {
        match self {
            Self::Unreachable | Self::Refused | Self::Unfit => ConditionReason::WorkerRefused,
            Self::DiskFull | Self::Exited | Self::TimedOut | Self::Busy | Self::File | Self::Missing => {
                ConditionReason::CloneFailed
            }
            Self::Cancelled => ConditionReason::HaltedByUser,
            Self::InvalidField => ConditionReason::InvalidSpec,
            Self::StatementFailed => ConditionReason::CandidateFailed,
            Self::CutFailed => ConditionReason::CutFailed,
            Self::Reverted => ConditionReason::PromotionReverted,
        }
    }
}

/// An error as a user sees it.
///
/// `Display` prints a block: the first line says what happened, then aligned facts, then what to do.
/// It does not end in a new line and does not begin with `error: `; that is the printer's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserError {
    /// What happened, one line, lower case, no full stop.
    pub what: String,
    /// What is known about it, in the order in which it is shown.
    pub facts: Vec<(String, String)>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Where the trouble is.
    pub side: Side,
    /// What kind of trouble it is.
    pub kind: ErrorKind,
    /// Whether the worker and the disks are as they were before.
    pub nothing_changed: bool,
}

impl UserError {
    /// An error with no facts yet.
    pub fn new(kind: ErrorKind, side: Side, what: impl Into<String>) -> Self {
        Self { what: what.into(), facts: Vec::new(), remedy: None, side, kind, nothing_changed: false }
    }

    /// Adds a fact; an empty value is left out.
    #[must_use]
    pub fn fact(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        if !value.is_empty() {
            self.facts.push((key.into(), value));
        }
        self
    }

    /// In one line: what happened, and the reason where one is known.
    pub fn line(&self) -> String {
        match self.facts.iter().find(|(key, _)| key == "reason") {
            Some((_, reason)) => format!("{}: {}", self.what, reason.lines().next().unwrap_or_default()),
            None => self.what.clone(),
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// States that nothing was changed.
    #[must_use]
    pub fn nothing_changed(mut self) -> Self {
        self.nothing_changed = true;
        self
    }

    /// A file operation that failed; a full disk is told apart.
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
            _ => ErrorKind::File,
        };
        Self::new(kind, Side::Host, format!("can't {doing}"))
            .fact("path", path.display())
            .fact("reason", plain_io(error))
    }
}

/// The system's words for an error, without Rust's `(os error 2)`.
pub fn plain_io(error: &io::Error) -> String {
    let text = error.to_string();
    let plain = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = plain.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text,
    }
}

const WIDTH: usize = 88;

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, facts, remedy, side: _, kind: _, nothing_changed } = self;
        f.write_str(what)?;
        let do_line = remedy.as_ref().map(|remedy| ("do", wrapped(remedy)));
        let column = facts.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0).max(6) + 3;
        let facts = facts.iter().map(|(key, value)| (key.as_str(), value.lines().map(str::to_owned).collect()));
        for (key, lines) in facts.chain(do_line) {
            let lines: Vec<String> = lines;
            for (index, line) in lines.iter().enumerate() {
                let key = if index == 0 { key } else { "" };
                write!(f, "\n  {key:column$}{line}")?;
            }
        }
        if *nothing_changed {
            f.write_str("\n  nothing was changed")?;
        }
        Ok(())
    }
}

impl std::error::Error for UserError {}

/// Breaks long text between words; line breaks that are there stay.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_a_block_with_aligned_facts() {
        let error = UserError::new(ErrorKind::Unfit, Side::Worker, "the worker refuses a base backup")
            .fact("worker", "127.0.0.1:5432 (PostgreSQL 15.18), user app")
            .fact("reason", "max_wal_senders = 0")
            .fact("empty", "")
            .remedy(
                "ALTER SYSTEM SET max_wal_senders = 10; and restart the worker, or name a standby in spec.clone.from",
            )
            .nothing_changed();
        let expected = "\
the worker refuses a base backup
  worker   127.0.0.1:5432 (PostgreSQL 15.18), user app
  reason   max_wal_senders = 0
  do       ALTER SYSTEM SET max_wal_senders = 10; and restart the worker, or name a standby in
           spec.clone.from
  nothing was changed";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_longer_key_moves_the_column_and_lines_stay_under_it() {
        let error = UserError::new(ErrorKind::Exited, Side::Arm, "the clone did not start")
            .fact("data directory", "/x")
            .fact("log", "one\ntwo");
        assert_eq!(
            error.to_string(),
            "the clone did not start\n  data directory   /x\n  log              one\n                   two"
        );
    }

    #[test]
    fn a_full_disk_is_told_apart_and_no_raw_error_is_shown() {
        let full = io::Error::from_raw_os_error(28);
        let error = UserError::file("write the journal", Path::new("/x"), &full);
        assert_eq!(error.kind, ErrorKind::DiskFull);
        assert_eq!(error.to_string(), "can't write the journal\n  path     /x\n  reason   no space left on device");
    }
}
