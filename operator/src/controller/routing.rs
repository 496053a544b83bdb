//! The mirror in the place of the worker's Service, and out of it: only the Service's selector changes,
//! what it was is recorded beside it first, and it is put back whatever happens.
//!
//! Nothing here may wait for anything but the API server: the kill switch goes through here.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;
use understudy_crds::labels::ROUTING;

use super::{
    error::{ControllerError, Doing, is_conflict, is_missing},
    names::Names,
};

/// How often a change is tried when somebody else changes the Service at the same moment.
const ATTEMPTS: u32 = 5;
/// Longest time for one call: an API server that hangs must not hold the others up.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A selector.
pub type Selector = BTreeMap<String, String>;

/// What was there before, as it stands on the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The experiment whose mirror stands here.
    pub experiment: String,
    /// The Service's own selector.
    pub selector: Selector,
}

/// Where a Service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// To the worker.
    Direct,
    /// To our mirror.
    Mirror,
    /// To another experiment's mirror.
    Other(String),
    /// We had put our mirror there, and somebody has changed it since.
    Changed,
}

/// Which way a Service shall lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the worker.
    Direct,
    /// To the mirror.
    Mirror,
}

fn record(service: &Service) -> Option<Record> {
    serde_json::from_str(service.annotations().get(ROUTING)?).ok()
}

fn selector(service: &Service) -> Selector {
    service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default()
}

/// The Service's own selector, also while a mirror stands in its place.
pub fn own_selector(service: &Service) -> Option<Selector> {
    record(service).map(|record| record.selector).or_else(|| Some(selector(service)))
}

/// Where a Service leads, as one experiment sees it.
pub fn standing(service: &Service, names: &Names) -> Standing {
    let ours = selector(service) == names.mirror_selector();
    match record(service) {
        Some(record) if record.experiment != names.experiment => Standing::Other(record.experiment),
        _ if ours => Standing::Mirror,
        Some(_) => Standing::Changed,
        None => Standing::Direct,
    }
}

/// The change that makes a Service lead another way; none when it does already. `kept` is the record
/// on the experiment, for a Service whose own has been lost.
pub fn change(service: &Service, names: &Names, route: Route, kept: Option<&Selector>) -> Option<Value> {
    let now = selector(service);
    let (next, note) = match (route, standing(service, names)) {
        (Route::Mirror, Standing::Direct) => {
            let record = Record { experiment: names.experiment.clone(), selector: now.clone() };
            // Plain data with string keys always becomes JSON.
            (names.mirror_selector(), json!(serde_json::to_string(&record).unwrap_or_default()))
        }
        (Route::Direct, Standing::Mirror) => {
            let before = record(service).map(|record| record.selector);
            (before.or_else(|| kept.cloned())?, Value::Null)
        }
        // Somebody else has decided where it leads; only our note goes.
        (Route::Direct, Standing::Changed) => (now.clone(), Value::Null),
        _ => return None,
    };
    let mut selector: serde_json::Map<String, Value> = now.into_keys().map(|key| (key, Value::Null)).collect();
    selector.extend(next.into_iter().map(|(key, value)| (key, Value::String(value))));
    Some(json!({
        "metadata": { "resourceVersion": service.metadata.resource_version, "annotations": { ROUTING: note } },
        "spec": { "selector": selector },
    }))
}

