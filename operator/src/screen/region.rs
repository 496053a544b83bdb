//! The lines at the bottom of the terminal that are drawn again and again. Pure: text in, control
//! sequences out.

use std::fmt::Write as _;

use super::line::Line;

/// What is drawn at the bottom now; the cursor stands at the beginning of the line below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Region {
    /// Columns of each line.
    widths: Vec<usize>,
    /// Columns of the terminal when they were drawn.
    columns: usize,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Region {
    /// Takes the region off the screen and prints `above` where it began, then draws `below` as the
    /// new region.
    pub(super) fn replace(&mut self, above: &[Line], below: &[Line], size: Size, colour: bool) -> String {
        let Size { rows, columns } = size;
        let mut out = String::new();
        let up = self.rows(columns);
        if up > 0 {
            let _ = write!(out, "\x1b[{up}A");
        }
        out.push('\r');
        // A narrower terminal has broken the old lines; only clearing first leaves nothing behind.
        if columns != self.columns && up > 0 {
            out.push_str("\x1b[J");
        }
        // One column is left free, since terminals differ in what a full line does to the cursor.
        let room = columns.saturating_sub(1).max(1);
        for line in above {
            out.extend([line.display(room, colour).as_str(), "\x1b[K\r\n"]);
        }
        // What does not fit could not be reached again to be taken away.
        let below: Vec<&Line> = below.iter().take(rows.saturating_sub(1)).collect();
        for line in &below {
            out.extend([line.display(room, colour).as_str(), "\x1b[K\r\n"]);
        }
        out.push_str("\x1b[J");
        self.widths = below.iter().map(|line| line.width().min(room)).collect();
        self.columns = columns;
        out
    }

    /// Rows that the region takes on a terminal of `columns` columns.
    fn rows(&self, columns: usize) -> usize {
        self.widths.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rows: 24, columns: 40 };

    fn lines(count: usize, width: usize) -> Vec<Line> {
        (0..count).map(|_| Line::plain("x".repeat(width))).collect()
    }

    #[test]
    fn the_next_drawing_begins_where_the_last_one_began() {
        let mut region = Region::default();
        assert_eq!(region.replace(&[], &lines(2, 3), SIZE, false), "\rxxx\x1b[K\r\nxxx\x1b[K\r\n\x1b[J");
        assert_eq!(region.replace(&lines(1, 2), &lines(1, 1), SIZE, false), "\x1b[2A\rxx\x1b[K\r\nx\x1b[K\r\n\x1b[J");
        assert_eq!(region.replace(&[], &[], SIZE, false), "\x1b[1A\r\x1b[J");
        assert_eq!(region.replace(&[], &[], SIZE, false), "\r\x1b[J");
    }

    #[test]
    fn a_terminal_that_became_narrower_is_cleared_of_the_broken_lines() {
        let mut region = Region::default();
        region.replace(&[], &lines(2, 35), SIZE, false);
        let narrow = Size { columns: 20, ..SIZE };
        assert!(region.replace(&[], &lines(1, 5), narrow, false).starts_with("\x1b[4A\r\x1b[J"));
    }

    #[test]
    fn no_more_is_drawn_than_can_be_taken_away() {
        let mut region = Region::default();
        region.replace(&[], &lines(100, 1), SIZE, false);
        assert!(region.replace(&[], &[], SIZE, false).starts_with("\x1b[23A"));
    }
}
