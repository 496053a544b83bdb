//! The local platform from end to end: two clones, a cut, a change, a promotion, and nothing left.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use understudy_crds::{
    ShadowExperiment, ShadowExperimentSpec,
    experiment::{Candidate, CandidateSql, LocalTarget, StorageChange},
};
use understudy_harness::{Cluster, target, wait_until};
use understudy_operator::{
    error::{ErrorKind, Side},
    platform::{
        OnProgress, Platform,
        local::{
            LocalPlatform,
            cut::{CutDecision, decide},
            leftovers::{Cleared, Leftovers},
            process,
            session::Names,
            verify::{TableOutcome, compare, open_snapshot},
        },
    },
};

fn experiment(target: LocalTarget, candidates: Vec<Candidate>) -> ShadowExperiment {
    let value = serde_json::json!({ "target": { "local": { "host": "x", "user": "x", "database": "x" } } });
    let mut spec: ShadowExperimentSpec = serde_json::from_value(value).expect("a spec");
    spec.target.local = Some(target);
    spec.candidates = candidates;
    ShadowExperiment::new("wider", spec)
}

fn index_candidate() -> Candidate {
    Candidate {
        name: "wide".into(),
        parameters: BTreeMap::from([("random_page_cost".to_owned(), "1.1".to_owned())]),
        sql: Some(CandidateSql {
            apply: vec!["CREATE INDEX CONCURRENTLY t_j ON t (j)".into()],
            revert: vec!["DROP INDEX CONCURRENTLY t_j".into()],
        }),
        ..Candidate::default()
    }
}

fn quiet() -> OnProgress {
    Arc::new(|_, _| ())
}

fn work_directory() -> tempfile::TempDir {
    let open = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("understudy-work-").permissions(open).tempdir_in("/tmp").expect("a directory")
}

