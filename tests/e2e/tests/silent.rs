//! Clients that connect and never speak, thousands of them, and clients that never come to an end of what they say:
//! nobody else notices, and each is ended when its time is up.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{env, net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, interval, timeout},
};
use tokio_postgres::Client;
use understudy_crds::condition::ArmState;
use understudy_e2e::{
    application::connect,
    counted::Counted,
    raw::{Raw, startup},
    stage::{Servers, Stage},
    wire::query,
};
use understudy_harness::wait_until;
use understudy_mirror::open_files;

const LIMIT: Duration = Duration::from_secs(30);
const MOST: u64 = 10_000;
/// What this process and the mirror have open beside silent connections, with room to spare.
const OTHER_FILES: u64 = 500;
/// What a silent client may cost the mirror.
const KIB_EACH: u64 = 8;
/// Clients that take too long, of each kind.
const SLOW: u64 = 50;
/// How long a client may take to say what it wants.
const SPEAK_LIMIT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_clients_that_never_speak_keep_nobody_out() {
    let servers = Servers::start(2, "CREATE TABLE noted (i int)").await;
    // Each is a file of ours and one of the mirror's, whose limit is the same.
    let count = MOST.min(open_files::raise().saturating_sub(OTHER_FILES));
    assert!(count == MOST || env::var_os("CI").is_none(), "open files allow only {count} silent clients");
    let (direct, arms) = (([127, 0, 0, 1], servers.worker.port()).into(), servers.addresses());
    let stage = servers.mirror_to(direct, "64Mi", &arms).await;
    let before = connect(stage.through).await.expect("a session");
    expect_served(&before).await;
    let (counted, (settled_mib, _)) = (Counted::now(&stage.admin).await, stage.memory_mib());
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(timeout(LIMIT, TcpStream::connect(stage.through)).await.expect("in time").expect("a connection"));
    }
    let counted = counted.expect_grown(&stage.admin, "all are there", &[("connections", count)]).await;
    let (memory_mib, _) = stage.memory_mib();
    println!("{count} silent connections, {memory_mib} MiB; without them {settled_mib} MiB");
    assert!(memory_mib <= settled_mib + ((count * KIB_EACH) >> 10) + 8, "{memory_mib} MiB, before {settled_mib} MiB");
    let after = timeout(LIMIT, connect(stage.through)).await.expect("in time").expect("a session beside them");
    for client in [&before, &after] {
        expect_served(client).await;
        client.batch_execute("INSERT INTO noted VALUES (1)").await.expect("a write");
    }
    // They have no connection to the worker: it would have refused most.
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let held: i64 = stage.servers.worker.connect().await.query_one(backends, &[]).await.expect("a count").get(0);
    assert!(held <= 4, "{held} connections to the worker");
    for name in ["baseline", "candidate"] {
        stage.expect_level(name, &[("noted", "t::text")]).await;
    }
    drop((silent, before, after));
    let vanished = [("connections", 1), ("connections_refused{cause=\"vanished\"}", count)];
    counted.expect_grown(&stage.admin, "all are gone", &vanished).await;
    let ended = stage.end().await;
    // What the machine has given it, it has said at start; as plain text, since this is no terminal.
    for said in [format!("open_files={}", open_files::raise()), format!("threads={}", threads())] {
        assert!(ended.stderr.contains(&said), "{said}\n{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_say_in_time_what_they_want_is_ended_and_counted() {
    let servers = Servers::start_asking("asked", 2, "CREATE ROLE asked LOGIN PASSWORD 'open sesame'").await;
    let (direct, arms) = (([127, 0, 0, 1], servers.worker.port()).into(), servers.addresses());
    let document = format!("memory: 64Mi\nfirstPacketLimit: {}s\n", SPEAK_LIMIT.as_secs());
    let stage = servers.mirror_with(direct, &document, &arms).await;
    let idle = connect(stage.through).await.expect("a session");
    // It has said what it wants: how long its login may take is the worker's business.
    let mut asked = Raw::connect(stage.through).await;
    asked.send(&startup("asked")).await;
    asked.until(b'R').await;
    let counted = Counted::now(&stage.admin).await;
    let slow = (0..2 * SLOW).map(|number| tokio::spawn(dawdle(stage.through, number % 2 == 0)));
    for ended in slow.collect::<Vec<_>>() {
        let lasted = ended.await.expect("an end");
        assert!(lasted >= SPEAK_LIMIT, "ended after {lasted:?}");
    }
    let silent = [("connections", 2 * SLOW), ("connections_refused{cause=\"silent\"}", 2 * SLOW)];
    let counted = counted.expect_grown(&stage.admin, "all are ended", &silent).await;
    expect_served(&idle).await;
    asked.send(&query("SELECT 1")).await;
    let said = String::from_utf8_lossy(&asked.rest().await).into_owned();
    assert!(said.contains("got message type 81"), "{said}");
    let out_of_turn = [("connections_malformed{side=\"client\",cause=\"protocol\"}", 1)];
    counted.expect_grown(&stage.admin, "nobody but who was asked is ended", &out_of_turn).await;
    expect_playing(&stage).await;
    drop(idle);
    stage.end().await;
}

/// How long a client lasts that says nothing, or one byte after the other without an end.
async fn dawdle(at: SocketAddr, speaks: bool) -> Duration {
    let began = Instant::now();
    let stream = TcpStream::connect(at).await.expect("a connection");
    let (mut reader, mut writer) = stream.into_split();
    let speaking = tokio::spawn(async move {
        // Its packet would be whole long after the limit.
        let packet = [[0, 0, 39, 16].as_slice(), &[0; 9_996]].concat();
        let mut beat = interval(Duration::from_millis(50));
        for byte in packet.iter().filter(|_| speaks) {
            beat.tick().await;
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        // Dropped, it would say that it sends no more.
        writer
    });
    let mut heard = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut heard);
    // A connection with bytes that nobody has read is broken rather than closed.
    let _ = timeout(LIMIT, read).await.expect("the end in time");
    let lasted = began.elapsed();
    assert_eq!(heard, b"", "it gets no word");
    speaking.abort();
    lasted
}

async fn expect_served(client: &Client) {
    let answer = timeout(LIMIT, client.query_one("SELECT 42", &[])).await.expect("in time").expect("an answer");
    assert_eq!(answer.get::<_, i32>(0), 42);
}

/// Both arms are alive and have played what there was.
async fn expect_playing(stage: &Stage) {
    wait_until("both arms have played", || async {
        let arms = stage.status().await.arms;
        arms.iter().all(|arm| arm.state == ArmState::Live && arm.exchanges.played > 0 && arm.exchanges.lost == 0)
    })
    .await;
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}
