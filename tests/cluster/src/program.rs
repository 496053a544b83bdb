//! Programs of the system, run and waited for. A failure has the command and what it printed.

use std::{
    ffi::OsStr,
    fmt::Display,
    io::Write as _,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::failure::{Failure, Outcome, Trying};

/// Runs a program with arguments and gives what it wrote to standard output.
pub fn run<I, S>(program: impl AsRef<OsStr>, arguments: I) -> Outcome<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments);
    finish(&mut command)
}

/// Runs a prepared command to its end.
pub fn finish(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output().trying(|| format!("run {}", shown(command)))?;
    judge(&shown(command), &output)
}

/// Runs a program that reads `input`.
pub fn feed(command: &mut Command, input: &str) -> Outcome<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = shown(command);
    let mut child = command.spawn().trying(|| format!("run {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    judge(&name, &child.wait_with_output().trying(|| format!("run {name}"))?)
}

fn judge(name: &str, output: &Output) -> Outcome<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { said };
    Err(Failure::from(format!("{name} failed ({}): {}", output.status, said.trim())))
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Asks again and again until the answer is yes; the last no is the failure.
pub fn until<T, E: Display>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T, E>) -> Outcome<T> {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(no) if start.elapsed() > limit => {
                return Err(format!("{what}: not within {} s: {no}", limit.as_secs()).into());
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}
