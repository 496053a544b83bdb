//! `kubectl`, as a person uses it.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Runs it; what it printed, or what it complained about.
pub fn kubectl(arguments: &[&str]) -> Result<String, String> {
    given(arguments, "")
}

/// The same, with something on its standard input.
pub fn given(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("kubectl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("kubectl: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read it does not need it.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child.wait_with_output().map_err(|e| format!("kubectl: {e}"))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        Err(format!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim()))
    }
}

/// Runs `kubectl understudy`, the plugin: the program `understudy` under its other name.
///
/// # Panics
/// When it fails.
pub fn understudy(arguments: &[&str]) -> String {
    use std::os::unix::process::CommandExt as _;
    let program = std::env::current_exe().ok().and_then(|test| Some(test.parent()?.parent()?.join("understudy")));
    let program = program.expect("the directory of the programs");
    let done = Command::new(&program).arg0("kubectl-understudy").args(arguments).output().expect("understudy");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "kubectl understudy {}: {said}", arguments.join(" "));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// An object as JSON; null where it is not there.
pub fn object(namespace: &str, kind: &str, name: &str) -> Value {
    kubectl(&["--namespace", namespace, "get", kind, name, "--output=json"])
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or(Value::Null)
}

/// Waits for a condition with a limit; what it found.
///
/// # Panics
/// When the limit is over: with what was missing.
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    until_within(what, limit, Duration::from_millis(250), look)
}

/// The same for what lasts once it is there. Each look starts a kubectl, on the cores of the servers that are
/// being compared, so there is up to `pause` between two.
///
/// # Panics
/// When the limit is over: with what was missing.
pub fn until_within<T>(what: &str, limit: Duration, pause: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) => assert!(began.elapsed() < limit, "{what}: not within {} s: {missing}", limit.as_secs()),
        }
        std::thread::sleep((began.elapsed() / 8).clamp(Duration::from_millis(100), pause));
    }
}
