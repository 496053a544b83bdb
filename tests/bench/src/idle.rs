//! Memory of sessions that do nothing, and of as many that all ask at once, with one arm.
//!
//! The worker and the arm are no PostgreSQL here: ten thousand backends of each would need more memory
//! than the machine has. They take every login, and answer whatever they are asked with nothing found.
//!
//! So many sessions need more open files than a process may have on many machines. They are then measured in a
//! [`crate::machine`] of its own, which sets its own limit.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use understudy_e2e::wire::query;
use understudy_mirror::open_files;

use crate::{floors::Check, machine, target::Target};

/// Ends of sockets that a session has, in this process as in the mirror: client, worker and arm.
const ENDS: u64 = 3;
/// How long the arm may take to open a session for each, and how often it is looked whether it has.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// Nobody does anything any more: what the mirror lets go of later belongs to nobody.
const SETTLE: Duration = Duration::from_secs(5);
/// Files that are no session's.
const OTHERS: u64 = 1000;

/// What was measured.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Idle sessions that were asked for.
    pub asked_for: usize,
    /// Those that there was room for.
    pub sessions: usize,
    /// Memory of the mirror for each, bytes.
    pub session_bytes: f64,
    /// The most that it takes for each when all of them ask something at once, bytes.
    pub burst_session_bytes: f64,
}

/// Measures them here, or in a machine of its own where this one has no room and `here` does not say that it must.
pub async fn measure(asked_for: usize, here: bool) -> Figures {
    let files = needed(asked_for);
    let limit = raised(files);
    if limit >= files {
        return measure_here(asked_for, asked_for).await;
    }
    println!("{asked_for} sessions need {files} open files, and no more than {limit} are allowed here");
    if !here && machine::is_there() {
        if let Some(figures) = measure_elsewhere(asked_for).await {
            return figures;
        }
        println!("a machine of its own does not start here");
    }
    let fewer = usize::try_from(open_files::sessions(limit.saturating_sub(OTHERS), 1)).unwrap_or(asked_for);
    measure_here(asked_for, fewer).await
}

async fn measure_elsewhere(asked_for: usize) -> Option<Figures> {
    println!("they are measured in a machine of its own, with one processor");
    let out = tempfile::NamedTempFile::new().expect("a file for the figures");
    let path = out.path().to_str().expect("a path");
    let printed = machine::run(&["--here", "--sessions", &asked_for.to_string(), "--out", path, "idle"]).await?;
    let text = fs::read_to_string(path).expect("the figures of a machine of its own");
    let all: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no figures: {printed}"));
    let figures: Figures =
        all.get("idle").and_then(|idle| Figures::deserialize(idle).ok()).expect("figures of idle sessions");
    print(&figures);
    Some(figures)
}

/// Opens the sessions and looks at the mirror's memory.
async fn measure_here(asked_for: usize, sessions: usize) -> Figures {
    let ((worker, _), (arm, welcomed)) = (servers().await, servers().await);
    let target = Target::mirror(worker, arm, None).await;
    let process = target.process.as_ref().expect("a mirror");
    let before_bytes = process.resident_bytes();
    println!("idle sessions: {sessions}, with one arm");
    let (turns, mut opening) = (Arc::new(Semaphore::new(100)), JoinSet::new());
    for _ in 0..sessions {
        let (turns, port) = (Arc::clone(&turns), target.port);
        opening.spawn(async move {
            let _turn = turns.acquire().await.expect("a turn");
            log_in(port).await
        });
    }
    let mut open = opening.join_all().await;
    assert_eq!(open.len(), sessions);
    // The arm is a moment behind; what it opens for a session belongs to the session.
    let opened = async {
        while welcomed.load(Ordering::Relaxed) < sessions {
            tokio::time::sleep(LOOK).await;
        }
    };
    timeout(LIMIT, opened).await.expect("a session on the arm for each");
    tokio::time::sleep(SETTLE).await;
    let session_bytes = (process.resident_bytes() - before_bytes) / sessions as f64;
    process.forget_peak();
    for stream in &mut open {
        stream.write_all(&query(QUESTION)).await.expect("asked");
    }
    for stream in &mut open {
        let mut answer = vec![0; FOUND.len()];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer, FOUND);
    }
    target.settled().await;
    let asked = target.arm().await.expect("an arm").exchanges.played;
    assert!(usize::try_from(asked).is_ok_and(|asked| asked >= sessions), "the arm was asked {asked} times");
    let burst_session_bytes = (process.peak_bytes() - before_bytes) / sessions as f64;
    drop(open);
    let figures = Figures { asked_for, sessions, session_bytes, burst_session_bytes };
    print(&figures);
    figures
}

