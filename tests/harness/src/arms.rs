//! Clones of a test server, made as an experiment makes them.

#![expect(clippy::expect_used, reason = "a test that can't have its clone has failed")]

use std::{collections::BTreeMap, sync::Arc};

use understudy_crds::{condition::ArmRole, experiment::LocalTarget};
use understudy_operator::{
    error::UserError,
    platform::local::{
        arm::{Arm, ArmSpec},
        arm_config::ArmIdentity,
        facts::WorkerFacts,
        initdb::SUPERUSER,
        wal_hold::RunTag,
        worker::Worker,
    },
};

use crate::Cluster;

/// The test server as the target of an experiment, through TCP.
pub fn target(cluster: &Cluster) -> LocalTarget {
    LocalTarget {
        host: "127.0.0.1".into(),
        port: cluster.port().into(),
        user: SUPERUSER.into(),
        database: "postgres".into(),
        password_file: None,
        listen: "127.0.0.1:0".into(),
    }
}

/// The test server as a worker.
pub fn worker(cluster: &Cluster) -> Worker {
    Worker::new(&target(cluster)).expect("a worker")
}

/// What a clone of the test server is made from; it lives in the server's directory.
pub async fn arm_spec(cluster: &Cluster, name: &str, parameters: &[(&str, &str)]) -> ArmSpec {
    arm_spec_of(cluster, &worker(cluster), name, parameters).await
}

/// The same, for a worker that is reached in a way of its own.
pub async fn arm_spec_of(cluster: &Cluster, worker: &Worker, name: &str, parameters: &[(&str, &str)]) -> ArmSpec {
    let worker = worker.clone();
    let session = worker.connect().await.expect("a session");
    let facts = Arc::new(WorkerFacts::read(&session).await.expect("facts"));
    let spec = cluster.server().spec();
    let directory = spec.socket_dir.join(format!("arm-{name}"));
    let given: BTreeMap<_, _> = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    ArmSpec {
        identity: ArmIdentity {
            experiment: "test".into(),
            arm: name.to_owned(),
            socket_dir: spec.socket_dir.clone(),
            port: if name == "baseline" { 5433 } else { 5434 },
        },
        role: if name == "baseline" { ArmRole::Baseline } else { ArmRole::Candidate },
        candidate: (name != "baseline").then_some(0),
        run: RunTag::of_this_process(),
        binaries: spec.binaries.clone(),
        account: spec.account.clone(),
        directory,
        password_file: None,
        parameters: given,
        worker,
        facts,
        max_rate_kib: None,
    }
}

/// A clone of the test server that follows its WAL.
pub async fn seed_arm(cluster: &Cluster, name: &str, parameters: &[(&str, &str)]) -> Result<Arm, UserError> {
    let arm = Arm::seed(arm_spec(cluster, name, parameters).await, |_, _, _| Ok(()), |_| ()).await?;
    arm.wait_streaming().await?;
    Ok(arm)
}
