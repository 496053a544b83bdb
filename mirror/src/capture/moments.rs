//! Moments in rows: what `now()` was when a row was made, on the server that made it. An arm makes its rows a little later,
//! so that a table with a column `created_at` would differ in every row. Pure: told which moments are meant.
//!
//! Known by their looks, since who executes a prepared statement is told no types: a time in ISO style, or eight bytes that
//! are one in microseconds since 2000 ("Date/Time Types"; `timestamp_send`). What is older than the window is data like any
//! other, and is there on all sides.

use super::digest::chain;

/// Characters of a date.
const DATE: usize = 10;
/// The shortest and the longest time in ISO style: `2026-11-29 22:29:38`, with microseconds and a zone behind it.
const TEXT: std::ops::RangeInclusive<usize> = 19..=35;
/// What stands where in it.
const MARKS: [(usize, &[u8]); 5] = [(4, b"-"), (7, b"-"), (10, b" T"), (13, b":"), (16, b":")];

/// Which moments are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moments {
    /// From and until when, µs since 2000-01-01 UTC.
    us: (i64, i64),
    /// The same in days, `2026-11-29`.
    days: ([u8; DATE], [u8; DATE]),
}

impl Moments {
    /// None at all.
    pub const NONE: Self = Self { us: (i64::MAX, i64::MIN), days: ([u8::MAX; DATE], [0; DATE]) };

    /// From one day until another, in days since 2000-01-01 UTC.
    pub fn between(from_day: u32, until_day: u32) -> Self {
        const DAY_US: i64 = 24 * 3600 * 1_000_000;
        let us = |day: u32| i64::from(day) * DAY_US;
        Self { us: (us(from_day), us(until_day)), days: (date(from_day), date(until_day)) }
    }

    /// The digest of a whole DataRow without its moments; `None`: there are none in it.
    pub fn digest_without(&self, row: &[u8]) -> Option<u64> {
        let columns = columns(row)?;
        if !columns.clone().flatten().any(|column| self.is_one(column)) {
            return None;
        }
        Some(columns.fold(0, |before, column| match column {
            None => chain(before, b"NULL"),
            Some(column) if self.is_one(column) => chain(before, b"a moment"),
            Some(column) => chain(before.wrapping_add(column.len() as u64 + 1), column),
        }))
    }

    /// The same of a line of COPY, in text or CSV.
    pub fn digest_of_line_without(&self, line: &[u8]) -> Option<u64> {
        let (line, end) = line.strip_suffix(b"\n").map_or((line, &b""[..]), |line| (line, b"\n"));
        let (mut digest, mut told) = (0, 0);
        let ends = memchr::memchr2_iter(b'\t', b',', line).chain([line.len()]);
        let mut from = 0;
        for until in ends {
            if line.get(from..until).is_some_and(|column| self.is_one(column)) {
                digest = chain(chain(digest, line.get(told..from)?), b"a moment");
                told = until;
            }
            from = until + 1;
        }
        (told > 0).then(|| chain(chain(digest, line.get(told..).unwrap_or_default()), end))
    }

    fn is_one(&self, column: &[u8]) -> bool {
        if let Ok(binary) = <[u8; 8]>::try_from(column) {
            return (self.us.0..=self.us.1).contains(&i64::from_be_bytes(binary));
        }
        let marked = |(at, marks): &(usize, &[u8])| column.get(*at).is_some_and(|byte| marks.contains(byte));
        let date = column.get(..DATE).unwrap_or_default();
        TEXT.contains(&column.len())
            && MARKS.iter().all(marked)
            && (self.days.0.as_slice()..=self.days.1.as_slice()).contains(&date)
    }
}

/// The columns of a DataRow, nothing for NULL; `None`: it is none.
fn columns(row: &[u8]) -> Option<impl Iterator<Item = Option<&[u8]>> + Clone> {
    let (_, mut rest) = row.split_first_chunk::<2>()?;
    let mut whole = rest;
    while !whole.is_empty() {
        whole = next(whole)?.1;
    }
    Some(std::iter::from_fn(move || {
        let (column, behind) = next(rest)?;
        rest = behind;
        Some(column)
    }))
}

