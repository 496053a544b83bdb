//! The objects as text, held to their types; and that nothing of production's finds an arm.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::ResourceExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use understudy_crds::{ShadowExperiment, labels::ROUTING};

use super::*;
use crate::controller::{
    fit::examine,
    names::Names,
    routing::{self, Route},
    world::{Credentials, MirrorSaid, Ours, World},
};

/// What the controller was told.
pub(crate) fn settings() -> Settings {
    Settings {
        image: "understudy:test".into(),
        image_pull_policy: Some("Never".into()),
        namespace: None,
        cluster_domain: None,
    }
}

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A worker as people have it, with everything that an arm must not get.
fn worker() -> Value {
    json!({
        "metadata": { "name": "events-0", "namespace": "db", "labels": {
            "app": "events", "role": "primary", "statefulset.kubernetes.io/pod-name": "events-0",
        }},
        "spec": {
            "nodeName": "node-1",
            "serviceAccountName": "events",
            "securityContext": { "runAsUser": 999, "fsGroup": 999 },
            "imagePullSecrets": [{ "name": "registry" }],
            "nodeSelector": { "disk": "fast" },
            "tolerations": [{ "key": "dedicated", "operator": "Exists" }],
            "initContainers": [{ "name": "chown", "image": "busybox" }],
            "containers": [
                { "name": "exporter", "image": "exporter", "ports": [{ "name": "metrics", "containerPort": 9187 }] },
                {
                    "name": "postgres",
                    "image": "postgres:16",
                    "args": ["-c", "shared_buffers=128MB"],
                    "ports": [{ "name": "pg", "containerPort": 5432 }],
                    "env": [
                        { "name": "LANG", "value": "C.UTF-8" },
                        { "name": "PGDATA", "value": "/data/pg" },
                        { "name": "POSTGRES_PASSWORD", "value": "geheim" },
                        { "name": "BACKUP_KEY", "valueFrom": { "secretKeyRef": { "name": "backup", "key": "key" } } },
                    ],
                    "envFrom": [{ "secretRef": { "name": "more" } }],
                    "readinessProbe": { "exec": { "command": ["pg_isready"] } },
                    "lifecycle": { "preStop": { "exec": { "command": ["stop"] } } },
                    "resources": { "requests": { "cpu": "1", "memory": "1Gi" } },
                    "securityContext": { "allowPrivilegeEscalation": false },
                    "volumeMounts": [
                        { "name": "data", "mountPath": "/data" },
                        { "name": "settings", "mountPath": "/etc/postgresql" },
                        { "name": "keys", "mountPath": "/keys" },
                        { "name": "shm", "mountPath": "/dev/shm" },
                    ],
                },
            ],
            "volumes": [
                { "name": "data", "persistentVolumeClaim": { "claimName": "data-events-0" } },
                { "name": "settings", "configMap": { "name": "events-settings" } },
                { "name": "keys", "secret": { "secretName": "keys" } },
                { "name": "shm", "emptyDir": { "medium": "Memory" } },
                { "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } },
            ],
        },
        "status": { "podIP": "10.0.0.7", "phase": "Running" },
    })
}

/// An experiment whose world is fit and in which nothing has been made yet.
pub(crate) fn world() -> World {
    let experiment: ShadowExperiment = from(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "ShadowExperiment",
        "metadata": { "name": "idx", "namespace": "db", "uid": "1-2-3", "generation": 1, "finalizers": [
            "understudy.dev/restore-routing"
        ]},
        "spec": {
            "target": { "statefulSet": {
                "name": "events", "ordinal": 0, "service": "events-0", "database": "app", "credentialsSecret": "su",
            }},
            "candidates": [{
                "name": "idx",
                "sql": { "apply": ["CREATE INDEX CONCURRENTLY i ON t (a)"], "revert": ["DROP INDEX i"] },
                "storage": null,
                "instance": { "nodeSelector": { "size": "large" }, "resources": { "limits": { "cpu": "2" } } },
            }],
        },
    }));
    World {
        names: Names::of(&experiment, None),
        experiment,
        now: "2026-11-22T12:00:00Z".parse().unwrap(),
        stateful_set: Some(from(json!({
            "metadata": { "name": "events" },
            "spec": { "replicas": 3, "serviceName": "events", "selector": {}, "template": {} },
        }))),
        governed: true,
        worker: Some(from(worker())),
        worker_claim: Some(from(json!({
            "metadata": { "name": "data-events-0" },
            "spec": { "storageClassName": "ext4", "resources": { "requests": { "storage": "5Gi" } } },
            "status": { "capacity": { "storage": "8Gi" } },
        }))),
        service: Some(from(json!({
            "metadata": { "name": "events-0", "resourceVersion": "7" },
            "spec": {
                "clusterIP": "10.1.0.9",
                "selector": { "app": "events", "statefulset.kubernetes.io/pod-name": "events-0" },
                "ports": [{ "port": 5432, "targetPort": "pg" }],
            },
        }))),
        selected: vec!["events-0".into()],
        credentials: Credentials::Complete { user: "postgres".into() },
        rivals: vec![],
        ours: Ours::default(),
        mirror: MirrorSaid::default(),
        attempt: None,
    }
}

