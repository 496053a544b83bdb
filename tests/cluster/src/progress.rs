//! What the terminal shows: one line a step, with the time it took. The only place that prints. A reader
//! who has gone away ends nothing.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Instant,
};

use console::style;

use crate::failure::Outcome;

/// Does a step, and says so: before on a terminal, afterwards everywhere.
pub fn step<T>(what: &str, act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let live = io::stdout().is_terminal();
    if live {
        let _ = write!(io::stdout(), "  …  {what}").and_then(|()| io::stdout().flush());
    }
    let start = Instant::now();
    let outcome = act();
    let mark = if outcome.is_ok() { style("✓").green() } else { style("✗").red() };
    let back = if live { "\r\x1b[2K" } else { "" };
    let _ = writeln!(io::stdout(), "{back}  {mark}  {what:<52} {:>6.1} s", start.elapsed().as_secs_f64());
    outcome
}

/// A line for people.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Something that is not as it should be, though it goes on.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "{} {text}", style("warning:").yellow().for_stderr());
}

/// Why it ends here.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{} {text}", style("error:").red().for_stderr());
}
