//! The table of `scenarios.rs` over TLS: each connection is held with TLS to the worker itself, and through a mirror
//! with TLS on both sides, for which the client asks or which it speaks without asking. What it is told, and whether
//! the end was meant, is compared message by message.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use understudy_e2e::{
    scenario::{End, Scenario, session},
    scenario_table::{copies, extended, simple, startups},
    tls_worker::agreed,
    wire::query,
};

use crate::papers::Papers;

const LIMIT: Duration = Duration::from_secs(30);
const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
const TABLE: &str = "CREATE TABLE written (i int)";

async fn told(stream: impl AsyncRead + AsyncWrite, scenario: &Scenario) -> Vec<String> {
    let heard = timeout(LIMIT, scenario.held(stream)).await;
    scenario.comparable(&heard.unwrap_or_else(|_| panic!("{} does not end", scenario.name)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_client_is_told_the_same_through_the_mirror_and_direct() {
    let papers = Papers::new();
    let worker = papers.worker(HBA, TABLE).await;
    let mirror = worker.mirror(&format!("{}workerTls: {{ mode: require }}\n", papers.clients("mirror", ""))).await;
    let asking = |of| async move { agreed(of).await };
    let mut wrong = Vec::new();
    // A request for TLS inside TLS is in `tls_garbage.rs`.
    let scenarios = [startups(), extended(), simple(), copies()].concat();
    for scenario in scenarios.iter().filter(|scenario| scenario.sent.len() == 1) {
        let mut answers = Vec::new();
        for (stream, protocol) in [
            (asking(worker.address()).await, None),
            (asking(mirror.through).await, None),
            (TcpStream::connect(mirror.through).await.expect("a connection"), Some(&b"postgresql"[..])),
        ] {
            let stream = papers.handshake(stream, protocol).await.expect("TLS");
            answers.push(told(stream, scenario).await);
        }
        let [direct, asked, unasked] = answers.try_into().expect("three");
        println!("{}: {} messages", scenario.name, direct.len());
        for (how, through) in [("TLS that was asked for", asked), ("TLS without asking", unasked)] {
            if direct != through {
                wrong.push(format!("{}, {how}:\n  direct  {direct:?}\n  through {through:?}", scenario.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What is written after all that arrives on the arms, which have played it as production had it.
    let insert = query("INSERT INTO written SELECT generate_series(1, 100)");
    let stream = papers.handshake(asking(mirror.through).await, None).await.expect("TLS");
    let said = told(stream, &session("rows", &[insert], End::Terminate)).await;
    assert!(said.iter().any(|message| message.contains("INSERT 0 100")), "{said:?}");
    worker.expect_level(&mirror).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_on_one_side_alone_a_client_is_told_the_same_as_direct() {
    let papers = Papers::new();
    let worker = papers.worker(HBA, TABLE).await;
    let to_clients = worker.mirror(&papers.clients("mirror", "")).await;
    let to_worker = worker.mirror("workerTls: { mode: require }\n").await;
    let encrypted = |at| {
        let papers = &papers;
        async move { papers.handshake(agreed(at).await, None).await.expect("TLS") }
    };
    let plain = |at| async move { TcpStream::connect(at).await.expect("a connection") };
    let mut wrong = Vec::new();
    let scenarios = [startups(), extended(), simple(), copies()].concat();
    for scenario in scenarios.iter().filter(|scenario| scenario.sent.len() == 1) {
        let direct = told(encrypted(worker.address()).await, scenario).await;
        let through = told(encrypted(to_clients.through).await, scenario).await;
        if direct != through {
            wrong.push(format!("{}, TLS to clients:\n  direct  {direct:?}\n  through {through:?}", scenario.name));
        }
        let direct = told(plain(worker.address()).await, scenario).await;
        let through = told(plain(to_worker.through).await, scenario).await;
        if direct != through {
            wrong.push(format!("{}, TLS to the worker:\n  direct  {direct:?}\n  through {through:?}", scenario.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    worker.expect_level(&to_clients).await;
    worker.expect_level(&to_worker).await;
}
