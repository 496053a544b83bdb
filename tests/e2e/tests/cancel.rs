//! Cancel requests through the mirror: the right backend among several, nobody with a wrong key, a cancelled write
//! undone on the arms as on the worker, a cancelled read ended there too, and the long keys of protocol 3.2 as they came.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_postgres::Client;
use understudy_crds::{condition::ArmState, status::ArmStatus};
use understudy_e2e::{
    raw::{Raw, startup},
    stage::Servers,
    tables::Rows,
    wire::{kinds, query},
};
use understudy_harness::wait_until;

use self::stand_in::{Asked, SLOW, StandIn, V3_0, V3_2, asking_for};

mod parts;
mod stand_in;

const LIMIT: Duration = Duration::from_secs(20);
const TABLES: &str = "CREATE TABLE written (i int, t text)";
const ROWS: [Rows; 1] = [("written", "t::text")];

/// A session, and the process and key that name it.
async fn session(address: SocketAddr) -> (Raw, Vec<u8>) {
    let mut raw = Raw::connect(address).await;
    raw.send(&startup("postgres")).await;
    let key = raw.heard(b'Z').await.into_iter().find(|(kind, _)| *kind == b'K');
    (raw, key.expect("a key").1)
}

fn cancel_packet(key: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + key.len()).expect("short");
    [length.to_be_bytes().as_slice(), &80_877_102_u32.to_be_bytes(), key].concat()
}

async fn cancel(address: SocketAddr, key: &[u8]) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(&cancel_packet(key)).await.expect("sent");
    // The server closes when it has dealt with it.
    let closed = timeout(LIMIT, stream.read(&mut [0; 16])).await.expect("the end in time");
    assert_eq!(closed.expect("an orderly end"), 0);
}

async fn sleeping(worker: &Client, count: i64) {
    wait_until("they sleep", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        worker.query_one(sql, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_write_is_undone_everywhere_and_a_wrong_key_cancels_nobody() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let worker = stage.servers.worker.connect().await;
    let mut sessions = Vec::new();
    for number in 0..4 {
        let (mut wire, key) = session(stage.through).await;
        assert_eq!(key.len(), 8, "a process and a key of 4 bytes: protocol 3.0");
        let write = format!("INSERT INTO written SELECT {number}, 'x' FROM (SELECT pg_sleep(3)) s");
        wire.send(&query(&write)).await;
        sessions.push((wire, key));
    }
    sleeping(&worker, 4).await;
    // The right process with a key that is not its own, through the mirror.
    let key = sessions[0].1.clone();
    let wrong: Vec<u8> = key.iter().enumerate().map(|(n, byte)| if n < 4 { *byte } else { !byte }).collect();
    cancel(stage.through, &wrong).await;
    sleeping(&worker, 4).await;
    cancel(stage.through, &sessions[2].1).await;
    sleeping(&worker, 3).await;
    for (number, (wire, _)) in sessions.iter_mut().enumerate() {
        let answers = wire.heard(b'Z').await;
        assert_eq!(kinds(&answers), if number == 2 { "EZ" } else { "CZ" }, "session {number}");
        // It goes on, and the next statement is left alone.
        wire.send(&query(&format!("INSERT INTO written VALUES ({number}, 'after')"))).await;
        assert_eq!(kinds(&wire.heard(b'Z').await), "CZ", "session {number}");
    }
    let rows: i64 = worker.query_one("SELECT count(*) FROM written", &[]).await.expect("rows").get(0);
    assert_eq!(rows, 7);
    assert_eq!(stage.metric("understudy_cancel_requests_total").await, 2);
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &ROWS).await;
        assert!(arm.divergence.values().all(|n| *n == 0) && arm.exchanges.lost == 0, "{name}: {arm:#?}");
    }
    stage.end().await;
}

/// The arms begin a read a second after production did, when nobody knows yet that it will be cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_is_cancelled_late_is_cancelled_on_the_arms_as_well() {
    let servers = Servers::start(2, TABLES).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let (mut wire, key) = session(stage.through).await;
    wire.send(&query("SELECT pg_sleep(600)")).await;
    for arm in &stage.servers.arms {
        sleeping(&arm.connect().await, 1).await;
    }
    cancel(stage.through, &key).await;
    assert_eq!(kinds(&wire.heard(b'Z').await), "TEZ");
    wire.send(&query("INSERT INTO written VALUES (1, 'after')")).await;
    assert_eq!(kinds(&wire.heard(b'Z').await), "CZ");
    for name in ["baseline", "candidate"] {
        stage.expect_level(name, &ROWS).await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_key_reaches_the_client_and_comes_back_whole_and_the_arm_is_asked_by_its_own() {
    let mut worker = StandIn::start(1).await;
    let mut arm = StandIn::start(2).await;
    let servers = Servers::start(0, "SELECT 1").await;
    let stage = servers.mirror_to(worker.address, "64Mi", &[arm.address]).await;

    // Who asks for 3.2 gets a long key, and who does not gets a short one, as directly.
    for (version, key) in [(V3_2, worker.key(V3_2)), (V3_0, worker.key(V3_0))] {
        let mut heard = Vec::new();
        for address in [worker.address, stage.through] {
            let mut client = Raw::connect(address).await;
            client.send(&asking_for(version)).await;
            let login = client.heard(b'Z').await;
            assert_eq!(worker.asked().await, Asked::Session(version));
            assert!(login.contains(&(b'K', key.clone())), "BackendKeyData passes as it is");
            heard.push(login);
            client.leave().await;
        }
        assert_eq!(heard[0], heard[1]);
    }
    assert_eq!(worker.key(V3_2).len(), 4 + 256);

    // A whole session: an exchange, one that is cancelled, one after that.
    let mut client = Raw::connect(stage.through).await;
    client.send(&asking_for(V3_2)).await;
    client.heard(b'Z').await;
    assert_eq!(worker.asked().await, Asked::Session(V3_2));
    let asks = async |client: &mut Raw, worker: &mut StandIn, arm: &mut StandIn, sql: &str| {
        client.send(&query(sql)).await;
        assert_eq!(worker.asked().await, Asked::Query(sql.to_owned()));
        // A read starts on the arm although its outcome is not known.
        loop {
            match arm.asked().await {
                // What its key looks like is the arm's to say: the mirror asks for what it needs itself.
                Asked::Session(version) => assert_eq!(version, V3_0),
                asked => return assert_eq!(asked, Asked::Query(sql.to_owned())),
            }
        }
    };
    asks(&mut client, &mut worker, &mut arm, "SELECT 1").await;
    assert_eq!(kinds(&client.heard(b'Z').await), "CZ");
    asks(&mut client, &mut worker, &mut arm, SLOW).await;
    let long = worker.key(V3_2);
    cancel(stage.through, &long).await;
    assert_eq!(worker.asked().await, Asked::Cancel(cancel_packet(&long)), "it arrives whole");
    assert_eq!(kinds(&client.heard(b'Z').await), "EZ");
    assert_eq!(arm.asked().await, Asked::Cancel(cancel_packet(&arm.key(V3_0))), "the arm is asked likewise");
    asks(&mut client, &mut worker, &mut arm, "SELECT 2").await;
    assert_eq!(kinds(&client.heard(b'Z').await), "CZ");
    let played = |arm: &ArmStatus| arm.state != ArmState::Live || arm.exchanges.played == 3;
    let status = stage.arm_until("baseline", "through with it", played).await;
    assert_eq!((status.state, status.exchanges.lost), (ArmState::Live, 0), "{status:#?}");
    client.leave().await;
    stage.end().await;
}