/// Makes a Service lead that way. Says whether anything was changed; a Service that is gone leads
/// nowhere and is left alone.
pub async fn lead(
    client: &Client,
    names: &Names,
    service: &str,
    route: Route,
    kept: Option<&Selector>,
) -> Result<bool, ControllerError> {
    let services: Api<Service> = Api::namespaced(client.clone(), &names.namespace);
    for _ in 0..ATTEMPTS {
        let attempt = async {
            let found = match services.get(service).await {
                Ok(found) => found,
                Err(error) if is_missing(&error) => return Ok(Some(false)),
                Err(error) => return Err(error),
            };
            let Some(change) = change(&found, names, route, kept) else { return Ok(Some(false)) };
            match services.patch(service, &PatchParams::default(), &Patch::Merge(change)).await {
                Ok(_) => Ok(Some(true)),
                Err(error) if is_missing(&error) => Ok(Some(false)),
                Err(error) if is_conflict(&error) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let Ok(result) = timeout(CALL_LIMIT, attempt).await else {
            tracing::warn!(service, "the API server takes too long");
            continue;
        };
        if let Some(changed) = result.doing("changing where the Service leads")? {
            return Ok(changed);
        }
    }
    Err(ControllerError::Contended("the Service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let experiment: understudy_crds::ShadowExperiment = serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "ShadowExperiment",
            "metadata": { "name": "idx", "namespace": "db" }, "spec": { "target": {} },
        }))
        .unwrap();
        Names::of(&experiment, None)
    }

    fn service(selector: &Value, annotations: &Value) -> Service {
        serde_json::from_value(json!({
            "metadata": { "name": "events-0", "resourceVersion": "7", "annotations": annotations },
            "spec": { "selector": selector },
        }))
        .unwrap()
    }

    /// A merge patch, as the API server applies it.
    fn merged(service: &Service, patch: &Value) -> Service {
        fn merge(into: &mut Value, patch: &Value) {
            let Some(patch) = patch.as_object() else { return *into = patch.clone() };
            if !into.is_object() {
                *into = json!({});
            }
            let fields = into.as_object_mut().unwrap();
            for (key, value) in patch {
                if value.is_null() {
                    fields.remove(key);
                } else {
                    merge(fields.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        let mut value = serde_json::to_value(service).unwrap();
        merge(&mut value, patch);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_was_there_comes_back_to_the_letter() {
        let names = names();
        let before = service(&json!({ "app": "events", "statefulset.kubernetes.io/pod-name": "events-0" }), &json!({}));
        assert_eq!(standing(&before, &names), Standing::Direct);
        assert_eq!(change(&before, &names, Route::Direct, None), None);
        let there = merged(&before, &change(&before, &names, Route::Mirror, None).unwrap());
        assert_eq!(selector(&there), names.mirror_selector());
        assert_eq!(standing(&there, &names), Standing::Mirror);
        assert_eq!(own_selector(&there), Some(selector(&before)));
        assert_eq!(change(&there, &names, Route::Mirror, None), None);
        let back = merged(&there, &change(&there, &names, Route::Direct, None).unwrap());
        assert_eq!(selector(&back), selector(&before));
        assert_eq!(standing(&back, &names), Standing::Direct);
    }

    #[test]
    fn a_lost_record_is_made_up_for_by_the_experiments_own() {
        let names = names();
        let stripped = service(&json!(names.mirror_selector()), &json!({}));
        let kept = Selector::from([("app".to_owned(), "events".to_owned())]);
        assert_eq!(change(&stripped, &names, Route::Direct, None), None);
        let back = merged(&stripped, &change(&stripped, &names, Route::Direct, Some(&kept)).unwrap());
        assert_eq!(selector(&back), kept);
    }

    #[test]
    fn somebody_elses_change_is_left_as_it_is() {
        let names = names();
        let note = |experiment: &str| {
            let selector = Selector::from([("app".to_owned(), "old".to_owned())]);
            json!({ ROUTING: serde_json::to_string(&Record { experiment: experiment.into(), selector }).unwrap() })
        };
        let changed = service(&json!({ "app": "new" }), &note("idx"));
        assert_eq!(standing(&changed, &names), Standing::Changed);
        let back = merged(&changed, &change(&changed, &names, Route::Direct, None).unwrap());
        assert_eq!((selector(&back)["app"].as_str(), back.annotations().len()), ("new", 0));
        let other = service(&json!({ "app": "new" }), &note("other"));
        assert_eq!(standing(&other, &names), Standing::Other("other".into()));
        assert_eq!(change(&other, &names, Route::Mirror, None), None);
        assert_eq!(change(&other, &names, Route::Direct, None), None);
    }
}
