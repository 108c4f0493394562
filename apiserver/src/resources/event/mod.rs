//! Event: what happened to an object. One kind under two groups; stored in the core group's form.

pub mod core;
pub mod events;

use serde_json::Value;

/// The fields whose names differ: (in the core group, in `events.k8s.io`).
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// An event of `events.k8s.io/v1` as one of the core group, as which it is stored.
pub fn to_core(event: &mut Value) {
    rename(event, "v1", RENAMED);
}

/// A stored event as `events.k8s.io/v1` shows it.
pub fn from_core(event: &mut Value) {
    rename(event, "events.k8s.io/v1", RENAMED.map(|(core, events)| (events, core)));
}

fn rename(event: &mut Value, api_version: &str, fields: [(&str, &str); RENAMED.len()]) {
    let Some(map) = event.as_object_mut() else { return };
    for (to, from) in fields {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), api_version.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn both_forms_hold_the_same() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "resourceVersion": "4"}, "reason": "Started",
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "count": 2, "source": {"component": "c"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z", "reportingComponent": "r"});
        let mut event = core.clone();
        super::from_core(&mut event);
        assert_eq!(event["regarding"]["name"], "p");
        assert_eq!(event["deprecatedCount"], 2);
        assert_eq!(event["apiVersion"], "events.k8s.io/v1");
        assert!(event.get("message").is_none());
        super::to_core(&mut event);
        assert_eq!(event, core);
    }
}
