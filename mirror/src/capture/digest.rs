//! A digest of a result's rows: the same for the same rows in any order, however the stream was cut.
//!
//! Rows without ORDER BY may come in any order, so the digests of rows are added up. A row is hashed
//! in segments of fixed size, so that a row larger than memory needs only one segment of it.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

const SEGMENT_BYTES: usize = 64 * 1024;
const SECRETS: RapidSecrets = RapidSecrets::seed(0x5ead_0000_0000_0001);

/// Digests the rows of one statement.
#[derive(Debug, Default, Clone)]
pub struct RowDigest {
    sum: u64,
    rows: u64,
    partial: Vec<u8>,
    chained: u64,
}

impl RowDigest {
    /// Takes a piece of a row.
    pub fn piece(&mut self, payload: &[u8], first: bool, last: bool) {
        if first && last && payload.len() <= SEGMENT_BYTES {
            self.row(chain(0, payload));
            return;
        }
        if first {
            self.partial.clear();
            self.chained = 0;
        }
        let mut rest = payload;
        while !rest.is_empty() {
            let room = SEGMENT_BYTES - self.partial.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.partial.extend_from_slice(now);
            rest = later;
            if self.partial.len() == SEGMENT_BYTES && (!rest.is_empty() || !last) {
                self.chained = chain(self.chained, &self.partial);
                self.partial.clear();
            }
        }
        if last {
            let row = chain(self.chained, &self.partial);
            self.partial = Vec::new();
            self.row(row);
        }
    }

    fn row(&mut self, hash: u64) {
        self.sum = self.sum.wrapping_add(hash);
        self.rows += 1;
    }

    /// The digest and the number of rows so far; begins anew.
    pub fn take(&mut self) -> (u64, u64) {
        let taken = (self.sum, self.rows);
        *self = Self::default();
        taken
    }
}

fn chain(before: u64, segment: &[u8]) -> u64 {
    rapidhash_v3_seeded(segment, &SECRETS) ^ before.rotate_left(17)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(rows: &[&[u8]]) -> (u64, u64) {
        let mut digest = RowDigest::default();
        for row in rows {
            digest.piece(row, true, true);
        }
        digest.take()
    }

    #[test]
    fn rows_in_another_order_are_the_same_rows() {
        assert_eq!(whole(&[b"one", b"two"]), whole(&[b"two", b"one"]));
        assert_ne!(whole(&[b"one", b"two"]), whole(&[b"one", b"twp"]));
        assert_ne!(whole(&[b"one", b"one"]), whole(&[b"two", b"two"]));
    }

    #[test]
    fn the_cut_of_the_stream_does_not_matter() {
        for row_bytes in [3, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES, 200_000] {
            let row: Vec<u8> = (0..row_bytes).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let expected = whole(&[&row]);
            for cut in [1, 2, row_bytes / 2, row_bytes - 1] {
                let mut digest = RowDigest::default();
                digest.piece(&row[..cut], true, false);
                digest.piece(&row[cut..], false, true);
                assert_eq!(digest.take(), expected, "{row_bytes} cut at {cut}");
            }
        }
    }
}
