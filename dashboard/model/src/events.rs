//! What happened to an app, in the order in which a person asks for it.

use crate::{number, text};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Occurrence {
    pub time: String,
    pub warning: bool,
    pub reason: String,
    /// As `Pod web-5d7f-x2x4`.
    pub about: String,
    pub message: String,
    pub count: i64,
}

/// The events about an app's own objects, newest first. Pods are known by the ReplicaSet in their name, so that those of
/// pods that are gone are told too, and those of an app whose name begins the same aren't.
pub fn occurrences<'a>(
    events: impl Iterator<Item = &'a Value>,
    app: &str,
    replica_sets: &[String],
    services: &[String],
) -> Vec<Occurrence> {
    let own = |event: &&Value| {
        let about = text(event, "/involvedObject/name");
        match text(event, "/involvedObject/kind") {
            "Deployment" => about == app,
            "ReplicaSet" => replica_sets.iter().any(|name| name == about),
            "Pod" => about.rsplit_once('-').is_some_and(|(set, _)| replica_sets.iter().any(|name| name == set)),
            "Service" => services.iter().any(|name| name == about),
            _ => false,
        }
    };
    let mut all: Vec<Occurrence> = events.filter(own).map(occurrence).collect();
    all.sort_by(|a, b| b.time.cmp(&a.time));
    all
}

fn occurrence(event: &Value) -> Occurrence {
    let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let time = times.iter().map(|path| text(event, path)).find(|time| !time.is_empty()).unwrap_or_default();
    let count = number(event, "/series/count").max(number(event, "/count")).max(1);
    Occurrence {
        time: time.to_owned(),
        warning: text(event, "/type") == "Warning",
        reason: text(event, "/reason").to_owned(),
        about: format!("{} {}", text(event, "/involvedObject/kind"), text(event, "/involvedObject/name")),
        message: text(event, "/message").to_owned(),
        count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_of_an_app_whose_name_begins_the_same_are_anothers() {
        let event = |kind: &str, name: &str, time: &str| json!({"involvedObject": {"kind": kind, "name": name}, "lastTimestamp": time, "reason": "R", "message": "m"});
        let all = [
            event("Deployment", "web", "2026-01-01T00:00:01Z"),
            event("Deployment", "web-admin", "2026-01-01T00:00:02Z"),
            event("Pod", "web-5d7f-x2x4", "2026-01-01T00:00:03Z"),
            event("Pod", "web-admin-77aa-b1b1", "2026-01-01T00:00:04Z"),
            event("Service", "web", "2026-01-01T00:00:05Z"),
            event("Node", "web", "2026-01-01T00:00:06Z"),
        ];
        let found = occurrences(all.iter(), "web", &["web-5d7f".into()], &["web".into()]);
        let about: Vec<&str> = found.iter().map(|event| event.about.as_str()).collect();
        assert_eq!(about, ["Service web", "Pod web-5d7f-x2x4", "Deployment web"]);
        assert_eq!(found[0].count, 1);
    }
}
