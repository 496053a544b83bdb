//! The CustomResourceDefinition, generated from the types and made right for an API server.
//!
//! What the types say is not changed here, only how it is said: a structural schema, absent and
//! `null` the same, descriptions that read well in `kubectl explain`. The result is committed beside
//! this crate; a test holds the file to it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Number, Value};

use crate::experiment::ShadowExperiment;

/// The first lines of the committed file.
const HEADER: &str = "\
# The ShadowExperiment for an API server: kubectl apply -f FILE
# Generated from crds/src; a test holds it to that and says how to make it anew.
";

/// What an API server and `kubectl` say about a Kubernetes quantity; the generated text is a page long.
const QUANTITY_DESCRIPTION: &str = "A quantity as Kubernetes writes it, like 500m or 2Gi.";
const QUANTITY_PATTERN: &str =
    r"^(\+|-)?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE](\+|-)?([0-9]+(\.[0-9]*)?|\.[0-9]+))?$";

/// The CRD as it is applied to a cluster, as JSON.
pub fn json() -> Value {
    let crd: CustomResourceDefinition = ShadowExperiment::crd();
    // Plain data with string keys always becomes JSON.
    let mut crd = serde_json::to_value(crd).unwrap_or_default();
    if let Some(versions) = crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                tidy(schema);
            }
        }
    }
    crd
}

/// The schema of a `ShadowExperiment`, as JSON.
pub fn schema() -> Value {
    json().pointer_mut("/spec/versions/0/schema/openAPIV3Schema").map(Value::take).unwrap_or_default()
}

/// The CRD as it is committed and as `understudy crd` prints it.
pub fn yaml() -> String {
    format!("{HEADER}{}", serde_saphyr::to_string(&json()).unwrap_or_default())
}

/// Makes one schema, and the schemas below it, right for an API server.
fn tidy(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    // An API server refuses `additionalProperties: false`; it prunes unknown fields by itself.
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
    // A `null` in a nullable field counts as set for CEL's `has`; in any other it counts as absent,
    // which is what it means here.
    schema.remove("nullable");
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        schema.insert("description".into(), QUANTITY_DESCRIPTION.into());
        schema.insert("pattern".into(), QUANTITY_PATTERN.into());
    }
    for key in ["default", "minimum", "maximum"] {
        if let Some(value) = schema.get_mut(key) {
            write_whole_numbers_as_such(value);
        }
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = unwrap_lines(description);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get_mut(key) {
            tidy(below);
        }
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(tidy);
    }
}

/// `65535.0` as `65535`: what a person would have written.
fn write_whole_numbers_as_such(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|n| n.fract() == 0.0).map(|n| format!("{n:.0}"))
                && let Ok(whole) = whole.parse::<i64>()
            {
                *number = Number::from(whole);
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers_as_such),
        _ => {}
    }
}

/// Joins the lines of a paragraph: where they break in a comment is of no meaning elsewhere.
fn unwrap_lines(description: &str) -> String {
    let paragraphs: Vec<String> =
        description.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    paragraphs.join("\n\n")
}
