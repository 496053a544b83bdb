//! Clients that connect for each statement: the arms live behind production and let in no more of them at a time than
//! production had, however far behind they are.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::fs;

use understudy_e2e::{
    application::{connect, connect_as},
    stage::Servers,
    tables::Rows,
};
use understudy_harness::{Cluster, Paused, wait_until};

const TABLE: &str = "CREATE TABLE visits (client int, visit int, PRIMARY KEY (client, visit))";
const CLIENTS: i32 = 4;
const VISITS: i32 = 100;
/// Room for all clients at a time, for the tests' own look, for what a backend takes to end, and for what
/// PostgreSQL reserves: far less than come within a second.
const CONNECTIONS: &str = "24";
const VISITED: [Rows; 1] = [("visits", "t.client::text || ' ' || t.visit::text")];

async fn visits(stage: std::net::SocketAddr, from: i32) {
    let client = |number: i32| async move {
        for visit in from..from + VISITS {
            let client = connect(stage).await.expect("a session");
            let insert = format!("INSERT INTO visits VALUES ({number}, {visit})");
            client.batch_execute(&insert).await.expect("a row");
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(client(number))).collect();
    for client in clients {
        client.await.expect("a client");
    }
}

/// Ports that connections to this port of a server have left taken (TIME_WAIT), as the kernel has it. `/proc/net/tcp`:
/// addresses and states in hexadecimal numbers.
fn taken_by_connections_to(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    let is_one = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, _, remote, "06", ..] = words[..] else { return false };
        remote.split_once(':').is_some_and(|(_, found)| u16::from_str_radix(found, 16) == Ok(port))
    };
    table.lines().filter(is_one).count()
}

/// All clients have the mirror's ports between them, where each had its own machine's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_and_go_leave_no_port_of_the_mirror_s_taken() {
    let servers = Servers::start(1, TABLE).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let ports = || [&stage.servers.worker].into_iter().chain(&stage.servers.arms).map(Cluster::port);
    let taken = || ports().map(taken_by_connections_to).collect::<Vec<_>>();
    let arm = stage.servers.arms.first().expect("an arm").connect().await;
    let before = taken();
    visits(stage.through, 0).await;
    wait_until("all have left", || async { stage.metric("understudy_sessions").await == 0 }).await;
    wait_until("on the arm, too", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        arm.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) <= 2)
    })
    .await;
    let after = taken();
    println!("ports taken: {before:?}, then {after:?}");
    // Now and then both ends close at once.
    let few = usize::try_from(CLIENTS * VISITS / 20).expect("a few of them");
    assert!(after.iter().zip(&before).all(|(after, before)| *after < before + few), "{before:?} {after:?}");
    stage.expect_level("baseline", &VISITED).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_lets_in_no_more_clients_at_a_time_than_production_had() {
    let mut servers = Servers::start(0, TABLE).await;
    for _ in 0..2 {
        let arm = Cluster::builder().setting("max_connections", CONNECTIONS).start().await;
        arm.connect().await.batch_execute(TABLE).await.expect("tables");
        servers.arms.push(arm);
    }
    let arms = servers.addresses();
    let stage = servers.mirror("256Mi", &arms).await;
    visits(stage.through, 0).await;
    // One that hangs for a while has them all to let in when it goes on.
    let hangs = Paused::all_of(stage.servers.arms.last().expect("an arm"));
    visits(stage.through, VISITS).await;
    drop(hangs);
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &VISITED).await;
        assert!(arm.divergence.values().all(|n| *n == 0) && arm.exchanges.skipped.is_empty(), "{arm:#?}");
    }
    for arm in &stage.servers.arms {
        assert!(!arm.log().contains("too many clients"), "{}", arm.log());
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_in_with_a_role_that_was_just_made_is_let_in_when_the_arm_has_made_it() {
    let servers = Servers::start(2, TABLE).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let owner = connect(stage.through).await.expect("a session");
    for visit in 0..5 {
        let role = format!("tenant_{visit}");
        owner.batch_execute(&format!("CREATE ROLE {role} LOGIN IN ROLE pg_write_all_data")).await.expect("a role");
        let client = connect_as(stage.through, &role).await.expect("a session of its own");
        client.batch_execute(&format!("INSERT INTO visits VALUES (0, {visit})")).await.expect("a row");
    }
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &VISITED).await;
        assert!(arm.divergence.values().all(|n| *n == 0) && arm.exchanges.lost == 0, "{arm:#?}");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_in_behind_a_change_of_its_settings_begins_with_them_on_the_arms_too() {
    let servers = Servers::start(2, TABLE).await;
    for server in servers.arms.iter().chain([&servers.worker]) {
        let made = "CREATE ROLE tenant LOGIN IN ROLE pg_write_all_data; ALTER ROLE tenant SET app.visit = '-1'";
        server.connect().await.batch_execute(made).await.expect("a role");
    }
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let owner = connect(stage.through).await.expect("a session");
    for visit in 0..20 {
        // By itself, and as part of a transaction.
        let set = format!("ALTER ROLE tenant SET app.visit = '{visit}'");
        let change = if visit % 2 == 0 { set } else { format!("BEGIN; {set}; COMMIT") };
        owner.batch_execute(&change).await.expect("a setting");
        let client = connect_as(stage.through, "tenant").await.expect("a session of its own");
        let insert = "INSERT INTO visits VALUES (0, current_setting('app.visit')::int)";
        client.batch_execute(insert).await.expect("a row");
    }
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &VISITED).await;
        assert!(arm.divergence.values().all(|n| *n == 0) && arm.exchanges.lost == 0, "{arm:#?}");
    }
    stage.end().await;
}