/// A column, unless it is NULL, and what is behind it.
fn next(rest: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = rest.split_first_chunk()?;
    let length = i32::from_be_bytes(*length);
    if length < 0 {
        return Some((None, rest));
    }
    let (column, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((Some(column), rest))
}

/// A day of the Gregorian calendar, by its number since 2000-01-01. (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`.)
fn date(day: u32) -> [u8; DATE] {
    // Since 2000-03-01, with the day before counted to the era before.
    let days = u64::from(day) + 146_097 - 60;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = 1600 + 400 * era + year_of_era + u64::from(month <= 2);
    let mut text = *b"0000-00-00";
    for (at, digits, number) in [(0, 4, year), (5, 2, month), (8, 2, day)] {
        let mut left = number;
        for place in (at..at + digits).rev() {
            if let Some(byte) = text.get_mut(place) {
                *byte = b'0' + u8::try_from(left % 10).unwrap_or_default();
            }
            left /= 10;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for column in columns {
            match column {
                None => bytes.extend((-1_i32).to_be_bytes()),
                Some(column) => {
                    bytes.extend(i32::try_from(column.len()).unwrap().to_be_bytes());
                    bytes.extend(*column);
                }
            }
        }
        bytes
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let days =
            [(0, "2000-01-01"), (59, "2000-02-29"), (60, "2000-03-01"), (365, "2000-12-31"), (9830, "2026-11-30")];
        for (day, expected) in
            days.into_iter().chain([(8825, "2024-02-29"), (8826, "2024-03-01"), (36_584, "2100-03-01")])
        {
            assert_eq!(std::str::from_utf8(&date(day)), Ok(expected), "{day}");
        }
    }

    #[test]
    fn moments_of_the_window_are_known_by_their_looks() {
        let moments = Moments::between(9829, 9900);
        let day_us = |day: i64| (day * 24 * 3600 * 1_000_000 + 42).to_be_bytes();
        for one in [
            &b"2026-11-29 22:29:38"[..],
            b"2026-11-29 22:29:38.123456+00",
            b"2026-12-01T00:00:00Z",
            b"2026-11-30 00:00:00.1-03:30",
            &day_us(9830),
        ] {
            assert!(moments.is_one(one), "{one:?}");
        }
        for none in [
            &b""[..],
            b"2026-11-28 22:29:38",
            b"2027-11-29 22:29:38",
            b"2026-11-29",
            b"2026-11-29 22.29.38",
            b"2026-11-29 22:29:38 is when the session began",
            b"12345678",
            &day_us(9828),
            &day_us(9901),
            &42_i64.to_be_bytes(),
        ] {
            assert!(!moments.is_one(none), "{none:?}");
            assert!(!Moments::NONE.is_one(none));
        }
        assert!(!Moments::NONE.is_one(&day_us(9830)) && !Moments::NONE.is_one(b"2026-11-29 22:29:38"));
    }

    #[test]
    fn so_are_lines_of_copy() {
        let moments = Moments::between(9829, 9900);
        let digest = |line: &str| moments.digest_of_line_without(line.as_bytes());
        for (first, other, same) in [
            ("1\t2026-11-29 22:29:38.1\tx\n", "1\t2026-11-29 22:29:39.25\tx\n", true),
            ("1,2026-11-29 22:29:38.1+00\n", "1,2026-11-29 22:29:39+00\n", true),
            ("2026-11-29 22:29:38.1", "2026-11-30 22:29:38", true),
            ("1\t2026-11-29 22:29:38.1\tx\n", "2\t2026-11-29 22:29:39.25\tx\n", false),
            ("1\t2026-11-29 22:29:38.1\tx\n", "1\t2026-11-29 22:29:39.25\ty\n", false),
            ("1\t2026-11-29 22:29:38.1\t2\n", "1\t2\t2026-11-29 22:29:38.1\n", false),
        ] {
            assert!(digest(first).is_some() && digest(other).is_some());
            assert_eq!(digest(first) == digest(other), same, "{first} {other}");
        }
        for none in ["", "\n", "1\tx\n", "1\t2026-11-28 22:29:38\n", "at 2026-11-29 22:29:38 it was\n"] {
            assert_eq!(digest(none), None, "{none}");
        }
    }

    #[test]
    fn rows_that_differ_in_their_moments_alone_are_the_same_without_them() {
        let moments = Moments::between(9829, 9900);
        let digest = |columns: &[Option<&[u8]>]| moments.digest_without(&row(columns));
        let (early, late) = (Some(&b"2026-11-29 22:29:38.1"[..]), Some(&b"2026-11-29 22:29:39.25"[..]));
        let first = digest(&[Some(b"1"), early, None]);
        assert!(first.is_some());
        assert_eq!(first, digest(&[Some(b"1"), late, None]));
        assert_ne!(first, digest(&[Some(b"2"), late, None]));
        assert_ne!(digest(&[Some(b"1"), Some(b"23"), early]), digest(&[Some(b"12"), Some(b"3"), early]));
        assert_ne!(digest(&[Some(b"1"), None, early]), digest(&[None, Some(b"1"), early]));
        assert_eq!(digest(&[Some(b"1"), Some(b"x")]), None, "there is none in it");
        for no_row in [&b""[..], b"\0", b"\0\x01\0\0\0\x09x"] {
            assert_eq!(moments.digest_without(no_row), None);
        }
    }
}
