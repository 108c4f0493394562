//! PriorityClass: a name for how important pods are.

use super::{fill, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::scheduling::PriorityClass;

const USER_MAX: i32 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
const SYSTEM: [(&str, i32); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

impl Kind for PriorityClass {
    const NAMES: Names = Names {
        short: &["pc"],
        namespaced: false,
        ..Names::namespaced("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "priorityclass")
    };

    fn fill_defaults(object: &mut Value) {
        fill::missing(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        crate::kind::bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let name = self.metadata.name.as_deref().unwrap_or("");
        if name.starts_with(SYSTEM_PREFIX) {
            if let Some(why) = why_not_system(self, name) {
                let why = format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
                errors.push(Invalid::forbidden("metadata.name", &why));
            }
        } else if self.value.unwrap_or(0) > USER_MAX {
            let why = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            errors.push(Invalid::forbidden("value", &why));
        }
        let policies = ["Never", "PreemptLowerPriority"];
        rules::maybe_one_of("preemptionPolicy", self.preemption_policy.as_deref(), &policies, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        if self.value.unwrap_or(0) != old.value.unwrap_or(0) {
            errors.push(Invalid::forbidden("value", "may not be changed in an update."));
        }
        rules::same("preemptionPolicy", &self.preemption_policy, &old.preemption_policy, &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::integer("Value", "The priority; higher is more important."),
            Column { type_: "boolean", ..Column::text("Global-Default", "Whether pods without a class have this one.") },
            Column::AGE,
            Column::text("PreemptionPolicy", "Whether its pods may push out others."),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            show::name(object),
            json!(self.value.unwrap_or(0)),
            json!(self.global_default.unwrap_or(false)),
            age(object, now),
            json!(self.preemption_policy.as_deref().unwrap_or("")),
        ]
    }
}

fn why_not_system(class: &PriorityClass, name: &str) -> Option<String> {
    match SYSTEM.iter().find(|(system, _)| *system == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, value)) if *value != class.value.unwrap_or(0) => Some(format!("value of {name} PriorityClass must be {value}")),
        Some(_) if class.global_default == Some(true) => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn class(name: &str, value: i32) -> Value {
        let mut it =
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
        Builtin::<super::PriorityClass>::new().fill_defaults(&mut it);
        it
    }

    #[test]
    fn values() {
        let strategy = Builtin::<super::PriorityClass>::new();
        let fields = |it: Value| strategy.validate(&it).into_iter().map(|error| error.field).collect::<Vec<_>>();
        assert_eq!(class("a", 1)["preemptionPolicy"], "PreemptLowerPriority");
        assert_eq!(fields(class("a", 1_000_000_000)), Vec::<String>::new());
        assert_eq!(fields(class("a", 1_000_000_001)), ["value"]);
        assert_eq!(fields(class("system-node-critical", 2_000_001_000)), Vec::<String>::new());
        assert_eq!(fields(class("system-node-critical", 1)), ["metadata.name"]);
        assert_eq!(fields(class("system-mine", 1)), ["metadata.name"]);
        assert_eq!(strategy.validate_update(&class("a", 2), &class("a", 1))[0].field, "value");
        let row = strategy.row(&class("a", 7), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row, [json!("a"), json!(7), json!(false), json!("<unknown>"), json!("PreemptLowerPriority")]);
    }
}
