//! The journal of everything that a run makes outside its reports, and the lock on its directory.
//!
//! An entry is written *before* the thing is made, so that the next start with the same directory
//! finds and clears what a killed run left. Nothing is ever stopped or removed that is not certainly
//! ours: a process must have the start time that was noted, or be a server on a data directory that
//! was noted; a directory must bear a name that only we give.

use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use super::{place::remove_tree, process::start_time};
use crate::error::{ErrorKind, Side, UserError, plain_io};

const JOURNAL: &str = "understudy.journal";
const LOCK: &str = "understudy.lock";
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// One thing that a run makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Entry {
    /// A directory; it goes with all that is in it.
    Directory { path: PathBuf },
    /// A data directory; a server may run on it.
    DataDirectory { path: PathBuf },
    /// A process.
    #[serde(rename_all = "camelCase")]
    Process { pid: u32, start_time: u64, program: String },
    /// A promotion that has begun: the worker is being changed.
    Promotion { candidate: String },
    /// That promotion has ended, well or taken back.
    PromotionEnded { candidate: String },
}

/// Something that was found and cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleared {
    /// A process was stopped.
    Stopped {
        /// What it was.
        program: String,
        /// Its number.
        pid: u32,
    },
    /// A directory was removed.
    Removed(PathBuf),
    /// A promotion was cut short: the worker may have a part of the change. Nothing was done about it.
    InterruptedPromotion(String),
}

impl fmt::Display for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped { program, pid } => write!(f, "stopped {program} (process {pid})"),
            Self::Removed(path) => write!(f, "removed {}", path.display()),
            Self::InterruptedPromotion(candidate) => {
                write!(f, "the promotion of {candidate} was interrupted: the worker may have a part of the change")
            }
        }
    }
}

/// The journal of this run. Dropping it clears everything, unless it was told to keep.
#[derive(Debug)]
pub struct Leftovers {
    directory: PathBuf,
    journal: Mutex<Option<File>>,
    // Held for as long as the run lasts; the kernel lets go when we die.
    _lock: File,
}

impl Leftovers {
    /// Locks a directory for this run, clears what earlier runs left there, and says what that was.
    pub fn find_and_clear(directory: &Path) -> Result<(Self, Vec<Cleared>), UserError> {
        fs::create_dir_all(directory).map_err(|e| UserError::file("make the work directory", directory, &e))?;
        let directory = fs::canonicalize(directory).map_err(|e| UserError::file("find", directory, &e))?;
        let lock = lock(&directory)?;
        let cleared = clear(&directory)?;
        let path = directory.join(JOURNAL);
        let journal = OpenOptions::new().create(true).append(true).open(&path);
        let journal = journal.map_err(|e| UserError::file("write the journal", &path, &e))?;
        Ok((Self { directory, journal: Mutex::new(Some(journal)), _lock: lock }, cleared))
    }

    /// Notes a directory that is about to be made. There must be nothing in its place.
    pub fn directory(&self, path: &Path) -> Result<(), UserError> {
        self.free(path)?;
        self.note(&Entry::Directory { path: path.to_owned() })
    }

    /// Notes a data directory that is about to be made, or the directory of one.
    pub fn data_directory(&self, path: &Path) -> Result<(), UserError> {
        self.note(&Entry::DataDirectory { path: path.to_owned() })
    }

    /// Notes a process that was just started.
    pub fn process(&self, program: &str, pid: u32, start_time: u64) -> Result<(), UserError> {
        self.note(&Entry::Process { pid, start_time, program: program.to_owned() })
    }

    /// Notes that a promotion begins.
    pub fn promotion(&self, candidate: &str) -> Result<(), UserError> {
        self.note(&Entry::Promotion { candidate: candidate.to_owned() })
    }

    /// Notes that a promotion has ended, well or taken back.
    pub fn promotion_ended(&self, candidate: &str) -> Result<(), UserError> {
        self.note(&Entry::PromotionEnded { candidate: candidate.to_owned() })
    }

