//! Events of `events.k8s.io`: the same objects, with stricter rules for those who write them here.

use super::{core, from_core, to_core};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use crate::resources::{fill, show};
use serde::Deserialize;
use serde_json::{Value, json};
pub use slipway_api::events::Event;

const NOTE_MAX: usize = 1024;
const WORD_MAX: usize = 128;

impl Kind for Event {
    const NAMES: Names = Names {
        short: &["ev"],
        stored_as: Some(("", "events")),
        ..Names::namespaced("events.k8s.io", "v1", "Event", "events", "event")
    };

    fn to_stored(object: &mut Value) {
        to_core(object);
    }

    fn from_stored(object: &mut Value) {
        from_core(object);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let about = self.regarding.as_ref().and_then(|regarding| regarding.namespace.as_deref()).unwrap_or("");
        let namespace = self.metadata.namespace.as_deref().unwrap_or("");
        if about.is_empty() && !matches!(namespace, "default" | "kube-system") || !about.is_empty() && about != namespace {
            errors.push(Invalid::value("regarding.namespace", &json!(about), "does not match event.namespace"));
        }
        if self.event_time.is_none() {
            errors.push(Invalid::required("eventTime", ""));
        }
        check_type(self.type_.as_deref(), &mut errors);
        match self.reporting_controller.as_deref().unwrap_or("") {
            "" => errors.push(Invalid::required("reportingController", "")),
            name => {
                let wrong = slipway_api::name::qualified_name(name);
                errors.extend(wrong.iter().map(|why| Invalid::value("reportingController", &json!(name), why)));
            }
        }
        limited("reportingInstance", self.reporting_instance.as_deref(), WORD_MAX, true, &mut errors);
        limited("action", self.action.as_deref(), WORD_MAX, true, &mut errors);
        limited("reason", self.reason.as_deref(), WORD_MAX, true, &mut errors);
        limited("note", self.note.as_deref(), NOTE_MAX, false, &mut errors);
        if let Some(series) = self.series.as_ref().filter(|series| series.count < 2) {
            errors.push(Invalid::value("series.count", &json!(series.count), "should be at least 2"));
        }
        let source = self.deprecated_source.clone().unwrap_or_default();
        if source != Default::default() {
            errors.push(Invalid::value("deprecatedSource", &json!(source), "needs to be unset"));
        }
        for (field, time) in [
            ("deprecatedFirstTimestamp", &self.deprecated_first_timestamp),
            ("deprecatedLastTimestamp", &self.deprecated_last_timestamp),
        ] {
            if let Some(time) = time {
                errors.push(Invalid::value(field, &json!(time), "needs to be unset"));
            }
        }
        if let Some(count) = self.deprecated_count.filter(|count| *count != 0) {
            errors.push(Invalid::value("deprecatedCount", &json!(count), "needs to be unset"));
        }
        errors
    }

    /// Only the series goes on. An event that was written through the core group may be updated only there.
    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let mut same = |field: &str, changed: bool, new: Value| {
            if changed {
                errors.push(Invalid::value(field, &new, "field is immutable"));
            }
        };
        same("regarding", self.regarding != old.regarding, json!(self.regarding));
        same("reason", self.reason != old.reason, json!(self.reason));
        same("note", self.note != old.note, json!(self.note));
        same("eventTime", self.event_time != old.event_time, json!(self.event_time));
        same("action", self.action != old.action, json!(self.action));
        same("related", self.related != old.related, json!(self.related));
        same("reportingController", self.reporting_controller != old.reporting_controller, json!(self.reporting_controller));
        same("reportingInstance", self.reporting_instance != old.reporting_instance, json!(self.reporting_instance));
        same("type", self.type_ != old.type_, json!(self.type_));
        errors
    }

    fn columns() -> Vec<Column> {
        core::columns()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let mut stored = object.clone();
        to_core(&mut stored);
        match core::Event::deserialize(&stored) {
            Ok(event) => core::row(&event, object, now),
            Err(_) => vec![show::name(object)],
        }
    }

    const SELECTABLE: &'static [&'static str] = &[
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let about = &object["regarding"];
        vec![
            ("regarding.kind", fill::text(about, "kind").to_owned()),
            ("regarding.namespace", fill::text(about, "namespace").to_owned()),
            ("regarding.name", fill::text(about, "name").to_owned()),
            ("regarding.uid", fill::text(about, "uid").to_owned()),
            ("regarding.apiVersion", fill::text(about, "apiVersion").to_owned()),
            ("regarding.resourceVersion", fill::text(about, "resourceVersion").to_owned()),
            ("regarding.fieldPath", fill::text(about, "fieldPath").to_owned()),
            ("reason", fill::text(object, "reason").to_owned()),
            ("reportingController", fill::text(object, "reportingController").to_owned()),
            ("type", fill::text(object, "type").to_owned()),
        ]
    }
}

pub fn check_type(kind: Option<&str>, errors: &mut Vec<Invalid>) {
    match kind.unwrap_or("") {
        "Normal" | "Warning" => {}
        other => errors.push(Invalid::value("type", &json!(""), &format!("has invalid value: {other}"))),
    }
}

pub fn limited(field: &str, text: Option<&str>, max: usize, required: bool, errors: &mut Vec<Invalid>) {
    let text = text.unwrap_or("");
    if text.is_empty() && required {
        errors.push(Invalid::required(field, ""));
    } else if text.len() > max {
        errors.push(Invalid::value(field, &json!(""), &format!("can have at most {max} characters")));
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::json;

    #[test]
    fn all_that_is_wrong_is_named() {
        let strategy = Builtin::<super::Event>::new();
        let good = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reportingController": "slipway.dev/test",
            "reportingInstance": "a", "action": "Testing", "reason": "Tested", "note": "it works",
            "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
        assert_eq!(strategy.validate(&good), []);
        let mut later = good.clone();
        later["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"});
        assert_eq!(strategy.validate_update(&later, &good), []);
        later["note"] = json!("it broke");
        assert_eq!(strategy.validate_update(&later, &good)[0].field, "note");
        let bad = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
            "deprecatedCount": 1});
        let fields: Vec<String> = strategy.validate(&bad).into_iter().map(|error| error.field).collect();
        assert_eq!(
            fields,
            ["eventTime", "type", "reportingController", "reportingInstance", "action", "reason", "deprecatedCount"]
        );
        let mut stored = good.clone();
        strategy.to_stored(&mut stored);
        assert_eq!(stored["message"], "it works");
        strategy.from_stored(&mut stored);
        assert_eq!(stored, good);
    }
}
