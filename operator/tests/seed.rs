//! Clones of real servers: what goes well, and how each thing that can go wrong is told.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use understudy_crds::experiment::LocalTarget;
use understudy_harness::{Cluster, arm_spec, arm_spec_of, seed_arm, target, wait_until, worker};
use understudy_operator::{
    error::{ErrorKind, Side},
    platform::local::{
        arm::Arm, base_backup::CopyProgress, cut_probe::CutProber, facts::WorkerFacts, parameters::check_parameters,
        process, session::Names, worker::Worker,
    },
};

#[tokio::test]
async fn the_copy_says_how_far_it_is_and_the_clone_follows() {
    let cluster = Cluster::start().await;
    let client = cluster.connect().await;
    let seen: Arc<Mutex<Vec<CopyProgress>>> = Arc::default();
    let tell = Arc::clone(&seen);
    let spec = arm_spec(&cluster, "baseline", &[]).await;
    let arm =
        Arm::seed(spec, |_, _, _| Ok(()), move |now| tell.lock().expect("lock").push(now)).await.expect("a clone");
    arm.wait_streaming().await.expect("streaming");
    let last = seen.lock().expect("lock").last().copied().expect("some progress");
    assert!(last.done_bytes > 1 << 20 && last.total_bytes > 1 << 20, "{last:?}");

    client.batch_execute("CREATE TABLE later (i int)").await.expect("a table");
    let session = arm.connect().await.expect("a session");
    wait_until("the clone has what came later", || async {
        session.rows("SELECT FROM public.later", &[]).await.is_ok()
    })
    .await;
    let name: Option<String> = session.value("SELECT current_setting('cluster_name')", &[]).await.expect("a name");
    assert_eq!(name.as_deref(), Some("understudy/test/baseline"));
}

#[tokio::test]
async fn a_candidate_may_go_below_what_a_standby_needs() {
    let cluster = Cluster::start().await;
    let parameters = [("max_connections", "40"), ("work_mem", "7MB")];
    let mut arm = seed_arm(&cluster, "small", &parameters).await.expect("a clone");
    let prober = CutProber::open(&worker(&cluster), &["postgres".to_owned()]).await.expect("a prober");
    arm.pause().await.expect("paused");
    let probe = prober.probe().await.expect("a probe");
    arm.recover_to(probe.lsn, &[], prober.session(), |_, _, _| Ok(())).await.expect("recovered");
    let session = arm.connect().await.expect("a session");
    for (name, expected) in [
        ("max_connections", "40"),
        ("work_mem", "7MB"),
        ("primary_conninfo", ""),
        ("archive_mode", "off"),
        ("listen_addresses", ""),
    ] {
        let value: Option<String> = session.value("SELECT current_setting($1)", &[&name]).await.expect("a value");
        assert_eq!(value.as_deref(), Some(expected), "{name}");
    }
}

#[tokio::test]
async fn tablespaces_get_a_place_of_their_own() {
    let cluster = Cluster::start().await;
    let place = cluster.socket_dir().join("a space=here");
    fs::create_dir(&place).expect("a directory");
    cluster.server().spec().account.take(&place).expect("owner");
    let client = cluster.connect().await;
    client.batch_execute(&format!("CREATE TABLESPACE far LOCATION '{}'", place.display())).await.expect("a tablespace");
    client.batch_execute("CREATE TABLE t TABLESPACE far AS SELECT 1 AS i").await.expect("a table");
    let arm = seed_arm(&cluster, "baseline", &[]).await.expect("a clone");
    let session = arm.connect().await.expect("a session");
    assert_eq!(session.value::<i32>("SELECT i FROM public.t", &[]).await.expect("a row"), Some(1));
    let sql = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'far'";
    let location: Option<String> = session.value(sql, &[]).await.expect("a place");
    assert!(Path::new(&location.expect("a place")).starts_with(&arm.spec().directory));
}

