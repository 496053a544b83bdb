//! Clients that connect and never speak, thousands of them: nobody else notices.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tokio::{net::TcpStream, time::timeout};
use understudy_e2e::{application::connect, child::start, turn::take_turn};
use understudy_harness::Cluster;
use understudy_mirror::open_files;

const LIMIT: Duration = Duration::from_secs(30);
const MOST: u64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_clients_that_never_speak_keep_nobody_out() {
    let _turn = take_turn().await;
    // Each is a file of ours and one of the mirror's, whose limit is the same.
    let count = MOST.min(open_files::sessions(open_files::raise(), 0));
    let worker = Cluster::builder().start().await;
    let direct: SocketAddr = ([127, 0, 0, 1], worker.port()).into();
    let mut mirror = start("understudy-mirror", ["--listen", "127.0.0.1:0", "--worker", &direct.to_string()]);
    let through = mirror.mirror().await;
    let before = connect(through).await.expect("a session");
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(timeout(LIMIT, TcpStream::connect(through)).await.expect("in time").expect("a connection"));
    }
    println!("{count} silent connections");
    let after = timeout(LIMIT, connect(through)).await.expect("in time").expect("a session beside them");
    for client in [&before, &after] {
        let answer = timeout(LIMIT, client.query_one("SELECT 42", &[])).await.expect("in time").expect("an answer");
        assert_eq!(answer.get::<_, i32>(0), 42);
    }
    // They have no connection to the worker: it would have refused most.
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let held: i64 = worker.connect().await.query_one(backends, &[]).await.expect("a count").get(0);
    assert!(held <= 4, "{held} connections to the worker");
    drop((silent, before, after));
    mirror.signal(Signal::TERM);
    let ended = mirror.ended_within(Duration::from_secs(20)).await;
    ended.expect_code(0);
    // What the machine has given it, it has said at start; as plain text, since this is no terminal.
    for said in [format!("open_files={}", open_files::raise()), format!("threads={}", threads())] {
        assert!(ended.stderr.contains(&said), "{said}\n{}", ended.stderr);
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}
