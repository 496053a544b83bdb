//! Real drivers at their own kind of work, once direct and once through the mirror with two arms: what the
//! program was told, and every message on the wire, must be the same; and the arms must have come to the same
//! rows. The programs are in `tests/drivers`, what they need is got by `scripts/drivers.sh`.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]
#![expect(clippy::print_stdout, reason = "what was compared is worth a line")]

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};
use understudy_e2e::{
    recorder::{Conversation, Recorder, differences},
    tls_worker::encrypt,
    transcript::without_port,
    turn::programs,
    twins::{Twins, address},
};

use crate::papers::Papers;

const PASSWORD: &str = "open sesame";
const LIMIT: Duration = Duration::from_secs(60);
/// The first time, everything is fetched from registries.
const FETCH_LIMIT: Duration = Duration::from_secs(300);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where `scripts/drivers.sh` puts what it gets.
fn fetched(what: &str) -> PathBuf {
    let target = programs().parent().expect("the build directory").to_owned();
    target.join("drivers").join(what)
}

/// Gets one kind of drivers; whether it is there. On CI it has to be.
async fn have(kind: &str) -> bool {
    let mut script = Command::new(repository().join("scripts/drivers.sh"));
    script.arg(kind).env("CARGO_TARGET_DIR", programs().parent().expect("the build directory")).stdin(Stdio::null());
    let done = timeout(FETCH_LIMIT, script.kill_on_drop(true).output()).await.expect("in time").expect("a shell");
    if done.status.success() {
        return true;
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(env::var_os("CI").is_none(), "{said}");
    println!("SKIPPED: the drivers of {kind} were not tested\n{said}");
    false
}

/// What one run of a program came to.
struct Ran {
    transcript: String,
    complaints: String,
    code: Option<i32>,
    wire: Vec<Conversation>,
}

/// What there is to know about a program.
#[derive(Clone, Copy, Default)]
struct Case<'a> {
    /// Its environment.
    environment: &'a [(&'a str, &'a str)],
    /// Columns that each server fills with what is its own.
    left_out: &'a [&'a str],
}

/// psql and pgbench are the ones that belong to the server.
async fn run(program: &[&str], server: SocketAddr, binaries: &Path, more: &[(&str, &str)]) -> Ran {
    let recorder = Recorder::start(server).await;
    let (name, arguments) = program.split_first().expect("a program");
    let mut command = Command::new(name);
    for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(variable);
    }
    let path = format!("{}:{}", binaries.display(), env::var("PATH").unwrap_or_default());
    command
        .args(arguments)
        .env("PATH", path)
        .current_dir(repository().join("tests/drivers"))
        .env("PGHOST", recorder.address().ip().to_string())
        .env("PGPORT", recorder.address().port().to_string())
        .envs([("PGUSER", "postgres"), ("PGDATABASE", "postgres"), ("TZ", "UTC"), ("LC_ALL", "C.UTF-8")])
        .envs([("PYTHONDONTWRITEBYTECODE", "1"), ("NO_COLOR", "1")])
        .envs(more.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = timeout(LIMIT, command.output()).await.expect("the program ends in time").expect("the program");
    let port = recorder.address().port();
    Ran {
        transcript: without_port(&done.stdout, port),
        complaints: without_port(&done.stderr, port),
        code: done.status.code(),
        wire: recorder.finish(LIMIT).await,
    }
}

/// Runs a program direct and through the mirror, twice each: the second time it finds what it left.
async fn same(program: &[&str], case: Case<'_>) {
    let Case { environment: more, left_out } = case;
    let twins = Twins::start(|builder| builder, "").await;
    let psql = twins.direct.server().spec().binaries.program("psql");
    let binaries = psql.parent().expect("their directory");
    for round in ["from nothing", "again"] {
        let direct = run(program, address(&twins.direct), binaries, more).await;
        let ended = format!("{}{}", direct.transcript, direct.complaints);
        assert_eq!(direct.code, Some(0), "direct, {round}:\n{ended}");
        assert!(direct.transcript.contains("--- done"), "direct, {round}:\n{ended}");
        let through = run(program, twins.through, binaries, more).await;
        let told =
            || direct.transcript.lines().zip(through.transcript.lines()).find(|(direct, through)| direct != through);
        assert!(direct.transcript == through.transcript, "{round}, direct and through: {:#?}", told());
        assert_eq!((direct.code, &direct.complaints), (through.code, &through.complaints), "{round}");
        let found = differences(&direct.wire, &through.wire);
        assert!(found.is_empty(), "{round}:\n{}", found.join("\n"));
        let messages: usize = direct.wire.iter().map(|c| c.client.len() + c.server.len()).sum();
        println!("{round}: {} connections, {messages} messages, all the same", direct.wire.len());
        for arm in twins.expect_level(left_out).await {
            println!("  {}: {:?}, {} compared, {:?}", arm.name, arm.exchanges, arm.compared, arm.divergence);
            assert!(arm.divergence.values().all(|count| *count == 0), "{arm:#?}");
        }
    }
    twins.end().await;
}

