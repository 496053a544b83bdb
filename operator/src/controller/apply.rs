//! Does what a plan says, in its order. It decides nothing.

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, PropagationPolicy},
    runtime::events::{Event, EventType},
};
use serde_json::{Value, json};
use understudy_crds::{
    ShadowExperiment, ShadowExperimentStatus,
    condition::Phase,
    labels::{FINALIZER, ROLLOUT, ROUTING, TESTED},
};

use super::{
    context::Context,
    dereference::Mirror,
    error::{ControllerError, Doing, is_conflict, is_missing},
    fit::examine,
    objects::{self, Kind, Object},
    plan::{Action, Saying, recorded},
    routing::{self, Route},
    world::World,
};

/// Who we are to the API server's field management.
const MANAGER: &str = "understudy-operator";
/// What fits into a ConfigMap, and a little less.
const LONGEST_REPORT_BYTES: usize = 1_000_000;
/// The longest note that an Event may have.
const LONGEST_NOTE: usize = 1000;

/// Does the actions.
pub async fn apply(
    context: &Context,
    world: &World,
    mirror: &Mirror,
    actions: Vec<Action>,
) -> Result<(), ControllerError> {
    for action in actions {
        one(context, world, mirror, action).await?;
    }
    Ok(())
}

async fn one(context: &Context, world: &World, mirror: &Mirror, action: Action) -> Result<(), ControllerError> {
    let name = &world.names.experiment;
    match action {
        Action::RouteDirect => {
            lead(context, world, Route::Direct).await?;
        }
        // Decided on a world that is a moment old: the switch may have been thrown since.
        Action::RouteToMirror if context.is_halted(&world.experiment) => {}
        Action::RouteToMirror => {
            lead(context, world, Route::Mirror).await?;
        }
        Action::AddFinalizer => finalizers(context, world, true).await?,
        Action::RemoveFinalizer => finalizers(context, world, false).await?,
        Action::RecordTested(tested) => annotate(context, world, TESTED, &json!(tested)).await?,
        Action::RecordSelector(selector) => annotate(context, world, ROUTING, &json!(selector)).await?,
        Action::BeginRollout(record) => {
            tracing::info!(experiment = %name, candidate = %record.candidate.name, "a promotion begins");
            annotate(context, world, ROLLOUT, &json!(record)).await?;
        }
        Action::MakeCertificates => {
            if let Ok(fit) = examine(world) {
                make(context, world, &objects::tls::secret(&fit)?).await?;
            }
        }
        Action::Ensure(object) => make(context, world, &object).await?,
        Action::Delete(kind, name) => remove(context, world, kind, &name).await?,
        Action::DriveRollout => context.drive(&world.experiment).await,
        Action::HaltMirror => {
            if let Some(mirror) = mirror
                && let Err(error) = mirror.halt().await
            {
                // Production is direct already; the mirror's end is not waited for.
                tracing::info!(experiment = %name, %error, "the mirror could not be told to halt");
            }
        }
        Action::ReleaseMirror => {
            if let Some(mirror) = mirror
                && let Err(error) = mirror.release().await
            {
                tracing::info!(experiment = %name, %error, "the mirror could not be told that it may end");
            }
        }
        Action::KeepReport(phase) => keep_report(context, world, mirror, phase).await?,
        Action::TellCandidates(notice) => {
            if let Some(mirror) = mirror
                && let Err(error) = mirror.candidates(&notice).await
            {
                tracing::info!(experiment = %name, %error, "the mirror could not be told about the candidates");
            }
        }
        Action::Announce(notice) => {
            if let Some(mirror) = mirror
                && let Err(error) = mirror.announce(&notice).await
            {
                tracing::info!(experiment = %name, %error, "the mirror could not be told about the promotion");
            }
        }
        Action::Say(saying) => say(context, &world.experiment, saying).await,
    }
    Ok(())
}

/// A report that is not there yet, or can't be had, is asked for again at the next look.
async fn keep_report(context: &Context, world: &World, mirror: &Mirror, phase: Phase) -> Result<(), ControllerError> {
    let (Some(mirror), Ok(fit)) = (mirror, examine(world)) else { return Ok(()) };
    let text = match mirror.report().await.map(|bytes| String::from_utf8(bytes.into())) {
        Ok(Ok(text)) if text.len() <= LONGEST_REPORT_BYTES => text,
        Ok(Ok(text)) => {
            tracing::warn!(experiment = %world.names.experiment, bytes = text.len(), "the report is too long to keep");
            return Ok(());
        }
        Ok(Err(_)) | Err(_) => return Ok(()),
    };
    make(context, world, &objects::config::report(&fit, phase, &text)).await
}

