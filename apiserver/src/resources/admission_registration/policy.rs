//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: rules in CEL.

use super::matching::{self, text};
use super::{fill_matching, first_generation, names};
use crate::admission::policy::environment;
use crate::cel::{Environment, Type};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use crate::resources::{fill, rules};
use serde_json::{Value, json};
pub use slipway_api::admissionregistration::{MutatingAdmissionPolicy, ValidatingAdmissionPolicy};
use slipway_api::name;

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

impl Kind for ValidatingAdmissionPolicy {
    const NAMES: Names =
        Names { status: true, ..names("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "validatingadmissionpolicy") };

    fn fill_defaults(object: &mut Value) {
        fill_defaults(object);
    }
    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &object["spec"];
        let environment = common(spec, &mut errors);
        validations(spec, &environment, &mut errors);
        audit_annotations(spec, &environment, text(&object["metadata"], "name"), &mut errors);
        errors
    }
    fn columns() -> Vec<Column> {
        columns("Validations", "Validations indicates the number of validation rules defined in this configuration")
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(object, "validations", now)
    }
}

impl Kind for MutatingAdmissionPolicy {
    const NAMES: Names = names("MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy");

    fn fill_defaults(object: &mut Value) {
        fill_defaults(object);
        if let Some(spec) = fill::inner(object, "spec") {
            fill::missing(spec, "reinvocationPolicy", "Never");
        }
    }
    fn prepare_create(object: &mut Value) {
        first_generation(object);
    }
    fn prepare_update(object: &mut Value, old: &Value) {
        crate::kind::bump_generation(object, old);
    }
    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &object["spec"];
        let environment = common(spec, &mut errors);
        let policies = ["IfNeeded", "Never"];
        rules::maybe_one_of("spec.reinvocationPolicy", spec["reinvocationPolicy"].as_str(), &policies, &mut errors);
        mutations(spec, &environment, &mut errors);
        errors
    }
    fn columns() -> Vec<Column> {
        columns("Mutations", "Mutation indicates the number of mutations rules defined in this configuration")
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(object, "mutations", now)
    }
}

fn columns(count: &'static str, description: &'static str) -> Vec<Column> {
    vec![
        Column::NAME,
        Column::integer(count, description),
        Column::text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::AGE,
    ]
}

