//! A YAML document as a tree that knows where everything stands.
//!
//! It knows nothing of experiments: names, places and texts only.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Error, Location, Spanned};

/// Where something stands in the text: line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

impl Position {
    fn of(location: Location) -> Option<Self> {
        (location.line() > 0).then_some(Self { line: location.line(), column: location.column() })
    }
}

/// A value and where it stands.
#[derive(Debug)]
pub struct Node {
    pub position: Option<Position>,
    pub content: Content,
}

/// What a value is.
#[derive(Debug)]
pub enum Content {
    /// Nothing, `null` or `~`.
    Null,
    /// A text, number or truth value, as a text.
    Scalar(String),
    List(Vec<Node>),
    Fields(Vec<Field>),
}

/// One `name: value`.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub position: Option<Position>,
    pub value: Node,
}

/// A whole document.
#[derive(Debug)]
pub struct Document {
    pub root: Node,
}

/// A text that is not one YAML document.
#[derive(Debug)]
pub struct SyntaxError {
    pub position: Option<Position>,
    pub reason: String,
}

impl Document {
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Err(SyntaxError { position: None, reason: "there is nothing in it".to_owned() });
        }
        let options = serde_saphyr::options! { with_snippet: false };
        match serde_saphyr::from_str_with_options::<Node>(text, options) {
            Ok(root @ Node { content: Content::Fields(_), .. }) => Ok(Self { root }),
            Ok(Node { position, .. }) => {
                Err(SyntaxError { position, reason: "it is not a list of fields like `kind: …`".to_owned() })
            }
            Err(error) => Err(syntax_error(&error)),
        }
    }

    /// The text of a scalar at the top.
    pub fn scalar(&self, name: &str) -> Option<&str> {
        match &self.root.field(name)?.value.content {
            Content::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Where a field stands, or what is nearest above it: a scalar itself, the name of anything else.
    pub fn position_of(&self, path: &str) -> Option<Position> {
        let (mut node, mut position) = (&self.root, self.root.position);
        for step in path.split(['.', '[']) {
            let Some(found) = node.step(step) else { break };
            (node, position) = found;
        }
        position
    }

    /// The path of what stands at a place: the field that begins there, or whose value does.
    pub fn path_at(&self, at: Position) -> Option<String> {
        self.root.path_at(at, "")
    }

    /// The text of the scalar at a path.
    pub fn text_at(&self, path: &str) -> Option<&str> {
        let mut node = &self.root;
        for step in path.split(['.', '[']) {
            (node, _) = node.step(step)?;
        }
        match &node.content {
            Content::Scalar(text) => Some(text),
            _ => None,
        }
    }
}

impl Node {
    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.content {
            Content::Fields(fields) => fields.iter().find(|field| field.name == name),
            _ => None,
        }
    }

    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        let fields = match &self.content {
            Content::Fields(fields) => fields.as_slice(),
            _ => &[],
        };
        fields.iter().map(|field| field.name.as_str())
    }

    /// One step of a path, `name` or `0]`, and where what it leads to stands.
    fn step(&self, step: &str) -> Option<(&Node, Option<Position>)> {
        if let Some(index) = step.strip_suffix(']') {
            let Content::List(items) = &self.content else { return None };
            let item = items.get(index.parse::<usize>().ok()?)?;
            return Some((item, item.position));
        }
        let Field { position, value, .. } = self.field(step)?;
        let position = if matches!(value.content, Content::Scalar(_)) { value.position } else { *position };
        Some((value, position))
    }

    /// Innermost first: a field's value may begin where the field does.
    fn path_at(&self, at: Position, path: &str) -> Option<String> {
        match &self.content {
            Content::Fields(fields) => fields.iter().find_map(|field| {
                let path = join(path, &field.name);
                let here = field.position == Some(at) || field.value.position == Some(at);
                field.value.path_at(at, &path).or_else(|| here.then_some(path))
            }),
            Content::List(items) => items.iter().enumerate().find_map(|(index, item)| {
                let path = format!("{path}[{index}]");
                item.path_at(at, &path).or_else(|| (item.position == Some(at)).then_some(path))
            }),
            Content::Null | Content::Scalar(_) => None,
        }
    }
}

/// `spec` and `target` as `spec.target`.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Where an error stands.
pub fn position_of(error: &Error) -> Option<Position> {
    error.location().and_then(Position::of)
}

fn syntax_error(error: &Error) -> SyntaxError {
    let reason = match error.without_snippet() {
        Error::MultipleDocuments { .. } => {
            "a second document begins here; put each experiment into a file of its own".to_owned()
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` stands here for the second time"),
        other => format!("this is not YAML: {}", without_place(&other.to_string())),
    };
    SyntaxError { position: position_of(error), reason }
}

/// A message of the parser without the place at its end, which is told by other means.
pub fn without_place(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined: _ } = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self { position: Position::of(referenced), content: value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = entries.next_entry::<Spanned<String>, Node>()? {
            fields.push(Field { name: name.value, position: Position::of(name.referenced), value });
        }
        Ok(Content::Fields(fields))
    }
}
