//! Holds a document's shape against the schema: fields that don't exist, fields that are missing,
//! lists where fields should stand, words that are not among those possible. All of them at once.
//!
//! What a value must look like beyond that is the business of the types and of [`crate::validate`].

use serde_json::{Map, Value};

use super::{
    Mistake,
    document::{Content, Document, Field, Node, Position, join},
    spelling::closest,
};
use crate::crd;

/// What is wrong with the document's shape.
pub fn mistakes(document: &Document) -> Vec<Mistake> {
    let mut schema = crd::schema();
    // An API server knows these by itself; for the schema of a kind they do not exist.
    if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        for name in ["apiVersion", "kind", "metadata"] {
            properties.insert(name.to_owned(), Value::Object(Map::new()));
        }
    }
    if let Some(required) = schema.pointer_mut("/required").and_then(Value::as_array_mut) {
        required.insert(0, "metadata".into());
    }
    let mut shape = Shape { whole: &schema, mistakes: Vec::new() };
    shape.check(&document.root, document.root.position, &schema, "");
    shape.mistakes
}

/// The schema of a field, by its path.
pub fn schema_of(path: &str) -> Option<Value> {
    let whole = crd::schema();
    let mut schema = &whole;
    for step in path.split(['.', '[']) {
        schema = if step.ends_with(']') {
            schema.get("items")?
        } else {
            schema.get("properties").and_then(|known| known.get(step)).or_else(|| schema.get("additionalProperties"))?
        };
    }
    Some(schema.clone())
}

struct Shape<'a> {
    whole: &'a Value,
    mistakes: Vec<Mistake>,
}

impl Shape<'_> {
    fn wrong(&mut self, at: Option<Position>, path: &str, reason: String) {
        self.mistakes.push(Mistake::new(at, path, reason));
    }

    fn empty(&mut self, at: Option<Position>, path: &str) {
        self.wrong(at, path, "there is nothing in it; leave it out, or give it a value".into());
    }

    fn check(&mut self, node: &Node, named_at: Option<Position>, schema: &Value, path: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        match (schema.get("type").and_then(Value::as_str), &node.content) {
            (_, Content::Null) if !may_be_null(schema) => self.empty(named_at, path),
            (_, Content::Null) | (None, _) => {}
            (Some("object"), Content::Fields(fields)) => {
                if let Some(schema) = schema.get("additionalProperties") {
                    for field in fields {
                        self.check_element(&field.value, field.position, schema, &join(path, &field.name));
                    }
                } else {
                    let none = Map::new();
                    let known = properties.unwrap_or(&none);
                    for field in fields {
                        self.check_field(field, known, path);
                    }
                    self.check_required(node, named_at, schema, known, path);
                }
            }
            (Some("array"), Content::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let schema = schema.get("items").unwrap_or(&Value::Null);
                    self.check_element(item, item.position, schema, &format!("{path}[{index}]"));
                }
            }
            (Some("object"), _) => {
                let like = properties.and_then(|known| known.keys().next()).map_or("name", String::as_str);
                self.wrong(named_at, path, format!("fields belong here, like `{like}: …`"));
            }
            (Some("array"), _) => {
                self.wrong(named_at, path, "a list belongs here: `[ … ]`, or lines with `- …`".into());
            }
            (Some(_), Content::Scalar(text)) => self.check_word(text, node.position, schema, path),
            (Some(_), _) => self.wrong(named_at, path, "one value belongs here, not a list and not fields".into()),
        }
    }

    /// An element of a list or of a map: it may not be empty.
    fn check_element(&mut self, node: &Node, at: Option<Position>, schema: &Value, path: &str) {
        match node.content {
            Content::Null => self.empty(at, path),
            _ => self.check(node, at, schema, path),
        }
    }

    fn check_field(&mut self, field: &Field, known: &Map<String, Value>, path: &str) {
        let Field { name, position, value } = field;
        let here = join(path, name);
        if let Some(schema) = known.get(name) {
            return self.check(value, *position, schema, &here);
        }
        let help = meant(name, known)
            .map(|meant| format!("did you mean `{meant}`?"))
            .or_else(|| home_of(name, self.whole).map(|home| format!("`{name}` belongs into {home}")))
            .unwrap_or_else(|| {
                let known: Vec<&str> = known.keys().map(String::as_str).collect();
                if known.is_empty() {
                    "nothing belongs here".to_owned()
                } else {
                    format!("known are {}", known.join(", "))
                }
            });
        self.wrong(*position, &here, format!("there is no such field; {help}"));
    }

    fn check_required(
        &mut self,
        node: &Node,
        named_at: Option<Position>,
        schema: &Value,
        known: &Map<String, Value>,
        path: &str,
    ) {
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for name in required {
            match node.field(name) {
                // Written wrong, which has been said already.
                None if node
                    .field_names()
                    .any(|given| !known.contains_key(given) && meant(given, known) == Some(name)) => {}
                None => self.wrong(named_at, &join(path, name), "missing; it has no default".into()),
                Some(Field { position, value: Node { content: Content::Null, .. }, .. }) => {
                    self.wrong(*position, &join(path, name), "there is nothing in it, and it has no default".into());
                }
                Some(_) => {}
            }
        }
    }

    fn check_word(&mut self, text: &str, at: Option<Position>, schema: &Value, path: &str) {
        let Some(words) = schema.get("enum").and_then(Value::as_array) else { return };
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        if !words.contains(&text) {
            let meant = closest(text, words.iter().copied()).map(|meant| format!("; did you mean {meant}?"));
            let reason = format!("`{text}` is not one of {}{}", words.join(", "), meant.unwrap_or_default());
            self.wrong(at, path, reason);
        }
    }
}

/// Whether a field that is there but empty is as good as absent. For an API server it always is; the
/// types have no value for an empty field that has a default, nor for an empty list or map.
fn may_be_null(schema: &Value) -> bool {
    let list = schema.get("type").and_then(Value::as_str) == Some("array");
    schema.get("default").is_none() && schema.get("additionalProperties").is_none() && !list
}

fn meant<'a>(name: &str, known: &'a Map<String, Value>) -> Option<&'a str> {
    closest(name, known.keys().map(String::as_str))
}

/// The one place in `spec` where a field of this name belongs, if there is just one.
fn home_of(name: &str, schema: &Value) -> Option<String> {
    fn collect(name: &str, schema: &Value, path: &str, homes: &mut Vec<String>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            if properties.contains_key(name) {
                homes.push(path.to_owned());
            }
            for (field, schema) in properties {
                collect(name, schema, &join(path, field), homes);
            }
        }
        if let Some(items) = schema.get("items") {
            collect(name, items, &format!("{path}[]"), homes);
        }
    }
    let mut homes = Vec::new();
    collect(name, schema.pointer("/properties/spec")?, "spec", &mut homes);
    match homes.as_slice() {
        [home] => Some(home.clone()),
        _ => None,
    }
}