    /// The ordinary end: stops and removes everything that was noted, and the journal itself.
    pub fn teardown(&self) -> Result<Vec<Cleared>, UserError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.take().is_none() {
            return Ok(Vec::new());
        }
        let cleared = clear(&self.directory)?;
        let _ = fs::remove_file(self.directory.join(LOCK));
        Ok(cleared)
    }

    /// Leaves everything as it is when this is dropped; the next start will clear it.
    pub fn keep(&self) {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn free(&self, path: &Path) -> Result<(), UserError> {
        if !is_our_name(&self.directory, path) {
            return Err(UserError::new(
                ErrorKind::File,
                Side::Host,
                "a directory has a name that could be somebody else's",
            )
            .fact("path", path.display()));
        }
        match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
            Ok(false) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(true) => Err(UserError::new(ErrorKind::File, Side::Host, "something is in the way of the clones")
                .fact("path", path.display())
                .remedy("move it away, or use another directory with --out")
                .nothing_changed()),
            Err(e) => Err(UserError::file("look into a directory", path, &e)),
        }
    }

    fn note(&self, entry: &Entry) -> Result<(), UserError> {
        let path = self.directory.join(JOURNAL);
        let failed = |e: &io::Error| UserError::file("write the journal", &path, e);
        let mut line = serde_json::to_vec(entry).map_err(|e| failed(&io::Error::other(e)))?;
        line.push(b'\n');
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let file = journal.as_mut().ok_or_else(|| failed(&io::Error::other("the run has ended")))?;
        file.write_all(&line).and_then(|()| file.sync_data()).map_err(|e| failed(&e))
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // Whoever wants to know what went wrong calls `teardown` first.
        let _ = self.teardown();
    }
}

fn lock(directory: &Path) -> Result<File, UserError> {
    let path = directory.join(LOCK);
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.map_err(|e| UserError::file("lock the work directory", &path, &e))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let owner = fs::read_to_string(&path).unwrap_or_default();
        return Err(UserError::new(ErrorKind::Busy, Side::Host, "another run uses this directory")
            .fact("directory", directory.display())
            .fact("process", owner.trim())
            .remedy("wait until it has ended, or use another directory with --out")
            .nothing_changed());
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(|e| UserError::file("lock the work directory", &path, &e))?;
    Ok(file)
}

/// Stops and removes what the journal names, then removes the journal.
fn clear(directory: &Path) -> Result<Vec<Cleared>, UserError> {
    let path = directory.join(JOURNAL);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(UserError::file("read the journal", &path, &e)),
    };
    // A line that was cut short was never acted upon.
    let entries: Vec<Entry> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut cleared = Vec::new();
    for entry in entries.iter().rev() {
        match entry {
            Entry::Process { pid, start_time: noted, program } if start_time(*pid) == Some(*noted) => {
                stop(*pid, *noted)?;
                cleared.push(Cleared::Stopped { program: program.clone(), pid: *pid });
            }
            Entry::DataDirectory { path } => {
                if let Some((pid, began)) = server_on(path) {
                    stop(pid, began)?;
                    cleared.push(Cleared::Stopped { program: "postgres".into(), pid });
                }
            }
            Entry::Process { .. }
            | Entry::Directory { .. }
            | Entry::Promotion { .. }
            | Entry::PromotionEnded { .. } => {}
        }
    }
    for entry in entries.iter().rev() {
        if let Entry::Directory { path } = entry
            && is_our_name(directory, path)
            && fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
        {
            remove_tree(path)?;
            cleared.push(Cleared::Removed(path.clone()));
        }
    }
    cleared.extend(interrupted(&entries).map(Cleared::InterruptedPromotion));
    fs::remove_file(&path).map_err(|e| UserError::file("remove the journal", &path, &e))?;
    Ok(cleared)
}

/// The promotion that began and did not end.
fn interrupted(entries: &[Entry]) -> Option<String> {
    entries.iter().fold(None, |open, entry| match entry {
        Entry::Promotion { candidate } => Some(candidate.clone()),
        Entry::PromotionEnded { .. } => None,
        Entry::Directory { .. } | Entry::DataDirectory { .. } | Entry::Process { .. } => open,
    })
}

/// Whether a directory bears a name that only we give: `servers` in our own work directory, or
/// `understudy-…` anywhere.
fn is_our_name(work: &Path, path: &Path) -> bool {
    let ours = path.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with("understudy-"));
    path.is_absolute() && (ours || path == work.join("servers"))
}

