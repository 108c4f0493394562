//! What the cells of several kinds have in common.

use crate::kind::{Column, human_duration};
use jiff::Timestamp;
use serde_json::{Value, json};
use slipway_api::core::{Container, PodSpec};
use slipway_api::meta::LabelSelector;
use std::collections::BTreeMap;

pub const NONE: &str = "<none>";
pub const UNKNOWN: &str = "<unknown>";
pub const UNSET: &str = "<unset>";

/// Of kinds that have no columns of their own in Kubernetes.
pub const CREATED_AT: Column = Column::date("Created At", "When the object was created.");

pub fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// `5m`: how long ago; `<unknown>` without a time.
pub fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or(UNKNOWN.to_owned(), |time| human_duration(now.as_second() - time.as_second()))
}

/// Text, or `<none>`.
pub fn or_none(text: Option<&str>) -> Value {
    json!(text.filter(|text| !text.is_empty()).unwrap_or(NONE))
}

/// Labels as `a=b,c=d`, or `<none>`.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> Value {
    let text: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    or_none(Some(&text.join(",")))
}

/// A selector as one would type it, or `<none>`.
pub fn selector(selector: Option<&LabelSelector>) -> Value {
    let Some(selector) = selector else { return json!(NONE) };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|requirement| {
        let key = &requirement.key;
        let mut values = requirement.values.clone().unwrap_or_default();
        values.sort();
        match requirement.operator.as_str() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => "<error>".to_owned(),
        }
    });
    let mut all: Vec<String> = labels.chain(expressions).collect();
    all.sort();
    or_none(Some(&all.join(",")))
}

/// The names and the images of a pod template's containers.
pub fn containers(spec: Option<&PodSpec>) -> [Value; 2] {
    let list = |text: fn(&Container) -> &str| {
        let all: Vec<&str> = spec.into_iter().flat_map(|spec| &spec.containers).map(text).collect();
        json!(all.join(","))
    };
    [list(|container| &container.name), list(|container| container.image.as_deref().unwrap_or(""))]
}

/// At most `max` of the items, and how many more there are: `a,b,c + 2 more...`.
pub fn first(items: &[String], max: usize) -> String {
    if items.len() > max { format!("{} + {} more...", items[..max].join(","), items.len() - max) } else { items.join(",") }
}

/// `RWO,ROX`: how a volume may be mounted, in Kubernetes' order.
pub fn access_modes(modes: Option<&Vec<String>>) -> Value {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.into_iter().flatten().any(|one| one == mode);
    let known: Vec<&str> = SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect();
    json!(known.join(","))
}
