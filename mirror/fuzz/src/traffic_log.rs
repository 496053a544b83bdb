//! Checks of the traffic log on disk: its events, and the segments they lie in.

use std::{fs::File, io::Write};

use understudy_mirror::shadow::log::{
    record::Record,
    segment::{FRAME_HEADER_BYTES, Frame, HEADER_BYTES, SegmentWriter, frame_at, frames},
};

/// Events are read or refused; what is read is written and read again as it was, and what is behind it stays
/// where it is.
pub fn record(data: &[u8]) {
    let mut rest = data;
    while let Ok((record, behind)) = Record::read(rest) {
        assert!(behind.len() < rest.len() && rest.ends_with(behind));
        let Ok(written) = record.write(Vec::new()) else { panic!("{record:?} can't be written") };
        let Ok((again, [])) = Record::read(&written) else { panic!("{record:?} can't be read again") };
        assert_eq!(again, record);
        rest = behind;
    }
}

/// A file is a segment or is refused; its frames lie one behind the other in it, and written again they are the
/// same bytes.
pub fn segment(data: &[u8]) {
    let (Ok(directory), Ok(mut file)) = (tempfile::tempdir(), tempfile::tempfile()) else { panic!("no files here") };
    let Ok(()) = file.write_all(data) else { panic!("no room for {} bytes", data.len()) };
    let Ok(found) = file.try_clone().map_err(Into::into).and_then(frames) else { return };
    let path = directory.path().join("segment");
    let Ok(mut again) = SegmentWriter::create(&path) else { panic!("no second file") };
    for frame in found {
        let Ok(offset) = again.append(&frame) else { panic!("{frame:?} can't be written") };
        expect_at(&file, offset, &frame);
    }
    let Ok(written) = std::fs::read(&path) else { panic!("the second file is gone") };
    let behind_header = |bytes: &[u8]| bytes.get(HEADER_BYTES..).unwrap_or_default().to_vec();
    assert!(behind_header(data).starts_with(&behind_header(&written)));
}

fn expect_at(file: &File, offset: u64, frame: &Frame) {
    let Ok(found) = frame_at(file, offset) else { panic!("no frame at {offset}") };
    assert_eq!(found, *frame);
    let Ok(size) = file.metadata().map(|metadata| metadata.len()) else { panic!("no size") };
    assert!(offset + (FRAME_HEADER_BYTES + frame.payload.len()) as u64 <= size);
}
