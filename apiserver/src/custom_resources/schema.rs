//! The schema of a custom kind (`JSONSchemaProps`), parsed once: what its fields are, what their values must be, and how lists
//! and maps are to be understood.

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::collections::BTreeMap;

/// A compiled pattern takes no more memory than this; one that would is not valid.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// And all of one schema together no more than this.
const PATTERNS_BYTES_MAX: usize = 64 << 20;

/// One node of the schema. Within `all_of`, `any_of`, `one_of` and `not` only what is asked of values counts.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty.
    pub type_: String,
    pub format: String,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Schema>,
    pub items: Option<Box<Schema>>,
    pub additional: Additional,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub int_or_string: bool,
    /// `atomic`, `set`, `map`, or empty.
    pub list_type: String,
    pub map_keys: Vec<String>,
    /// `atomic`, `granular`, or empty.
    pub map_type: String,
    pub limits: Limits,
    pub pattern: Option<Pattern>,
    pub choices: Vec<Value>,
    pub required: Vec<String>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
    /// `x-kubernetes-validations`, as they are written.
    pub rules: Vec<Value>,
}

/// `additionalProperties`.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    #[default]
    Absent,
    Allowed(bool),
    Of(Box<Schema>),
}

#[derive(Debug, Clone, Default)]
pub struct Limits {
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Pattern {
    pub text: String,
    /// `Err`: why it cannot be compiled.
    pub regex: Result<Regex, String>,
}

impl Pattern {
    /// What it takes is limited by its share of what a schema may have.
    pub fn new(text: &str, share: usize) -> Self {
        let regex = RegexBuilder::new(&with_ascii_classes(text)).size_limit(share).build();
        Pattern { text: text.to_owned(), regex: regex.map_err(|error| error.to_string()) }
    }
}

/// What each pattern of a schema may take: few may be large, many may not.
pub fn pattern_share(source: &Value) -> usize {
    fn count(source: &Value) -> usize {
        match source {
            Value::Array(items) => items.iter().map(count).sum(),
            Value::Object(map) => {
                usize::from(map.get("pattern").is_some_and(Value::is_string)) + map.values().map(count).sum::<usize>()
            }
            _ => 0,
        }
    }
    (PATTERNS_BYTES_MAX / count(source).max(1)).min(PATTERN_BYTES_MAX)
}

/// In Go's regular expressions `\d`, `\w`, `\s` and `\b` know ASCII only.
fn with_ascii_classes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match (chars.next(), in_class) {
                (Some('d'), true) => out.push_str("0-9"),
                (Some('d'), false) => out.push_str("[0-9]"),
                (Some('D'), false) => out.push_str("[^0-9]"),
                (Some('w'), true) => out.push_str("0-9A-Za-z_"),
                (Some('w'), false) => out.push_str("[0-9A-Za-z_]"),
                (Some('W'), false) => out.push_str("[^0-9A-Za-z_]"),
                (Some('s'), true) => out.push_str("\\t\\n\\x0c\\r "),
                (Some('s'), false) => out.push_str("[\\t\\n\\x0c\\r ]"),
                (Some('S'), false) => out.push_str("[^\\t\\n\\x0c\\r ]"),
                (Some('b'), false) => out.push_str("(?-u:\\b)"),
                (Some(other), _) => out.extend(['\\', other]),
                (None, _) => out.push('\\'),
            },
            '[' => {
                // `[:alpha:]` within a class opens none.
                out.push(if in_class && !chars.as_str().starts_with(':') { '\\' } else { '[' });
                if in_class && !chars.as_str().starts_with(':') {
                    out.push('[');
                } else if in_class {
                    for c in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                } else {
                    in_class = true;
                    // A bracket that comes first is one of the class.
                    for first in ["^", "]"] {
                        if let Some(rest) = chars.as_str().strip_prefix(first) {
                            out.push_str(if first == "]" { "\\]" } else { first });
                            chars = rest.chars();
                        }
                    }
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            // What Rust's syntax has beyond Go's: set operations.
            '&' | '~' if in_class => out.extend(['\\', c]),
            other => out.push(other),
        }
    }
    out
}

impl Schema {
    /// Of a `JSONSchemaProps`, which has the right types already.
    pub fn parse(source: &Value) -> Self {
        Self::node(source, pattern_share(source))
    }

