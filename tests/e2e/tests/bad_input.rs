//! What goes wrong before or while an experiment is prepared: one clear message on standard error
//! that names the thing and what to do, the right exit status, nothing left, the worker as it was.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use understudy_e2e::{
    child::{Ended, run, understudy_once},
    experiment::{Desk, manifest, manifest_of},
    traces::{expect_worker_state, worker_state},
    turn::take_turn,
};
use understudy_harness::Cluster;

/// Passwords are asked of those who come through TCP; the tests themselves come through the socket.
const HBA: &str = "local all all trust\nhost all asked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n\
                   host replication all 127.0.0.1/32 trust\n";
const SCHEDULE: &str = "  schedule: { warmUp: 1s, minimum: 5s, maximum: 10s }\n";

struct Case {
    name: &'static str,
    manifest: String,
    /// What the message must contain.
    said: Vec<String>,
}

fn case(name: &'static str, manifest: String, said: &[&str]) -> Case {
    Case { name, manifest, said: said.iter().map(|s| (*s).to_owned()).collect() }
}

fn candidate(parameters: &str, sql: &str) -> String {
    let sql = if sql.is_empty() { String::new() } else { format!("    sql: {{ {sql} }}\n") };
    format!("  candidates:\n  - name: c\n    parameters: {{ {parameters} }}\n{sql}{SCHEDULE}")
}

/// One block on standard error that begins with `error:` once, and no panic or raw debug text.
fn expect_one_message(name: &str, ended: &Ended) {
    let errors = ended.stderr.lines().filter(|line| line.starts_with("error:")).count();
    assert_eq!(errors, 1, "{name}: one message\n{}", ended.transcript());
    for raw in ["panicked", "Error {", "Os {", "Some(", "RUST_BACKTRACE"] {
        assert!(!ended.stderr.contains(raw), "{name}: `{raw}`\n{}", ended.transcript());
    }
}

