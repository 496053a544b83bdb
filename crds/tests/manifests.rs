//! One set of manifests, two judges: the CRD (schema, defaults, list keys, CEL) as an API server
//! applies it, and `manifest::read` as the local platform does. They must agree.
//!
//! The first line of a bad manifest says `# FIELD: PART OF THE REASON`. A line `# An API server takes
//! it: WHY` marks the few that only the local platform refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]

use std::{fs, path::Path};

use kube::core::cel::Validator;
use serde_json::{Map, Value};
use understudy_crds::{crd, manifest};

const TAKEN_BY_API_SERVER: &str = "# An API server takes it: ";

fn manifests(directory: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let yaml = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let read: Vec<_> = yaml.map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect();
    assert!(!read.is_empty(), "no manifests in {}", directory.display());
    read
}

/// What an API server does with a manifest: unknown fields and nulls are pruned, the rest is held
/// against the schema, the keys of lists and the rules.
fn api_server(schema: &Value, text: &str) -> Result<(), String> {
    let mut object: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    prune_nulls(&mut object);
    let validator = jsonschema::validator_for(schema).unwrap();
    let mut refused: Vec<String> =
        validator.iter_errors(&object).map(|error| format!("{}: {error}", error.instance_path())).collect();
    duplicates(schema, &object, "", &mut refused);
    if refused.is_empty()
        && let Err(errors) = Validator::new().validate(schema, &object, None)
    {
        refused.extend(errors.into_vec().iter().map(ToString::to_string));
    }
    if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) }
}

fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// Items of a keyed list that have the same key.
fn duplicates(schema: &Value, value: &Value, path: &str, refused: &mut Vec<String>) {
    if let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array() {
        let mut seen = Vec::new();
        for item in value.as_array().into_iter().flatten() {
            let key: Vec<&Value> = keys.iter().map(|key| &item[key.as_str().unwrap()]).collect();
            if seen.contains(&key) {
                refused.push(format!("{path}: {key:?} stands there twice"));
            }
            seen.push(key);
        }
    }
    let none = Map::new();
    for (name, below) in schema["properties"].as_object().unwrap_or(&none) {
        duplicates(below, &value[name], &format!("{path}.{name}"), refused);
    }
}

#[test]
fn both_accept_the_good_ones() {
    let schema = crd::schema();
    for (file, text) in manifests("tests/manifests/good").into_iter().chain(manifests("../examples")) {
        assert_eq!(api_server(&schema, &text), Ok(()), "{file}");
        let experiment = manifest::read(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        // What is read can be written, and is the same then.
        let again = serde_saphyr::to_string(&experiment).unwrap();
        let again = manifest::read(&again).unwrap_or_else(|error| panic!("{file}, written again: {error}"));
        assert_eq!(again, experiment, "{file}");
    }
}

#[test]
fn both_refuse_the_bad_ones() {
    let schema = crd::schema();
    for (file, text) in manifests("tests/manifests/bad") {
        let mut lines = text.lines();
        let first = lines.next().and_then(|line| line.strip_prefix("# ")).unwrap();
        let (field, reason) = first.split_once(": ").unwrap_or_else(|| panic!("{file} does not say what is expected"));
        let pruned = lines.next().is_some_and(|line| line.starts_with(TAKEN_BY_API_SERVER));

        let error = manifest::read(&text).map(|_| ()).expect_err(&file);
        let [mistake] = error.mistakes() else { panic!("{file}: one mistake was expected: {error}") };
        assert_eq!(mistake.field, field, "{file}: {error}");
        assert!(mistake.reason.contains(reason), "{file}: {error}");
        assert!(mistake.line.is_some(), "{file}: {error}");

        assert_eq!(api_server(&schema, &text).is_ok(), pruned, "{file}: {:?}", api_server(&schema, &text));
    }
}

#[test]
fn the_target_can_not_be_changed() {
    let schema = crd::schema();
    let read = |port: &str| -> Value {
        let text =
            format!("{{ metadata: {{ name: a }}, spec: {{ target: {{ local: {{ host: h, port: {port} }} }} }} }}");
        serde_saphyr::from_str(&text).unwrap()
    };
    let change = |new, old| Validator::new().validate(&schema, &read(new), Some(&read(old)));
    assert_eq!(change("5432", "5432"), Ok(()));
    assert!(change("5433", "5432").unwrap_err().iter().any(|error| error.message.contains("make another experiment")));
}