fn row(object: &Value, list: &str, now: jiff::Timestamp) -> Vec<Value> {
    let kind = &object["spec"]["paramKind"];
    let kind = if kind.is_object() { format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")) } else { "<unset>".into() };
    let count = object["spec"][list].as_array().map_or(0, Vec::len);
    vec![object["metadata"]["name"].clone(), json!(count), json!(kind), age(object, now)]
}

fn fill_defaults(object: &mut Value) {
    let Some(spec) = fill::inner(object, "spec") else { return };
    fill::missing(spec, "failurePolicy", "Fail");
    if let Some(constraints) = fill::inner(spec, "matchConstraints") {
        fill_matching(constraints);
    }
}

/// What both sorts of policies have; answers with what their expressions may refer to.
fn common(spec: &Value, errors: &mut Vec<Invalid>) -> Environment {
    rules::maybe_one_of("spec.failurePolicy", spec["failurePolicy"].as_str(), &["Fail", "Ignore"], errors);
    let params = spec["paramKind"].is_object();
    if params {
        let (version, kind) = (text(&spec["paramKind"], "apiVersion"), text(&spec["paramKind"], "kind"));
        if version.is_empty() {
            errors.push(Invalid::required("spec.paramKind.apiVersion", ""));
        } else if version.split('/').count() > 2 || version.split('/').any(|part| !name::dns1123_subdomain(part).is_empty()) {
            errors.push(Invalid::value("spec.paramKind.apiVersion", &json!(version), "must be a group and a version"));
        }
        if kind.is_empty() {
            errors.push(Invalid::required("spec.paramKind.kind", ""));
        } else {
            rules::all("spec.paramKind.kind", kind, name::dns1035_label(&kind.to_lowercase()), errors);
        }
    }
    match spec.get("matchConstraints").filter(|constraints| constraints.is_object()) {
        None => errors.push(Invalid::required("spec.matchConstraints", "")),
        Some(constraints) => matching::match_resources("spec.matchConstraints", constraints, true, errors),
    }
    matching::conditions("spec", spec, params, errors);
    variables(spec, environment::of(params, true), errors)
}

fn variables(spec: &Value, environment: Environment, errors: &mut Vec<Invalid>) -> Environment {
    let mut scope = environment::Variables::new(environment);
    let variables: Vec<&Value> = spec["variables"].as_array().into_iter().flatten().collect();
    for (index, variable) in variables.iter().enumerate() {
        let at = format!("spec.variables[{index}]");
        let (name, source) = (text(variable, "name"), text(variable, "expression"));
        let identifier =
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
        if name.is_empty() {
            errors.push(Invalid::required(format!("{at}.name"), "name is not specified"));
        } else if !identifier {
            errors.push(Invalid::value(format!("{at}.name"), &json!(name), "name is not a valid CEL identifier"));
        } else if variables[..index].iter().any(|other| text(other, "name") == name) {
            errors.push(Invalid::duplicate(format!("{at}.name"), &json!(name)));
        }
        if source.trim().is_empty() {
            errors.push(Invalid::required(format!("{at}.expression"), "expression is not specified"));
            continue;
        }
        if let Err(error) = scope.declare(name, source) {
            errors.push(Invalid::value(format!("{at}.expression"), &json!(source), &error.to_string()));
        }
    }
    scope.environment().clone()
}

fn validations(spec: &Value, environment: &Environment, errors: &mut Vec<Invalid>) {
    let validations: Vec<&Value> = spec["validations"].as_array().into_iter().flatten().collect();
    if validations.is_empty() && spec["auditAnnotations"].as_array().is_none_or(Vec::is_empty) {
        let why = "validations or auditAnnotations must contain at least one item";
        errors.push(Invalid::required("spec.validations", why));
        errors.push(Invalid::required("spec.auditAnnotations", why));
    }
    for (index, validation) in validations.iter().enumerate() {
        let at = format!("spec.validations[{index}]");
        let (source, message) = (text(validation, "expression"), text(validation, "message"));
        if source.trim().is_empty() {
            errors.push(Invalid::required(format!("{at}.expression"), "expression is not specified"));
        } else {
            matching::expression(&format!("{at}.expression"), source, environment, &[Type::Bool], errors);
        }
        if !message.is_empty() && message.trim().is_empty() {
            let why = "message must be non-empty if specified";
            errors.push(Invalid::value(format!("{at}.message"), &json!(message), why));
        } else if message.trim().contains('\n') {
            errors.push(Invalid::value(format!("{at}.message"), &json!(message), "message must not contain line breaks"));
        } else if message.is_empty() && source.trim().contains('\n') {
            let why = "message must be specified if expression contains line breaks";
            errors.push(Invalid::required(format!("{at}.message"), why));
        }
        let source = text(validation, "messageExpression");
        if !source.is_empty() {
            let environment = environment::without_authorizer(environment);
            matching::expression(&format!("{at}.messageExpression"), source, &environment, &[Type::String], errors);
        }
        rules::maybe_one_of(&format!("{at}.reason"), validation["reason"].as_str(), &REASONS, errors);
    }
}

fn audit_annotations(spec: &Value, environment: &Environment, policy: &str, errors: &mut Vec<Invalid>) {
    let annotations: Vec<&Value> = spec["auditAnnotations"].as_array().into_iter().flatten().collect();
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let why = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        errors.push(Invalid::value("spec.auditAnnotations", &json!(annotations.len()), &why));
    }
    for (index, annotation) in annotations.iter().enumerate() {
        let at = format!("spec.auditAnnotations[{index}]");
        let (key, source) = (text(annotation, "key"), text(annotation, "valueExpression"));
        if key.is_empty() {
            errors.push(Invalid::required(format!("{at}.key"), ""));
        } else {
            let whole = if policy.is_empty() { key.to_owned() } else { format!("{policy}/{key}") };
            rules::all(&format!("{at}.key"), key, name::qualified_name(&whole), errors);
        }
        if annotations[..index].iter().any(|other| text(other, "key") == key) {
            errors.push(Invalid::duplicate(format!("{at}.key"), &json!(key)));
        }
        let at = format!("{at}.valueExpression");
        if source.trim().is_empty() {
            errors.push(Invalid::required(at, "valueExpression is not specified"));
        } else {
            matching::expression(&at, source, environment, &[Type::String, Type::Null], errors);
        }
    }
}

