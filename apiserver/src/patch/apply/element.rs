//! One step of a way into an object, as `metadata.managedFields` names it.

use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::fmt;

/// A step from an object, map or list to what it holds.
#[derive(Debug, Clone)]
pub enum Element {
    /// A field of an object or an entry of a map.
    Field(Box<str>),
    /// The element of a list whose fields have these values; sorted by name.
    Key(Box<[(Box<str>, Value)]>),
    /// The element of a set.
    Item(Value),
    /// A place in a list that nothing else tells apart.
    Index(i64),
}

/// What a text is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Of a kind that this version doesn't know; it is left out.
    #[error("unknown path element type")]
    Unknown,
    #[error("{0}")]
    Malformed(String),
}

impl Element {
    pub fn field(name: &str) -> Self {
        Element::Field(name.into())
    }

    pub fn key(mut fields: Vec<(Box<str>, Value)>) -> Self {
        fields.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Element::Key(fields.into())
    }

    /// From `f:name`, `k:{"name":"x"}`, `v:"x"` or `i:0`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let malformed = |why: &dyn fmt::Display| Error::Malformed(format!("{text}: {why}"));
        let (kind, rest) = text.split_once(':').ok_or_else(|| malformed(&"missing colon"))?;
        match kind {
            "f" => Ok(Element::Field(rest.into())),
            "v" => serde_json::from_str(rest).map(Element::Item).map_err(|error| malformed(&error)),
            "k" => {
                let fields: Map<String, Value> = serde_json::from_str(rest).map_err(|error| malformed(&error))?;
                Ok(Element::key(fields.into_iter().map(|(name, value)| (name.into(), value)).collect()))
            }
            "i" => rest.parse().map(Element::Index).map_err(|error| malformed(&error)),
            kind if kind.len() == 1 => Err(Error::Unknown),
            _ => Err(malformed(&"missing colon")),
        }
    }

    /// What `parse` reads.
    pub fn write(&self) -> String {
        match self {
            Element::Field(name) => {
                let mut text = String::with_capacity(name.len() + 2);
                text.push_str("f:");
                text.push_str(name);
                text
            }
            Element::Key(fields) => {
                let mut text = String::from("k:{");
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        text.push(',');
                    }
                    text.push_str(&Value::from(&**name).to_string());
                    text.push(':');
                    text.push_str(&value.to_string());
                }
                text.push('}');
                text
            }
            Element::Item(value) => format!("v:{value}"),
            Element::Index(at) => format!("i:{at}"),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Item(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

/// As `.spec`, `[name="x"]`, `[="x"]` or `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                f.write_str("[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Element::Item(value) => write!(f, "[={value}]"),
            Element::Index(at) => write!(f, "[{at}]"),
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Field(one), Element::Field(other)) => one.cmp(other),
            (Element::Key(one), Element::Key(other)) => {
                let pairs = one.iter().zip(other.iter());
                let mut unequal = pairs.map(|((name, value), (other, another))| name.cmp(other).then(compare(value, another)));
                let first = unequal.find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
                first.then(one.len().cmp(&other.len()))
            }
            (Element::Item(one), Element::Item(other)) => compare(one, other),
            (Element::Index(one), Element::Index(other)) => one.cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

/// An order of all values: numbers, texts, booleans, lists, maps, null.
fn compare(one: &Value, other: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => one.cmp(&other),
            _ => one.as_f64().unwrap_or_default().total_cmp(&other.as_f64().unwrap_or_default()),
        },
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        // Neither tells elements of a list apart; only an order is needed, and that it is always the same.
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            let text = |value: &Value| slipway_api::canonical::Sorted(value).to_string();
            text(one).cmp(&text(other))
        }
        _ => rank(one).cmp(&rank(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn elements_are_written_and_read() {
        for text in [
            "f:spec",
            "f:a:b",
            "f:",
            "k:{\"name\":\"x\"}",
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}",
            "v:\"a\"",
            "v:1",
            "i:3",
        ] {
            assert_eq!(Element::parse(text).unwrap().write(), text);
        }
        assert_eq!(Element::parse("z:1"), Err(Error::Unknown));
        for text in ["", "f", "k:{", "v:", "i:x", "k:[]", "v:1 2"] {
            assert!(matches!(Element::parse(text), Err(Error::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn elements_are_shown_as_in_a_conflict() {
        let key = Element::key(vec![("protocol".into(), json!("TCP")), ("containerPort".into(), json!(80))]);
        assert_eq!(key.to_string(), "[containerPort=80,protocol=\"TCP\"]");
        assert_eq!(Element::field("spec").to_string(), ".spec");
        assert_eq!(Element::Item(json!("a")).to_string(), "[=\"a\"]");
        assert_eq!(Element::Index(2).to_string(), "[2]");
    }

    #[test]
    fn fields_come_before_keys_items_and_places() {
        let mut all = ["i:0", "v:\"a\"", "v:2", "k:{\"a\":1,\"b\":1}", "k:{\"a\":1}", "f:b", "f:a"]
            .map(|text| Element::parse(text).unwrap());
        all.sort();
        let texts: Vec<String> = all.iter().map(Element::write).collect();
        assert_eq!(texts, ["f:a", "f:b", "k:{\"a\":1}", "k:{\"a\":1,\"b\":1}", "v:2", "v:\"a\"", "i:0"]);
    }
}
