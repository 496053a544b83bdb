//! The operator on Kubernetes: dereference → plan → apply → status, for each ShadowExperiment.
//!
//! What decides is pure (`fit`, `plan`, `objects`, `status`, `rollout`); what talks to the API server is
//! thin (`dereference`, `apply`, `routing`, `rollout/drive`). It carries nothing that a restart would
//! lose: that stands in the cluster and in the mirror pod. The experiment itself runs in the mirror
//! pod, which has no access to the Kubernetes API.

pub mod apply;
pub mod context;
pub mod dereference;
pub mod error;
pub mod fit;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod mirror_client;
pub mod names;
pub mod objects;
pub mod plan;
pub mod pods;
pub mod release;
pub mod rollout;
pub mod routing;
pub mod status;
pub mod template;
pub mod world;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{
        Controller, Predicate, WatchStreamExt,
        controller::Action,
        events::{Recorder, Reporter},
        predicates, reflector, watcher,
    },
};
use understudy_crds::{ShadowExperiment, condition::ConditionReason};

use self::{
    context::Context,
    error::ControllerError,
    fit::Refusal,
    metrics::Metrics,
    names::{Names, shown},
    plan::{Again, Plan},
    routing::Route,
    status::Draft,
    world::Settings,
};
use crate::error::{ErrorKind, Side, UserError};

/// Who we are in Events.
const REPORTER: &str = "understudy-operator";
/// While an experiment is at work, its mirror is looked at this often.
const SOON: Duration = Duration::from_secs(1);
/// After a probe that was not answered, sooner.
const AT_ONCE: Duration = Duration::from_millis(200);
/// What was refused or is over is looked at again after this.
const LATER: Duration = Duration::from_secs(30);

/// How the operator is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What reconciliations need to know.
    pub settings: Settings,
    /// Where health and metrics are served, `HOST:PORT`.
    pub http: String,
    /// The namespace of the Lease; no election without one.
    pub lease_namespace: Option<String>,
    /// Who we are among several operators.
    pub identity: String,
}