/// The same with the mirror in the Service's place, and the selector on the experiment.
pub(crate) fn routed(mut world: World) -> World {
    let service = world.service.clone().unwrap();
    let own = routing::own_selector(&service).unwrap();
    world.experiment.annotations_mut().insert(ROUTING.into(), json!(own).to_string());
    let change = routing::change(&service, &world.names, Route::Mirror, None).unwrap();
    let service = world.service.as_mut().unwrap();
    let note = change["metadata"]["annotations"][ROUTING].as_str().unwrap().to_owned();
    service.annotations_mut().insert(ROUTING.into(), note);
    service.spec.as_mut().unwrap().selector = Some(world.names.mirror_selector());
    world
}

/// The object is one of its kind: nothing is lost on the way through its type.
fn typed<T: DeserializeOwned + Serialize>(object: &Object) {
    let typed: T = from(object.body.clone());
    let again = serde_json::to_value(&typed).unwrap();
    assert_eq!(again, object.body, "{:?} {}", object.kind, object.name);
}

#[test]
fn every_object_is_what_its_kind_says() {
    let world = world();
    let fit = examine(&world).unwrap();
    let secret = tls::secret(&fit).unwrap();
    for object in wanted(&fit, &settings()).iter().chain([&secret]) {
        match object.kind {
            Kind::Secret => typed::<Secret>(object),
            Kind::ConfigMap => typed::<ConfigMap>(object),
            Kind::Service => typed::<Service>(object),
            Kind::NetworkPolicy => typed::<NetworkPolicy>(object),
            Kind::Volume => typed::<PersistentVolumeClaim>(object),
            Kind::Pod => typed::<Pod>(object),
        }
        assert!(object.name.len() <= 63);
    }
}

#[test]
fn the_objects_read_as_agreed() {
    let world = world();
    let fit = examine(&world).unwrap();
    let all: Vec<Value> = wanted(&fit, &settings()).into_iter().map(|object| object.body).collect();
    insta::assert_yaml_snapshot!(all);
}

#[test]
fn no_secret_of_production_gets_into_an_arm_or_a_document() {
    let world = world();
    let fit = examine(&world).unwrap();
    let text = json!(wanted(&fit, &settings()).iter().map(|o| &o.body).collect::<Vec<_>>()).to_string();
    for word in ["geheim", "backup", "\"more\"", "keys", "chown", "exporter", "pg_isready", "preStop", "\"token\""] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn nothing_that_selects_production_selects_what_we_make() {
    let world = world();
    let fit = examine(&world).unwrap();
    let production =
        [json!({ "app": "events" }), json!({ "role": "primary" }), json!({ "app": "events", "role": "primary" })];
    for object in wanted(&fit, &settings()) {
        let labels: BTreeMap<String, String> = from(object.body["metadata"]["labels"].clone());
        for selector in &production {
            let selector: BTreeMap<String, String> = from(selector.clone());
            assert!(!selector.iter().all(|(key, value)| labels.get(key) == Some(value)), "{}", object.name);
        }
        let ours = |key: &String| key.starts_with("understudy.dev/") || key.starts_with("app.kubernetes.io/");
        assert!(labels.keys().all(ours), "{labels:?}");
    }
}

fn spec(world: &mut World) -> &mut k8s_openapi::api::core::v1::ServiceSpec {
    world.service.as_mut().unwrap().spec.as_mut().unwrap()
}

#[test]
fn a_service_that_can_not_be_taken_the_place_of_is_refused_with_the_reason() {
    let refused = |change: &dyn Fn(&mut World), words: &str| {
        let mut world = world();
        change(&mut world);
        let refusal = examine(&world).unwrap_err();
        assert!(refusal.message.contains(words), "{}", refusal.message);
    };
    refused(&|w| spec(w).cluster_ip = Some("None".into()), "is headless");
    refused(&|w| spec(w).selector = None, "has no selector");
    refused(&|w| w.selected.push("events-1".into()), "selects events-1 beside events-0");
    refused(&|w| w.selected.clear(), "does not select events-0");
    refused(&|w| spec(w).ports.as_mut().unwrap().push(from(json!({ "port": 9187 }))), "leads to ports 5432 and 9187");
    refused(
        &|w| spec(w).ports = Some(vec![from(json!({ "port": 1, "targetPort": "metrics" }))]),
        "not one of container",
    );
    let mut numeric = world();
    spec(&mut numeric).ports = Some(vec![from(json!({ "port": 5432, "targetPort": 6000 }))]);
    let fit = examine(&numeric).unwrap();
    assert_eq!((fit.port.number, fit.port.name.as_str()), (6000, "postgres"));
}
