//! Real servers: they start, stop, say why they don't, and never outlive who started them.

use std::{fs, process::Stdio, time::Duration};

use understudy_harness::{Cluster, wait_until};
use understudy_operator::{
    error::ErrorKind,
    platform::local::{process, server::START_LIMIT},
};

#[tokio::test]
async fn a_server_starts_answers_restarts_and_is_gone_when_dropped() {
    let mut cluster = Cluster::start().await;
    let one: i32 = cluster.connect().await.query_one("SELECT 1", &[]).await.expect("an answer").get(0);
    assert_eq!(one, 1);

    let before = cluster.server().pid();
    cluster.server_mut().restart(START_LIMIT).await.expect("a restart");
    assert_ne!(cluster.server().pid(), before);
    cluster.connect().await.query_one("SELECT 1", &[]).await.expect("an answer after the restart");

    let (pid, directory) = (cluster.server().pid(), cluster.directory().to_owned());
    drop(cluster);
    assert_eq!(process::start_time(pid), None);
    assert!(!directory.exists());
}

#[tokio::test]
async fn several_servers_start_side_by_side() {
    let (a, b, c) = tokio::join!(Cluster::start(), Cluster::start(), Cluster::start());
    for cluster in [a, b, c] {
        cluster.connect().await.query_one("SELECT 1", &[]).await.expect("an answer");
    }
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_is_in_the_error() {
    let mut cluster = Cluster::start().await;
    cluster.server_mut().stop(Duration::from_secs(20)).await;
    let conf = cluster.data_dir().join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("configuration");
    fs::write(&conf, format!("{text}shared_buffers = '1kB'\n")).expect("configuration");
    let error = cluster.server_mut().start_again(START_LIMIT).await.expect_err("1kB of shared buffers");
    assert_eq!(error.kind, ErrorKind::Exited);
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[tokio::test]
async fn a_killed_server_is_noticed() {
    let mut cluster = Cluster::start().await;
    let mut end = cluster.server().watch();
    cluster.server_mut().kill().await;
    assert!(!cluster.server().is_running());
    assert!(end.borrow_and_update().is_some());
    // A crash leaves its pid file and its socket behind; a new start copes.
    cluster.server_mut().start_again(START_LIMIT).await.expect("a start after kill -9");
    cluster.connect().await.query_one("SELECT 1", &[]).await.expect("an answer");
}

/// Run by the test below in a process of its own: it starts a server and waits to be killed.
#[tokio::test]
#[ignore = "a part of kill_nine_of_our_process_takes_the_server_along"]
async fn start_a_server_and_wait() {
    let Some(file) = std::env::var_os("UNDERSTUDY_TEST_PID_FILE") else { return };
    let cluster = Cluster::start().await;
    // From a worker thread that ends before the server should: the server must not care.
    fs::write(&file, format!("{} {}", cluster.server().pid(), cluster.directory().display())).expect("pid file");
    tokio::time::sleep(Duration::from_secs(120)).await;
}

#[tokio::test]
async fn kill_nine_of_our_process_takes_the_server_along() {
    let directory = tempfile::tempdir().expect("dir");
    let file = directory.path().join("pid");
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "start_a_server_and_wait"])
        .env("UNDERSTUDY_TEST_PID_FILE", &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test again");
    wait_until("the other process has a server", || async { fs::read_to_string(&file).is_ok_and(|t| t.contains(' ')) })
        .await;
    let text = fs::read_to_string(&file).expect("pid file");
    let (pid, left) = text.split_once(' ').expect("a number and a directory");
    let pid: u32 = pid.parse().expect("a number");
    assert!(process::start_time(pid).is_some());

    child.kill().expect("kill -9");
    child.wait().expect("its end");
    wait_until("the server is gone too", || async { process::start_time(pid).is_none() }).await;
    fs::remove_dir_all(left).expect("what the killed process left");
}
