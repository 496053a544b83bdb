//! A line of text in which some words carry a meaning. Colour is only ever another way to say what
//! the words say.

use console::measure_text_width;

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing in particular.
    Plain,
    /// Better, or as it should be.
    Good,
    /// Worse, failed or lost.
    Bad,
    /// Deserves a look.
    Trouble,
}

impl Meaning {
    const fn colour(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("\x1b[32m"),
            Self::Bad => Some("\x1b[31m"),
            Self::Trouble => Some("\x1b[33m"),
        }
    }
}

/// A line, piece by piece.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    pieces: Vec<(Meaning, String)>,
}

impl Line {
    /// A line of plain text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::default().with(Meaning::Plain, text)
    }

    /// The line with another piece at its end.
    #[must_use]
    pub fn with(mut self, meaning: Meaning, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.pieces.push((meaning, text));
        }
        self
    }

    /// The line with another line at its end.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.pieces.extend(other.pieces);
        self
    }

    /// The line filled up with spaces to `width` columns.
    #[must_use]
    pub fn padded(self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        self.with(Meaning::Plain, " ".repeat(missing))
    }

    /// Columns that the line takes.
    pub fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| measure_text_width(text)).sum()
    }

    /// The text, without trailing spaces.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (_, piece) in &self.pieces {
            text.push_str(piece);
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The text as a terminal shows it, cut off at `width` columns.
    pub fn display(&self, width: usize, colour: bool) -> String {
        let mut shown = String::new();
        let mut left = width;
        let whole = measure_text_width(&self.text()) <= width;
        for (meaning, piece) in &self.pieces {
            let fitting = if whole { piece.clone() } else { cut(piece, left.saturating_sub(1)) };
            left = left.saturating_sub(measure_text_width(&fitting));
            match meaning.colour().filter(|_| colour) {
                Some(code) => shown.extend([code, &fitting, "\x1b[0m"]),
                None => shown.push_str(&fitting),
            }
            if !whole && fitting.len() < piece.len() {
                shown.push('…');
                break;
            }
        }
        shown.truncate(shown.trim_end().len());
        shown
    }
}

/// As much of `text` as fits into `width` columns.
fn cut(text: &str, width: usize) -> String {
    let mut fitting = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += measure_text_width(c.encode_utf8(&mut [0; 4]));
        if used > width {
            break;
        }
        fitting.push(c);
    }
    fitting
}

/// `text` in at most `width` columns, with `…` where something is missing.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        text.to_owned()
    } else {
        format!("{}…", cut(text, width.saturating_sub(1)))
    }
}

/// `text` in lines of at most `width` columns, broken between words; words that are longer stay whole,
/// and a number stays with its unit.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // What has been read since the last place where the text may be broken.
    let mut word = String::new();
    let mut words = text.split(' ').peekable();
    while let Some(part) = words.next() {
        word.push_str(part);
        if words.peek().is_some_and(|next| belongs_together(part, next)) {
            word.push(' ');
            continue;
        }
        let word = std::mem::take(&mut word);
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(&word) <= width => {
                line.extend([" ", &word]);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// Whether `next` is the unit of a number that `word` ends with: `18.2 s`, `(−74.5 %)`, `1.5 M`.
fn belongs_together(word: &str, next: &str) -> bool {
    let unit = next.trim_end_matches([',', ';', '.', ':', ')', ']']);
    word.ends_with(|c: char| c.is_ascii_digit())
        && ["%", "ms", "s", "min", "h", "d", "M", "G", "B", "kB", "MB", "GB"].contains(&unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_only_follows_meaning() {
        let line = Line::plain("reads ").with(Meaning::Good, "Better").padded(20);
        assert_eq!(line.width(), 20);
        assert_eq!(line.text(), "reads Better");
        assert_eq!(line.display(80, false), "reads Better");
        assert_eq!(line.display(80, true), "reads \x1b[32mBetter\x1b[0m");
    }

    #[test]
    fn a_line_never_takes_more_than_its_width() {
        let line = Line::plain("reads p95  ").with(Meaning::Bad, "−74.5 % and more").with(Meaning::Plain, " words");
        for width in 1..40 {
            let shown = line.display(width, false);
            assert!(measure_text_width(&shown) <= width, "{width}: {shown}");
            assert_eq!(shown.contains('…'), width < line.width(), "{width}: {shown}");
        }
        assert_eq!(line.display(16, true), "reads p95  \x1b[31m−74.\x1b[0m…");
    }

    #[test]
    fn text_breaks_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable-word x", 5), ["unbreakable-word", "x"]);
        assert_eq!(wrapped("", 5), [""]);
        assert_eq!(wrapped("reads −74.5 %) of 1.5 M rows", 12), ["reads", "−74.5 %) of", "1.5 M rows"]);
        assert_eq!(shortened("user-id-index", 8), "user-id…");
    }
}
