//! A table of whole connections, from the first byte to the end: each is held direct and through the mirror, and
//! what the client is told is compared message by message. Over TLS the same is held in `tls_scenarios.rs`.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tokio::{net::TcpStream, time::timeout};
use understudy_e2e::{
    child::start,
    scenario::{GSSENC_REQUEST, SSL_REQUEST, Scenario, asked},
    scenario_table::{copies, extended, simple, startups},
    turn::take_turn,
};
use understudy_harness::Cluster;

const LIMIT: Duration = Duration::from_secs(30);

async fn told(address: SocketAddr, scenario: &Scenario) -> Vec<String> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let heard = timeout(LIMIT, scenario.held(stream)).await;
    let heard = heard.unwrap_or_else(|_| panic!("{}: {address} does not end", scenario.name));
    scenario.comparable(&heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_the_same_through_the_mirror_and_direct() {
    let _turn = take_turn().await;
    let (worker, baseline, candidate) =
        (Cluster::builder().start().await, Cluster::builder().start().await, Cluster::builder().start().await);
    let address = |of: &Cluster| format!("127.0.0.1:{}", of.port());
    let (baseline, candidate) =
        (format!("baseline={}", address(&baseline)), format!("candidate={}", address(&candidate)));
    let sides = ["--worker", &address(&worker), "--arm", &baseline, "--arm", &candidate];
    let mut mirror = start("understudy-mirror", ["--listen", "127.0.0.1:0"].into_iter().chain(sides));
    let through = mirror.mirror().await;
    let direct: SocketAddr = ([127, 0, 0, 1], worker.port()).into();
    let mut wrong = Vec::new();
    for scenario in [startups(), extended(), simple(), copies()].concat() {
        let (direct, through) = (told(direct, &scenario).await, told(through, &scenario).await);
        println!("{}: {} messages", scenario.name, direct.len());
        if direct != through {
            wrong.push(format!("{}:\n  direct  {direct:?}\n  through {through:?}", scenario.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // PostgreSQL may offer GSSAPI's encryption, which the mirror could not look into: it says no, as to TLS here.
    let (gss, tls) = (asked("GSSENCRequest", GSSENC_REQUEST), asked("SSLRequest", SSL_REQUEST));
    assert_eq!(told(through, &gss).await, told(through, &tls).await);
    mirror.signal(Signal::TERM);
    mirror.ended_within(Duration::from_secs(20)).await.expect_code(0);
}
