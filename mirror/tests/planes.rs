//! What may use what in the mirror, held against its sources: the first two rules of `ARCHITECTURE.md`, "What must
//! never depend on what". It reads code as text; what a macro would bring in it does not see.

#![expect(clippy::unwrap_used, reason = "a test that can't read the sources has failed")]

use std::{fs, path::Path};

/// Sources, and what must not stand in their code.
struct Rule {
    /// Folders and files below `src/`.
    sources: &'static [&'static str],
    never: &'static [&'static str],
    why: &'static str,
}

const RULES: [Rule; 6] = [
    Rule {
        sources: &["production.rs", "production"],
        never: &["shadow::", "crate::shadow", "mirror::", "cut::", "admin::"],
        why: "production never waits for the shadow side and calls nothing of it",
    },
    Rule {
        sources: &["production.rs", "production", "capture.rs", "capture", "wire.rs", "wire"],
        never: &["arm::", "arms", "Arm"],
        why: "how many arms there are is not known here, so that nothing costs an arm more",
    },
    Rule {
        sources: &["production/tap.rs"],
        never: &["Mutex", "RwLock", "Condvar", "lock(", "park(", "mpsc", "Semaphore", "Notify", "async", "await"],
        why: "handing an event over never waits",
    },
    Rule {
        sources: &["capture.rs", "capture", "production/run_queue.rs"],
        never: &["Mutex", "RwLock", "Condvar", "lock(", "park(", "mpsc", "Semaphore"],
        why: "what both sides hold at once has no lock that one could keep from the other",
    },
    Rule {
        sources: &["capture.rs", "capture", "wire.rs", "wire"],
        never: &["shadow::", "crate::shadow", "production::", "crate::production"],
        why: "what both paths use belongs to neither",
    },
    Rule {
        sources: &[
            "capture.rs",
            "capture",
            "wire.rs",
            "wire",
            "measure.rs",
            "measure",
            "shadow/order.rs",
            "shadow/order",
            "shadow/compare.rs",
            "shadow/compare",
            "shadow/session_book.rs",
            "shadow/session_book",
        ],
        never: &["tokio", "async ", "std::net", "std::fs", "std::io", "std::thread", "Instant", "now_ns()"],
        why: "decisions are pure: no I/O and no clock",
    },
];

/// What the shadow side may use of production.
const DOORS: [&str; 2] = ["tap::", "run_queue::"];

#[test]
fn no_plane_uses_what_it_must_not() {
    for Rule { sources, never, why } in RULES {
        let code = code_of(sources);
        assert!(code.len() > 100, "{sources:?} are there");
        for (place, line) in code {
            let found = never.iter().find(|word| line.contains(**word));
            assert_eq!(found, None, "{place}: {line}\n{why}");
        }
    }
}

#[test]
fn the_shadow_side_has_two_doors_to_production() {
    let code = code_of(&["shadow.rs", "shadow"]);
    let mut used: Vec<&str> = Vec::new();
    for (place, line) in &code {
        for (_, after) in line.match_indices("production::").map(|(at, word)| line.split_at(at + word.len())) {
            let door = DOORS.iter().find(|door| after.starts_with(**door));
            assert!(door.is_some(), "{place}: {line}\nonly {DOORS:?} are open to the shadow side");
            used.extend(door);
        }
    }
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), DOORS.len(), "a door that nobody uses is closed: {used:?}");
}

/// Lines of code below `src/`, without comments and unit tests, and where they stand.
fn code_of(sources: &[&str]) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for source in sources {
        let path = root.join(source);
        if path.exists() {
            collect(&path, &mut lines);
        }
    }
    lines
}

fn collect(path: &Path, lines: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), lines);
        }
    } else if path.file_name().is_some_and(|name| name != "tests.rs") {
        let text = fs::read_to_string(path).unwrap();
        let code = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        for (n, line) in code.filter(|(_, line)| !line.trim_start().starts_with("//")) {
            lines.push((format!("{}:{}", path.display(), n + 1), line.to_owned()));
        }
    }
}