#[tokio::test]
async fn nothing_in_a_clones_databases_reaches_the_world() {
    let cluster = Cluster::builder().setting("wal_level", "logical").start().await;
    let client = cluster.connect().await;
    let own = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", cluster.port());
    client
        .batch_execute(&format!(
            "CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw;
             CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{}', dbname 'postgres');
             CREATE USER MAPPING FOR postgres SERVER s OPTIONS (user 'postgres', password_required 'false');
             CREATE TABLE here (i int); INSERT INTO here VALUES (1);
             CREATE FOREIGN TABLE there (i int) SERVER s OPTIONS (table_name 'here');
             CREATE SUBSCRIPTION sub CONNECTION '{own}' PUBLICATION p WITH (connect = false, enabled = false, slot_name = 'x', create_slot = false)",
            cluster.port()
        ))
        .await
        .expect("ways out");
    client.batch_execute("ALTER SUBSCRIPTION sub ENABLE").await.expect("a subscription");
    let call = format!("SELECT i FROM dblink('{own}', 'SELECT i FROM here') AS t (i int)");
    assert_eq!(client.query_one(&call, &[]).await.expect("the worker reaches out").get::<_, i32>(0), 1);

    let mut arm = seed_arm(&cluster, "baseline", &[]).await.expect("a clone");
    let prober = CutProber::open(&worker(&cluster), &["postgres".to_owned()]).await.expect("a prober");
    arm.pause().await.expect("paused");
    let probe = prober.probe().await.expect("a probe");
    arm.recover_to(probe.lsn, &[], prober.session(), |_, _, _| Ok(())).await.expect("recovered");
    let done = arm.quarantine(&probe.sequences).await.expect("quarantined");
    assert_eq!((done.subscriptions, done.wrappers), (1, 1));
    assert!(done.functions > 10, "{done:?}");

    let session = arm.connect_to("postgres", Names::User).await.expect("a session");
    assert!(session.rows("SELECT * FROM there", &[]).await.is_err());
    assert!(session.rows(&call, &[]).await.is_err());
    let slot: Option<String> = session
        .value("SELECT subslotname::text FROM pg_subscription WHERE NOT subenabled", &[])
        .await
        .expect("a subscription");
    assert_eq!(slot, None);
}

fn scram() -> &'static str {
    "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"
}

fn password_file(cluster: &Cluster, password: &str) -> PathBuf {
    let path = cluster.directory().join(format!("password-{}", password.len()));
    fs::write(&path, format!("{password}\n")).expect("a password file");
    path
}

fn with_password(cluster: &Cluster, password: &str) -> Worker {
    let file = password_file(cluster, password).display().to_string();
    Worker::new(&LocalTarget { password_file: Some(file), ..target(cluster) }).expect("a worker")
}

#[tokio::test]
async fn passwords_open_the_worker_and_wrong_ones_are_told_but_never_shown() {
    let cluster = Cluster::builder().hba(scram()).start().await;
    let client = cluster.connect().await;
    client.batch_execute("ALTER USER postgres PASSWORD 'a:secret\\one'").await.expect("a password");

    let right = with_password(&cluster, "a:secret\\one");
    right.connect().await.expect("the right password");
    let mut spec = arm_spec_of(&cluster, &right, "baseline", &[]).await;
    let file = cluster.socket_dir().join("passfile");
    spec.password_file = right.write_password_file(&file, &spec.account).expect("written");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let arm = Arm::seed(spec.clone(), |_, _, _| Ok(()), |_| ()).await.expect("a clone with a password");
    arm.wait_streaming().await.expect("streaming with a password");
    drop(arm);

    let wrong = with_password(&cluster, "not it, clearly");
    let error = wrong.connect().await.expect_err("the wrong password");
    assert_eq!((error.kind, error.side), (ErrorKind::Refused, Side::Worker));
    let text = error.to_string();
    assert!(text.contains("does not accept the password") && text.ends_with("nothing was changed"), "{text}");
    assert!(!text.contains("clearly"), "{text}");

    spec.directory = spec.directory.with_extension("second");
    spec.password_file = wrong.write_password_file(&file, &spec.account).expect("written");
    let error = Arm::seed(spec, |_, _, _| Ok(()), |_| ()).await.expect_err("the wrong password");
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.to_string().contains("does not accept the password"), "{error}");
    assert!(!cluster.log().contains("secret"), "passwords stay out of logs");
}

#[tokio::test]
async fn refused_replication_says_what_to_write_into_pg_hba() {
    let cluster = Cluster::builder().hba("local all all trust\nhost all all 127.0.0.1/32 trust\n").start().await;
    let error = seed_arm(&cluster, "baseline", &[]).await.expect_err("no replication");
    assert_eq!(error.kind, ErrorKind::Refused);
    let text = error.to_string();
    assert!(text.starts_with("the worker refuses a base backup") && text.contains("host replication"), "{text}");
}