/// The server that runs on a data directory: `postmaster.pid` names it, it is a `postgres`, and it
/// works in that very directory.
fn server_on(data: &Path) -> Option<(u32, u64)> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let proc = Path::new("/proc").join(pid.to_string());
    let began = start_time(pid)?;
    let program = fs::read_to_string(proc.join("comm")).ok()?;
    let works_in = fs::read_link(proc.join("cwd")).ok()?;
    (program.trim() == "postgres" && works_in == fs::canonicalize(data).ok()?).then_some((pid, began))
}

fn stop(pid: u32, began: u64) -> Result<(), UserError> {
    let failed = |e: &io::Error| {
        UserError::new(ErrorKind::File, Side::Host, "can't stop what an earlier run left")
            .fact("process", pid)
            .fact("reason", plain_io(e))
            .remedy(format!("stop process {pid} yourself, or start as the user who ran it"))
    };
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(raw) = raw else { return Ok(()) };
    let Ok(handle) = pidfd_open(raw, PidfdFlags::empty()) else { return Ok(()) };
    // The handle is on whoever has the number now; only then is it certain who that is.
    let still_there = || start_time(pid) == Some(began) && !is_zombie(pid);
    for signal in [Signal::QUIT, Signal::KILL] {
        if !still_there() {
            return Ok(());
        }
        match pidfd_send_signal(&handle, signal) {
            Err(e) if e != rustix::io::Errno::SRCH => return Err(failed(&e.into())),
            _ => {}
        }
        let end = Instant::now() + STOP_LIMIT;
        while still_there() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    if still_there() { Err(failed(&io::Error::other("it does not end"))) } else { Ok(()) }
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_in_one_directory_refuse_one_another() {
        let work = tempfile::tempdir().expect("dir");
        let (first, _) = Leftovers::find_and_clear(work.path()).expect("the first run");
        let error = Leftovers::find_and_clear(work.path()).expect_err("the second run");
        assert_eq!(error.kind, ErrorKind::Busy);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Leftovers::find_and_clear(work.path()).expect("after the first one");
    }

    #[test]
    fn directories_are_removed_at_the_end_and_nothing_stays_in_the_work_directory() {
        let work = tempfile::tempdir().expect("dir");
        let (run, found) = Leftovers::find_and_clear(work.path()).expect("a run");
        assert_eq!(found, []);
        let servers = fs::canonicalize(work.path()).expect("path").join("servers");
        run.directory(&servers).expect("noted");
        fs::create_dir_all(servers.join("data")).expect("made");
        assert_eq!(run.teardown().expect("cleared"), [Cleared::Removed(servers)]);
        drop(run);
        assert_eq!(fs::read_dir(work.path()).expect("dir").count(), 0);
    }

    #[test]
    fn only_names_of_ours_are_taken() {
        let work = Path::new("/w");
        for (path, ours) in [
            ("/w/servers", true),
            ("/tmp/understudy-abc", true),
            ("/w", false),
            ("/", false),
            ("/home/me/servers", false),
            ("understudy-x", false),
        ] {
            assert_eq!(is_our_name(work, Path::new(path)), ours, "{path}");
        }
    }

    #[test]
    fn a_directory_with_something_in_it_is_in_the_way() {
        let work = tempfile::tempdir().expect("dir");
        let (run, _) = Leftovers::find_and_clear(work.path()).expect("a run");
        let servers = fs::canonicalize(work.path()).expect("path").join("servers");
        fs::create_dir_all(servers.join("mine")).expect("made");
        assert!(run.directory(&servers).is_err());
        drop(run);
        assert!(servers.join("mine").exists());
    }

    #[test]
    fn a_process_with_another_start_time_is_left_alone() {
        let work = tempfile::tempdir().expect("dir");
        let (run, _) = Leftovers::find_and_clear(work.path()).expect("a run");
        let own = std::process::id();
        run.process("this test", own, start_time(own).expect("its start") + 1).expect("noted");
        assert_eq!(run.teardown().expect("cleared"), []);
    }

    #[test]
    fn an_interrupted_promotion_is_said() {
        let begun = |c: &str| Entry::Promotion { candidate: c.into() };
        let ended = |c: &str| Entry::PromotionEnded { candidate: c.into() };
        for (entries, expected) in [
            (vec![], None),
            (vec![begun("a")], Some("a")),
            (vec![begun("a"), ended("a")], None),
            (vec![begun("a"), ended("a"), begun("b")], Some("b")),
        ] {
            assert_eq!(interrupted(&entries).as_deref(), expected);
        }
    }
}
