//! Objects as protocol buffers, as Go clients prefer them: read as the JSON that they stand for, and written from it.
//!
//! `fields.txt` has the numbers of the fields: a type on a line of its own, below it `number name type`. The types are `s`
//! text, `b` bool, `i` integer, `y` bytes, `d` double, a type of the file, or one whose JSON is not an object (`time`,
//! `quantity`, …); `*` before it is a list, `{` a map from text. The name `!` stands for a type whose fields JSON has one
//! level further up. `?` behind a type: Go keeps it behind a pointer, so that an empty one was written on purpose; `=`: its
//! JSON is written even if it is empty. Of all others an empty one means nothing.

mod decode;
mod encode;
mod wire;

pub use decode::decode;
pub use encode::{encode, list_head, of_entry, watch_event, within_list, wrapped};

use crate::kind::Strategy;
use std::collections::HashMap;
use std::sync::LazyLock;

pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
pub const WATCH_CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";
/// What a body begins with, before the envelope.
const MAGIC: &[u8] = b"k8s\0";
/// Objects within objects; no type of the API comes near this, but for the schemas of custom resources.
const DEPTH_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Type {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    Time {
        fraction: bool,
    },
    Quantity,
    IntOrString,
    /// JSON within.
    Raw,
    /// A message of one list of text, which is a list in JSON.
    Texts,
    /// Parts of a JSON schema that have two shapes: a schema or many, a schema or a boolean, a schema or names.
    OneOrMany,
    BoolOr,
    OrNames,
    Message(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Count {
    One,
    List,
    Map,
}

/// What an empty value says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Empty {
    Nothing,
    /// It was written on purpose.
    Meant,
    /// It is always written.
    Always,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    /// `!`: see the module.
    name: &'static str,
    number: u32,
    type_: Type,
    count: Count,
    empty: Empty,
}

/// Where a field of JSON is written: within which messages that JSON does not show, and there as which field.
struct Place {
    within: Vec<u32>,
    field: Field,
}

#[derive(Default)]
pub struct Message {
    by_number: HashMap<u32, Field>,
    by_name: HashMap<&'static str, Place>,
}

struct Messages {
    names: HashMap<&'static str, usize>,
    all: Vec<Message>,
}

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let mut names = HashMap::new();
    let text = include_str!("fields.txt");
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        names.insert(line, names.len());
    }
    let mut all: Vec<Message> = names.iter().map(|_| Message::default()).collect();
    let mut current = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (line.starts_with(' '), words.next(), words.next(), words.next()) {
            (true, Some(number), Some(name), Some(type_)) => {
                let number = number.parse().expect("fields.txt numbers its fields");
                all[current].by_number.insert(number, field(number, name, type_, &names));
            }
            (_, Some(name), ..) => current = names[name],
            _ => {}
        }
    }
    for index in 0..all.len() {
        let mut places = HashMap::new();
        place(&all, index, &[], &mut places);
        all[index].by_name = places;
    }
    Messages { names, all }
});

/// The type `meta.v1.JSONSchemaProps` of which the two-shaped parts are made.
static SCHEMA: LazyLock<usize> = LazyLock::new(|| MESSAGES.names["apiextensions.v1.JSONSchemaProps"]);

fn place(all: &[Message], index: usize, within: &[u32], places: &mut HashMap<&'static str, Place>) {
    for field in all[index].by_number.values() {
        match (field.name, field.type_) {
            ("!", Type::Message(inner)) => place(all, inner, &[within, &[field.number]].concat(), places),
            (name, _) => {
                places.insert(name, Place { within: within.to_vec(), field: *field });
            }
        }
    }
}

fn field(number: u32, name: &'static str, type_: &'static str, names: &HashMap<&'static str, usize>) -> Field {
    let (count, type_) = match type_.as_bytes()[0] {
        b'*' => (Count::List, &type_[1..]),
        b'{' => (Count::Map, &type_[1..]),
        _ => (Count::One, type_),
    };
    let (empty, type_) = match (type_.strip_suffix('?'), type_.strip_suffix('=')) {
        (Some(type_), _) => (Empty::Meant, type_),
        (_, Some(type_)) => (Empty::Always, type_),
        _ => (Empty::Nothing, type_),
    };
    let type_ = match type_ {
        "s" => Type::Text,
        "b" => Type::Bool,
        "i" => Type::Integer,
        "d" => Type::Double,
        "y" => Type::Bytes,
        "time" => Type::Time { fraction: false },
        "microtime" => Type::Time { fraction: true },
        "quantity" => Type::Quantity,
        "intstr" => Type::IntOrString,
        "raw" => Type::Raw,
        "texts" => Type::Texts,
        "oneormany" => Type::OneOrMany,
        "boolor" => Type::BoolOr,
        "ornames" => Type::OrNames,
        message => Type::Message(*names.get(message).expect("fields.txt has every type that it names")),
    };
    Field { name, number, type_, count, empty }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data ends early")]
    Truncated,
    #[error("a field has another wire type than its kind")]
    WireType,
    #[error("text is not UTF-8")]
    Text,
    #[error("it is nested too deeply")]
    TooDeep,
    #[error("{0}")]
    Unknown(String),
    #[error("an object does not have the shape of its kind")]
    Shape(#[from] serde_json::Error),
}

/// The groups whose types are in `fields.txt`, and under which name. A custom resource may be called as one of them, so that
/// the group is compared as a whole.
const GROUPS: [(&str, &str); 23] = [
    ("", "core"),
    ("admissionregistration.k8s.io", "admissionregistration"),
    ("apidiscovery.k8s.io", "apidiscovery"),
    ("apiextensions.k8s.io", "apiextensions"),
    ("apiregistration.k8s.io", "apiregistration"),
    ("apps", "apps"),
    ("authentication.k8s.io", "authentication"),
    ("authorization.k8s.io", "authorization"),
    ("autoscaling", "autoscaling"),
    ("batch", "batch"),
    ("certificates.k8s.io", "certificates"),
    ("coordination.k8s.io", "coordination"),
    ("discovery.k8s.io", "discovery"),
    ("events.k8s.io", "events"),
    ("flowcontrol.apiserver.k8s.io", "flowcontrol"),
    ("meta.k8s.io", "meta"),
    ("networking.k8s.io", "networking"),
    ("policy", "policy"),
    ("rbac.authorization.k8s.io", "rbac"),
    ("resource.k8s.io", "resource"),
    ("node.k8s.io", "node"),
    ("scheduling.k8s.io", "scheduling"),
    ("storage.k8s.io", "storage"),
];

/// The message of a kind; `None`: it has none, as kinds that are not Kubernetes' own.
fn find(api_version: &str, kind: &str) -> Option<&'static Message> {
    let messages = &*MESSAGES;
    let named = |package: &str, version: &str| messages.names.get(format!("{package}.{version}.{kind}").as_str());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = GROUPS.iter().find(|(known, _)| *known == group).map(|(_, package)| *package);
    // Status, APIGroup and their like say that they are of `v1`; options, that they are of the kind's version.
    let number = match package {
        _ if kind == "DeleteOptions" => named("meta", "v1"),
        Some("core") => named("core", version).or_else(|| named("meta", version)),
        Some(package) => named(package, version),
        None => None,
    };
    number.map(|number| &messages.all[*number])
}

/// The message of a strategy's objects; `None`: they are not to be had in protobuf.
pub fn of_strategy(strategy: &dyn Strategy) -> Option<&'static Message> {
    let names = strategy.names();
    find(&names.api_version(), names.kind)
}

#[cfg(test)]
mod tests;
