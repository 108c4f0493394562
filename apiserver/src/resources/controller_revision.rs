//! ControllerRevision: a template that a DaemonSet or a StatefulSet had, kept so that one can go back to it.

use super::{rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::apps::ControllerRevision;

impl Kind for ControllerRevision {
    const NAMES: Names = Names::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision");

    fn validate_whole(&self, whole: &Value) -> Vec<Invalid> {
        let mut errors = vec![];
        if whole.get("data").is_none_or(Value::is_null) {
            errors.push(Invalid::required("data", "data is mandatory"));
        }
        rules::not_negative("revision", self.revision, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::same("data", &self.data, &old.data, &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Controller", "The object whose state it keeps."),
            Column::integer("Revision", "Its place in that object's history."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let owner = slipway_api::owner::controller_of(&self.metadata).map(|owner| {
            let kind = owner.kind.to_lowercase();
            match owner.api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
                None => format!("{kind}/{}", owner.name),
            }
        });
        vec![show::name(object), show::or_none(owner.as_deref()), json!(self.revision.unwrap_or(0)), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn history_does_not_change() {
        let strategy = Builtin::<super::ControllerRevision>::new();
        let revision = |data: Value| {
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 2, "data": data, "metadata": {"name": "r",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]}})
        };
        assert_eq!(strategy.validate(&revision(json!({"a": 1}))), []);
        assert_eq!(strategy.validate(&revision(json!(null)))[0].field, "data");
        assert_eq!(strategy.validate_update(&revision(json!({"a": 1})), &revision(json!({"a": 2})))[0].field, "data");
        let row = strategy.row(&revision(json!({"a": 1})), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..3], [json!("daemonset.apps/d"), json!(2)]);
    }
}
