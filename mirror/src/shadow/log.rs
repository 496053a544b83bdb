//! The traffic log: everything that was captured, once, in order, until every arm has read it. In memory first;
//! when the memory budget is half used, the oldest part goes to disk ([`spill`]). One writer, the ingest, and a
//! reader for each arm. Nothing of the production path comes here, so its lock delays nobody but the shadow side.
//!
//! ```text
//!    disk: frames in segments        memory: batches
//!   [ 0 .. 900 )[ 900 .. 1700 )     [ 1700 .. 1720 )[ 1720 .. 1751 )   ← the ingest appends
//!          ▲ a reader that is behind                         ▲ a reader that is level
//! ```
//!
//! What all readers have passed is gone at once, a file with the last frame of it that anybody needs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    arm::lock,
    entry::{Budget, ENTRY_BYTES, Entry},
};
use crate::capture::exchange::{Outcome, SessionId, SessionInfo};

pub mod disk;
pub mod record;
pub mod segment;
pub mod spill;

use disk::{Disk, Segment};
use record::{Record, Resolver};
use segment::SegmentError;

/// A batch that takes more of the memory budget is not added to, bytes: a reader takes it in whole.
const BATCH_BYTES: usize = 32 * 1024;
/// An arm holds one part in so many of the memory budget in what it has read and not played.
const WINDOW_PART: usize = 8;
/// What an event weighs beside the bytes it carries.
const EVENT_BYTES: usize = 64;

/// What the log tells an arm.
#[derive(Debug, Clone)]
pub enum LogEvent {
    /// A client has logged in.
    SessionOpened(Arc<SessionInfo>),
    /// A request is on its way to the worker.
    Begun(Arc<Entry>),
    /// Its outcome is known.
    Ended(Arc<Entry>),
    /// The session is over.
    SessionClosed(SessionId),
    /// All that production did until then has been told, ns.
    KnownUntil(u64),
}

impl LogEvent {
    /// What it takes of the memory budget, about.
    fn bytes(&self) -> usize {
        EVENT_BYTES
            + match self {
                Self::Begun(entry) => ENTRY_BYTES + entry.exchange.request.len(),
                Self::Ended(entry) => entry.outcome().map_or(0, Outcome::kept_bytes),
                _ => 0,
            }
    }
}

/// Events in a row.
#[derive(Debug)]
struct Batch {
    span: Span,
    events: Vec<LogEvent>,
    bytes: usize,
}

/// Where a row of events stands in the log.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// Number of the first event.
    first: u64,
    /// Number of the event behind the last.
    end: u64,
    /// Exchanges that had begun in the log up to the end.
    begun: u64,
}

/// Events on disk.
#[derive(Debug)]
struct OnDisk {
    span: Span,
    segment: Arc<Segment>,
    offset: u64,
}

/// How far a reader is.
#[derive(Debug, Clone, Copy)]
struct Position {
    event: u64,
    begun: u64,
}

#[derive(Debug, Default)]
struct State {
    end: u64,
    begun: u64,
    /// Older than what is in memory, without a gap.
    on_disk: VecDeque<OnDisk>,
    memory: VecDeque<Arc<Batch>>,
    readers: BTreeMap<u64, Position>,
    next_reader: u64,
}

/// The log.
#[derive(Debug)]
pub struct TrafficLog {
    state: Mutex<State>,
    /// The end, for readers that only want to know whether there is more.
    end: AtomicU64,
    budget: Arc<Budget>,
    disk: Option<Disk>,
    /// Why nothing more goes to disk.
    refused: Mutex<Option<String>>,
}

impl TrafficLog {
    /// An empty log, in this much memory and on this disk.
    pub fn new(budget: Arc<Budget>, disk: Option<Disk>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), end: AtomicU64::new(0), budget, disk, refused: Mutex::default() })
    }

    fn window_bytes(&self) -> usize {
        self.budget.limit_bytes / WINDOW_PART
    }

    /// The memory that captured traffic takes.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Why a reader is let go of when the memory does not last.
    pub fn too_far_behind(&self) -> String {
        let memory_mib = self.budget.limit_bytes >> 20;
        let and = match (&self.disk, self.disk_refused()) {
            (None, _) => String::new(),
            (Some(_), Some(refused)) => format!(" in memory, and {refused}"),
            (Some(_), None) => " in memory, and the disk was slower than the traffic".to_owned(),
        };
        format!("fell off the traffic log: it was behind by more than {memory_mib} MiB{and}")
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, Disk::used_bytes)
    }

    /// Why nothing more goes to disk, if there is one and it is so.
    pub fn disk_refused(&self) -> Option<String> {
        lock(&self.refused).clone()
    }

    /// Appends events; without a reader they are forgotten.
    pub fn append(&self, events: &mut Vec<LogEvent>) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.readers.is_empty() {
            events.clear();
            return;
        }
        for event in events.drain(..) {
            state.append(event);
        }
        self.end.store(state.end, Ordering::Release);
    }

    /// A reader that begins at the end, where `open` had begun and not ended.
    pub fn reader(self: &Arc<Self>, open: impl IntoIterator<Item = Arc<Entry>>) -> Reader {
        let mut state = lock(&self.state);
        let id = state.next_reader;
        state.next_reader += 1;
        let position = Position { event: state.end, begun: state.begun };
        state.readers.insert(id, position);
        // Only what may come from disk has to be brought together with what does not.
        let resolver = self.disk.as_ref().map(|_| Resolver::new(open));
        Reader { log: Arc::clone(self), id, read: AtomicU64::new(position.event), resolver: Mutex::new(resolver) }
    }
}

