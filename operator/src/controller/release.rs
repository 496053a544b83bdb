//! Lets go of all experiments, for the day on which the operator is uninstalled: production goes direct
//! everywhere, and no resource waits for an operator that is not there any more.

use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use understudy_crds::{
    ShadowExperiment,
    labels::{FINALIZER, ROUTING},
};

use super::{
    error::{ControllerError, Doing, is_missing},
    names::Names,
    routing::{self, Route},
};

/// Routes every Service directly, then halts every experiment, so that an operator that still runs
/// leaves it so, and takes our finalizer off. Says how many there were.
pub async fn release(client: &Client, namespace: Option<&str>) -> Result<usize, ControllerError> {
    let all: Api<ShadowExperiment> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let found = match all.list(&ListParams::default()).await {
        Ok(found) => found,
        // Without the resource's definition there are none.
        Err(error) if is_missing(&error) => return Ok(0),
        Err(error) => return Err(error).doing("listing experiments"),
    };
    for experiment in &found {
        let names = Names::of(experiment, None);
        if let Some(target) = &experiment.spec.target.stateful_set {
            let kept = experiment.annotations().get(ROUTING).and_then(|text| serde_json::from_str(text).ok());
            routing::lead(client, &names, &target.service, Route::Direct, kept.as_ref()).await?;
        }
        let finalizers: Vec<&String> = experiment.finalizers().iter().filter(|f| *f != FINALIZER).collect();
        let patch = json!({ "metadata": { "finalizers": finalizers }, "spec": { "halt": true } });
        let api: Api<ShadowExperiment> = Api::namespaced(client.clone(), &names.namespace);
        api.patch(&names.experiment, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .doing("letting an experiment go")?;
    }
    Ok(found.items.len())
}
