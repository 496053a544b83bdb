//! One test at a time: each of them loads the machine's cores, and a test that shares them measures
//! its neighbour. Those that measure nothing and mostly wait may run beside one another. It orders tests of one build
//! directory, whatever process they run in.

use std::{fs::File, io, path::PathBuf};

/// The right to run; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Waits for the tests before this one. The kernel gives the turn on when a test process dies.
pub async fn take_turn() -> Turn {
    take(File::lock).await
}

/// Waits for the tests before this one that want to be by themselves.
pub async fn take_turn_beside_others() -> Turn {
    take(File::lock_shared).await
}

async fn take(lock: fn(&File) -> io::Result<()>) -> Turn {
    let path = programs().join("understudy-e2e.lock");
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::create(&path).expect("the lock of the end-to-end tests");
        lock(&file).expect("a turn");
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
