//! A scene that a client plays twice: before a worker that is reached directly, and before one behind the mirror with
//! its two arms. Every message must be the same, and the arms level afterwards.

use std::{net::SocketAddr, time::Duration};

use tokio_postgres::Client;
use understudy_crds::status::ArmStatus;
use understudy_harness::Cluster;

use crate::{
    application::connect,
    recorder::{Conversation, Recorder, differences},
    twins::{Twins, address},
    wire::Wire,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A client whose every message is compared, somebody else who reaches the server the same way, and the server itself.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Where the client connects.
    pub at: SocketAddr,
    /// The client.
    pub wire: Wire,
    /// Somebody else.
    pub other: Client,
    /// The server.
    pub server: &'a Cluster,
}

/// Plays a scene with these tables before both workers. Ends when the arms are level, with nothing that differed; what
/// they say of themselves.
pub async fn play(tables: &str, scene: impl AsyncFn(&mut Scene<'_>)) -> Vec<ArmStatus> {
    let twins = Twins::start(|builder| builder, tables).await;
    let direct = record(&twins.direct, address(&twins.direct), &scene).await;
    let through = record(&twins.worker, twins.through, &scene).await;
    let found = differences(&direct, &through);
    assert!(found.is_empty(), "{}\n{}", found.join("\n"), twins.mirror.transcript());
    let arms = twins.expect_level(&[]).await;
    for arm in &arms {
        assert!(arm.divergence.values().all(|count| *count == 0), "{arm:#?}");
    }
    twins.end().await;
    arms
}

async fn record(server: &Cluster, at: SocketAddr, scene: &impl AsyncFn(&mut Scene<'_>)) -> Vec<Conversation> {
    let recorder = Recorder::start(at).await;
    let other = connect(at).await.expect("a session");
    let wire = Wire::connect(recorder.address()).await;
    let mut played = Scene { at: recorder.address(), wire, other, server };
    scene(&mut played).await;
    drop(played);
    recorder.finish(LIMIT).await
}
