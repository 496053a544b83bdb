//! A candidate's change to a StatefulSet's pod template: image, machine, and the settings that stand in
//! the container's arguments; and the way back. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetUpdateStrategy},
    core::v1::{Container, PodSpec, ResourceRequirements, Toleration},
};
use serde::{Deserialize, Serialize};
use understudy_crds::Candidate;

use crate::controller::template::postgres_container;

/// What a change replaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Before {
    image: Option<String>,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    resources: Option<ResourceRequirements>,
    node_selector: Option<BTreeMap<String, String>>,
    tolerations: Option<Vec<Toleration>>,
    update_strategy: Option<StatefulSetUpdateStrategy>,
}

/// What there is now, of all that a change may replace.
pub fn before(set: &StatefulSet) -> Option<Before> {
    let pod = template(set)?;
    let container = postgres_container(pod)?;
    Some(Before {
        image: container.image.clone(),
        command: container.command.clone(),
        args: container.args.clone(),
        resources: container.resources.clone(),
        node_selector: pod.node_selector.clone(),
        tolerations: pod.tolerations.clone(),
        update_strategy: set.spec.as_ref().and_then(|spec| spec.update_strategy.clone()),
    })
}

/// The candidate's settings that stand in the container's arguments, where `ALTER SYSTEM` can't reach
/// them, and the others.
pub fn split(set: &StatefulSet, candidate: &Candidate) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let container = template(set).and_then(postgres_container);
    let in_arguments = |name: &str| container.is_some_and(|container| setting_in(container, name));
    candidate.parameters.clone().into_iter().partition(|(name, _)| in_arguments(name))
}

/// Whether a candidate changes the template at all.
pub fn touches(set: &StatefulSet, candidate: &Candidate) -> bool {
    candidate.image.is_some() || candidate.instance.is_some() || !split(set, candidate).0.is_empty()
}

/// Puts the candidate into the template. Doing it twice is doing it once.
pub fn put(set: &mut StatefulSet, candidate: &Candidate) {
    let (settings, _) = split(set, candidate);
    let Some(pod) = template_mut(set) else { return };
    if let Some(instance) = &candidate.instance {
        if !instance.node_selector.is_empty() {
            pod.node_selector.get_or_insert_default().extend(instance.node_selector.clone());
        }
        for toleration in &instance.tolerations {
            let all = pod.tolerations.get_or_insert_default();
            if !all.contains(toleration) {
                all.push(toleration.clone());
            }
        }
    }
    let Some(container) = postgres_container_mut(pod) else { return };
    if let Some(image) = &candidate.image {
        container.image = Some(image.clone());
    }
    if let Some(resources) = candidate.instance.as_ref().and_then(|instance| instance.resources.clone()) {
        container.resources = Some(resources);
    }
    for words in [&mut container.command, &mut container.args].into_iter().flatten() {
        for (name, value) in &settings {
            rewrite(words, name, value);
        }
    }
}

/// Puts back what there was.
pub fn put_back(set: &mut StatefulSet, before: &Before) {
    let Before { image, command, args, resources, node_selector, tolerations, update_strategy } = before.clone();
    if let Some(spec) = set.spec.as_mut() {
        spec.update_strategy = update_strategy;
    }
    let Some(pod) = template_mut(set) else { return };
    pod.node_selector = node_selector;
    pod.tolerations = tolerations;
    if let Some(container) = postgres_container_mut(pod) {
        container.image = image;
        container.command = command;
        container.args = args;
        container.resources = resources;
    }
}

/// Only pods with at least this ordinal follow the template. A set that is updated by deletion stays so.
pub fn hold_below(set: &mut StatefulSet, ordinal: i32) {
    if updated_by_deletion(set) {
        return;
    }
    if let Some(spec) = set.spec.as_mut() {
        let strategy = spec.update_strategy.get_or_insert_default();
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateStatefulSetStrategy::default);
        rolling.partition = Some(ordinal);
    }
}

