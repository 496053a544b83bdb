//! A segment: one file of the traffic log on disk. Knows headers, lengths and checksums; what the events in a
//! frame are stands in [`super::record`].
//!
//! ```text
//! segment   magic "USTDYLOG" (8)   version u32   reserved u32, zero        then frames, one after the other
//! frame     payload bytes u32      CRC-32 u32    first event u64           events u32   payload
//! ```
//!
//! All numbers are little-endian. The checksum (CRC-32/ISO-HDLC) is of everything in the frame behind it. A
//! process that dies leaves a whole prefix: frames are only ever appended, and the first that is short or does
//! not match its checksum is where reading ends.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

const MAGIC: &[u8; 8] = b"USTDYLOG";
/// The format's.
pub const VERSION: u32 = 7;
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 20;
/// The longest payload, bytes: a length above it is no length.
const MAX_PAYLOAD_BYTES: u32 = 1 << 30;

/// Some events in a row, as they lie on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Number of the first event, counted since the log began.
    pub first: u64,
    /// How many events there are.
    pub events: u32,
    /// The events, as [`super::record`] writes them.
    pub payload: Vec<u8>,
}

/// Why a segment can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk.
    #[error("the traffic log's disk: {0}")]
    Disk(#[from] io::Error),
    /// It does not begin as a segment does.
    #[error("this is no segment of a traffic log")]
    NoSegment,
    /// It was written by another version.
    #[error("version {0} of the traffic log's format is not known here, only version {VERSION}")]
    Version(u32),
    /// A frame ends before its length says so, or its checksum is another.
    #[error("a frame of the traffic log is damaged")]
    Damaged,
    /// An event in a frame is none.
    #[error("an event of the traffic log can't be read: {0}")]
    Event(#[from] postcard::Error),
    /// A frame does not fit its length field.
    #[error("the events of one frame outgrow {} MiB", MAX_PAYLOAD_BYTES >> 20)]
    TooLarge,
}

/// A segment that is being written.
#[derive(Debug)]
pub struct SegmentWriter {
    file: File,
    /// Where the next frame goes, bytes from the beginning.
    pub end: u64,
}

impl SegmentWriter {
    /// A new file, for its owner's eyes only: it holds what clients sent.
    pub fn create(path: &Path) -> Result<Self, SegmentError> {
        let mut file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend([0; 4]);
        file.write_all(&header)?;
        Ok(Self { file, end: HEADER_BYTES as u64 })
    }

    /// Appends a frame; where it begins. A frame that could not be written whole is cut off again.
    pub fn append(&mut self, frame: &Frame) -> Result<u64, SegmentError> {
        let length = u32::try_from(frame.payload.len()).ok().filter(|l| *l <= MAX_PAYLOAD_BYTES);
        let length = length.ok_or(SegmentError::TooLarge)?;
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + frame.payload.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(checksum(frame.first, frame.events, &frame.payload).to_le_bytes());
        bytes.extend(frame.first.to_le_bytes());
        bytes.extend(frame.events.to_le_bytes());
        bytes.extend_from_slice(&frame.payload);
        let at = self.end;
        if let Err(error) = self.file.write_all_at(&bytes, at) {
            // What is behind the last whole frame is not read anyway.
            let _ = self.file.set_len(at);
            return Err(error.into());
        }
        self.end = at + bytes.len() as u64;
        Ok(at)
    }

    /// A second hold on the file, to read it by.
    pub fn reader(&self) -> Result<File, SegmentError> {
        Ok(self.file.try_clone()?)
    }
}

/// The frame that begins at `offset`.
pub fn frame_at(file: &File, offset: u64) -> Result<Frame, SegmentError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    read_at(file, &mut header, offset)?;
    let (length, sum, first, events) = parse_header(&header);
    if length > MAX_PAYLOAD_BYTES {
        return Err(SegmentError::Damaged);
    }
    let mut payload = vec![0; length as usize];
    read_at(file, &mut payload, offset + FRAME_HEADER_BYTES as u64)?;
    if checksum(first, events, &payload) != sum {
        return Err(SegmentError::Damaged);
    }
    Ok(Frame { first, events, payload })
}