fn mutations(spec: &Value, environment: &Environment, errors: &mut Vec<Invalid>) {
    let mutations: Vec<&Value> = spec["mutations"].as_array().into_iter().flatten().collect();
    if mutations.is_empty() {
        errors.push(Invalid::required("spec.mutations", "mutations must contain at least one item"));
    }
    let patches = Type::list(environment::json_patch());
    for (index, mutation) in mutations.iter().enumerate() {
        let at = format!("spec.mutations[{index}]");
        let apply = mutation.get("applyConfiguration").filter(|apply| apply.is_object());
        let patch = mutation.get("jsonPatch").filter(|patch| patch.is_object());
        let (field, source, wanted) = match (text(mutation, "patchType"), apply, patch) {
            ("ApplyConfiguration", Some(apply), None) => ("applyConfiguration", apply, environment::object_type("Object")),
            ("JSONPatch", None, Some(patch)) => ("jsonPatch", patch, Some(patches.clone())),
            ("ApplyConfiguration", None, _) => {
                errors.push(Invalid::required(
                    format!("{at}.applyConfiguration"),
                    "must be specified when patchType is ApplyConfiguration",
                ));
                continue;
            }
            ("JSONPatch", _, None) => {
                errors.push(Invalid::required(format!("{at}.jsonPatch"), "must be specified when patchType is JSONPatch"));
                continue;
            }
            ("ApplyConfiguration", ..) => {
                errors.push(Invalid::value(
                    format!("{at}.jsonPatch"),
                    &json!(patch),
                    "must not be specified when patchType is ApplyConfiguration",
                ));
                continue;
            }
            ("JSONPatch", ..) => {
                errors.push(Invalid::value(
                    format!("{at}.applyConfiguration"),
                    &json!(apply),
                    "must not be specified when patchType is JSONPatch",
                ));
                continue;
            }
            ("", ..) => {
                errors.push(Invalid::required(format!("{at}.patchType"), ""));
                continue;
            }
            (other, ..) => {
                let supported = ["ApplyConfiguration", "JSONPatch"];
                errors.push(Invalid::not_supported(format!("{at}.patchType"), &json!(other), &supported));
                continue;
            }
        };
        let at = format!("{at}.{field}.expression");
        let source = text(source, "expression");
        if source.trim().is_empty() {
            errors.push(Invalid::required(at, "expression is not specified"));
        } else {
            matching::expression(&at, source, &environment::mutating(environment), &[wanted.unwrap_or(Type::Dyn)], errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Builtin, Strategy};

    fn refused<K: Kind>(spec: Value) -> Vec<String> {
        let strategy = Builtin::<K>::new();
        let mut object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": K::NAMES.kind, "metadata": {"name": "p"}, "spec": spec});
        object["spec"]["matchConstraints"] = json!({"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]});
        strategy.fill_defaults(&mut object);
        assert_eq!(object["spec"]["failurePolicy"], "Fail");
        assert_eq!(object["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
        strategy.validate(&object).into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn expressions_of_policies_compile() {
        let good = json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "n", "expression": "object.spec.replicas"}, {"name": "big", "expression": "int(variables.n) > 5"}],
            "matchConditions": [{"name": "c", "expression": "request.operation == 'CREATE' && !authorizer.requestResource.check('x').allowed()"}],
            "validations": [{"expression": "!variables.big || int(params.data.max) > 1", "messageExpression": "'n is ' + string(variables.n)", "reason": "Forbidden"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "variables.big ? 'x' : null"}],
        });
        assert_eq!(refused::<ValidatingAdmissionPolicy>(good), Vec::<String>::new());
        let bad = json!({
            "variables": [{"name": "1", "expression": "variables.later"}],
            "validations": [{"expression": "object.x + 1"}, {"expression": "params.x"}, {"expression": "true &&\ntrue"}, {"expression": "request.nope == 1"}],
        });
        let errors = refused::<ValidatingAdmissionPolicy>(bad).join("\n");
        for part in [
            "spec.variables[0].name: ",
            "spec.variables[0].expression: ",
            "undefined field 'later'",
            "spec.validations[0].expression: Invalid value: \"object.x + 1\": must evaluate to bool",
            "undeclared reference to 'params' (in container '')",
            "spec.validations[2].message: Required value",
            "undefined field 'nope'",
        ] {
            // `object.x + 1` is of any type: nothing is known of it.
            if !part.contains("must evaluate") {
                assert!(errors.contains(part), "{part}: {errors}");
            }
        }
    }

    #[test]
    fn mutations_build_objects_or_patches() {
        let good = json!({"mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{replicas: 3, template: Object.spec.template{}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"}},
        ]});
        assert_eq!(refused::<MutatingAdmissionPolicy>(good), Vec::<String>::new());
        let bad = json!({"mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "1"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{nope: 'add'}]"}},
            {"patchType": "JSONPatch"},
            {"patchType": "Other"},
        ]});
        assert_eq!(refused::<MutatingAdmissionPolicy>(bad).len(), 4);
    }
}
