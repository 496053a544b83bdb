//! A digest of a result's rows: the same for the same rows in any order, however the stream was cut. And one without the
//! moments in them, which are each server's own ([`super::moments`]).
//!
//! Rows without ORDER BY may come in any order, so the digests of rows are added up. A row is hashed
//! in segments of fixed size, so that a row larger than memory needs only one segment of it.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use super::moments::Moments;

const SEGMENT_BYTES: usize = 64 * 1024;
const SECRETS: RapidSecrets = RapidSecrets::seed(0x5ead_0000_0000_0001);

/// Digests the rows of one statement.
#[derive(Debug, Clone)]
pub struct RowDigest {
    moments: Moments,
    found: Rows,
    partial: Vec<u8>,
    chained: u64,
    /// The row in hand is longer than a segment.
    is_long: bool,
}

/// Rows, as far as they are compared.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// How many.
    pub rows: u64,
    /// Their digest.
    pub digest: u64,
    /// The same without moments; of a row that is longer than a segment, with them.
    pub lasting: u64,
}

impl Default for RowDigest {
    /// One that takes nothing for a moment.
    fn default() -> Self {
        Self::without(Moments::NONE)
    }
}

impl RowDigest {
    /// One that has a second digest without these moments.
    pub const fn without(moments: Moments) -> Self {
        let found = Rows { rows: 0, digest: 0, lasting: 0 };
        Self { moments, found, partial: Vec::new(), chained: 0, is_long: false }
    }

    /// Takes a piece of a row; of one with columns (DataRow) or of a line of COPY.
    pub fn piece(&mut self, payload: &[u8], first: bool, last: bool, has_columns: bool) {
        if first && last && payload.len() <= SEGMENT_BYTES {
            self.row(chain(0, payload), self.lasting(payload, has_columns));
            return;
        }
        if first {
            self.partial.clear();
            self.chained = 0;
            self.is_long = false;
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
                self.is_long = true;
            }
        }
        if last {
            let row = chain(self.chained, &self.partial);
            let whole = Some(std::mem::take(&mut self.partial)).filter(|_| !self.is_long);
            self.row(row, whole.and_then(|whole| self.lasting(&whole, has_columns)));
        }
    }

    fn lasting(&self, row: &[u8], has_columns: bool) -> Option<u64> {
        if has_columns { self.moments.digest_without(row) } else { self.moments.digest_of_line_without(row) }
    }

    fn row(&mut self, hash: u64, lasting: Option<u64>) {
        let Rows { rows, digest, lasting: sum } = &mut self.found;
        *rows += 1;
        *digest = digest.wrapping_add(hash);
        *sum = sum.wrapping_add(lasting.unwrap_or(hash));
    }

    /// The rows so far; begins anew.
    pub fn take(&mut self) -> Rows {
        let taken = self.found;
        *self = Self::without(self.moments);
        taken
    }
}

/// The digest of bytes behind others.
pub(super) fn chain(before: u64, segment: &[u8]) -> u64 {
    rapidhash_v3_seeded(segment, &SECRETS) ^ before.rotate_left(17)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(rows: &[&[u8]]) -> Rows {
        let mut digest = RowDigest::default();
        for row in rows {
            digest.piece(row, true, true, true);
        }
        digest.take()
    }

    #[test]
    fn rows_that_differ_in_their_moments_alone_have_one_digest_that_is_the_same() {
        let row = |moment: &[u8]| [b"\0\x02\0\0\0\x011\0\0\0\x13".as_slice(), moment].concat();
        let (early, late) = (row(b"2026-11-29 22:29:38"), row(b"2026-11-29 22:29:39"));
        let moments = Moments::between(9829, 9900);
        let digest = |row: &[u8], cut: usize, has_columns: bool| {
            let mut digest = RowDigest::without(moments);
            let (begins, ends) = row.split_at(cut);
            digest.piece(begins, true, ends.is_empty(), has_columns);
            if !ends.is_empty() {
                digest.piece(ends, false, true, has_columns);
            }
            digest.take()
        };
        let expected = digest(&early, early.len(), true);
        for cut in [1, 5, 20, late.len()] {
            let found = digest(&late, cut, true);
            assert_eq!((found.rows, found.lasting), (1, expected.lasting), "cut at {cut}");
            assert_ne!(found.digest, expected.digest);
        }
        let other = digest(&early, early.len(), false);
        assert_eq!((other.digest, other.lasting), (expected.digest, expected.digest), "no columns, no moments");
        assert_ne!(other.lasting, digest(&late, 5, false).lasting);
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
                digest.piece(&row[..cut], true, false, true);
                digest.piece(&row[cut..], false, true, true);
                assert_eq!(digest.take(), expected, "{row_bytes} cut at {cut}");
            }
        }
    }
}