/// Everything that is whole in a segment, in order: what a process that died has left as well.
pub fn frames(mut file: File) -> Result<impl Iterator<Item = Frame>, SegmentError> {
    let mut header = [0; HEADER_BYTES];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut header).map_err(|_| SegmentError::NoSegment)?;
    let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, v2, v3, ..] = header;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != *MAGIC {
        return Err(SegmentError::NoSegment);
    }
    let version = u32::from_le_bytes([v0, v1, v2, v3]);
    if version != VERSION {
        return Err(SegmentError::Version(version));
    }
    // A length is believed only as far as there is a file.
    let size = file.metadata()?.len();
    let mut offset = HEADER_BYTES as u64;
    Ok(std::iter::from_fn(move || {
        let mut length = [0; 4];
        file.read_exact_at(&mut length, offset).ok()?;
        let end = offset + FRAME_HEADER_BYTES as u64 + u64::from(u32::from_le_bytes(length));
        if end > size {
            return None;
        }
        let frame = frame_at(&file, offset).ok()?;
        offset = end;
        Some(frame)
    }))
}

fn read_at(file: &File, into: &mut [u8], offset: u64) -> Result<(), SegmentError> {
    file.read_exact_at(into, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SegmentError::Damaged,
        _ => error.into(),
    })
}

fn parse_header(header: &[u8; FRAME_HEADER_BYTES]) -> (u32, u32, u64, u32) {
    let [l0, l1, l2, l3, c0, c1, c2, c3, f0, f1, f2, f3, f4, f5, f6, f7, e0, e1, e2, e3] = *header;
    (
        u32::from_le_bytes([l0, l1, l2, l3]),
        u32::from_le_bytes([c0, c1, c2, c3]),
        u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]),
        u32::from_le_bytes([e0, e1, e2, e3]),
    )
}

fn checksum(first: u64, events: u32, payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&first.to_le_bytes());
    sum.update(&events.to_le_bytes());
    sum.update(payload);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u64, payload: &[u8]) -> Frame {
        Frame { first, events: 1, payload: payload.to_vec() }
    }

    fn written(frames: &[Frame]) -> (tempfile::TempDir, std::path::PathBuf, Vec<u64>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        let mut writer = SegmentWriter::create(&path).unwrap();
        let offsets = frames.iter().map(|frame| writer.append(frame).unwrap()).collect();
        (directory, path, offsets)
    }

    #[test]
    fn what_was_appended_is_read_by_its_place_and_in_order() {
        let given = [frame(0, b"one"), frame(1, b""), frame(2, &vec![7; 100_000])];
        let (_directory, path, offsets) = written(&given);
        let file = File::open(&path).unwrap();
        for (offset, frame) in offsets.iter().zip(&given) {
            assert_eq!(frame_at(&file, *offset).unwrap(), *frame);
        }
        assert_eq!(frames(file).unwrap().collect::<Vec<_>>(), given);
    }

    #[test]
    fn what_is_torn_off_anywhere_leaves_the_frames_before_it() {
        let given = [frame(0, b"one"), frame(1, b"two")];
        let (_directory, path, offsets) = written(&given);
        let whole = std::fs::read(&path).unwrap();
        for length in HEADER_BYTES..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let found: Vec<_> = frames(File::open(&path).unwrap()).unwrap().collect();
            let expected = usize::from(length >= usize::try_from(offsets[1]).unwrap());
            assert_eq!(found, given[..expected], "{length} bytes");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        let (_directory, path, offsets) = written(&[frame(5, b"payload")]);
        let whole = std::fs::read(&path).unwrap();
        for index in HEADER_BYTES..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let read = frame_at(&File::open(&path).unwrap(), offsets[0]);
            assert!(matches!(read, Err(SegmentError::Damaged)), "byte {index}: {read:?}");
        }
    }

    #[test]
    fn what_is_no_segment_of_this_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        for (bytes, version) in
            [(&b"USTD"[..], false), (b"something else!!", false), (b"USTDYLOG\x01\0\0\0\0\0\0\0", true)]
        {
            std::fs::write(&path, bytes).unwrap();
            match frames(File::open(&path).unwrap()) {
                Err(SegmentError::NoSegment) => assert!(!version),
                Err(SegmentError::Version(1)) => assert!(version),
                other => panic!("{:?}", other.err()),
            }
        }
    }
}
