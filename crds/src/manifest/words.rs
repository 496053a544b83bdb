//! The parser's errors about values, in the product's words.

use serde_json::Value;
use serde_saphyr::Error;

use super::{
    Mistake,
    document::{Document, position_of, without_place},
    shape::schema_of,
};
use crate::experiment::ShadowExperiment;

/// Reads the document into the types. A text that an API server's YAML would take for a number or a
/// truth value must be quoted, so that one manifest means the same on every platform.
pub fn parse(text: &str) -> Result<ShadowExperiment, Error> {
    let strict = serde_saphyr::options! { with_snippet: false, no_schema: true };
    serde_saphyr::from_str_with_options(text, strict).map_err(|error| {
        // `maxPause: 50` need not be quoted but have a unit: the types know better, if asked.
        let lenient = serde_saphyr::options! { with_snippet: false };
        match (&error, serde_saphyr::from_str_with_options::<ShadowExperiment>(text, lenient)) {
            (Error::QuotingRequired { .. }, Err(better)) if position_of(&better) == position_of(&error) => better,
            _ => error,
        }
    })
}

/// Whether the error is about a value and not about the shape of the document.
pub fn is_about_a_value(error: &Error) -> bool {
    matches!(
        error.without_snippet(),
        Error::Message { .. } | Error::QuotingRequired { .. } | Error::InvalidScalar { .. }
    )
}

/// The error as a mistake of the document.
pub fn mistake(error: &Error, document: &Document) -> Mistake {
    let at = position_of(error);
    let field = at.and_then(|at| document.path_at(at)).unwrap_or_default();
    let value = document.text_at(&field).unwrap_or_default();
    let reason = match error.without_snippet() {
        Error::QuotingRequired { value, .. } => format!("a text belongs here; quote it: \"{value}\""),
        Error::InvalidScalar { .. } => format!("`{value}` is not {}", expected(schema_of(&field).as_ref())),
        Error::Message { msg, .. } => msg.clone(),
        other => without_place(&other.to_string()).to_owned(),
    };
    Mistake::new(at, field, reason)
}

/// What the schema allows for a number or a truth value.
fn expected(schema: Option<&Value>) -> String {
    let get = |key: &str| schema.and_then(|schema| schema.get(key));
    let what = match get("type").and_then(Value::as_str) {
        Some("boolean") => return "true or false".to_owned(),
        Some("integer") => "a whole number",
        _ => "a number",
    };
    match (get("minimum"), get("maximum")) {
        (Some(least), Some(most)) => format!("{what} between {least} and {most}"),
        (Some(least), None) => format!("{what} of {least} or more"),
        _ => what.to_owned(),
    }
}
