//! The whole way: a client, the mirror, the worker, and arms that are reached over the network.

use std::{collections::HashSet, time::Duration};

use tokio_postgres::{Client, NoTls};
use understudy_crds::condition::{ArmRole, ArmState};
use understudy_harness::{Cluster, wait_until};
use understudy_mirror::{
    mirror::{Mirror, Settings},
    stream::Address,
};
use understudy_operator::{error::Side, platform::local::session};

use crate::{Certificates, behind_its_door, client, config, over_tls, session::Session, tls};

async fn through(mirror: &Mirror) -> Client {
    let (client, connection) = config(mirror.address.port()).connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_write_is_played_to_an_arm_over_tls_and_a_stranger_is_lost() {
    let cluster = Cluster::start().await;
    cluster.connect().await.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.expect("a table");
    let (ours, others) = (Certificates::new(), Certificates::new());
    let arm = behind_its_door(&cluster, &ours).await;
    let port = arm.spec().identity.port;

    let settings = Settings { threads: 1, ..Settings::new("127.0.0.1:0", Address::new("127.0.0.1", cluster.port())) };
    let mirror = Mirror::start(&settings).expect("a mirror");
    let cut = mirror.close_gate(Duration::from_millis(50)).await.seal().expect("nobody is connected yet");
    let names = [("baseline".to_owned(), ArmRole::Baseline), ("stranger".to_owned(), ArmRole::Candidate)];
    let to_start = mirror.arms_at(&cut, &names).expect("arms");
    mirror.start_arm(&to_start, "baseline", over_tls(port, ours.mirror()), HashSet::new()).expect("started");
    let wary = client(&ours.trusting(&others, tls::MIRROR), &ours.names.arm_host("baseline"));
    mirror.start_arm(&to_start, "stranger", over_tls(port, wary), HashSet::new()).expect("started");

    let application = through(&mirror).await;
    let insert = application.prepare("INSERT INTO t VALUES ($1)").await.expect("prepared");
    for id in 0..200 {
        application.execute(&insert, &[&id]).await.expect("a row");
    }
    let asked =
        Session::open_over_tls(&config(port), &ours.mirror(), Side::Arm, "baseline", session::Names::User).await;
    let session = asked.expect("a session");
    wait_until("the arm has played everything", || async {
        session.value::<i64>("SELECT count(*) FROM t", &[]).await.expect("a count") == Some(200)
    })
    .await;
    let (state, why) = mirror.arm("stranger").expect("an arm").state();
    assert_eq!(state, ArmState::Lost);
    assert!(why.is_some_and(|why| why.starts_with("the arm: no TLS with it: ")), "it says why");
    let baseline = mirror.arm("baseline").expect("an arm");
    assert_eq!((baseline.is_alive(), baseline.counts().lost), (true, 0), "{:?}", baseline.state());
    drop(application);
    tokio::task::spawn_blocking(move || mirror.stop()).await.expect("stopped");
}