async fn lead(context: &Context, world: &World, route: Route) -> Result<(), ControllerError> {
    let Some(target) = &world.experiment.spec.target.stateful_set else { return Ok(()) };
    let kept = recorded(world);
    if routing::lead(&context.client, &world.names, &target.service, route, kept.as_ref()).await? {
        tracing::info!(experiment = %world.names.experiment, service = %target.service, ?route, "production is led");
    }
    Ok(())
}

fn experiments(context: &Context, world: &World) -> Api<ShadowExperiment> {
    Api::namespaced(context.client.clone(), &world.names.namespace)
}

async fn annotate(context: &Context, world: &World, key: &str, value: &Value) -> Result<(), ControllerError> {
    let patch = json!({ "metadata": { "annotations": { key: value.to_string() } } });
    experiments(context, world)
        .patch_metadata(&world.names.experiment, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .doing("writing on the experiment")?;
    Ok(())
}

async fn finalizers(context: &Context, world: &World, with: bool) -> Result<(), ControllerError> {
    let mut all: Vec<String> = world.experiment.finalizers().to_vec();
    all.retain(|finalizer| finalizer != FINALIZER);
    if with {
        all.push(FINALIZER.to_owned());
    }
    let version = &world.experiment.metadata.resource_version;
    let patch = json!({ "metadata": { "finalizers": all, "resourceVersion": version } });
    let done = experiments(context, world)
        .patch_metadata(&world.names.experiment, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match done {
        Err(error) if is_missing(&error) => Ok(()),
        done => done.map(drop).doing("setting the experiment's finalizer"),
    }
}

fn dynamic(context: &Context, world: &World, kind: Kind) -> Api<DynamicObject> {
    Api::namespaced_with(context.client.clone(), &world.names.namespace, &kind.resource())
}

async fn make(context: &Context, world: &World, object: &Object) -> Result<(), ControllerError> {
    let api = dynamic(context, world, object.kind);
    if object.kind.changes_in_place() {
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&object.name, &params, &Patch::Apply(&object.body))
            .await
            .doing("making what the experiment needs")?;
        return Ok(());
    }
    let body: DynamicObject =
        serde_json::from_value(object.body.clone()).map_err(|e| ControllerError::Document("an object", e))?;
    match api.create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }, &body).await {
        // It has been made since we looked.
        Err(error) if is_conflict(&error) => Ok(()),
        made => made.map(drop).doing("making what the experiment needs"),
    }
}

async fn remove(context: &Context, world: &World, kind: Kind, name: &str) -> Result<(), ControllerError> {
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    match dynamic(context, world, kind).delete(name, &params).await {
        Err(error) if is_missing(&error) => Ok(()),
        removed => removed.map(drop).doing("removing what the experiment needed"),
    }
}

/// Says something as an Event. One that is lost is not worth a retry.
async fn say(context: &Context, experiment: &ShadowExperiment, saying: Saying) {
    let Saying { warning, reason, note } = saying;
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason,
        note: Some(note.chars().take(LONGEST_NOTE).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, &kube::Resource::object_ref(experiment, &())).await {
        tracing::warn!(experiment = %experiment.name_any(), %error, "an Event was lost");
    }
}

/// Writes status, if it says something new.
pub async fn write_status(
    context: &Context,
    world: &World,
    status: &ShadowExperimentStatus,
) -> Result<(), ControllerError> {
    let before = world.experiment.status.as_ref();
    if before == Some(status) {
        return Ok(());
    }
    let urgent = before.is_none_or(|before| {
        (before.phase, &before.conditions, &before.verdict, &before.rollout)
            != (status.phase, &status.conditions, &status.verdict, &status.rollout)
    });
    if !context.may_write(&world.experiment, urgent) {
        return Ok(());
    }
    let body = json!({
        "apiVersion": "understudy.dev/v1alpha1",
        "kind": "ShadowExperiment",
        "metadata": { "name": world.names.experiment },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    let written = experiments(context, world).patch_status(&world.names.experiment, &params, &Patch::Apply(body)).await;
    match written {
        Err(error) if is_missing(&error) => Ok(()),
        written => written.map(drop).doing("writing the experiment's status"),
    }
}
