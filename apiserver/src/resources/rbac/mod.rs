//! The four kinds of role-based access control, and what they share.

pub mod cluster_role;
pub mod cluster_role_binding;
pub mod role;
pub mod role_binding;

use super::{fill, rules, show};
use crate::authorization::rbac::GROUP;
use crate::http::error::Invalid;
use crate::kind::{Column, NameRule, Names, age};
use crate::verbs::object_meta::name_errors;
use serde_json::{Value, json};
use slipway_api::rbac::{PolicyRule, RoleRef, Subject};

const fn names(kind: &'static str, plural: &'static str, singular: &'static str) -> Names {
    Names { name_rule: NameRule::PathSegment, ..Names::namespaced(GROUP, "v1", kind, plural, singular) }
}

fn check_rules(list: Option<&[PolicyRule]>, namespaced: bool, errors: &mut Vec<Invalid>) {
    for (index, rule) in list.unwrap_or(&[]).iter().enumerate() {
        let at = format!("rules[{index}]");
        let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if rule.verbs.is_empty() {
            errors.push(Invalid::required(format!("{at}.verbs"), "verbs must contain at least one value"));
        }
        if let Some(urls) = rule.non_resource_urls.as_ref().filter(|urls| !urls.is_empty()) {
            let field = format!("{at}.nonResourceURLs");
            if namespaced {
                errors.push(Invalid::value(&field, &json!(urls), "namespaced rules cannot apply to non-resource URLs"));
            }
            if !(is_empty(&rule.api_groups) && is_empty(&rule.resources) && is_empty(&rule.resource_names)) {
                errors.push(Invalid::value(
                    &field,
                    &json!(urls),
                    "rules cannot apply to both regular resources and non-resource URLs",
                ));
            }
            continue;
        }
        if is_empty(&rule.api_groups) {
            errors.push(Invalid::required(format!("{at}.apiGroups"), "resource rules must supply at least one api group"));
        }
        if is_empty(&rule.resources) {
            errors.push(Invalid::required(format!("{at}.resources"), "resource rules must supply at least one resource"));
        }
    }
}

/// What kubectl leaves out of a binding: the API groups.
fn fill_binding(object: &mut Value) {
    if let Some(role) = fill::inner(object, "roleRef") {
        fill::empty(role, "apiGroup", GROUP);
    }
    for subject in fill::items(object, "subjects") {
        if matches!(fill::text(subject, "kind"), "User" | "Group") {
            fill::empty(subject, "apiGroup", GROUP);
        }
    }
}

fn check_role_ref(role: &RoleRef, kinds: &[&str], errors: &mut Vec<Invalid>) {
    if role.api_group.as_deref() != Some(GROUP) {
        errors.push(Invalid::not_supported("roleRef.apiGroup", &json!(role.api_group.as_deref().unwrap_or("")), &[GROUP]));
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(Invalid::not_supported("roleRef.kind", &json!(role.kind), kinds));
    }
    if role.name.is_empty() {
        errors.push(Invalid::required("roleRef.name", ""));
    } else {
        rules::all("roleRef.name", &role.name, name_errors(NameRule::PathSegment, &role.name), errors);
    }
}

fn check_subjects(list: Option<&[Subject]>, namespaced: bool, errors: &mut Vec<Invalid>) {
    for (index, subject) in list.unwrap_or(&[]).iter().enumerate() {
        let at = format!("subjects[{index}]");
        let group = subject.api_group.as_deref().unwrap_or("");
        if subject.name.is_empty() {
            errors.push(Invalid::required(format!("{at}.name"), ""));
        }
        match subject.kind.as_str() {
            "ServiceAccount" => {
                if !subject.name.is_empty() {
                    let wrong = name_errors(NameRule::Subdomain, &subject.name);
                    rules::all(&format!("{at}.name"), &subject.name, wrong, errors);
                }
                if !group.is_empty() {
                    errors.push(Invalid::not_supported(format!("{at}.apiGroup"), &json!(group), &[""]));
                }
                if !namespaced && subject.namespace.as_deref().is_none_or(str::is_empty) {
                    errors.push(Invalid::required(format!("{at}.namespace"), ""));
                }
            }
            "User" | "Group" if group == GROUP => {}
            "User" | "Group" => errors.push(Invalid::not_supported(format!("{at}.apiGroup"), &json!(group), &[GROUP])),
            kind => {
                let kinds = ["Group", "ServiceAccount", "User"];
                errors.push(Invalid::not_supported(format!("{at}.kind"), &json!(kind), &kinds));
            }
        }
    }
}

fn check_same_role(new: &RoleRef, old: &RoleRef, errors: &mut Vec<Invalid>) {
    if new != old {
        errors.push(Invalid::value("roleRef", &json!(new), "cannot change roleRef"));
    }
}

fn role_columns() -> Vec<Column> {
    vec![Column::NAME, Column { type_: "date", ..Column::text("Created At", "When the object was created.") }]
}

fn role_row(object: &Value) -> Vec<Value> {
    vec![show::name(object), object["metadata"]["creationTimestamp"].clone()]
}

fn binding_columns() -> Vec<Column> {
    vec![
        Column::NAME,
        Column::text("Role", "The role that is granted."),
        Column::AGE,
        Column::text("Users", "Whom it is granted to: users.").wide(),
        Column::text("Groups", "Whom it is granted to: groups.").wide(),
        Column::text("ServiceAccounts", "Whom it is granted to: service accounts.").wide(),
    ]
}

fn binding_row(object: &Value, role: &RoleRef, subjects: Option<&[Subject]>, now: jiff::Timestamp) -> Vec<Value> {
    let of_kind = |kind: &str| {
        let subjects = subjects.unwrap_or(&[]).iter().filter(|subject| subject.kind == kind);
        let told = subjects.map(|subject| match subject.namespace.as_deref().filter(|_| kind == "ServiceAccount") {
            Some(namespace) if !namespace.is_empty() => format!("{namespace}/{}", subject.name),
            _ => subject.name.clone(),
        });
        json!(told.collect::<Vec<_>>().join(", "))
    };
    vec![
        show::name(object),
        json!(format!("{}/{}", role.kind, role.name)),
        age(object, now),
        of_kind("User"),
        of_kind("Group"),
        of_kind("ServiceAccount"),
    ]
}
