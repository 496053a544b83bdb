//! What a run makes outside its results, and whether it is gone afterwards: processes, directories,
//! and what it might have left on the worker.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio_postgres::Client;

/// What a run had made while it was watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Directories.
    pub directories: BTreeSet<PathBuf>,
    /// Processes: number and start time.
    pub processes: BTreeSet<(u32, u64)>,
}

/// Reads the journal of a run again and again: at its end the journal goes.
#[derive(Debug)]
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watcher {
    pub(crate) fn start(out: &Path) -> Self {
        let (stop, journal) = (Arc::new(AtomicBool::new(false)), out.join("understudy.journal"));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                look(&journal, &mut seen);
                thread::sleep(Duration::from_millis(20));
            }
            look(&journal, &mut seen);
            seen
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("what the journal said")
    }
}

fn look(journal: &Path, seen: &mut Seen) {
    let text = fs::read_to_string(journal).unwrap_or_default();
    for entry in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if let Some(path) = entry.pointer("/directory/path").and_then(Value::as_str) {
            seen.directories.insert(path.into());
        }
        let number = |field: &str| entry.pointer(&format!("/process/{field}")).and_then(Value::as_u64);
        if let (Some(pid), Some(began)) = (number("pid"), number("startTime")) {
            seen.processes.insert((u32::try_from(pid).expect("a process number"), began));
        }
    }
}

impl Seen {
    /// Waits until no process of it runs any more, at most 20 s.
    pub fn expect_no_processes(&self, out: &Path) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let noted = self.processes.iter().filter(|(pid, began)| start_time(*pid) == Some(*began)).map(|p| p.0);
            let left: BTreeSet<u32> = noted.chain(processes_in(out)).collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "processes are left: {:?}", left.iter().map(|p| who(*p)).collect::<Vec<_>>());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Fails the test if anything of it is left but results.
    pub fn expect_nothing_left(&self, out: &Path) {
        self.expect_no_processes(out);
        let left: Vec<_> = self.directories.iter().filter(|d| d.exists()).collect();
        assert!(left.is_empty(), "directories are left: {left:?}");
        for name in ["understudy.journal", "understudy.lock", "servers", "control.sock", "experiment"] {
            assert!(!out.join(name).exists(), "{name} is left in {}", out.display());
        }
    }
}

/// When a process began, in ticks; `None` when there is no such process or only its remains.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    (state != "Z" && state != "X").then_some(())?;
    fields.nth(18)?.parse().ok()
}

/// Processes that work in a directory, or name it in their command line; this process excepted.
fn processes_in(directory: &Path) -> BTreeSet<u32> {
    let named = directory.to_string_lossy().into_owned();
    let all = fs::read_dir("/proc").expect("/proc").filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|pid| *pid != std::process::id())
        .filter(|pid| start_time(*pid).is_some())
        .filter(|pid| {
            let works = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
            works || who(*pid).contains(&named)
        })
        .collect()
}

fn who(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " "))
}

/// What of a server an experiment could change: its settings, relations, slots, and followers.
pub async fn worker_state(client: &Client) -> Vec<(String, String)> {
    let queries = [
        (
            "file settings",
            "SELECT coalesce(string_agg(name || '=' || setting, ',' ORDER BY name), '') FROM pg_file_settings",
        ),
        ("role settings", "SELECT coalesce(string_agg(s::text, ',' ORDER BY s::text), '') FROM pg_db_role_setting s"),
        (
            "relations",
            "SELECT string_agg(relname::text || relkind::text, ',' ORDER BY relname) FROM pg_class c JOIN pg_namespace n \
             ON n.oid = relnamespace WHERE nspname <> 'pg_toast' AND nspname <> 'pg_catalog' AND nspname <> 'information_schema'",
        ),
        ("roles", "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles"),
        ("slots", "SELECT count(*)::text FROM pg_replication_slots"),
        ("followers", "SELECT count(*)::text FROM pg_stat_replication"),
        ("prepared", "SELECT count(*)::text FROM pg_prepared_xacts"),
    ];
    let mut state = Vec::new();
    for (what, sql) in queries {
        let row = client.query_one(sql, &[]).await.expect("the worker's state");
        state.push((what.to_owned(), row.get::<_, Option<String>>(0).unwrap_or_default()));
    }
    state
}

/// Waits until a server is in a state again: sessions end a moment after their client.
pub async fn expect_worker_state(client: &Client, expected: &[(String, String)]) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let state = worker_state(client).await;
        if state == expected {
            return;
        }
        if Instant::now() > end {
            assert_eq!(state, expected, "the worker is not as it was");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
