//! Moves the oldest part of the traffic log from memory to disk, on a thread of its own: a slow or full disk
//! delays neither what is captured nor the arms that are level with production.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Batch, OnDisk, Record, Span, TrafficLog, disk::SpillError, segment::Frame};
use crate::shadow::arm::{lock, yield_to_production};

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long the disk is left alone that has just refused something.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// No more than about so much of the memory budget goes into one frame, bytes, and no more than half of what a
/// reader may hold: it takes a frame in whole.
const FRAME_BYTES: usize = 1 << 20;

/// Runs until told to stop.
pub fn run(log: &TrafficLog, stop: &AtomicBool) {
    yield_to_production();
    while !stop.load(Ordering::Relaxed) {
        let pause = match log.spill() {
            Ok(true) => {
                log.note_refused(None);
                continue;
            }
            Ok(false) => LOOK,
            Err(error) => {
                log.note_refused(Some(error.to_string()));
                REFUSED_PAUSE
            }
        };
        thread::park_timeout(pause);
    }
}

impl TrafficLog {
    /// Moves a frame's worth to disk, if the memory is half used. Whether it did.
    pub fn spill(&self) -> Result<bool, SpillError> {
        let Some(disk) = &self.disk else { return Ok(false) };
        if lock(&self.state).on_disk.is_empty() {
            disk.rest();
        }
        if self.budget.used_bytes() <= self.budget.limit_bytes / 2 {
            self.note_refused(None);
            return Ok(false);
        }
        let batches = self.oldest();
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return Ok(false) };
        let span = Span { first: first.span.first, ..last.span };
        let (segment, offset) = disk.append(&frame(&batches)?)?;
        let mut state = lock(&self.state);
        // Some may have been passed by all in the meantime; nothing else moves them.
        while state.memory.front().is_some_and(|batch| batch.span.end <= span.end) {
            state.memory.pop_front();
        }
        state.on_disk.push_back(OnDisk { span, segment, offset });
        let passed = state.trim();
        drop(state);
        drop(passed);
        Ok(true)
    }

    /// The oldest batches in memory, a frame's worth.
    fn oldest(&self) -> Vec<Arc<Batch>> {
        let state = lock(&self.state);
        let mut bytes = 0;
        let frame_bytes = FRAME_BYTES.min(self.window_bytes() / 2);
        let mut enough = |batch: &&Arc<Batch>| {
            let more = bytes <= frame_bytes;
            bytes += batch.bytes;
            more
        };
        state.memory.iter().take_while(&mut enough).cloned().collect()
    }

    fn note_refused(&self, why: Option<String>) {
        let mut refused = lock(&self.refused);
        if *refused != why {
            if let Some(why) = &why {
                tracing::warn!(why, "nothing more of the traffic log goes to disk");
            } else {
                tracing::info!("the traffic log goes to disk again where it must");
            }
            *refused = why;
        }
    }
}

fn frame(batches: &[Arc<Batch>]) -> Result<Frame, SpillError> {
    let mut payload = Vec::with_capacity(FRAME_BYTES);
    let mut events = 0;
    for event in batches.iter().flat_map(|batch| &batch.events) {
        payload = Record::of(event).write(payload).map_err(super::SegmentError::from)?;
        events += 1;
    }
    let first = batches.first().map_or(0, |batch| batch.span.first);
    Ok(Frame { first, events, payload })
}