/// Whether pods follow the template only when somebody deletes them.
pub fn updated_by_deletion(set: &StatefulSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
}

/// The port that PostgreSQL listens on in the workers' pods.
pub fn port(set: &StatefulSet) -> i32 {
    let ports = template(set).and_then(postgres_container).and_then(|container| container.ports.as_ref());
    let named =
        ports.and_then(|ports| ports.iter().find(|port| port.name.as_deref().is_some_and(|n| n.contains("postgres"))));
    named.or_else(|| ports.and_then(|ports| ports.first())).map_or(5432, |port| port.container_port)
}

fn template(set: &StatefulSet) -> Option<&PodSpec> {
    set.spec.as_ref()?.template.spec.as_ref()
}

fn template_mut(set: &mut StatefulSet) -> Option<&mut PodSpec> {
    set.spec.as_mut()?.template.spec.as_mut()
}

fn postgres_container_mut(pod: &mut PodSpec) -> Option<&mut Container> {
    let name = postgres_container(pod)?.name.clone();
    pod.containers.iter_mut().find(|container| container.name == name)
}

fn setting_in(container: &Container, name: &str) -> bool {
    let words = [&container.command, &container.args];
    words.into_iter().flatten().any(|words| (0..words.len()).any(|index| place(words, index, name).is_some()))
}

/// What stands before the value, when the word at `index` sets `name`: `-c name=`, `-cname=`, `--name=`.
fn place(words: &[String], index: usize, name: &str) -> Option<&'static str> {
    let word = words.get(index)?;
    let (setting, head) = if let Some(rest) = word.strip_prefix("--") {
        (rest, "--")
    } else if let Some(rest) = word.strip_prefix("-c") {
        (rest, "-c")
    } else if index > 0 && words.get(index - 1).is_some_and(|before| before == "-c") {
        (word.as_str(), "")
    } else {
        return None;
    };
    let (found, _) = setting.split_once('=')?;
    // PostgreSQL takes a dash for an underscore here, and names in any case.
    (found.replace('-', "_").eq_ignore_ascii_case(name)).then_some(head)
}

fn rewrite(words: &mut [String], name: &str, value: &str) {
    for index in 0..words.len() {
        if let Some(head) = place(words, index, name)
            && let Some(word) = words.get_mut(index)
        {
            *word = format!("{head}{name}={value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": { "name": "events" },
            "spec": {
                "replicas": 3, "selector": {}, "serviceName": "events",
                "template": { "spec": { "containers": [
                    { "name": "metrics", "image": "exporter" },
                    {
                        "name": "postgres", "image": "postgres:16",
                        "args": ["postgres", "-c", "shared_buffers=128MB", "--random-page-cost=4", "-cjit=off"],
                    },
                ]}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn settings_in_arguments_are_changed_where_they_stand_and_come_back() {
        let parameters = ["shared_buffers", "random_page_cost", "jit", "work_mem"];
        let candidate = Candidate {
            name: "a".into(),
            parameters: parameters.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect(),
            image: Some("postgres:17".into()),
            ..Candidate::default()
        };
        let (original, mut changed) = (set(), set());
        assert_eq!(split(&original, &candidate).1.into_keys().collect::<Vec<_>>(), ["work_mem"]);
        let kept = before(&original).unwrap();
        put(&mut changed, &candidate);
        hold_below(&mut changed, 3);
        let container = &changed.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[1];
        let args = container.args.clone().unwrap();
        assert_eq!(args, ["postgres", "-c", "shared_buffers=1", "--random_page_cost=1", "-cjit=1"]);
        assert_eq!(container.image.as_deref(), Some("postgres:17"));
        let twice = {
            let mut twice = changed.clone();
            put(&mut twice, &candidate);
            twice
        };
        assert_eq!(twice, changed);
        let stored: Before = serde_json::from_value(serde_json::to_value(&kept).unwrap()).unwrap();
        put_back(&mut changed, &stored);
        assert_eq!(changed, original);
    }
}