/// Runs the operator until it is told to end.
pub async fn main(options: Options) -> Result<(), UserError> {
    let client = connect().await?;
    let reporter = Reporter { controller: REPORTER.to_owned(), instance: Some(options.identity.clone()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let context = Arc::new(Context::new(client.clone(), options.settings.clone(), recorder, Metrics::default()));
    let ready = Arc::new(AtomicBool::new(false));
    http::serve(&options.http, Arc::clone(&context), Arc::clone(&ready)).await.map_err(|e| {
        UserError::new(ErrorKind::Busy, Side::Host, "the operator's HTTP can't be served")
            .fact("address", &options.http)
            .fact("reason", crate::error::plain_io(&e))
    })?;
    ready.store(true, Ordering::Relaxed);
    let end = ended();
    tokio::pin!(end);
    let Some(namespace) = &options.lease_namespace else {
        context.metrics.leads(true);
        run(&context, &mut end).await;
        return Ok(());
    };
    let election = lease::Election::new(client, namespace, options.identity.clone());
    tokio::select! {
        () = election.win() => {}
        () = &mut end => return Ok(()),
    }
    tracing::info!("this operator leads");
    context.metrics.leads(true);
    let lost = tokio::select! {
        () = run(&context, &mut end) => false,
        () = election.keep() => true,
    };
    context.stop();
    if lost {
        // Another one is at work; whoever started us starts us again.
        return Err(UserError::new(ErrorKind::Busy, Side::Host, "the Lease was lost to another operator"));
    }
    election.release().await;
    Ok(())
}

/// A client for the cluster that this machine or this pod belongs to.
pub async fn connect() -> Result<Client, UserError> {
    Client::try_default().await.map_err(|e| {
        UserError::new(ErrorKind::Unreachable, Side::Host, "there is no cluster to be reached")
            .fact("reason", e)
            .remedy("run it in a cluster, or set KUBECONFIG")
    })
}

async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Reconciles until `end`; what has begun is finished first.
async fn run(context: &Arc<Context>, end: &mut (impl Future<Output = ()> + Unpin)) {
    let (reader, writer) = reflector::store();
    let experiments = watcher(scoped::<ShadowExperiment>(context), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        // Its status is our own doing: it would have us reconcile for ever.
        .predicate_filter(
            predicates::generation.combine(predicates::annotations).combine(predicates::finalizers),
            kube::runtime::PredicateConfig::default(),
        );
    let ours = watcher::Config::default().labels("app.kubernetes.io/managed-by=understudy");
    let switch = KillSwitch(tokio::spawn(watch_the_switch(Arc::clone(context))));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let controller = Controller::for_stream(experiments, reader)
        .owns(scoped::<Pod>(context), ours.clone())
        .owns(scoped::<PersistentVolumeClaim>(context), ours)
        .graceful_shutdown_on(async {
            let _ = stopped.await;
        })
        .run(reconcile, on_error, Arc::clone(context))
        .for_each(|result| async move {
            if let Err(
                error @ (kube::runtime::controller::Error::QueueError(_)
                | kube::runtime::controller::Error::RunnerError(_)),
            ) = result
            {
                tracing::warn!(%error, "the watch on experiments was disturbed");
            }
        });
    tokio::pin!(controller);
    tokio::select! {
        () = &mut controller => return,
        () = end => {}
    }
    drop(switch);
    tracing::info!("ending: what has begun is finished");
    let _ = stop.send(());
    let _ = tokio::time::timeout(Duration::from_secs(10), controller).await;
}

/// The watch of [`watch_the_switch`]; it ends with this.
struct KillSwitch(tokio::task::JoinHandle<()>);

impl Drop for KillSwitch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The kill switch, past the queue: a reconciliation that waits for a mirror that hangs, or for a slow API
/// server, must not hold it up. What else is to be done, the reconciliation does.
async fn watch_the_switch(context: Arc<Context>) {
    let all = watcher(scoped::<ShadowExperiment>(&context), watcher::Config::default());
    let mut seen = std::pin::pin!(all.default_backoff().applied_objects());
    while let Some(experiment) = seen.next().await {
        let Ok(experiment) = experiment else { continue };
        let thrown = experiment.spec.halt || experiment.metadata.deletion_timestamp.is_some();
        context.halted(&experiment, thrown);
        if thrown && let Err(error) = direct(&experiment, &context).await {
            tracing::warn!(experiment = %shown(&experiment), %error, "the kill switch is tried again");
        }
    }
}

fn scoped<K>(context: &Context) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match &context.settings.namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    }
}

async fn reconcile(experiment: Arc<ShadowExperiment>, context: Arc<Context>) -> Result<Action, ControllerError> {
    let began = Instant::now();
    let result = Box::pin(steps(&experiment, &context)).await;
    context.metrics.reconciled(began.elapsed(), result.as_ref().err().map(ControllerError::kind));
    if result.is_ok() {
        context.succeeded(&experiment);
    }
    result
}

async fn steps(experiment: &ShadowExperiment, context: &Context) -> Result<Action, ControllerError> {
    // The kill switch comes before everything that could be slow.
    if experiment.spec.halt || experiment.metadata.deletion_timestamp.is_some() {
        direct(experiment, context).await?;
    }
    let Some((world, mirror)) = Box::pin(dereference::dereference(context, experiment)).await? else {
        context.forget(experiment);
        return Ok(Action::await_change());
    };
    let Plan { actions, status, again } = plan::plan(&world, &context.settings);
    let done = apply::apply(context, &world, &mirror, actions).await;
    match (&done, status) {
        (Ok(()), Some(status)) => apply::write_status(context, &world, &status).await?,
        (Ok(()), None) => {}
        (Err(error), _) => {
            if let Some(message) = error.refusal() {
                let mut draft = Draft::of(&world);
                draft.refuse(&Refusal { reason: ConditionReason::ClusterRefused, message });
                apply::write_status(context, &world, &draft.finish(&world)).await?;
            }
        }
    }
    done?;
    Ok(Action::requeue(match again {
        Again::Soon if world.mirror.silent > 0 => AT_ONCE,
        Again::Soon => SOON,
        Again::Later => LATER,
    }))
}

/// Production goes direct: one look and one change, nothing else.
async fn direct(experiment: &ShadowExperiment, context: &Context) -> Result<(), ControllerError> {
    let Some(target) = &experiment.spec.target.stateful_set else { return Ok(()) };
    let names = Names::of(experiment, context.settings.cluster_domain.as_deref());
    let kept = experiment.annotations().get(understudy_crds::labels::ROUTING);
    let kept = kept.and_then(|text| serde_json::from_str(text).ok());
    if routing::lead(&context.client, &names, &target.service, Route::Direct, kept.as_ref()).await? {
        tracing::info!(experiment = %shown(experiment), service = %target.service, "production goes direct");
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(experiment: Arc<ShadowExperiment>, error: &ControllerError, context: Arc<Context>) -> Action {
    let pause = context.failed(&experiment);
    tracing::warn!(experiment = %shown(&*experiment), %error, cause = %cause(error), ?pause, "tried again later");
    Action::requeue(pause)
}

fn cause(error: &ControllerError) -> String {
    let mut source = std::error::Error::source(error);
    let mut text = String::new();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}
