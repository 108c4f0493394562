//! The kinds of API priority and fairness.

pub mod flow_schema;
pub mod priority_level_configuration;

use crate::http::error::Invalid;
use crate::kind::Names;
use serde_json::Value;

const fn names(kind: &'static str, plural: &'static str, singular: &'static str) -> Names {
    Names { namespaced: false, status: true, ..Names::namespaced("flowcontrol.apiserver.k8s.io", "v1", kind, plural, singular) }
}

/// What Kubernetes cannot do without stays as it is.
fn check_mandatory(defaults: &[Value], object: &Value, errors: &mut Vec<Invalid>) {
    let name = &object["metadata"]["name"];
    let Some(default) = defaults.iter().find(|default| default["metadata"]["name"] == *name) else { return };
    let mandatory = name.as_str().is_some_and(|name| crate::flow_control::bootstrap::MANDATORY.contains(&name));
    if mandatory && object["spec"] != default["spec"] {
        let why = format!("spec of '{}' must equal the fixed value", name.as_str().unwrap_or_default());
        errors.push(Invalid::value("spec", &object["spec"], &why));
    }
}
