//! PodDisruptionBudget: how many of some pods may be evicted at a time.

use super::{rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
use slipway_api::IntOrString;
pub use slipway_api::policy::PodDisruptionBudget;

impl Kind for PodDisruptionBudget {
    const NAMES: Names = Names {
        short: &["pdb"],
        status: true,
        ..Names::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget")
    };

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
        object["status"] = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let why = "minAvailable and maxUnavailable cannot be both set";
            errors.push(Invalid::value("spec", &json!(spec), why));
        }
        for (at, value) in [("spec.minAvailable", &spec.min_available), ("spec.maxUnavailable", &spec.max_unavailable)] {
            rules::count_or_percent(at, value.as_ref(), &mut errors);
            rules::at_most_all(at, value.as_ref(), &mut errors);
        }
        if let Some(selector) = &spec.selector {
            rules::label_selector("spec.selector", selector, &mut errors);
        }
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        let policy = spec.unhealthy_pod_eviction_policy.as_deref();
        rules::maybe_one_of("spec.unhealthyPodEvictionPolicy", policy, &policies, &mut errors);
        errors
    }

    fn validate_status_update(&self, _old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let status = self.status.clone().unwrap_or_default();
        for (field, count) in [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ] {
            rules::not_negative(&format!("status.{field}"), count.map(i64::from), &mut errors);
        }
        errors
    }

    const UNCONDITIONAL_UPDATE: bool = false;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Min Available", "How many pods must stay available."),
            Column::text("Max Unavailable", "How many pods may be unavailable."),
            Column::integer("Allowed Disruptions", "How many pods may be evicted now."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let amount = |value: &Option<IntOrString>| match value {
            None => json!("N/A"),
            Some(IntOrString::Int(count)) => json!(count.to_string()),
            Some(IntOrString::String(text)) => json!(text),
        };
        let allowed = self.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
        vec![show::name(object), amount(&spec.min_available), amount(&spec.max_unavailable), json!(allowed), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn one_bound_is_given() {
        let strategy = Builtin::<super::PodDisruptionBudget>::new();
        let budget = |spec: Value| json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": spec});
        let texts = |spec| {
            let errors = strategy.validate(&budget(spec));
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        assert_eq!(texts(json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}})), Vec::<String>::new());
        assert_eq!(
            texts(json!({"minAvailable": 1, "maxUnavailable": "10%"})),
            [
                "spec: Invalid value: {\"maxUnavailable\":\"10%\",\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set"
            ]
        );
        assert_eq!(
            texts(json!({"maxUnavailable": "110%", "unhealthyPodEvictionPolicy": "Maybe"})),
            [
                "spec.maxUnavailable: Invalid value: \"110%\": must not be greater than 100%",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Maybe\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ]
        );
        let row = strategy.row(&budget(json!({"maxUnavailable": "10%"})), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..4], [json!("N/A"), json!("10%"), json!(0)]);
    }
}
