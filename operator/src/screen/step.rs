//! The lines of steps: what runs, what was done, what failed. Pure.

use std::time::Duration;

use super::{
    line::{Line, Meaning, wrapped},
    number,
};

/// Column at which the name of a step ends and its message begins.
const MESSAGE_AT: usize = 18;
/// Columns kept free at the right for the time.
const TIME: usize = 12;
/// Lines are not drawn wider than this, however wide the terminal is.
const WIDEST: usize = 112;
/// A step that took less shows no time.
const INSTANT: Duration = Duration::from_millis(50);

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing can be counted; what is being done.
    Doing(String),
    /// Things done and to do, with what they are called: `rows`, `exchanges`.
    Count {
        /// Done.
        done: u64,
        /// To do; 0 when nobody knows.
        total: u64,
        /// What is counted.
        of: &'static str,
    },
    /// Bytes done and to do.
    Bytes {
        /// Done.
        done: u64,
        /// To do; 0 when nobody knows.
        total: u64,
    },
}

impl Progress {
    /// The progress in words: `1.2 M of 2.0 M rows, 60 %`.
    pub fn text(&self) -> String {
        let amount = |done: u64, total: u64, show: fn(u64) -> String, of: &str| {
            let of = if of.is_empty() { String::new() } else { format!(" {of}") };
            if total == 0 {
                return format!("{}{of}", show(done));
            }
            let percent = u128::from(done.min(total)) * 100 / u128::from(total);
            format!("{} of {}{of}, {percent} %", show(done.min(total)), show(total))
        };
        match self {
            Self::Doing(what) => what.clone(),
            Self::Count { done, total, of } => amount(*done, *total, number::rounded, of),
            Self::Bytes { done, total } => amount(*done, *total, number::bytes, ""),
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As intended.
    Done,
    /// As intended, and it is good news.
    Good,
    /// It ended, but deserves a look.
    Trouble,
    /// It failed.
    Failed,
}

impl Ending {
    const fn mark(self) -> (Meaning, &'static str) {
        match self {
            Self::Done => (Meaning::Plain, "✓"),
            Self::Good => (Meaning::Good, "✓"),
            Self::Trouble => (Meaning::Trouble, "!"),
            Self::Failed => (Meaning::Bad, "✗"),
        }
    }
}

/// The lines of a step that has ended. Without a `width`, as in a log, it is one line.
pub fn ended(ending: Ending, name: &str, message: &str, took: Duration, width: Option<usize>) -> Vec<Line> {
    let (meaning, mark) = ending.mark();
    let head = head(meaning, mark, name);
    let time = (took >= INSTANT).then(|| number::duration(took));
    match (width, time) {
        (Some(width), time) => block(head, message, time.as_deref(), width.min(WIDEST)),
        (None, Some(time)) => vec![head.with(Meaning::Plain, format!("{message}   {time}"))],
        (None, None) => vec![head.with(Meaning::Plain, message)],
    }
}

/// The line of a step that is running. `frame` counts up with time and turns the spinner.
pub fn running(name: &str, progress: Option<&Progress>, elapsed: Duration, frame: usize, width: usize) -> Line {
    const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
    let mark = FRAMES.get(frame % FRAMES.len()).copied().unwrap_or("⠿");
    let width = width.min(WIDEST);
    let text = progress.map(Progress::text).unwrap_or_default();
    let room = width.saturating_sub(MESSAGE_AT + TIME);
    let line = head(Meaning::Plain, mark, name).with(Meaning::Plain, super::line::shortened(&text, room));
    if elapsed < Duration::from_secs(1) { line } else { at_right(line, &number::whole(elapsed), width) }
}

fn head(meaning: Meaning, mark: &str, name: &str) -> Line {
    let line = Line::plain("  ").with(meaning, mark).with(Meaning::Plain, format!(" {name}"));
    // A long name still keeps its distance from the message.
    let width = MESSAGE_AT.max(line.width() + 2);
    line.padded(width)
}

/// A message that starts behind `head` and goes on below itself, with the time at the end of the
/// last line.
fn block(head: Line, message: &str, time: Option<&str>, width: usize) -> Vec<Line> {
    let indent = head.width();
    let room = width.saturating_sub(indent + if time.is_some() { TIME } else { 0 }).max(20);
    let mut head = Some(head);
    let mut lines: Vec<Line> = wrapped(message, room)
        .into_iter()
        .map(|text| head.take().unwrap_or_else(|| Line::plain(" ".repeat(indent))).with(Meaning::Plain, text))
        .collect();
    if let Some(time) = time
        && let Some(last) = lines.pop()
    {
        lines.push(at_right(last, time, width));
    }
    lines
}

fn at_right(line: Line, text: &str, width: usize) -> Line {
    let column = width.saturating_sub(console::measure_text_width(text)).max(line.width() + 2);
    line.padded(column).with(Meaning::Plain, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[Line]) -> Vec<String> {
        lines.iter().map(Line::text).collect()
    }

    const WORKER: &str = "PostgreSQL 15.18 on 127.0.0.1:6432, 1.5 M events, 40 sessions of an analytics app";

    #[test]
    fn a_step_ends_in_its_result_and_its_time() {
        let took = Duration::from_millis(18_230);
        assert_eq!(
            text(&ended(Ending::Done, "worker", WORKER, took, Some(120))),
            [format!("  ✓ worker        {WORKER}       18.2 s")]
        );
        assert_eq!(
            text(&ended(Ending::Done, "worker", WORKER, took, Some(80))),
            [
                "  ✓ worker        PostgreSQL 15.18 on 127.0.0.1:6432, 1.5 M events,",
                "                  40 sessions of an analytics app                         18.2 s",
            ]
        );
        assert_eq!(
            text(&ended(Ending::Done, "cut", "production paused 2.7 ms", Duration::ZERO, Some(80))),
            ["  ✓ cut           production paused 2.7 ms"]
        );
        assert_eq!(
            text(&ended(Ending::Failed, "clones", "the worker refused", Duration::ZERO, None)),
            ["  ✗ clones        the worker refused"]
        );
    }

    #[test]
    fn a_running_step_says_how_far_it_is() {
        let progress = Progress::Count { done: 900_000, total: 1_500_000, of: "rows" };
        let line = running("worker", Some(&progress), Duration::from_millis(4_700), 2, 80);
        assert_eq!(line.text(), "  ⠹ worker        900,000 of 1.5 M rows, 60 %                                4 s");
        let line = running("candidate", None, Duration::from_millis(300), 11, 80);
        assert_eq!(line.text(), "  ⠙ candidate");
    }

    #[test]
    fn progress_without_a_known_end_still_counts() {
        let cases = [
            (Progress::Bytes { done: 306_000_000, total: 612_000_000 }, "306 MB of 612 MB, 50 %"),
            (Progress::Bytes { done: 306_000_000, total: 0 }, "306 MB"),
            (Progress::Count { done: 12, total: 0, of: "exchanges" }, "12 exchanges"),
            (Progress::Count { done: 13, total: 12, of: "exchanges" }, "12 of 12 exchanges, 100 %"),
        ];
        for (progress, expected) in cases {
            assert_eq!(progress.text(), expected);
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [60, 80, 100, 120, 200] {
            for line in ended(Ending::Good, "cleaned up", &WORKER.repeat(3), Duration::from_secs(100), Some(width)) {
                assert!(line.width() <= width.min(WIDEST), "{width}: {}", line.text());
            }
        }
    }
}
