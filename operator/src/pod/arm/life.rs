//! The life of the clone in an arm pod, order by order: the same steps, by the same code, as a clone of
//! the local platform.

use std::{path::Path, str::FromStr, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use understudy_crds::pods::{ArmPod, DATA_DIR, POSTGRES_PORT, SCRATCH_DIR};

use super::agent::{Agent, Given};
use crate::{
    error::{ErrorKind, Side, UserError},
    peer::identity::Identity,
    platform::{
        kubernetes::protocol::{AgentState, AtTheCut, Order},
        local::{
            account::Account,
            arm::{Arm, ArmSpec},
            arm_config::ArmIdentity,
            base_backup::CopyProgress,
            binaries::Binaries,
            change::{SqlList, run_statements},
            cut::SequenceValue,
            door::{Door, check_tls},
            facts::WorkerFacts,
            lsn::Lsn,
            place::{private_directory, remove_tree},
            session::Names,
            wal_hold::RunTag,
            worker::Worker,
        },
    },
};

/// How often is looked whether the clone's server still runs.
const LOOK: Duration = Duration::from_millis(500);

/// Does what is ordered, until something fails.
pub(super) async fn live(document: &ArmPod, identity: &Identity, agent: &Agent, mut orders: mpsc::Receiver<Given>) {
    let mut arm = None;
    loop {
        let result = tokio::select! {
            order = orders.recv() => match order {
                Some(given) => obey(document, identity, agent, &mut arm, given).await,
                None => return,
            },
            () = tokio::time::sleep(LOOK) => still_runs(arm.as_ref()),
        };
        if let Err(error) = result {
            tracing::error!(%error, "the arm can't go on");
            agent.enter(AgentState::Failed(error));
            return;
        }
    }
}

fn still_runs(arm: Option<&Arm>) -> Result<(), UserError> {
    match arm {
        Some(arm) if !arm.server().is_running() => Err(arm.server().failed("has stopped", ErrorKind::Exited)),
        _ => Ok(()),
    }
}

async fn obey(
    document: &ArmPod,
    identity: &Identity,
    agent: &Agent,
    arm: &mut Option<Arm>,
    (order, from): Given,
) -> Result<(), UserError> {
    let next = match (order, arm.as_mut()) {
        (Order::Seed, _) => {
            agent.enter(AgentState::Copying { done_bytes: 0, total_bytes: 0 });
            *arm = Some(seed(document, agent).await?);
            AgentState::Following
        }
        (Order::Pause, Some(arm)) => {
            arm.pause().await?;
            AgentState::Paused
        }
        (Order::Cut { lsn, ask, sequences }, Some(arm)) => {
            agent.enter(AgentState::Recovering);
            let certificates = Path::new(SCRATCH_DIR).join("tls");
            arm.admit(Door::make(from, identity, &certificates, &arm.spec().account)?);
            AgentState::Own(cut(document, arm, &lsn, &ask, &sequences).await?)
        }
        (Order::Apply, Some(arm)) => {
            agent.enter(AgentState::Applying);
            apply(document, arm).await?;
            AgentState::Ready
        }
        // The door lets no such order in.
        (Order::Pause | Order::Cut { .. } | Order::Apply, None) => return Ok(()),
    };
    agent.enter(next);
    Ok(())
}

async fn seed(document: &ArmPod, agent: &Agent) -> Result<Arm, UserError> {
    let spec = spec(document).await?;
    check_tls(&spec.binaries, &spec.account, &Path::new(SCRATCH_DIR).join("check")).await?;
    // What an earlier life of this pod left is of no use.
    remove_tree(&spec.directory)?;
    private_directory(&spec.identity.socket_dir, &spec.account)?;
    let started = |program, pid, _| {
        tracing::info!(program, pid, "started");
        Ok(())
    };
    let copying = |now: CopyProgress| {
        agent.enter(AgentState::Copying { done_bytes: now.done_bytes, total_bytes: now.total_bytes });
    };
    let arm = Arm::seed(spec, started, copying).await?;
    arm.wait_streaming().await?;
    Ok(arm)
}

async fn spec(document: &ArmPod) -> Result<ArmSpec, UserError> {
    let account = Account::detect()?;
    let worker = Worker::new(&document.worker)?;
    let session = worker.connect().await?;
    let facts = Arc::new(WorkerFacts::read(&session).await?);
    let binaries = Binaries::find(facts.version.major, &account).await?;
    let scratch = Path::new(SCRATCH_DIR);
    Ok(ArmSpec {
        identity: ArmIdentity {
            experiment: document.experiment.clone(),
            arm: document.arm.clone(),
            socket_dir: scratch.join("socket"),
            port: POSTGRES_PORT,
        },
        role: document.role,
        candidate: document.candidate_index,
        run: RunTag::of_experiment(&document.namespace, &document.experiment),
        binaries,
        directory: Path::new(DATA_DIR).join("arm"),
        password_file: worker.write_password_file(&scratch.join("password"), &account)?,
        parameters: document.candidate.as_ref().map(|c| c.parameters.clone()).unwrap_or_default(),
        account,
        worker,
        facts,
        max_rate_kib: None,
    })
}

async fn cut(
    document: &ArmPod,
    arm: &mut Arm,
    lsn: &str,
    ask: &[u64],
    sequences: &[SequenceValue],
) -> Result<AtTheCut, UserError> {
    let lsn = Lsn::from_str(lsn)
        .map_err(|e| UserError::new(ErrorKind::CutFailed, Side::Host, "the cut can't be read").fact("reason", e))?;
    let nudging = Worker::new(&document.worker)?.connect().await?;
    let recovered = arm.recover_to(lsn, ask, &nudging, |_, _, _| Ok(())).await?;
    arm.quarantine(sequences).await?;
    // It needs the worker no more.
    if let Some(file) = &arm.spec().password_file {
        std::fs::remove_file(file).map_err(|e| UserError::file("remove a password file", file, &e))?;
    }
    Ok(AtTheCut { replayed: recovered.replayed.to_string(), committed: recovered.committed.into_iter().collect() })
}

async fn apply(document: &ArmPod, arm: &Arm) -> Result<(), UserError> {
    let change = document.candidate.as_ref().and_then(|candidate| candidate.sql.as_ref());
    let Some(sql) = change else { return Ok(()) };
    let session = arm.connect_to(&document.worker.database, Names::User).await?;
    let index = document.candidate_index.unwrap_or_default();
    run_statements(&session, Side::Arm, index, SqlList::Apply, &sql.apply).await.map_err(|failed| failed.error)?;
    Ok(())
}