    fn node(source: &Value, share: usize) -> Self {
        let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
        let flag = |field: &str| source[field].as_bool().unwrap_or(false);
        let all = |field: &str| source[field].as_array().into_iter().flatten().map(|one| Schema::node(one, share)).collect();
        let texts = |field: &str| -> Vec<String> {
            source[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let one = |field: &str| source.get(field).filter(|one| one.is_object()).map(|one| Box::new(Schema::node(one, share)));
        Schema {
            type_: text("type"),
            format: text("format"),
            nullable: flag("nullable"),
            default: source.get("default").filter(|value| !value.is_null()).cloned(),
            properties: source["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), Schema::node(property, share)))
                .collect(),
            items: one("items"),
            additional: match source.get("additionalProperties") {
                Some(Value::Bool(allowed)) => Additional::Allowed(*allowed),
                Some(values) if values.is_object() => Additional::Of(Box::new(Schema::node(values, share))),
                _ => Additional::Absent,
            },
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_type: text("x-kubernetes-list-type"),
            map_keys: texts("x-kubernetes-list-map-keys"),
            map_type: text("x-kubernetes-map-type"),
            limits: Limits::parse(source),
            pattern: source["pattern"].as_str().filter(|text| !text.is_empty()).map(|text| Pattern::new(text, share)),
            choices: source["enum"].as_array().cloned().unwrap_or_default(),
            required: texts("required"),
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: one("not"),
            rules: source["x-kubernetes-validations"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// The schema of a map's values, if they have one.
    pub fn values(&self) -> Option<&Schema> {
        match &self.additional {
            Additional::Of(values) => Some(values),
            _ => None,
        }
    }

    /// The schema of a field: a property, or what all others are.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or_else(|| self.values())
    }

    /// All nodes that objects are made of, each with what `visit` says of it: `false` ends the walk downwards.
    pub fn any(&self, test: &mut dyn FnMut(&Schema) -> bool) -> bool {
        test(self)
            || self.properties.values().any(|property| property.any(test))
            || self.items.as_ref().is_some_and(|items| items.any(test))
            || self.values().is_some_and(|values| values.any(test))
    }
}

impl Limits {
    fn parse(source: &Value) -> Self {
        let number = |field: &str| source[field].as_f64();
        let integer = |field: &str| source[field].as_i64();
        let flag = |field: &str| source[field].as_bool().unwrap_or(false);
        Limits {
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: integer("maxLength"),
            min_length: integer("minLength"),
            max_items: integer("maxItems"),
            min_items: integer("minItems"),
            unique_items: flag("uniqueItems"),
            max_properties: integer("maxProperties"),
            min_properties: integer("minProperties"),
        }
    }
}

/// A place in an object, as messages name it: `spec.ports[1].name`.
#[derive(Clone, Copy)]
pub enum At<'a> {
    Root,
    Field(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    pub fn field(&'a self, name: &'a str) -> At<'a> {
        At::Field(self, name)
    }

    pub fn item(&'a self, index: usize) -> At<'a> {
        At::Item(self, index)
    }

    /// As a field's path, of which the root has none.
    pub fn path(&self) -> String {
        if matches!(self, At::Root) { "<nil>".into() } else { self.to_string() }
    }
}

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Field(At::Root, name) => f.write_str(name),
            At::Field(outer, name) => write!(f, "{outer}.{name}"),
            At::Item(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    #[test]
    fn patterns_are_read_as_go_reads_them() {
        let matches = |pattern: &str, text: &str| Pattern::new(pattern, PATTERN_BYTES_MAX).regex.unwrap().is_match(text);
        assert!(matches(r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "* * * * */5"));
        assert!(!matches(r"^\d$", "٣"), "digits are ASCII");
        assert!(matches(r"^[\w-]+$", "a_b-c") && !matches(r"^[\w-]+$", "ä"));
        assert!(matches(r"^[]a]$", "]") && matches(r"^[^]a]$", "b") && matches(r"^[[]$", "["));
        assert!(matches(r"^[[:alpha:]_]+$", "ab_") && matches(r"^[a&&b]$", "&"));
        assert!(Pattern::new("(", PATTERN_BYTES_MAX).regex.is_err());
        let properties = |count: usize| -> Map<String, Value> {
            (0..count).map(|n| (format!("p{n}"), json!({"type": "string", "pattern": "^([a-z]{1,200}){1,5}$"}))).collect()
        };
        let held = |count: usize| {
            let parsed = Schema::parse(&json!({"type": "object", "properties": properties(count)}));
            parsed.properties.values().filter(|one| one.pattern.as_ref().is_some_and(|pattern| pattern.regex.is_ok())).count()
        };
        assert_eq!((held(10), held(2_000)), (10, 0), "many large patterns are too large together");
        assert!(Pattern::new("((a{1,1000}){1,1000}){1,1000}", PATTERN_BYTES_MAX).regex.is_err(), "too large");
    }
}