impl State {
    fn append(&mut self, event: LogEvent) {
        let number = self.end;
        let read = self.readers.values().any(|position| position.event == number);
        if let (false, Some(batch), LogEvent::KnownUntil(later)) = (read, self.growing(), &event)
            && let Some(LogEvent::KnownUntil(known_ns)) = batch.events.last_mut()
        {
            // Nobody has read the earlier one, and the later one says as much.
            *known_ns = *later;
            return;
        }
        self.end += 1;
        self.begun += u64::from(matches!(event, LogEvent::Begun(_)));
        let (bytes, end, begun) = (event.bytes(), self.end, self.begun);
        if let Some(batch) = self.growing() {
            batch.events.push(event);
            batch.bytes += bytes;
            batch.span = Span { end, begun, ..batch.span };
        } else {
            let span = Span { first: number, end, begun };
            self.memory.push_back(Arc::new(Batch { span, events: vec![event], bytes }));
        }
    }

    /// The last batch, while it is short and nobody is reading it.
    fn growing(&mut self) -> Option<&mut Batch> {
        self.memory.back_mut().filter(|batch| batch.bytes < BATCH_BYTES).and_then(Arc::get_mut)
    }

    /// What all readers have passed. It is to be let go of without the lock: a file is removed with its last frame,
    /// which takes as long as the disk does, and the ingest must be able to append meanwhile.
    #[must_use]
    fn trim(&mut self) -> Passed {
        let passed = self.readers.values().map(|position| position.event).min().unwrap_or(u64::MAX);
        let frames = self.on_disk.partition_point(|frame| frame.span.end <= passed);
        let batches = self.memory.partition_point(|batch| batch.span.end <= passed);
        Passed { _frames: self.on_disk.drain(..frames).collect(), _batches: self.memory.drain(..batches).collect() }
    }

    /// What stands at a reader's position, unless it is at the end.
    fn at(&self, event: u64) -> Option<Found> {
        if self.memory.front().is_some_and(|batch| batch.span.first <= event) {
            let index = self.memory.partition_point(|batch| batch.span.end <= event);
            return self.memory.get(index).map(|batch| Found::Memory(Arc::clone(batch)));
        }
        let index = self.on_disk.partition_point(|frame| frame.span.end <= event);
        let frame = self.on_disk.get(index).filter(|frame| frame.span.first <= event)?;
        Some(Found::Disk(frame.span, Arc::clone(&frame.segment), frame.offset))
    }
}

/// What nobody reads any more, until it is dropped.
struct Passed {
    _frames: Vec<OnDisk>,
    _batches: Vec<Arc<Batch>>,
}

enum Found {
    Memory(Arc<Batch>),
    Disk(Span, Arc<Segment>, u64),
}

/// An arm's place in the log.
#[derive(Debug)]
pub struct Reader {
    log: Arc<TrafficLog>,
    id: u64,
    /// Number of the event that it reads next.
    read: AtomicU64,
    resolver: Mutex<Option<Resolver>>,
}

impl Reader {
    /// Appends what comes next to `events`: some of it, not all. `false`: there is nothing yet. Reads from disk
    /// where it must, which may take as long as the disk does.
    pub fn read(&self, events: &mut Vec<LogEvent>) -> Result<bool, SegmentError> {
        let from = self.read.load(Ordering::Relaxed);
        if self.log.end.load(Ordering::Acquire) == from {
            return Ok(false);
        }
        let Some(found) = lock(&self.log.state).at(from) else { return Ok(false) };
        let mut resolver = lock(&self.resolver);
        let span = match &found {
            Found::Memory(batch) => {
                // A batch that went on after it was read begins before the position.
                let skipped = usize::try_from(from.saturating_sub(batch.span.first)).unwrap_or(usize::MAX);
                let new = batch.events.iter().skip(skipped);
                match resolver.as_mut() {
                    None => events.extend(new.cloned()),
                    Some(resolver) => events.extend(new.filter_map(|event| resolver.shared(event))),
                }
                batch.span
            }
            Found::Disk(span, segment, offset) => {
                let frame = segment.frame_at(*offset)?;
                let skipped = from.saturating_sub(frame.first);
                let mut rest = frame.payload.as_slice();
                for number in 0..u64::from(frame.events) {
                    let (record, behind) = Record::read(rest)?;
                    rest = behind;
                    if number >= skipped
                        && let Some(resolver) = resolver.as_mut()
                    {
                        events.extend(resolver.read(record, &self.log.budget));
                    }
                }
                *span
            }
        };
        drop(resolver);
        self.passed(span);
        // Only now: a batch that somebody holds is not changed.
        drop(found);
        Ok(true)
    }

    fn passed(&self, span: Span) {
        self.read.store(span.end, Ordering::Relaxed);
        let mut state = lock(&self.log.state);
        let Some(position) = state.readers.get_mut(&self.id) else { return };
        *position = Position { event: span.end, begun: span.begun };
        let passed = state.trim();
        drop(state);
        drop(passed);
    }

    /// How much a reader may hold that it has read and not played, bytes.
    pub fn window_bytes(&self) -> usize {
        self.log.window_bytes()
    }

    /// Exchanges that have begun in the log and that it has not read.
    pub fn unread(&self) -> u64 {
        let state = lock(&self.log.state);
        state.readers.get(&self.id).map_or(0, |position| state.begun - position.begun)
    }

    /// Reads no more: nothing is kept for it.
    pub fn leave(&self) {
        let mut state = lock(&self.log.state);
        state.readers.remove(&self.id);
        let passed = state.trim();
        drop(state);
        drop(passed);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
