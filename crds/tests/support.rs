//! What the local platform refuses is refused by name, and nothing else is.

use understudy_crds::{
    manifest,
    support::{unsupported_locally, unsupported_on_kubernetes},
};

const TARGET: &str = "  target: { local: { host: 127.0.0.1, user: postgres, database: app } }\n";

fn refused(spec: &str) -> Vec<(String, String)> {
    let head = "apiVersion: understudy.dev/v1alpha1\nkind: ShadowExperiment\nmetadata: { name: a }\nspec:\n";
    let experiment = manifest::read(&format!("{head}{spec}")).unwrap_or_else(|error| panic!("{spec}\n{error}"));
    unsupported_locally(&experiment.spec).into_iter().map(|found| (found.field.clone(), found.to_string())).collect()
}

#[test]
fn each_unsupported_field_is_refused_by_name() {
    let stateful_set =
        "  target: { statefulSet: { name: a, ordinal: 0, service: a-0, database: app, credentialsSecret: a } }\n";
    let with_target = |spec: &str| format!("{TARGET}{spec}");
    let table = [
        (stateful_set.to_owned(), "spec.target.statefulSet", "a StatefulSet"),
        ("  target: { cloudNativePg: {} }\n".to_owned(), "spec.target.cloudNativePg", "CloudNativePG"),
        ("  target: { citus: {} }\n".to_owned(), "spec.target.citus", "Citus"),
        (with_target("  clone: { method: VolumeSnapshot }\n"), "spec.clone.method", "use BaseBackup"),
        (with_target("  baseline: false\n"), "spec.baseline", "without a baseline"),
        (with_target("  align: Repair\n"), "spec.align", "use Count"),
        (with_target("  traffic: { reads: 99 }\n"), "spec.traffic.reads", "use 100"),
        (
            with_target("  candidates: [{ name: a }, { name: b, storage: { storageClassName: zfs } }]\n"),
            "spec.candidates[1].storage.storageClassName",
            "use storage.directory",
        ),
        (
            with_target("  candidates: [{ name: a, storage: { size: 1Gi } }]\n"),
            "spec.candidates[0].storage.size",
            "use storage.directory",
        ),
        (with_target("  candidates: [{ name: a, instance: {} }]\n"), "spec.candidates[0].instance", "another instance"),
        (with_target("  candidates: [{ name: a, image: postgres:17 }]\n"), "spec.candidates[0].image", "use binaries"),
    ];
    for (spec, field, reason) in table {
        let found = refused(&spec);
        let [(found_field, message)] = found.as_slice() else { panic!("{spec}: {found:?}") };
        assert_eq!(found_field, field, "{spec}");
        assert!(message.starts_with(field) && message.contains(reason), "{message}");
        assert!(message.contains("not supported on the local platform yet"), "{message}");
    }
}

#[test]
fn everything_else_is_accepted() {
    for text in [
        include_str!("manifests/good/local.yaml"),
        include_str!("manifests/good/minimal.yaml"),
        include_str!("../../examples/index.yaml"),
        include_str!("../../examples/setting.yaml"),
    ] {
        let experiment = manifest::read(text).unwrap();
        assert_eq!(unsupported_locally(&experiment.spec), [], "{text}");
    }
}

#[test]
fn all_unsupported_fields_are_told_at_once() {
    let experiment = manifest::read(include_str!("manifests/good/stateful-set.yaml")).unwrap();
    let fields: Vec<String> = unsupported_locally(&experiment.spec).into_iter().map(|found| found.field).collect();
    assert_eq!(
        fields,
        [
            "spec.target.statefulSet",
            "spec.clone.method",
            "spec.candidates[0].storage.storageClassName",
            "spec.candidates[0].storage.size",
            "spec.candidates[0].instance",
            "spec.candidates[0].image",
            "spec.align",
            "spec.traffic.reads",
        ]
    );
}

#[test]
fn kubernetes_refuses_what_it_can_not_do_yet_and_nothing_else() {
    let experiment = manifest::read(include_str!("manifests/good/stateful-set.yaml")).unwrap();
    let found: Vec<String> = unsupported_on_kubernetes(&experiment.spec).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "spec.clone.method: VolumeSnapshot is not supported on Kubernetes yet; use BaseBackup",
            "spec.align: Repair is not supported on Kubernetes yet; leave it out, or use Count",
            "spec.traffic.reads: a sample of the reads is not supported on Kubernetes yet; leave it out, or use 100",
        ]
    );
    let experiment = manifest::read(include_str!("../../examples/index.yaml")).unwrap();
    let fields: Vec<String> =
        unsupported_on_kubernetes(&experiment.spec).into_iter().map(|found| found.field).collect();
    assert_eq!(fields, ["spec.target.local"]);
}