async fn worker_with_rows() -> Cluster {
    let cluster = Cluster::start().await;
    let client = cluster.connect().await;
    client
        .batch_execute("CREATE TABLE t (i serial PRIMARY KEY, j int); INSERT INTO t (j) SELECT i % 10 FROM generate_series(1, 1000) i")
        .await
        .expect("rows");
    cluster
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_experiment_goes_from_nothing_to_a_promoted_change_and_leaves_nothing() {
    let cluster = worker_with_rows().await;
    let client = cluster.connect().await;
    let work = work_directory();
    let elsewhere = cluster.directory().join("elsewhere");
    fs::create_dir(&elsewhere).expect("another file system, say");
    let candidate = Candidate {
        storage: Some(StorageChange { directory: Some(elsewhere.display().to_string()), ..StorageChange::default() }),
        ..index_candidate()
    };
    let document = experiment(target(&cluster), vec![candidate]);

    let (mut platform, cleared) = LocalPlatform::open(&document, work.path()).await.expect("fit");
    assert_eq!(cleared, []);
    let busy = LocalPlatform::open(&document, work.path()).await.expect_err("a second run");
    assert_eq!(busy.kind, ErrorKind::Busy);
    platform.seed(quiet()).await.expect("two clones");
    client.batch_execute("INSERT INTO t (j) SELECT 77 FROM generate_series(1, 50)").await.expect("before the cut");
    platform.prepare_cut().await.expect("paused");
    let direct = platform.direct_sessions(&[]).await.expect("sessions");
    assert_eq!(direct.len(), 1, "only the test's own: {direct:?}");
    let probe = platform.probe().await.expect("a probe");
    assert!(matches!(decide(&[], &probe.before, &probe.after, false), CutDecision::Holds(_)));
    platform.cut(&probe, &[]).await.expect("two servers of their own");
    platform.apply().await.expect("the change");
    assert_eq!(platform.endpoints().iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["baseline", "wide"]);
    assert_eq!(entries(&elsewhere).len(), 1);

    let worker = platform.worker().connect_to("postgres", Names::System).await.expect("a session");
    open_snapshot(&worker).await.expect("a snapshot");
    for arm in platform.arms() {
        let session = arm.connect().await.expect("a session");
        open_snapshot(&session).await.expect("a snapshot");
        let compared = compare(&worker, &session, &BTreeMap::new()).await.expect("compared");
        assert_eq!(compared.len(), 1);
        assert_eq!(compared[0].outcome, TableOutcome::Same { rows: 1050 });
        let next: Option<i64> = arm
            .connect_to("postgres", Names::User)
            .await
            .expect("a session")
            .value("SELECT nextval('t_i_seq')", &[])
            .await
            .expect("a value");
        assert_eq!(next, Some(1051), "{}", arm.name());
    }
    drop(worker);

    let promoted = platform.promote("wide", None).await.expect("promoted");
    assert_eq!(promoted.indexes, ["public.t_j"]);
    assert!(platform.dead_arms().await.is_empty());
    platform.arms_mut()[1].server_mut().kill().await;
    let dead = platform.dead_arms().await;
    assert_eq!((dead.len(), dead[0].0.as_str(), dead[0].1.side), (1, "wide", Side::Arm));

    let pids: Vec<u32> = platform.arms().iter().map(|arm| arm.server().pid()).collect();
    let sockets = platform.arms()[0].spec().identity.socket_dir.clone();
    assert!(!platform.teardown().await.expect("cleared").is_empty());
    for pid in pids {
        assert_eq!(process::start_time(pid), None);
    }
    drop(platform);
    assert!(!sockets.exists());
    assert_eq!((entries(work.path()), entries(&elsewhere)), (vec![], vec![]));
    let left =
        "SELECT slot_name::text FROM pg_replication_slots UNION ALL SELECT application_name FROM pg_stat_replication";
    wait_until("the worker is alone again", || async { client.query(left, &[]).await.expect("left").is_empty() }).await;
}

#[tokio::test]
async fn what_others_made_in_the_work_directory_outlives_the_platform() {
    let cluster = worker_with_rows().await;
    let work = work_directory();
    let (leftovers, _) = Leftovers::find_and_clear(work.path()).expect("a run");
    let leftovers = Arc::new(leftovers);
    let other = fs::canonicalize(work.path()).expect("path").join("understudy-worker");
    leftovers.directory(&other).expect("noted");
    fs::create_dir(&other).expect("made");
    let document = experiment(target(&cluster), vec![]);
    let mut platform = LocalPlatform::open_in(&document, work.path(), Arc::clone(&leftovers)).await.expect("fit");
    platform.seed(quiet()).await.expect("a clone");
    assert_eq!(platform.teardown().await.expect("cleared").len(), 3);
    drop(platform);
    assert!(other.exists());
    assert_eq!(leftovers.teardown().expect("cleared"), [Cleared::Removed(other)]);
    drop(leftovers);
    assert_eq!(entries(work.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_failing_statement_of_a_candidate_names_itself() {
    let cluster = worker_with_rows().await;
    let work = work_directory();
    let sql =
        CandidateSql { apply: vec!["SELECT 1".into(), "CREATE INDEX ON no_such_table (x)".into()], revert: vec![] };
    let document = experiment(target(&cluster), vec![Candidate { sql: Some(sql), ..index_candidate() }]);
    let (mut platform, _) = LocalPlatform::open(&document, work.path()).await.expect("fit");
    platform.seed(quiet()).await.expect("clones");
    platform.prepare_cut().await.expect("paused");
    let probe = platform.probe().await.expect("a probe");
    platform.cut(&probe, &[]).await.expect("cut");
    let error = platform.apply().await.expect_err("no such table");
    assert_eq!(error.kind, ErrorKind::StatementFailed);
    let text = error.to_string();
    assert!(
        text.contains("spec.candidates[0].sql.apply[1]") && text.contains("\"no_such_table\" does not exist"),
        "{text}"
    );
    // Forgetting it clears everything as well.
    drop(platform);
    assert_eq!(entries(work.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn an_unfit_worker_is_told_before_anything_is_made() {
    let cluster = Cluster::builder().setting("max_wal_senders", "0").setting("wal_level", "replica").start().await;
    let work = work_directory();
    let document = experiment(target(&cluster), vec![index_candidate()]);
    let error = LocalPlatform::open(&document, work.path()).await.expect_err("no WAL senders");
    assert_eq!(error.kind, ErrorKind::Unfit);
    let text = error.to_string();
    assert!(text.contains("max_wal_senders = 0") && text.ends_with("nothing was changed"), "{text}");
    assert_eq!(entries(work.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn refused_replication_is_told_before_anything_is_made() {
    let cluster = Cluster::builder().hba("local all all trust\nhost all all 127.0.0.1/32 trust\n").start().await;
    let work = work_directory();
    let over_tcp = experiment(target(&cluster), vec![]);
    let socket = LocalTarget { host: cluster.socket_dir().display().to_string(), ..target(&cluster) };
    let over_socket = experiment(socket, vec![]);
    for (document, line) in [(over_tcp, "host replication postgres"), (over_socket, "local replication postgres")] {
        let error = LocalPlatform::open(&document, work.path()).await.expect_err("no replication");
        assert_eq!(error.kind, ErrorKind::Refused);
        let text = error.to_string();
        assert!(text.contains("no pg_hba.conf entry") && text.contains(line), "{text}");
        assert!(text.ends_with("nothing was changed"), "{text}");
    }
    assert_eq!(entries(work.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_server_that_survived_its_run_is_stopped_by_the_next() {
    let cluster = Cluster::start().await;
    let work = work_directory();
    let (run, _) = Leftovers::find_and_clear(work.path()).expect("a run");
    run.data_directory(cluster.data_dir()).expect("noted");
    // As after kill -9: the journal is still there.
    run.keep();
    drop(run);
    let pid = cluster.server().pid();
    let (_next, cleared) = Leftovers::find_and_clear(work.path()).expect("the next run");
    assert_eq!(cleared, [Cleared::Stopped { program: "postgres".into(), pid }]);
    assert!(cluster.directory().exists(), "a directory that was not noted stays");
    wait_until("the server has stopped", || async { !cluster.server().is_running() }).await;
}

/// Run by the test below in a process of its own: it makes clones and waits to be killed.
#[tokio::test]
#[ignore = "a part of kill_nine_leaves_what_the_next_run_clears"]
async fn make_clones_and_wait() {
    let Some(work) = std::env::var_os("UNDERSTUDY_TEST_WORK") else { return };
    let cluster = worker_with_rows().await;
    let document = experiment(target(&cluster), vec![index_candidate()]);
    let (mut platform, _) = LocalPlatform::open(&document, Path::new(&work)).await.expect("fit");
    platform.seed(quiet()).await.expect("clones");
    let pids: Vec<String> = platform.arms().iter().map(|arm| arm.server().pid().to_string()).collect();
    let sockets = platform.arms()[0].spec().identity.socket_dir.clone();
    let told = format!("{}\n{}\n{}\n", cluster.directory().display(), sockets.display(), pids.join("\n"));
    fs::write(Path::new(&work).join("told.part"), told).expect("told");
    fs::rename(Path::new(&work).join("told.part"), Path::new(&work).join("told")).expect("told");
    tokio::time::sleep(Duration::from_secs(120)).await;
}

#[tokio::test]
async fn kill_nine_leaves_what_the_next_run_clears() {
    let work = work_directory();
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "make_clones_and_wait"])
        .env("UNDERSTUDY_TEST_WORK", work.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test again");
    let told = work.path().join("told");
    wait_until("the other process has clones", || async { told.exists() }).await;
    let text = fs::read_to_string(&told).expect("what it told");
    let mut lines = text.lines();
    let (workers, sockets) =
        (PathBuf::from(lines.next().expect("a line")), PathBuf::from(lines.next().expect("a line")));
    let pids: Vec<u32> = lines.map(|line| line.parse().expect("a number")).collect();
    assert_eq!(pids.len(), 2);
    child.kill().expect("kill -9");
    child.wait().expect("its end");

    let (next, cleared) = Leftovers::find_and_clear(work.path()).expect("the next run");
    let removed = |path: &Path| cleared.contains(&Cleared::Removed(path.to_owned()));
    assert!(removed(&sockets) && removed(&fs::canonicalize(work.path()).expect("path").join("servers")), "{cleared:?}");
    for pid in pids {
        wait_until("the clones are gone", || async { process::start_time(pid).is_none() }).await;
    }
    drop(next);
    fs::remove_dir_all(workers).expect("the other process's worker");
    fs::remove_file(told).expect("what it told");
    assert_eq!(entries(work.path()), Vec::<PathBuf>::new());
}
