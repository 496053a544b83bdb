//! Replication connections through the mirror: a base backup with its WAL beside it, and a stream of logical changes.
//! They are relayed, not mirrored, and counted; those that are open do not keep a mirror from going away.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};
use understudy_e2e::{application::connect, http, twins::Twins};

const LIMIT: Duration = Duration::from_secs(60);
const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
const SLOT: [&str; 4] = ["-d", "postgres", "--slot", "changes"];

/// Two workers with a table that can be followed, a mirror, two arms.
async fn start() -> Twins {
    let of_worker = |worker: understudy_harness::ClusterBuilder| worker.setting("wal_level", "logical").hba(HBA);
    Twins::start(of_worker, "CREATE TABLE orders (id int PRIMARY KEY, what text)").await
}

/// A program of PostgreSQL's that connects through the mirror.
fn program(twins: &Twins, name: &str) -> Command {
    let mut command = Command::new(twins.worker.server().spec().binaries.program(name));
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &twins.through.port().to_string()]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What it printed, when it has ended well.
async fn done(command: &mut Command) -> String {
    let output = timeout(LIMIT, command.output()).await.expect("in time").expect("a program of PostgreSQL's");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Replication connections that the mirror has counted.
async fn counted(twins: &Twins) -> i64 {
    let text = http::get(&twins.admin, "/metrics").await.expect("metrics");
    let name = "understudy_replication_connections_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no {name}in\n{text}"))
}

/// What the arms were told, all exchanges that have begun.
async fn captured(twins: &Twins) -> Vec<i64> {
    // What has been captured is told within the shift.
    let levelled = twins.expect_level(&[]).await;
    levelled.iter().map(|arm| arm.exchanges.captured).collect()
}

#[tokio::test]
async fn a_base_backup_through_the_mirror_is_whole() {
    let twins = start().await;
    let client = connect(twins.through).await.expect("a session");
    client
        .execute("INSERT INTO orders SELECT n, repeat('x', 200) FROM generate_series(1, 100000) n", &[])
        .await
        .expect("rows");
    let directory = tempfile::tempdir().expect("a directory");
    let backup = directory.path().join("backup");
    let to = backup.to_str().expect("a path");
    let before = captured(&twins).await;
    done(program(&twins, "pg_basebackup").args(["-D", to, "-X", "stream", "-c", "fast"])).await;
    // The backup itself, and the WAL that comes beside it.
    assert_eq!(counted(&twins).await, 2);
    assert_eq!(captured(&twins).await, before, "nothing of it is told the arms");
    let verify = twins.worker.server().spec().binaries.program("pg_verifybackup");
    done(Command::new(verify).arg(Path::new(to))).await;
    twins.expect_level(&[]).await;
    drop(client);
    twins.end().await;
}

#[tokio::test]
async fn logical_changes_stream_through_the_mirror_and_do_not_keep_it_from_going_away() {
    let twins = start().await;
    done(program(&twins, "pg_recvlogical").args(SLOT).args(["--create-slot", "--plugin", "test_decoding"])).await;
    let mut follower = program(&twins, "pg_recvlogical")
        .args(SLOT)
        .args(["--start", "--file", "-", "--fsync-interval", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_recvlogical");
    let mut changes = BufReader::new(follower.stdout.take().expect("what it prints")).lines();
    let client = connect(twins.through).await.expect("a session");
    let row = client.prepare("INSERT INTO orders VALUES (1, 'a teapot')").await.expect("a statement");
    let before = captured(&twins).await;
    client.execute(&row, &[]).await.expect("a row");
    let seen = timeout(LIMIT, async {
        while let Some(line) = changes.next_line().await.expect("a line") {
            if line.contains("INSERT") {
                return line;
            }
        }
        "nothing".to_owned()
    });
    let seen = seen.await.expect("in time");
    assert_eq!(seen, "table public.orders: INSERT: id[integer]:1 what[text]:'a teapot'");
    assert_eq!(counted(&twins).await, 2);
    // What they have in common with the arms is the row, and nothing else.
    let one_more: Vec<i64> = before.iter().map(|exchanges| exchanges + 1).collect();
    assert_eq!(captured(&twins).await, one_more);
    drop(client);
    twins.end().await;
    drop(follower);
}