#[tokio::test]
async fn a_worker_that_is_not_there_is_told_as_such() {
    let mut cluster = Cluster::start().await;
    let worker = worker(&cluster);
    cluster.server_mut().kill().await;
    let error = worker.connect().await.expect_err("no worker");
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[tokio::test]
async fn keys_that_each_server_makes_for_itself_are_found() {
    let cluster = Cluster::start().await;
    let session = worker(&cluster).connect().await.expect("a session");
    let tables = "CREATE TABLE public.by_chance (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), other uuid DEFAULT gen_random_uuid());
        CREATE TABLE public.by_sequence (id bigserial PRIMARY KEY, made timestamptz DEFAULT now(), UNIQUE (id, made));
        CREATE TABLE public.by_identity (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE DEFAULT 'x');
        CREATE FUNCTION public.own() RETURNS text LANGUAGE sql VOLATILE AS 'SELECT random()::text';
        CREATE TABLE public.by_function (id text UNIQUE DEFAULT 'a-' || public.own())";
    session.run(tables, Duration::from_secs(10)).await.expect("tables");
    let facts = WorkerFacts::read(&session).await.expect("facts");
    assert_eq!(facts.own_keys, ["public.by_chance.id", "public.by_function.id"]);
}

#[tokio::test]
async fn parameters_are_checked_before_anything_is_cloned() {
    let cluster = Cluster::start().await;
    let session = worker(&cluster).connect().await.expect("a session");
    let facts = WorkerFacts::read(&session).await.expect("facts");
    let spec = cluster.server().spec();
    let scratch = cluster.socket_dir().join("scratch");
    for (name, value, reason) in [
        ("work_mem", "64MB", None),
        ("WORK_MEM", "64MB", None),
        ("work_mem", "lots", Some("invalid value for parameter \"work_mem\"")),
        ("shared_bufers", "1GB", Some("shared_bufers")),
        ("random_page_cost", "-1", Some("outside the valid range")),
        ("port", "1", Some("the server's own")),
        ("block_size", "1", Some("can't be changed")),
        ("no_such.thing", "1", Some("has no such parameter")),
    ] {
        let parameters = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let result = check_parameters(2, &parameters, &facts, &spec.binaries, &spec.account, &scratch).await;
        match (reason, result) {
            (None, result) => result.expect("a good parameter"),
            (Some(reason), Err(error)) => {
                let text = error.to_string();
                assert!(text.starts_with(&format!("spec.candidates[2].parameters.{name}: ")), "{text}");
                assert!(text.contains(reason), "{name}: {text}");
            }
            (Some(_), Ok(())) => panic!("{name} = {value} is taken"),
        }
        assert!(!scratch.exists());
    }
}

#[tokio::test]
async fn a_setting_that_only_a_start_refuses_names_the_field() {
    let cluster = Cluster::start().await;
    let error = seed_arm(&cluster, "huge", &[("shared_buffers", "4TB")]).await.expect_err("4 TB of shared buffers");
    assert_eq!((error.kind, error.side), (ErrorKind::Exited, Side::Arm));
    let text = error.to_string();
    assert!(text.contains("spec.candidates[0].parameters") && text.contains("shared memory"), "{text}");
}

#[tokio::test]
async fn a_full_disk_is_told_as_such() {
    let cluster = Cluster::start().await;
    let mut spec = arm_spec(&cluster, "baseline", &[]).await;
    let small = cluster.directory().join("small");
    fs::create_dir(&small).expect("a mount point");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs"]).arg(&small).output();
    if !mount.is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED a_full_disk_is_told_as_such: only root can mount a small file system");
        return;
    }
    spec.directory = small.join("arm");
    let result = Arm::seed(spec, |_, _, _| Ok(()), |_| ()).await;
    let unmounted = Command::new("umount").arg("--lazy").arg(&small).status();
    let error = result.expect_err("12 MB are too few");
    assert_eq!(error.kind, ErrorKind::DiskFull, "{error}");
    assert!(unmounted.expect("umount").success());
}

#[tokio::test]
async fn dropping_a_copy_ends_its_programs() {
    let cluster = Cluster::start().await;
    let mut spec = arm_spec(&cluster, "baseline", &[]).await;
    spec.max_rate_kib = Some(32);
    let started: Arc<Mutex<Option<u32>>> = Arc::default();
    let tell = Arc::clone(&started);
    let seeding = tokio::spawn(Arm::seed(
        spec,
        move |_, pid, _| {
            *tell.lock().expect("lock") = Some(pid);
            Ok(())
        },
        |_| (),
    ));
    let client = cluster.connect().await;
    wait_until("the worker sends its data", || async {
        let sending = "SELECT 1 FROM pg_stat_progress_basebackup WHERE backup_streamed > 0";
        !client.query(sending, &[]).await.expect("senders").is_empty()
    })
    .await;
    // A second sender would mean a second program, which does not end with the first.
    let senders = client.query("SELECT 1 FROM pg_stat_replication", &[]).await.expect("senders");
    assert_eq!(senders.len(), 1, "one clone takes one WAL sender");
    let pid = started.lock().expect("lock").expect("a process");
    seeding.abort();
    assert!(seeding.await.expect_err("it was stopped").is_cancelled());
    assert_eq!(process::start_time(pid), None);
    wait_until("the worker sends nothing any more", || async {
        client.query("SELECT 1 FROM pg_stat_replication", &[]).await.expect("senders").is_empty()
    })
    .await;
}
