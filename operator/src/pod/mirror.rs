//! The mirror pod's program: it relays production, and runs the whole experiment on it, with arms that are
//! pods of their own. The relay comes first: it starts before anything is asked, and ends last, when no
//! Service leads here any more and the clients have left.

mod control;
mod leaving;

use std::{path::Path, sync::Arc};

use axum::Router;
use kube::core::ObjectMeta;
use tokio::sync::watch;
use understudy_crds::{
    ShadowExperiment,
    condition::{ConditionReason, ConditionType, Phase},
    pods::{CONTROL_PORT, CandidatesNotice, MirrorPod, SCRATCH_DIR, TLS_DIR},
};
use understudy_mirror::{huge_pages, mirror::Mirror};

use self::{control::Control, leaving::Leaving};
use super::{PodError, document, health, http};
use crate::{
    error::UserError,
    peer::identity::Identity,
    plan,
    platform::{
        kubernetes::KubernetesPlatform,
        local::{wal_hold::RunTag, worker::Worker},
    },
    run::{self, Deciding, Options, state::State},
    screen::{Format, Screen},
};

/// Runs until the pod is told to go and the clients have left.
pub async fn main(config: &Path) -> Result<(), PodError> {
    huge_pages::avoid();
    let document: MirrorPod = document::read(config)?;
    let identity = Identity::read(Path::new(TLS_DIR))?;
    let experiment = experiment(&document);
    let worker = Worker::new(&document.worker).map_err(PodError::User)?;
    let mirror = run::start_mirror(&experiment, &worker, Path::new(SCRATCH_DIR)).map_err(PodError::User)?;
    tracing::info!(experiment = document.experiment, worker = worker.label(), "relaying");
    let (halt, _) = watch::channel(false);
    let state = State::new(Arc::clone(&mirror), run::arms(&experiment), halt);
    let out = Path::new(SCRATCH_DIR).join("results");
    state.took_candidates(&document.candidates);
    let control = Control::new(state.clone(), candidates(&document), out.clone());
    let listener = http::listen(CONTROL_PORT).await?;
    tokio::spawn(http::serve(listener, identity.server()?, control.router()));
    let (address, behind) = (mirror.address, (document.worker.host.clone(), worker.port()));
    let check: health::Check = Arc::new(move || Box::pin(control::relays(address, behind.clone())));
    health::serve(Arc::clone(&check), check, control.metrics()).await?;
    let tls = identity.client()?;
    let running = async {
        let result = conduct(&document, experiment, worker, &out, tls, Arc::clone(&mirror), &state, &control).await;
        if let Err(error) = result {
            tracing::error!(%error, "the experiment failed");
            failed(&state, &error);
        }
        // Whatever became of it is told to whoever asks, until the pod goes.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = running => {}
        result = document::told_to_go() => result?,
    }
    mirror.halt();
    leaving::clients_have_left(&mirror).await;
    stop(mirror).await;
    Ok(())
}

fn experiment(document: &MirrorPod) -> ShadowExperiment {
    let metadata = ObjectMeta {
        name: Some(document.experiment.clone()),
        namespace: Some(document.namespace.clone()),
        ..ObjectMeta::default()
    };
    ShadowExperiment { metadata, spec: document.spec.clone(), status: None }
}

/// The candidates to begin with.
fn candidates(document: &MirrorPod) -> CandidatesNotice {
    CandidatesNotice {
        version: document.candidates.clone(),
        candidates: document.spec.candidates.clone(),
        arms: document.arms.clone(),
    }
}

#[expect(clippy::too_many_arguments, reason = "all of what the pod has, once")]
async fn conduct(
    document: &MirrorPod,
    experiment: ShadowExperiment,
    worker: Worker,
    out: &Path,
    tls: Arc<rustls::ClientConfig>,
    mirror: Arc<Mirror>,
    state: &State,
    control: &Control,
) -> Result<(), UserError> {
    run::prepare_directory(out)?;
    let tag = RunTag::of_experiment(&document.namespace, &document.experiment);
    let candidates = document.spec.candidates.clone();
    let mut platform = KubernetesPlatform::open(worker, tag, &document.arms, candidates, tls, control.word()).await?;
    let options = Options {
        promotion: Deciding::Others { decided: control.decided(), patience: plan::promotion_window() },
        experiment,
        store: format!("sqlite:{}", out.join("results.db").display()),
        out: out.to_owned(),
        admin: None,
        verify: false,
        keep: false,
        screen: Screen::new(Format::Text),
    };
    let mut companion = Leaving::new(Arc::clone(&mirror), control.released());
    Box::pin(run::run_on(&mut platform, options, &mut companion, mirror, state.clone())).await?;
    Ok(())
}

/// An experiment that ended before its run could say so itself.
fn failed(state: &State, error: &UserError) {
    if matches!(state.status().phase, Phase::Failed | Phase::Halted | Phase::Promoted) {
        return;
    }
    let reason = match error.kind.condition_reason() {
        // Nothing has been cloned yet.
        ConditionReason::CloneFailed => ConditionReason::WorkerRefused,
        other => other,
    };
    state.enter(Phase::Failed);
    state.condition(ConditionType::Concluded, false, reason, &error.line());
}

async fn stop(mirror: Arc<Mirror>) {
    // A panic in there has been told by the panic hook.
    let _ = tokio::task::spawn_blocking(move || mirror.stop()).await;
}

impl Control {
    /// `/metrics`.
    fn metrics(&self) -> Router {
        understudy_mirror::admin::metrics_router(Arc::new(self.state()))
    }
}
