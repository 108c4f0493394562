//! Role: what may be done in a namespace.

use super::{check_rules, names, role_columns, role_row};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use serde_json::Value;
pub use slipway_api::rbac::Role;

impl Kind for Role {
    const NAMES: Names = names("Role", "roles", "role");

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        check_rules(self.rules.as_deref(), true, &mut errors);
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
    fn a_rule_says_what_and_how() {
        let strategy = Builtin::<super::Role>::new();
        let texts = |rule: Value| {
            let errors = strategy.validate(&json!({"metadata": {"name": "r"}, "rules": [rule]}));
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        assert_eq!(texts(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})), Vec::<String>::new());
        assert_eq!(
            texts(json!({"verbs": []})),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
        assert_eq!(
            texts(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"], "resources": ["pods"]})),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/metrics\"]: namespaced rules cannot apply to non-resource URLs",
                "rules[0].nonResourceURLs: Invalid value: [\"/metrics\"]: rules cannot apply to both regular resources and non-resource URLs",
            ]
        );
    }
}
