//! ClusterRoleBinding: who has a ClusterRole everywhere.

use super::{binding_columns, binding_row, check_role_ref, check_same_role, check_subjects, fill_binding, names};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use serde_json::Value;
pub use slipway_api::rbac::ClusterRoleBinding;

impl Kind for ClusterRoleBinding {
    const NAMES: Names = Names { namespaced: false, ..names("ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding") };

    fn fill_defaults(object: &mut Value) {
        fill_binding(object);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        check_role_ref(&self.role_ref, &["ClusterRole"], &mut errors);
        check_subjects(self.subjects.as_deref(), false, &mut errors);
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
