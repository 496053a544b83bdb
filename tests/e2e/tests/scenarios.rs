//! A table of whole connections, from the first byte to the end: each is held direct and through the mirror, and
//! what the client is told is compared message by message. Over TLS the same is held in `tls_scenarios.rs`.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use understudy_e2e::{
    application::connect,
    scenario::{GSSENC_REQUEST, SSL_REQUEST, Scenario, asked},
    scenario_table::{copies, extended, simple, startups},
    stage::Servers,
};

const LIMIT: Duration = Duration::from_secs(30);
const TABLE: &str = "CREATE TABLE written (i int)";

async fn told(address: SocketAddr, scenario: &Scenario) -> Vec<String> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let heard = timeout(LIMIT, scenario.held(stream)).await;
    let heard = heard.unwrap_or_else(|_| panic!("{}: {address} does not end", scenario.name));
    scenario.comparable(&heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_the_same_through_the_mirror_and_direct() {
    // Nobody else's password is asked for: `nobody` must be unknown, not barred.
    let servers = Servers::start_asking("ann", 2, TABLE).await;
    let arms = servers.addresses();
    let stage = servers.mirror("256Mi", &arms).await;
    let (direct, through) = (stage.direct, stage.through);
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
    // What is written after all that arrives on the arms, which have played it as production had it.
    let client = connect(through).await.expect("a session");
    client.batch_execute("INSERT INTO written SELECT generate_series(1, 100)").await.expect("rows");
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &[("written", "t.i::text")]).await;
        assert!(arm.divergence.values().all(|n| *n == 0) && arm.exchanges.skipped.is_empty(), "{arm:#?}");
    }
    stage.end().await;
}