/// Runs a program with a password and over TLS, direct and through a mirror that has TLS on both sides. What goes over
/// the wire nobody can read there.
async fn same_in_secret(program: &[&str], case: Case<'_>) {
    let papers = Papers::new();
    let (certificate, key) = (papers.path("worker.crt"), papers.path("worker.key"));
    let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let tls = format!("{}workerTls: {{ mode: require }}\n", papers.clients("worker", ""));
    let role = format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'");
    let twins = Twins::start_with(|builder| builder.hba(hba), &role, &tls).await;
    encrypt(&twins.direct, &certificate, &key).await;
    encrypt(&twins.worker, &certificate, &key).await;
    let psql = twins.direct.server().spec().binaries.program("psql");
    let binaries = psql.parent().expect("their directory");
    // What a program is told otherwise comes last.
    let given = [("PGPASSWORD", PASSWORD), ("PGSSLMODE", "require")];
    let environment: Vec<_> = given.into_iter().chain(case.environment.iter().copied()).collect();
    let direct = run(program, address(&twins.direct), binaries, &environment).await;
    let ended = format!("{}{}", direct.transcript, direct.complaints);
    assert!(direct.code == Some(0) && direct.transcript.contains("--- done"), "direct:\n{ended}");
    let through = run(program, twins.through, binaries, &environment).await;
    let told = || direct.transcript.lines().zip(through.transcript.lines()).find(|(direct, through)| direct != through);
    assert!(direct.transcript == through.transcript, "direct and through: {:#?}", told());
    assert_eq!((direct.code, &direct.complaints), (through.code, &through.complaints));
    let encrypted = twins.metric("connections_encrypted_total").await;
    let disabled = environment.contains(&("PGSSLMODE", "disable"));
    assert_eq!(encrypted == 0, disabled, "{encrypted} connections had TLS");
    for arm in twins.expect_level(case.left_out).await {
        assert!(arm.divergence.values().all(|count| *count == 0), "{arm:#?}");
    }
    twins.end().await;
}

async fn python(program: &str, case: Case<'_>) {
    if have("python").await {
        let python = fetched("python/bin/python");
        let program = [python.to_str().expect("a path"), &format!("python/{program}")];
        same(&program, case).await;
        same_in_secret(&program, case).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg() {
    python("with_psycopg.py", Case::default()).await;
}

/// Since libpq 17; psql's own may be older, and so may the worker, which could not be spoken to like this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_speaks_tls_without_asking() {
    if !have("python").await {
        return;
    }
    let (papers, python) = (Papers::new(), fetched("python/bin/python"));
    let twins = Twins::start_with(|builder| builder, "", &papers.clients("mirror", "")).await;
    let psql = twins.direct.server().spec().binaries.program("psql");
    let program = [python.to_str().expect("a path"), "-c", WITHOUT_ASKING];
    let environment = [("PGSSLMODE", "require"), ("PGSSLNEGOTIATION", "direct")];
    let ran = run(&program, twins.through, psql.parent().expect("their directory"), &environment).await;
    assert_eq!((ran.code, ran.transcript.as_str()), (Some(0), "42\n"), "{}", ran.complaints);
    assert_eq!(twins.metric("connections_encrypted_total").await, 1);
    twins.end().await;
}

const WITHOUT_ASKING: &str = "import psycopg; print(psycopg.connect().execute('SELECT 42').fetchone()[0])";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_async() {
    python("with_psycopg_async.py", Case::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncpg() {
    python("with_asyncpg.py", Case::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlalchemy() {
    python("with_sqlalchemy.py", Case::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_postgres() {
    if have("node").await {
        let modules = fetched("node/node_modules");
        let environment = [("NODE_PATH", modules.to_str().expect("a path"))];
        let case = Case { environment: &environment, ..Case::default() };
        let program = ["node", "--no-deprecation", "node/driver.js"];
        same(&program, case).await;
        // It takes `require` for more than libpq does.
        let environment = [environment[0], ("PGSSLMODE", "no-verify")];
        same_in_secret(&program, Case { environment: &environment, ..case }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jdbc() {
    if have("jdbc").await {
        let path =
            [fetched("jdbc/driver.jar"), fetched("jdbc/classes")].map(|part| part.display().to_string()).join(":");
        let program = ["java", "-XX:TieredStopAtLevel=1", "-cp", &path, "Driver"];
        same(&program, Case::default()).await;
        same_in_secret(&program, Case::default()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres() {
    let program = [env!("CARGO_BIN_EXE_driver-tokio-postgres")];
    same(&program, Case::default()).await;
    // It has no TLS of its own, and uses a password alone.
    same_in_secret(&program, Case { environment: &[("PGSSLMODE", "disable")], ..Case::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql() {
    same(&["sh", "psql.sh"], Case::default()).await;
    same_in_secret(&["sh", "psql.sh"], Case::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench() {
    // Each server writes down when it was asked.
    let case = Case { left_out: &["public.pgbench_history.mtime"], ..Case::default() };
    same(&["sh", "pgbench.sh"], case).await;
    same_in_secret(&["sh", "pgbench.sh"], case).await;
}
