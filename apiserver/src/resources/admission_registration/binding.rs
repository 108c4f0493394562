//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding: where a policy is in force, and with what parameters.

use super::matching::{self, text, texts};
use super::{fill_matching, first_generation, names};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use crate::resources::{fill, rules};
use serde_json::{Value, json};
pub use slipway_api::admissionregistration::{MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBinding};
use slipway_api::meta::LabelSelector;
use slipway_api::name;

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

impl Kind for ValidatingAdmissionPolicyBinding {
    const NAMES: Names =
        names("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding");

    fn fill_defaults(object: &mut Value) {
        fill_defaults(object);
    }
    fn prepare_create(object: &mut Value) {
        first_generation(object);
    }
    fn prepare_update(object: &mut Value, old: &Value) {
        crate::kind::bump_generation(object, old);
    }
    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        let mut errors = validate(&object["spec"]);
        actions(&texts(&object["spec"], "validationActions"), &mut errors);
        errors
    }
    fn columns() -> Vec<Column> {
        columns("ValidatingAdmissionPolicy name which the policy binding refers to")
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(object, now)
    }
}

impl Kind for MutatingAdmissionPolicyBinding {
    const NAMES: Names =
        names("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding");

    fn fill_defaults(object: &mut Value) {
        fill_defaults(object);
    }
    fn prepare_create(object: &mut Value) {
        first_generation(object);
    }
    fn prepare_update(object: &mut Value, old: &Value) {
        crate::kind::bump_generation(object, old);
    }
    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        validate(&object["spec"])
    }
    fn columns() -> Vec<Column> {
        columns("MutatingAdmissionPolicy name which the policy binding refers to")
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(object, now)
    }
}

fn columns(policy: &'static str) -> Vec<Column> {
    vec![
        Column::NAME,
        Column::text("PolicyName", policy),
        Column::text("ParamRef", "ParamRef specifies the parameter resource used to configure the admission control policy"),
        Column::AGE,
    ]
}

fn row(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let param = &object["spec"]["paramRef"];
    let param = match (param.is_object(), text(param, "namespace"), text(param, "name")) {
        (false, ..) => "<unset>".to_owned(),
        (true, "", "") => "*".to_owned(),
        (true, "", name) => name.to_owned(),
        (true, namespace, "") => format!("{namespace}/*"),
        (true, namespace, name) => format!("{namespace}/{name}"),
    };
    vec![object["metadata"]["name"].clone(), object["spec"]["policyName"].clone(), json!(param), age(object, now)]
}

fn fill_defaults(object: &mut Value) {
    let Some(spec) = fill::inner(object, "spec") else { return };
    if let Some(resources) = fill::inner(spec, "matchResources") {
        fill_matching(resources);
    }
}

fn validate(spec: &Value) -> Vec<Invalid> {
    let mut errors = vec![];
    let policy = text(spec, "policyName");
    if policy.is_empty() {
        errors.push(Invalid::required("spec.policyName", ""));
    } else {
        rules::all("spec.policyName", policy, name::dns1123_subdomain(policy), &mut errors);
    }
    if let Some(param) = spec.get("paramRef").filter(|param| param.is_object()) {
        param_ref(param, &mut errors);
    }
    if let Some(resources) = spec.get("matchResources").filter(|resources| resources.is_object()) {
        matching::match_resources("spec.matchResources", resources, false, &mut errors);
    }
    errors
}

fn param_ref(param: &Value, errors: &mut Vec<Invalid>) {
    let name = text(param, "name");
    let selector = param.get("selector").filter(|selector| selector.is_object());
    if name.is_empty() == selector.is_none() {
        let why = if name.is_empty() {
            "one of name or selector must be specified"
        } else {
            "name and selector are mutually exclusive"
        };
        if name.is_empty() {
            errors.push(Invalid::required("spec.paramRef.name", why));
        } else {
            errors.push(Invalid::forbidden("spec.paramRef.name", why));
        }
    }
    if let Some(selector) = selector {
        match serde_json::from_value::<LabelSelector>(selector.clone()) {
            Ok(selector) => rules::label_selector("spec.paramRef.selector", &selector, errors),
            Err(error) => errors.push(Invalid::value("spec.paramRef.selector", selector, &error.to_string())),
        }
    }
    match param["parameterNotFoundAction"].as_str().filter(|action| !action.is_empty()) {
        None => errors.push(Invalid::required("spec.paramRef.parameterNotFoundAction", "")),
        action => rules::one_of("spec.paramRef.parameterNotFoundAction", action, &["Allow", "Deny"], errors),
    }
}

fn actions(actions: &[&str], errors: &mut Vec<Invalid>) {
    let at = "spec.validationActions";
    if actions.is_empty() {
        errors.push(Invalid::required(at, "at least one validation action is required"));
    }
    for (index, action) in actions.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if !ACTIONS.contains(action) {
            errors.push(Invalid::not_supported(&at, &json!(action), &ACTIONS));
        }
        if actions[..index].contains(action) {
            errors.push(Invalid::duplicate(&at, &json!(action)));
        }
    }
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and \
                   headers serves no purpose)";
        errors.push(Invalid::value(at, &json!(actions), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Builtin, Strategy};

    #[test]
    fn a_binding_names_its_policy_and_what_it_does() {
        let refused = |spec: Value| {
            let mut object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": spec});
            Builtin::<ValidatingAdmissionPolicyBinding>::new().fill_defaults(&mut object);
            let errors = Builtin::<ValidatingAdmissionPolicyBinding>::new().validate(&object);
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(
            refused(json!({"policyName": "p", "validationActions": ["Deny", "Audit"], "matchResources": {}})),
            Vec::<String>::new()
        );
        assert_eq!(refused(json!({})), ["spec.policyName", "spec.validationActions"]);
        assert_eq!(refused(json!({"policyName": "p", "validationActions": ["Deny", "Warn"]})), ["spec.validationActions"]);
        assert_eq!(refused(json!({"policyName": "p", "validationActions": ["No", "No"]})).len(), 3);
        let param = json!({"name": "x", "selector": {}});
        assert_eq!(
            refused(json!({"policyName": "p", "validationActions": ["Deny"], "paramRef": param})),
            ["spec.paramRef.name", "spec.paramRef.parameterNotFoundAction"]
        );
    }
}
