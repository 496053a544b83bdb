//! The committed CRD is the generated one, and is as an API server wants it.

use kube::core::cel::{compile_schema, estimate_rule_cost};
use serde_json::{Value, json};
use understudy_crds::crd;

/// The definition, and the chart's copy of it.
const FILES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/understudy.dev_shadowexperiments.yaml"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/understudy/crds/understudy.dev_shadowexperiments.yaml"),
];

#[test]
fn the_committed_files_are_what_the_types_say() {
    let generated = crd::yaml();
    for file in FILES {
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(file, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        // Not assert_eq: two times a thousand lines would bury what to do.
        assert!(
            committed == generated,
            "{file} is not what the types say, first in line {}; make it anew with\n    \
             UPDATE=1 cargo test -p understudy-crds --test crd",
            1 + committed.lines().zip(generated.lines()).take_while(|(a, b)| a == b).count(),
        );
    }
}

/// Every schema of the tree, with its path; `visit` sees Kubernetes' own types only if `foreign`.
fn each(path: &str, schema: &Value, foreign: bool, visit: &mut impl FnMut(&str, &Value)) {
    if !foreign && (path.ends_with(".resources") || path.ends_with(".tolerations[]")) {
        return;
    }
    visit(path, schema);
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        each(&format!("{path}.{name}"), below, foreign, visit);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            each(&format!("{path}{mark}"), &schema[key], foreign, visit);
        }
    }
}

#[test]
fn the_schema_is_structural() {
    let known = [
        "type",
        "format",
        "description",
        "default",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
        "title",
    ];
    each("", &crd::schema(), true, &mut |path, schema| {
        for (key, value) in schema.as_object().unwrap() {
            assert!(known.contains(&key.as_str()) || key.starts_with("x-kubernetes-"), "{path}: {key}");
            assert!(key != "additionalProperties" || value.is_object(), "{path}: additionalProperties: {value}");
        }
        let int_or_string = schema["x-kubernetes-int-or-string"] == json!(true);
        assert!(schema["type"].is_string() || int_or_string, "{path} has no type");
        if let Some(format) = schema["format"].as_str() {
            assert!(["int32", "int64", "double", "date-time"].contains(&format), "{path}: {format}");
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(schema["properties"].get(required.as_str().unwrap()).is_some(), "{path}: {required}");
        }
    });
}

#[test]
fn every_field_explains_itself() {
    each("", &crd::schema(), false, &mut |path, schema| {
        let element = path.ends_with('}') || path.ends_with(']');
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(element || description.ends_with('.'), "{path}: `{description}`");
        assert!(!description.contains("Auto-generated"), "{path}: `{description}`");
        let wrapped = description.replace("\n\n", "").contains('\n');
        assert!(!wrapped, "{path}: a line break inside a paragraph: `{description}`");
    });
}

#[test]
fn the_rules_compile_and_are_cheap() {
    let (schema, mut rules) = (crd::schema(), Vec::new());
    each("", &schema, true, &mut |path, schema| {
        let compiled = compile_schema(schema);
        assert!(!compiled.has_errors(), "{path}: {:?}", compiled.compilation_errors());
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap();
            let warnings = estimate_rule_cost(text, &compiled);
            assert!(warnings.is_empty(), "{path}: {warnings:?}");
            let message = rule["message"].as_str().unwrap();
            assert!(!message.is_empty() && !message.contains('\n'), "{path}: {text}");
            rules.push(path.to_owned());
        }
    });
    let expected = [
        "",
        ".spec",
        ".spec",
        ".spec.candidates[]",
        ".spec.candidates[]",
        ".spec.schedule",
        ".spec.success[]",
        ".spec.target",
    ];
    assert_eq!(rules, expected);
}

#[test]
fn lists_of_named_things_merge_by_name() {
    let schema = crd::schema();
    for (path, key) in [
        ("/properties/spec/properties/candidates", "name"),
        ("/properties/status/properties/conditions", "type"),
        ("/properties/status/properties/arms", "name"),
    ] {
        let list = schema.pointer(path).unwrap();
        assert_eq!(list["x-kubernetes-list-type"], "map", "{path}");
        assert_eq!(list["x-kubernetes-list-map-keys"], json!([key]), "{path}");
        assert!(list["items"]["required"].as_array().unwrap().contains(&json!(key)), "{path}");
    }
}

#[test]
fn the_resource_is_named_and_shown_as_agreed() {
    let crd = crd::json();
    assert_eq!(crd["metadata"]["name"], "shadowexperiments.understudy.dev");
    assert_eq!(crd["spec"]["scope"], "Namespaced");
    assert_eq!(crd["spec"]["names"]["shortNames"], json!(["shadow"]));
    let version = &crd["spec"]["versions"][0];
    assert_eq!(
        (&version["name"], &version["served"], &version["storage"]),
        (&json!("v1alpha1"), &json!(true), &json!(true))
    );
    assert_eq!(version["subresources"], json!({ "status": {} }));
    let columns = version["additionalPrinterColumns"].as_array().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Phase", "Verdict", "Read p95", "Write p95", "Lag", "Age"]);
    let schema = crd::schema();
    for column in columns.iter().filter(|column| column["name"] != "Age") {
        let path = column["jsonPath"].as_str().unwrap().replace('.', "/properties/");
        assert!(schema.pointer(&path).is_some(), "{column}");
    }
}
