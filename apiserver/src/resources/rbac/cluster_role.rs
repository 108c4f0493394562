//! ClusterRole: what may be done in the cluster or, bound there, in a namespace; perhaps gathered from other ClusterRoles.

use super::{check_rules, names, role_columns, role_row};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use crate::resources::rules;
use serde_json::Value;
pub use slipway_api::rbac::ClusterRole;

impl Kind for ClusterRole {
    const NAMES: Names = Names { namespaced: false, ..names("ClusterRole", "clusterroles", "clusterrole") };

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        check_rules(self.rules.as_deref(), false, &mut errors);
        if let Some(rule) = &self.aggregation_rule {
            let at = "aggregationRule.clusterRoleSelectors";
            let selectors = rule.cluster_role_selectors.as_deref().unwrap_or(&[]);
            if selectors.is_empty() {
                errors.push(Invalid::required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil"));
            }
            for (index, selector) in selectors.iter().enumerate() {
                rules::label_selector(&format!("{at}[{index}]"), selector, &mut errors);
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        role_columns()
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        role_row(object)
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn it_gathers_by_a_selector() {
        let strategy = Builtin::<super::ClusterRole>::new();
        let fields = |gathers: Value| {
            let role = json!({"metadata": {"name": "system:r"}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}], "aggregationRule": gathers});
            strategy.validate(&role).into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(Value::Null), Vec::<String>::new());
        assert_eq!(fields(json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]})), Vec::<String>::new());
        assert_eq!(fields(json!({})), ["aggregationRule.clusterRoleSelectors"]);
        let wrong = json!({"clusterRoleSelectors": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]});
        assert_eq!(fields(wrong), ["aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator"]);
    }
}
