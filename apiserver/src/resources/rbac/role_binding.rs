//! RoleBinding: who has a role in a namespace.

use super::{binding_columns, binding_row, check_role_ref, check_same_role, check_subjects, fill_binding, names};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use serde_json::Value;
pub use slipway_api::rbac::RoleBinding;

impl Kind for RoleBinding {
    const NAMES: Names = names("RoleBinding", "rolebindings", "rolebinding");

    fn fill_defaults(object: &mut Value) {
        fill_binding(object);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        check_role_ref(&self.role_ref, &["ClusterRole", "Role"], &mut errors);
        check_subjects(self.subjects.as_deref(), true, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        check_same_role(&self.role_ref, &old.role_ref, &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        binding_columns()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        binding_row(object, &self.role_ref, self.subjects.as_deref(), now)
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn binding(kind: &str, subjects: Value) -> Value {
        let mut it = json!({"metadata": {"name": "b"}, "roleRef": {"kind": kind, "name": "r"}, "subjects": subjects});
        Builtin::<super::RoleBinding>::new().fill_defaults(&mut it);
        it
    }

    #[test]
    fn groups_are_filled_in() {
        let it = binding("Role", json!([{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "robot"}]));
        assert_eq!(it["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(it["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(it["subjects"][1].get("apiGroup"), None);
    }

    #[test]
    fn subjects_and_roles_are_of_known_kinds() {
        let strategy = Builtin::<super::RoleBinding>::new();
        let texts = |it: &Value| {
            let errors = strategy.validate(it);
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let right = binding("Role", json!([{"kind": "Group", "name": "team"}, {"kind": "ServiceAccount", "name": "robot"}]));
        assert_eq!(texts(&right), Vec::<String>::new());
        let wrong = binding("Pod", json!([{"kind": "Team", "name": "x"}, {"kind": "User", "name": "", "apiGroup": "v1"}]));
        assert_eq!(
            texts(&wrong),
            [
                "roleRef.kind: Unsupported value: \"Pod\": supported values: \"ClusterRole\", \"Role\"",
                "subjects[0].kind: Unsupported value: \"Team\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                "subjects[1].name: Required value",
                "subjects[1].apiGroup: Unsupported value: \"v1\": supported values: \"rbac.authorization.k8s.io\"",
            ]
        );
        // In the cluster there is no namespace that a service account could be of by default.
        let cluster = Builtin::<crate::resources::rbac::cluster_role_binding::ClusterRoleBinding>::new();
        let fields: Vec<String> = cluster.validate(&right).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["roleRef.kind", "subjects[1].namespace"]);
    }

    #[test]
    fn what_is_bound_stays_bound() {
        let strategy = Builtin::<super::RoleBinding>::new();
        let errors = strategy.validate_update(&binding("ClusterRole", json!([])), &binding("Role", json!([])));
        assert_eq!(
            (errors[0].field.as_str(), errors[0].message.as_str()),
            (
                "roleRef",
                "Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"r\"}: cannot change roleRef"
            )
        );
    }

    #[test]
    fn a_row_says_who_has_what() {
        let subjects = json!([{"kind": "User", "name": "jane"}, {"kind": "User", "name": "joe"}, {"kind": "ServiceAccount", "namespace": "a", "name": "robot"}]);
        let row = Builtin::<super::RoleBinding>::new().row(&binding("Role", subjects), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..], [json!("Role/r"), json!("<unknown>"), json!("jane, joe"), json!(""), json!("a/robot")]);
    }
}
