//! Events of the core group, as most clients write them.

use super::events::{check_type, limited};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use crate::resources::{fill, show};
use serde_json::{Value, json};
pub use slipway_api::core::Event;

const NOTE_MAX: usize = 1024;
const WORD_MAX: usize = 128;

impl Kind for Event {
    const NAMES: Names = Names { short: &["ev"], ..Names::namespaced("", "v1", "Event", "events", "event") };

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let about = self.involved_object.namespace.as_deref().unwrap_or("");
        let namespace = self.metadata.namespace.as_deref().unwrap_or("");
        let astray = if self.event_time.is_none() {
            if about.is_empty() { !matches!(namespace, "" | "default") } else { about != namespace }
        } else {
            about.is_empty() && !matches!(namespace, "default" | "kube-system")
        };
        if astray {
            errors.push(Invalid::value("involvedObject.namespace", &json!(about), "does not match event.namespace"));
        }
        if self.event_time.is_some() {
            match self.reporting_component.as_deref().unwrap_or("") {
                "" => errors.push(Invalid::required("reportingController", "")),
                name => {
                    let wrong = slipway_api::name::qualified_name(name);
                    errors.extend(wrong.iter().map(|why| Invalid::value("reportingController", &json!(name), why)));
                }
            }
            limited("reportingInstance", self.reporting_instance.as_deref(), WORD_MAX, true, &mut errors);
            limited("action", self.action.as_deref(), WORD_MAX, true, &mut errors);
            limited("reason", self.reason.as_deref(), WORD_MAX, true, &mut errors);
            limited("message", self.message.as_deref(), NOTE_MAX, false, &mut errors);
            check_type(self.type_.as_deref(), &mut errors);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        columns()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(self, object, now)
    }

    const SELECTABLE: &'static [&'static str] = &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let about = &object["involvedObject"];
        let source = match fill::text(&object["source"], "component") {
            "" => fill::text(object, "reportingComponent"),
            component => component,
        };
        vec![
            ("involvedObject.kind", fill::text(about, "kind").to_owned()),
            ("involvedObject.namespace", fill::text(about, "namespace").to_owned()),
            ("involvedObject.name", fill::text(about, "name").to_owned()),
            ("involvedObject.uid", fill::text(about, "uid").to_owned()),
            ("involvedObject.apiVersion", fill::text(about, "apiVersion").to_owned()),
            ("involvedObject.resourceVersion", fill::text(about, "resourceVersion").to_owned()),
            ("involvedObject.fieldPath", fill::text(about, "fieldPath").to_owned()),
            ("reason", fill::text(object, "reason").to_owned()),
            ("reportingComponent", fill::text(object, "reportingComponent").to_owned()),
            ("source", source.to_owned()),
            ("type", fill::text(object, "type").to_owned()),
        ]
    }
}

/// Both groups' events are shown alike. `Name` comes last, since it says nothing.
pub fn columns() -> Vec<Column> {
    vec![
        Column::text("Last Seen", "How long ago it happened last."),
        Column::text("Type", "Whether it is normal or a warning."),
        Column::text("Reason", "What happened, in a word for programs."),
        Column::text("Object", "The object that it happened to."),
        Column::text("Subobject", "The part of the object that it happened to.").wide(),
        Column::text("Source", "Who reported it.").wide(),
        Column::text("Message", "What happened, in words for people."),
        Column::text("First Seen", "How long ago it happened first.").wide(),
        Column::integer("Count", "How often it happened.").wide(),
        Column { priority: 1, ..Column::NAME },
    ]
}

pub fn row(event: &Event, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let time = |time: &Option<slipway_api::meta::Time>| time.as_ref().map(|time| time.0);
    let first = time(&event.first_timestamp).or(event.event_time.as_ref().map(|time| time.0));
    let mut last = time(&event.last_timestamp).or(first);
    let mut count = event.count.filter(|count| *count != 0).unwrap_or(1);
    if let Some(series) = &event.series {
        last = series.last_observed_time.as_ref().map(|time| time.0);
        count = series.count.unwrap_or(0);
    }
    let kind = event.involved_object.kind.as_deref().unwrap_or("").to_lowercase();
    let about = match event.involved_object.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    };
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let source = event.source.clone().unwrap_or_default();
    let component = filled(&source.component).or(filled(&event.reporting_component)).unwrap_or_default();
    let instance = filled(&source.host).or(filled(&event.reporting_instance));
    vec![
        json!(show::since(last, now)),
        json!(event.type_.as_deref().unwrap_or("")),
        json!(event.reason.as_deref().unwrap_or("")),
        json!(about),
        json!(event.involved_object.field_path.as_deref().unwrap_or("")),
        json!(instance.map_or(component.clone(), |instance| format!("{component}, {instance}"))),
        json!(event.message.as_deref().unwrap_or("").trim()),
        json!(show::since(first, now)),
        json!(count),
        show::name(object),
    ]
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy, age};
    use serde_json::json;

    #[test]
    fn an_event_lives_with_its_object() {
        let strategy = Builtin::<super::Event>::new();
        let event = |namespace: &str| {
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
                "involvedObject": {"kind": "Pod", "name": "p", "namespace": namespace}, "reason": "Started", "message": "Started it\n",
                "type": "Normal", "source": {"component": "node", "host": "n1"}, "count": 3,
                "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:00Z"})
        };
        assert_eq!(strategy.validate(&event("default")), []);
        assert_eq!(strategy.validate(&event("other"))[0].field, "involvedObject.namespace");
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let row = strategy.row(&event("default"), now);
        assert_eq!(
            row,
            [
                json!("60s"),
                json!("Normal"),
                json!("Started"),
                json!("pod/p"),
                json!(""),
                json!("node, n1"),
                json!("Started it"),
                json!("10m"),
                json!(3),
                json!("e")
            ]
        );
        assert_eq!(age(&event("default"), now), "<unknown>");
    }
}
