//! The directory of the traffic log's segments: how much may be in it, and what goes when. It has no thread and
//! knows no events.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::segment::{self, FRAME_HEADER_BYTES, Frame, HEADER_BYTES, SegmentError, SegmentWriter};
use crate::shadow::arm::lock;

/// A segment that is longer is not added to, bytes; nor one that is longer than a part of all that may be.
const SEGMENT_BYTES: u64 = 64 << 20;
const SEGMENT_PART: u64 = 8;
const LOCK: &str = "lock";
const PREFIX: &str = "traffic-";
const SUFFIX: &str = ".log";

/// Where the log goes when half of the memory is used, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// The directory; made if it is not there. One mirror at a time.
    pub directory: PathBuf,
    /// The most that may lie there, bytes.
    pub limit_bytes: u64,
    /// Nothing is written when less than this part of the file system is free, percent: who shares it goes first.
    pub keep_free_percent: u8,
}

/// Why the directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another mirror has it.
    #[error("the traffic log's directory {} is in use by another mirror; give each its own", .0.display())]
    InUse(PathBuf),
    /// It can't be made, read or emptied.
    #[error("the traffic log's directory {}: {error}", .directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// The log has all that it may have.
    #[error("the traffic log has the {} KiB of disk that it may have", .0 >> 10)]
    Full(u64),
    /// The file system is for others too.
    #[error("less than {0} % of the file system with the traffic log is free")]
    FileSystemFull(u8),
    /// The segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// One file. It goes with the last who needs it.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    file: File,
    bytes: AtomicU64,
    used: Arc<AtomicU64>,
}

impl Segment {
    /// The frame that begins at `offset`.
    pub fn frame_at(&self, offset: u64) -> Result<Frame, SegmentError> {
        segment::frame_at(&self.file, offset)
    }

    fn grew(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a segment of the traffic log can't be removed");
        }
    }
}

/// The directory, and the segment that is being written.
#[derive(Debug)]
pub struct Disk {
    settings: DiskSettings,
    used: Arc<AtomicU64>,
    writing: Mutex<Option<(Arc<Segment>, SegmentWriter)>>,
    next_segment: AtomicU64,
    /// The directory was not there before.
    made: bool,
    _lock: File,
}

