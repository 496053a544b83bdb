//! One test at a time: each of them loads the machine's cores, and a test that shares them measures
//! its neighbour. It orders tests of one build directory, whatever process they run in.

use std::{fs::File, path::PathBuf};

/// The right to run; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Waits for the tests before this one. The kernel gives the turn on when a test process dies.
pub async fn take_turn() -> Turn {
    let path = programs().join("understudy-e2e.lock");
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::create(&path).expect("the lock of the end-to-end tests");
        file.lock().expect("a turn");
        file
    });
    Turn { _lock: lock.await.expect("a turn") }
}

/// The directory of the programs that were built beside this test.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a build directory");
    profile.to_owned()
}