fn print(figures: &Figures) {
    let Figures { session_bytes, burst_session_bytes, .. } = figures;
    let (each, burst) = (session_bytes / 1000.0, burst_session_bytes / 1000.0);
    println!("\n  {each:.1} kB for each, {burst:.1} kB when all ask at once");
}

/// Files that so many sessions need, in this process as in the mirror: a sixteenth is kept from the arm.
fn needed(sessions: usize) -> u64 {
    (sessions as u64 * ENDS + OTHERS) * 17 / 16
}

/// Lets this process, and what it starts, have so many open files, or as many as may be. The limit then.
fn raised(files: u64) -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(files), maximum: Some(maximum.unwrap_or(files).max(files)) };
    if setrlimit(Resource::Nofile, wanted).is_ok() {
        return files;
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("one's own limit");
    maximum.unwrap_or(files)
}

async fn log_in(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let mut startup = u32::try_from(body.len() + 4).expect("short").to_be_bytes().to_vec();
    startup.extend_from_slice(body);
    stream.write_all(&startup).await.expect("sent");
    let mut answer = vec![0; WELCOME.len()];
    stream.read_exact(&mut answer).await.expect("a login");
    assert_eq!(answer, WELCOME);
    stream
}

/// `AuthenticationOk`, `BackendKeyData`, `ReadyForQuery`.
const WELCOME: [u8; 28] = *b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07\0\0\0\x09Z\0\0\0\x05I";

/// What every session asks in a burst, of an ordinary length.
const QUESTION: &str = "SELECT o.id, o.placed_at, o.amount, c.name FROM orders o JOIN customers c ON c.id = o.customer \
                        WHERE o.customer = 4711 AND o.placed_at > '2026-01-01' ORDER BY o.placed_at DESC LIMIT 20";
/// `CommandComplete`, `ReadyForQuery`.
const FOUND: [u8; 20] = *b"C\0\0\0\x0dSELECT 0\0Z\0\0\0\x05I";

/// A server that takes every login, and how many it has taken.
async fn servers() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let welcomed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&welcomed);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut length = [0; 4];
                if stream.read_exact(&mut length).await.is_err() {
                    return;
                }
                let mut rest = vec![0; (u32::from_be_bytes(length) as usize).clamp(8, 10_000) - 4];
                let login = async {
                    stream.read_exact(&mut rest).await?;
                    stream.write_all(&WELCOME).await
                };
                if login.await.is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                    drop(rest);
                    // A question comes whole: it is short, and there is one at a time.
                    let mut question = [0; 1024];
                    while matches!(stream.read(&mut question).await, Ok(1..)) {
                        if stream.write_all(&FOUND).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (port, welcomed)
}

/// The floor and the aim.
pub fn checks(figures: &Figures) -> Vec<Check> {
    let what = format!("kB of an idle session, {} of them, one arm", figures.sessions);
    let burst = format!("kB of a session, {} of them when all ask at once", figures.sessions);
    vec![
        Check::at_most(what, figures.session_bytes / 1000.0, 48.0, Some(16.0)),
        Check::at_most(burst, figures.burst_session_bytes / 1000.0, 48.0, None),
        // Fewer than were asked for tell little of so many.
        Check::at_least(
            "idle sessions that there was room for",
            figures.sessions as f64,
            figures.asked_for as f64,
            None,
        ),
    ]
}