impl Disk {
    /// Opens the directory. What a mirror that died has left there is removed, with a word in the log.
    pub fn open(settings: DiskSettings) -> Result<Self, OpenError> {
        let directory = settings.directory.clone();
        let failed = |error| OpenError::Directory { directory: directory.clone(), error };
        let made = !directory.exists();
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let lock = File::create(directory.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(directory)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let left = segments(&directory).map_err(failed)?;
        for path in &left {
            fs::remove_file(path).map_err(failed)?;
        }
        if !left.is_empty() {
            tracing::info!(segments = left.len(), directory = %directory.display(), "removed an earlier traffic log");
        }
        Ok(Self {
            settings,
            used: Arc::default(),
            writing: Mutex::default(),
            next_segment: AtomicU64::new(1),
            made,
            _lock: lock,
        })
    }

    /// Writes a frame; where it is.
    pub fn append(&self, frame: &Frame) -> Result<(Arc<Segment>, u64), SpillError> {
        let bytes = (FRAME_HEADER_BYTES + frame.payload.len()) as u64;
        if self.used_bytes() + bytes + HEADER_BYTES as u64 > self.settings.limit_bytes {
            return Err(SpillError::Full(self.settings.limit_bytes));
        }
        self.leave_room(bytes)?;
        let mut guard = lock(&self.writing);
        let longest = SEGMENT_BYTES.min(self.settings.limit_bytes / SEGMENT_PART);
        let mut writing = guard.take().filter(|(_, writer)| writer.end < longest);
        if writing.is_none() {
            let number = self.next_segment.fetch_add(1, Ordering::Relaxed);
            let path = self.settings.directory.join(format!("{PREFIX}{number:016}{SUFFIX}"));
            let (file, writer) = whole(&path, |path| {
                let writer = SegmentWriter::create(path)?;
                Ok((writer.reader()?, writer))
            })?;
            let segment = Segment { path, file, bytes: AtomicU64::new(0), used: Arc::clone(&self.used) };
            segment.grew(HEADER_BYTES as u64);
            writing = Some((Arc::new(segment), writer));
        }
        let (segment, writer) = guard.insert(writing.ok_or(SegmentError::NoSegment)?);
        let offset = writer.append(frame)?;
        segment.grew(bytes);
        Ok((Arc::clone(segment), offset))
    }

    /// Nobody is behind any more: the file that was written last may go.
    pub fn rest(&self) {
        lock(&self.writing).take();
    }

    /// Bytes on disk.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn leave_room(&self, bytes: u64) -> Result<(), SpillError> {
        let percent = self.settings.keep_free_percent;
        let system = rustix::fs::statvfs(&self.settings.directory).map_err(|e| SegmentError::Disk(e.into()))?;
        let free_bytes = system.f_bavail.saturating_mul(system.f_frsize).saturating_sub(bytes);
        let whole_bytes = system.f_blocks.saturating_mul(system.f_frsize);
        if u128::from(free_bytes) * 100 < u128::from(whole_bytes) * u128::from(percent) {
            return Err(SpillError::FileSystemFull(percent));
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.rest();
        if self.made {
            // Whatever else somebody has put there stays, and the directory with it.
            let _ = fs::remove_file(self.settings.directory.join(LOCK));
            let _ = fs::remove_dir(&self.settings.directory);
        }
    }
}

/// Makes a file. What was not made whole is removed again: nobody would count it, and there may be one at each attempt.
fn whole<T>(path: &Path, make: impl FnOnce(&Path) -> Result<T, SegmentError>) -> Result<T, SegmentError> {
    make(path).inspect_err(|_| {
        // It may not have come to a file.
        let _ = fs::remove_file(path);
    })
}

/// The segments in a directory, oldest first: those of a mirror that died as well.
pub fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &Path, limit_bytes: u64) -> DiskSettings {
        DiskSettings { directory: directory.join("log"), limit_bytes, keep_free_percent: 0 }
    }

    fn frame(first: u64, bytes: usize) -> Frame {
        Frame { first, events: 1, payload: vec![1; bytes] }
    }

    #[test]
    fn a_segment_goes_with_the_last_who_needs_it() {
        let temporary = tempfile::tempdir().unwrap();
        let disk = Disk::open(settings(temporary.path(), 1 << 20)).unwrap();
        let (segment, offset) = disk.append(&frame(0, 10)).unwrap();
        let (same, second) = disk.append(&frame(1, 20)).unwrap();
        assert!(Arc::ptr_eq(&segment, &same) && second > offset);
        let directory = temporary.path().join("log");
        disk.rest();
        drop(same);
        assert_eq!((segments(&directory).unwrap().len(), disk.used_bytes()), (1, 16 + 2 * 20 + 30));
        assert_eq!(segment.frame_at(offset).unwrap(), frame(0, 10));
        drop(segment);
        assert_eq!((segments(&directory).unwrap().len(), disk.used_bytes()), (0, 0));
        drop(disk);
        assert!(!directory.exists() && temporary.path().exists(), "what was made is gone, and nothing else");
    }

    #[test]
    fn no_more_is_written_than_may_be() {
        let temporary = tempfile::tempdir().unwrap();
        let disk = Disk::open(settings(temporary.path(), 100)).unwrap();
        let held = disk.append(&frame(0, 50)).unwrap();
        assert!(matches!(disk.append(&frame(1, 50)), Err(SpillError::Full(100))));
        disk.rest();
        drop(held);
        disk.append(&frame(1, 50)).unwrap();
        let all = DiskSettings { keep_free_percent: 100, ..settings(temporary.path(), 1 << 20) };
        drop(disk);
        let disk = Disk::open(all).unwrap();
        assert!(matches!(disk.append(&frame(0, 1)), Err(SpillError::FileSystemFull(100))));
    }

    #[test]
    fn a_file_that_could_not_be_made_whole_is_not_left() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("traffic-1.log");
        let full = |path: &Path| -> Result<(), SegmentError> {
            SegmentWriter::create(path)?;
            Err(io::Error::from(io::ErrorKind::StorageFull).into())
        };
        assert!(matches!(whole(&path, full), Err(SegmentError::Disk(_))));
        assert!(!path.exists());
        assert!(whole(&path, SegmentWriter::create).is_ok() && path.exists());
    }

    #[test]
    fn what_an_earlier_mirror_left_goes_and_two_do_not_share_a_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let given = settings(temporary.path(), 1 << 20);
        fs::create_dir(&given.directory).unwrap();
        let disk = Disk::open(given.clone()).unwrap();
        assert!(matches!(Disk::open(given.clone()), Err(OpenError::InUse(_))));
        drop(disk);
        let left = given.directory.join("traffic-0000000000000007.log");
        fs::write(&left, "left").unwrap();
        fs::write(given.directory.join("notes.txt"), "somebody's own").unwrap();
        let _disk = Disk::open(given.clone()).unwrap();
        assert!(!left.exists() && given.directory.join("notes.txt").exists());
    }
}
