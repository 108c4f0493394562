//! Rules for what selects requests: operations, groups, versions, resources, conditions.

use crate::admission::policy::environment;
use crate::cel::{Environment, Program, Type};
use crate::http::error::Invalid;
use crate::resources::rules;
use serde_json::{Value, json};
use slipway_api::meta::LabelSelector;
use slipway_api::name;

/// As many conditions are evaluated at most.
const CONDITIONS_MAX: usize = 64;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

pub fn texts<'v>(object: &'v Value, field: &str) -> Vec<&'v str> {
    object[field].as_array().into_iter().flatten().map(|item| item.as_str().unwrap_or_default()).collect()
}

pub fn text<'v>(object: &'v Value, field: &str) -> &'v str {
    object[field].as_str().unwrap_or_default()
}

/// A list in which `*` stands alone.
fn wildcard(at: &str, items: &[&str], what: &str, errors: &mut Vec<Invalid>) {
    if items.is_empty() {
        errors.push(Invalid::required(at, ""));
    }
    if items.len() > 1 && items.contains(&"*") {
        errors.push(Invalid::value(at, &json!(items), &format!("if '*' is present, must not specify other {what}")));
    }
}

pub fn rule(at: &str, rule: &Value, errors: &mut Vec<Invalid>) {
    let operations = texts(rule, "operations");
    wildcard(&format!("{at}.operations"), &operations, "operations", errors);
    for (index, operation) in operations.iter().enumerate().filter(|(_, operation)| !OPERATIONS.contains(operation)) {
        errors.push(Invalid::not_supported(format!("{at}.operations[{index}]"), &json!(operation), &OPERATIONS));
    }
    wildcard(&format!("{at}.apiGroups"), &texts(rule, "apiGroups"), "API groups", errors);
    let versions = texts(rule, "apiVersions");
    wildcard(&format!("{at}.apiVersions"), &versions, "API versions", errors);
    for (index, _) in versions.iter().enumerate().filter(|(_, version)| version.is_empty()) {
        errors.push(Invalid::required(format!("{at}.apiVersions[{index}]"), ""));
    }
    resources(&format!("{at}.resources"), &texts(rule, "resources"), errors);
    rules::maybe_one_of(&format!("{at}.scope"), rule["scope"].as_str(), &SCOPES, errors);
}

fn resources(at: &str, resources: &[&str], errors: &mut Vec<Invalid>) {
    if resources.is_empty() {
        errors.push(Invalid::required(at, ""));
    }
    let has = |wanted: &str| resources.contains(&wanted);
    if resources.len() > 1 && has("*/*") {
        errors.push(Invalid::value(at, &json!(resources), "if '*/*' is present, must not specify other resources"));
    }
    let others = resources.iter().filter(|resource| !resource.contains('/')).count();
    if has("*") && others > 1 {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(Invalid::value(at, &json!(resources), why));
    }
    for (index, resource) in resources.iter().enumerate() {
        let at = format!("{at}[{index}]");
        match resource.split_once('/') {
            None if resource.is_empty() => errors.push(Invalid::required(at, "")),
            Some((main, sub)) if main == "*" && sub != "*" && has(&format!("*/{sub}")) && resources.len() > 1 => {
                let shadowed = resources.iter().filter(|other| other.ends_with(&format!("/{sub}"))).count();
                if shadowed > 1 {
                    let why = format!("if '*/{sub}' is present, must not specify {sub}");
                    errors.push(Invalid::value(at, &json!(resource), &why));
                }
            }
            Some((main, "*"))
                if main != "*" && resources.iter().any(|other| *other != *resource && other.starts_with(&format!("{main}/"))) =>
            {
                let why = format!("if '{main}/*' is present, must not specify {main}/x");
                errors.push(Invalid::value(at, &json!(resource), &why));
            }
            _ => {}
        }
    }
}

pub fn selectors(at: &str, object: &Value, errors: &mut Vec<Invalid>) {
    for field in ["namespaceSelector", "objectSelector"] {
        let Some(selector) = object.get(field).filter(|selector| !selector.is_null()) else {
            continue;
        };
        let at = join(at, field);
        match serde_json::from_value::<LabelSelector>(selector.clone()) {
            Ok(selector) => rules::label_selector(&at, &selector, errors),
            Err(error) => errors.push(Invalid::value(at, selector, &error.to_string())),
        }
    }
    rules::maybe_one_of(&join(at, "matchPolicy"), object["matchPolicy"].as_str(), &["Equivalent", "Exact"], errors);
}

pub fn join(at: &str, field: &str) -> String {
    if at.is_empty() { field.to_owned() } else { format!("{at}.{field}") }
}

/// `matchConstraints` and `matchResources`.
pub fn match_resources(at: &str, object: &Value, required: bool, errors: &mut Vec<Invalid>) {
    selectors(at, object, errors);
    if required && object["resourceRules"].as_array().is_none_or(Vec::is_empty) {
        errors.push(Invalid::required(format!("{at}.resourceRules"), ""));
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (index, one) in object[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("{at}.{list}[{index}]");
            rule(&at, one, errors);
            let names = texts(one, "resourceNames");
            for (index, name) in names.iter().enumerate() {
                let at = format!("{at}.resourceNames[{index}]");
                if name.is_empty() || name.contains(['/', '%']) || matches!(*name, "." | "..") {
                    errors.push(Invalid::value(at, &json!(name), "may not be empty, '.', '..', or contain '/' or '%'"));
                } else if names[..index].contains(name) {
                    errors.push(Invalid::duplicate(at, &json!(name)));
                }
            }
        }
    }
}

/// An expression whose result must be one of `wanted`.
pub fn expression(at: &str, source: &str, environment: &Environment, wanted: &[Type], errors: &mut Vec<Invalid>) {
    match Program::compile(source, environment) {
        Err(error) => errors.push(Invalid::value(at, &json!(source), &error.to_string())),
        Ok(program) if !wanted.iter().any(|wanted| program.output().may_be(wanted)) => {
            let wanted: Vec<String> = wanted.iter().map(Type::to_string).collect();
            errors.push(Invalid::value(at, &json!(source), &format!("must evaluate to {}", wanted.join(" or "))));
        }
        Ok(_) => {}
    }
}

pub fn conditions(at: &str, object: &Value, params: bool, errors: &mut Vec<Invalid>) {
    let at = join(at, "matchConditions");
    let conditions: Vec<&Value> = object["matchConditions"].as_array().into_iter().flatten().collect();
    if conditions.len() > CONDITIONS_MAX {
        errors.push(Invalid::too_many(at, conditions.len(), CONDITIONS_MAX));
        return;
    }
    let environment = environment::of(params, true);
    for (index, condition) in conditions.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let (name, source) = (text(condition, "name"), text(condition, "expression"));
        if source.trim().is_empty() {
            errors.push(Invalid::required(format!("{at}.expression"), ""));
        } else {
            expression(&format!("{at}.expression"), source, &environment, &[Type::Bool], errors);
        }
        if name.is_empty() {
            errors.push(Invalid::required(format!("{at}.name"), ""));
        } else if conditions[..index].iter().any(|other| text(other, "name") == name) {
            errors.push(Invalid::duplicate(format!("{at}.name"), &json!(name)));
        }
        if !name.is_empty() {
            rules::all(&format!("{at}.name"), name, name::qualified_name(name), errors);
        }
    }
}