/// Text with the line breaks of a narrow screen taken out.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn expect_said(case: &Case, ended: &Ended) {
    ended.expect_code(1);
    expect_one_message(case.name, ended);
    let text = unwrapped(&ended.stderr);
    for said in &case.said {
        assert!(text.contains(said.as_str()), "{}: `{said}` is not said\n{}", case.name, ended.transcript());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_run_is_refused_with_one_clear_message() {
    let _turn = take_turn().await;
    let worker = Cluster::builder().hba(HBA).start().await;
    let direct = worker.connect().await;
    direct
        .batch_execute(
            "CREATE TABLE t (i int); CREATE ROLE asked SUPERUSER LOGIN PASSWORD 'right'; CREATE ROLE plain LOGIN",
        )
        .await
        .expect("the worker's own");
    let before = worker_state(&direct).await;
    let desk = Desk::new();
    let password = desk.write("password", "wrong-secret\n");
    let port = worker.port();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its number");
    let free = free_port();

    let local = |more: &str| format!("host: 127.0.0.1, port: {port}, database: postgres, {more}");
    let plain = candidate("work_mem: 8MB", "");
    let parameter = |text: &str| manifest("bad", port, &candidate(text, ""));
    let password_file = format!("user: asked, passwordFile: {}", password.display());
    let cases = [
        case("no server", manifest("bad", free, SCHEDULE), &[&format!("127.0.0.1:{free}"), "refused", "do "]),
        case("wrong password", manifest_of("bad", &local(&password_file), SCHEDULE), &["password", "asked"]),
        case(
            "no password",
            manifest_of("bad", &local("user: asked"), SCHEDULE),
            &["password", "asked", "passwordFile"],
        ),
        case("no such role", manifest_of("bad", &local("user: nobody"), SCHEDULE), &["nobody"]),
        case(
            "no superuser",
            manifest_of("bad", &local("user: plain"), SCHEDULE),
            &["superuser", "spec.target.local.user"],
        ),
        case(
            "no such database",
            manifest_of("bad", &format!("host: 127.0.0.1, port: {port}, user: postgres, database: nowhere"), SCHEDULE),
            &["nowhere", "does not exist"],
        ),
        case(
            "port taken",
            manifest_of("bad", &local(&format!("user: postgres, listen: \"{taken}\"")), SCHEDULE),
            &[&taken.to_string(), "spec.target.local.listen"],
        ),
        case(
            "unknown field",
            manifest("bad", port, "  guardrail: {}\n"),
            &["guardrail", "guardrails", "nothing was changed"],
        ),
        case(
            "unreadable value",
            manifest("bad", port, "  schedule: { warmUp: soon }\n"),
            &["spec.schedule.warmUp", "soon"],
        ),
        case(
            "unsupported field",
            manifest("bad", port, &format!("  clone: {{ method: VolumeSnapshot }}\n{plain}")),
            &["spec.clone.method", "VolumeSnapshot", "BaseBackup"],
        ),
        case("no YAML", "spec: [".to_owned(), &["bad.yaml"]),
        case("an empty file", String::new(), &["bad.yaml", "there is nothing in it"]),
        case("unknown parameter", parameter("wrok_mem: 8MB"), &["spec.candidates[0].parameters.wrok_mem"]),
        case("value out of range", parameter("work_mem: 1kB"), &["parameters.work_mem", "1kB"]),
        case("reserved parameter", parameter("port: \"5555\""), &["parameters.port"]),
        case("too much memory", parameter("shared_buffers: 1000TB"), &["shared_buffers", "1000TB"]),
    ];
    for case in &cases {
        let ended = attempt(&desk, case).await;
        expect_said(case, &ended);
        assert!(!ended.transcript().contains("wrong-secret"), "{}: the password is shown", case.name);
        expect_worker_state(&direct, &before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_fails_on_its_clone_ends_the_run_and_touches_nothing_else() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    direct.batch_execute("CREATE TABLE t (i int)").await.expect("a table");
    let before = worker_state(&direct).await;
    let desk = Desk::new();
    let port = worker.port();
    let sql = |sql: &str| manifest("bad", port, &candidate("", sql));
    let cases = [
        case(
            "failing statement",
            sql("apply: [\"CREATE INDEX i ON t (nowhere)\"], revert: [\"DROP INDEX i\"]"),
            &["CREATE INDEX i ON t (nowhere)", "column \"nowhere\" does not exist"],
        ),
        case(
            "a setting that the parser takes and the start does not",
            manifest("bad", port, &candidate("shared_buffers: 8000GB", "")),
            &["shared_buffers", "c"],
        ),
        case(
            "a library that is not there",
            manifest("bad", port, &candidate("shared_preload_libraries: not_there", "")),
            &["not_there"],
        ),
    ];
    for case in &cases {
        let ended = attempt(&desk, case).await;
        expect_said(case, &ended);
        expect_worker_state(&direct, &before).await;
    }
}

async fn attempt(desk: &Desk, case: &Case) -> Ended {
    let out = desk.out("bad");
    let file = desk.write("bad.yaml", &case.manifest);
    let ended = run(&file, &out, &[]).ended_within(Duration::from_secs(60)).await;
    ended.seen.expect_nothing_left(&out);
    if out.exists() {
        fs::remove_dir_all(&out).expect("removed");
    }
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_without_anything_to_work_on_say_so() {
    let desk = Desk::new();
    let nothing = desk.path().join("nothing");
    let nothing = nothing.to_str().expect("a path");
    let missing = desk.path().join("missing.yaml");
    let missing = missing.to_str().expect("a path");
    for (arguments, code, said) in [
        (vec!["run", "-f", missing], 1, vec![missing]),
        (vec!["run"], 2, vec!["--file"]),
        (vec!["run", "-f", missing, "--promtoe"], 2, vec!["--promtoe", "--promote"]),
        (vec!["runn"], 2, vec!["runn"]),
        (vec!["halt", "--out", nothing], 1, vec!["no experiment runs here", nothing]),
        (vec!["watch", "--once", "--out", nothing], 1, vec!["no experiment runs here", nothing]),
        (vec!["report", "x", "--out", nothing], 1, vec!["no results", "--out"]),
        (vec!["promote", "x", "--out", nothing], 1, vec!["no results", "--out"]),
        (vec!["halt"], 2, vec!["--out"]),
        (vec!["replay"], 1, vec!["replay"]),
        (vec!["demo", "--out", nothing], 2, vec!["--yes"]),
    ] {
        let ended = understudy_once(&arguments).await;
        ended.expect_code(code);
        expect_one_message(&arguments.join(" "), &ended);
        let text = unwrapped(&ended.stderr);
        for said in said {
            // A long path may be broken over two lines.
            let there = text.contains(said) || text.replace(' ', "").contains(said);
            assert!(there, "{arguments:?}: `{said}` is not said\n{}", ended.transcript());
        }
        assert!(!Path::new(nothing).exists(), "{arguments:?} made a directory");
    }
}

/// A port at which nobody listens.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("its number");
    address.port()
}
