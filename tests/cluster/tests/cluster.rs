//! The running test cluster, from outside: `make cluster`, then
//! `cargo test -p understudy-test-cluster -- --ignored`. It must leave the cluster as it was.

use std::{path::Path, process::Command};

#[test]
#[ignore = "needs root and a running cluster: make cluster"]
fn a_postgresql_with_volumes_is_reached_in_every_way() {
    let state = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cluster");
    let state = state.canonicalize().expect("a cluster was started here");
    let status = Command::new(env!("CARGO_BIN_EXE_test-cluster"))
        .args(["check", "--state"])
        .arg(state)
        .status()
        .expect("test-cluster runs");
    assert!(status.success());
}
